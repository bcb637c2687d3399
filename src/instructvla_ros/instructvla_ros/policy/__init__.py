"""When to reason, when to refresh the latent action, how long to trust it: pure logic, no rclpy, no torch.

Shared by the nodes and by the evaluation of the training package, so that both schedule the model alike.
"""

from instructvla_ros.policy.expert_worker import ExpertConfig, ExpertWorker
from instructvla_ros.policy.instructions import Instruction, InstructionError, check_instruction
from instructvla_ros.policy.latent_gate import LatentGate, LatentLimits, LatentUse
from instructvla_ros.policy.reasoning_worker import Frame, ReasoningConfig, ReasoningUpdate, ReasoningWorker
from instructvla_ros.policy.scheduler import Due, ReasoningScheduler, SchedulerConfig

__all__ = [
    "Due",
    "ExpertConfig",
    "ExpertWorker",
    "Frame",
    "Instruction",
    "InstructionError",
    "LatentGate",
    "LatentLimits",
    "LatentUse",
    "ReasoningConfig",
    "ReasoningScheduler",
    "ReasoningUpdate",
    "ReasoningWorker",
    "SchedulerConfig",
    "check_instruction",
]

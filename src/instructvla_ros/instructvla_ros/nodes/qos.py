"""The quality of service of every topic, in one place, and why."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(depth: int, *, reliable: bool = True, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


# Only the newest image matters, and a best-effort reader hears reliable and best-effort cameras alike.
IMAGE = _profile(1, reliable=False)
# 100 Hz from the driver, which publishes reliably; a lost sample is replaced in 10 ms.
JOINT_STATES = _profile(5, reliable=False)
# The driver subscribes reliably with depth 10.
DRIVER_COMMANDS = _profile(10)
# Who judges the commands from beside must hear all of them, also after a second or ten without a processor.
OBSERVED_COMMANDS = _profile(500)
# Joint trajectories, poses and twists: the newest counts, and none may be lost on the way.
ARM_COMMANDS = _profile(1)
# Up to 1 kHz; a best-effort reader costs the real-time publisher no acknowledgements.
ROBOT_STATE = _profile(1, reliable=False)
# Text streams fast and every message counts; who joins late gets what was said last.
REASONING = _profile(20, latched=True)
# A newer latent or chunk replaces an older one.
LATENT_ACTION = _profile(1)
ACTION_CHUNK = _profile(2)
EE_DELTA = _profile(10)
GRIPPER_COMMAND = _profile(10)
# Latched: whoever starts later must learn that the robot is stopped.
SAFETY_STATE = _profile(1, latched=True)
EMERGENCY_STOP = _profile(10)
EMERGENCY_STOP_BEST_EFFORT = _profile(10, reliable=False)
HEARTBEAT = _profile(10)
CLOCK = _profile(10)
DIAGNOSTICS = _profile(10)
# The simulator's verdict on the task, latched so that the demo sees it whenever it looks.
TASK_STATUS = _profile(1, latched=True)
# Beginnings and ends of episodes for recordings; latched, so that a recorder that joins in between hears the last one.
EPISODE_MARK = _profile(10, latched=True)

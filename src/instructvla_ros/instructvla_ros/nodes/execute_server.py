"""The action `execute_instruction`: an instruction, followed until something ends it.

Knows no simulator: whoever publishes `sim/task_status` with the instruction's id can say that it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String

from instructvla_msgs.action import ExecuteInstruction
from instructvla_msgs.msg import EndEffectorDelta, SafetyState
from instructvla_ros.nodes import qos
from instructvla_ros.policy.execution import Execution, Outcome, check_time_limit
from instructvla_ros.policy.instructions import Instruction, InstructionError
from instructvla_ros.policy.reasoning_worker import ReasoningUpdate
from instructvla_ros.policy.task_status import TaskWatch

_PERIOD_S = 0.1  # of feedback and of looking at the clock


@dataclass
class _Running:
    execution: Execution
    handle: Any
    ended: Future
    feedback: ExecuteInstruction.Feedback


class ExecuteServer:
    """Thread rule: everything happens in the executor's thread, except that `on_text` and `on_dropped` only store.

    `accept` takes an instruction or raises InstructionError; `rest` ends the newest one, so that the arm holds.
    """

    def __init__(
        self, node: Node, accept: Callable[[str, bool], Instruction], rest: Callable[[], None], time_limit_s: float
    ) -> None:
        self._node, self._accept, self._rest = node, accept, rest
        self.time_limit_s = time_limit_s
        """For requests that give none."""
        self._running: _Running | None = None
        self._text: ReasoningUpdate | None = None
        self._dropped = (0, "")
        self._verdict = TaskWatch()
        self._server = ActionServer(
            node, ExecuteInstruction, "execute_instruction", self._execute, cancel_callback=self._on_cancel
        )
        node.create_subscription(EndEffectorDelta, "ee_delta", self._on_step, qos.EE_DELTA)
        node.create_subscription(String, "sim/task_status", self._on_status, qos.TASK_STATUS)
        node.create_timer(_PERIOD_S, self._look)

    def destroy(self) -> None:
        """Before the node goes."""
        self._server.destroy()

    # What the node tells.

    def on_text(self, update: ReasoningUpdate) -> None:
        """The text so far; from any thread."""
        self._text = update

    def on_dropped(self, instruction_id: int, reason: str) -> None:
        """The model cannot read an instruction that was accepted; from any thread, seen at the next look."""
        self._dropped = (instruction_id, reason)

    def on_instruction(self, instruction_id: int) -> None:
        """An instruction was accepted, by whatever way."""
        if self._running is not None:
            self._running.execution.on_instruction(instruction_id)
            self._settle()

    def on_safety_state(self, message: SafetyState) -> None:
        """What the controller allows."""
        running = self._running
        if running is None:
            return
        running.feedback.mode = message.mode
        if message.mode in (SafetyState.MODE_STOPPED, SafetyState.MODE_FAULT):
            running.execution.on_latch(message.reason, fault=message.mode == SafetyState.MODE_FAULT)
            self._settle()
        elif message.mode == SafetyState.MODE_INACTIVE:
            # The node drops the instruction, and an activation follows none that was given before it.
            running.execution.end(Outcome.STOPPED, "the controller is not active")
            self._settle()

    def on_inactive(self, reason: str) -> None:
        """The node works no more; how the task went cannot be told."""
        if self._running is not None:
            self._running.execution.end(Outcome.UNKNOWN, reason)
            self._settle()

    # Callbacks.

    async def _execute(self, handle: Any) -> ExecuteInstruction.Result:
        goal, began_s = handle.request, time.monotonic()
        try:
            limit_s = check_time_limit(float(goal.time_limit_s), self.time_limit_s)
            instruction = self._accept(goal.instruction, goal.think)
        except InstructionError as error:
            handle.abort()
            return ExecuteInstruction.Result(outcome=int(Outcome.REJECTED), reason=str(error))
        number = instruction.instruction_id
        execution = Execution(number, limit_s, began_s)
        feedback = ExecuteInstruction.Feedback(instruction_id=number)
        self._running = _Running(execution, handle, Future(executor=self._node.executor), feedback)
        await self._running.ended
        ending = execution.ending
        assert ending is not None
        if ending.outcome is Outcome.SUCCEEDED:
            handle.succeed()
        elif ending.outcome is Outcome.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        self._node.get_logger().info(f"instruction {number} ended: {ending.outcome.name.lower()}, {ending.reason}")
        return ExecuteInstruction.Result(
            outcome=int(ending.outcome),
            reason=ending.reason,
            instruction_id=number,
            duration_s=execution.elapsed_s(time.monotonic()),
        )

    def _on_cancel(self, handle: Any) -> CancelResponse:
        running = self._running
        if running is None or running.handle.goal_id != handle.goal_id:
            return CancelResponse.REJECT  # it has ended already
        running.execution.end(Outcome.CANCELED, "canceled by the caller")
        self._rest()  # at once; the goal itself ends at the next look, when its state allows it
        return CancelResponse.ACCEPT

    def _on_step(self, message: EndEffectorDelta) -> None:
        running = self._running
        if running is not None and message.instruction_id == running.execution.instruction_id:
            running.feedback.chunk_seq, running.feedback.step = message.chunk_seq, message.step

    def _on_status(self, message: String) -> None:
        self._verdict.on_message(message.data)
        if self._running is not None:
            self._running.execution.on_verdict(self._verdict.status)

    def _look(self) -> None:
        running = self._running
        if running is None:
            return
        execution, text, now_s = running.execution, self._text, time.monotonic()
        dropped, reason = self._dropped
        if dropped == execution.instruction_id:
            execution.end(Outcome.REJECTED, reason)
        execution.on_time(now_s)
        running.feedback.elapsed_s = execution.elapsed_s(now_s)
        if text is not None and text.instruction.instruction_id == execution.instruction_id:
            running.feedback.reasoning, running.feedback.reasoning_final = text.text, text.final
        running.handle.publish_feedback(running.feedback)
        if execution.ending is not None and execution.ending.outcome in (Outcome.SUCCEEDED, Outcome.TIME_LIMIT):
            self._rest()
        self._settle()

    def _settle(self) -> None:
        """Let the goal of an execution that has ended have its result."""
        if self._running is not None and self._running.execution.ending is not None:
            running, self._running = self._running, None
            running.ended.set_result(None)

"""Action goals that take a while, on an executor of one thread: nothing waits, a timer looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle

_PERIOD_S = 0.02


@dataclass(frozen=True)
class Outcome:
    """How a goal ended."""

    succeeded: bool
    result: Any


@dataclass(frozen=True)
class _Pending:
    handle: ServerGoalHandle
    motion: int
    look: Callable[[int], Outcome | None]
    cancelled: Callable[[int], Any]


class GoalKeeper:
    """Action servers of one node. Callbacks run in the node's executor."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._pending: list[_Pending] = []
        self._servers: list[ActionServer] = []
        self._timer = node.create_timer(_PERIOD_S, self._step)

    def serve(
        self,
        kind: Any,
        name: str,
        begin: Callable[[Any], tuple[str, int]],
        look: Callable[[int], Outcome | None],
        cancelled: Callable[[int], Any],
    ) -> None:
        """Offer an action. `begin(goal)` starts it and gives "" and the number of its motion, or why not;
        `look(motion)` says how it ended, None while it goes on; `cancelled(motion)` stops it and gives the result.

        The number tells a goal's motion from a newer one's: several goals may be pending, one motion is under way.
        """
        motion = 0

        def accept(goal: Any) -> GoalResponse:
            nonlocal motion
            problem, motion = begin(goal)
            if problem:
                self._node.get_logger().warning(f"{name}: goal refused: {problem}")
            return GoalResponse.REJECT if problem else GoalResponse.ACCEPT

        def keep(handle: ServerGoalHandle) -> None:
            self._pending.append(_Pending(handle, motion, look, cancelled))  # called right after `accept`

        server = ActionServer(
            self._node,
            kind,
            name,
            execute_callback=lambda _: kind.Result(),
            goal_callback=accept,
            handle_accepted_callback=keep,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )
        self._servers.append(server)

    def _step(self) -> None:
        for pending in list(self._pending):
            handle = pending.handle
            if handle.is_cancel_requested:
                result = pending.cancelled(pending.motion)
                self._finish(pending, lambda h, r=result: _end(h.canceled, r))
                continue
            outcome = pending.look(pending.motion)
            if outcome is not None:
                end = handle.succeed if outcome.succeeded else handle.abort
                self._finish(pending, lambda _, e=end, r=outcome.result: _end(e, r))

    def _finish(self, pending: _Pending, end: Callable[[Any], Any]) -> None:
        self._pending.remove(pending)
        pending.handle.execute(end)

    def close(self) -> None:
        """Destroy the servers and the timer."""
        self._node.destroy_timer(self._timer)
        for server in self._servers:
            server.destroy()


def _end(set_state: Callable[[], None], result: Any) -> Any:
    set_state()
    return result

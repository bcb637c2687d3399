"""What the lifecycle manager knows of the nodes it brings up, and what it may do with each: without ROS.

A node is brought up once in the life of its process. What was active and is so no more was taken out by somebody, or
by an error that nobody has looked at yet: it is left alone and reported. A new process begins anew.

One thread hears heartbeats, another asks and tells; what the latter learns is noted for the process that said it.
"""

from __future__ import annotations

from collections.abc import Sequence

from instructvla_ros.control.watch import Bond

READY = ("inactive", "active")
UNKNOWN = "unknown"
NOT_RUNNING = "not running"
SILENT_S = 0.5  # five heartbeats


class Member:
    """One managed node."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self.attempts_left = attempts
        self._bond = Bond()
        self._state, self._said_by = UNKNOWN, ""
        self._was_active_in: str | None = None

    @property
    def process_id(self) -> str:
        """The newest process that sent a heartbeat; "" before the first."""
        return self._bond.process_id

    def heard(self, process_id: str, steady_s: float) -> bool:
        """A heartbeat; whether it is the first of another process than before."""
        self._bond.heard(process_id, steady_s)
        if not self._bond.restarted:
            return False
        self._bond.restarted = False
        self.attempts_left = self._attempts
        return True

    def silent(self, steady_s: float, limit_s: float = SILENT_S) -> bool:
        """Whether it was heard once and has not been for so long."""
        return self._bond.silent_s(steady_s) > limit_s

    def gone(self, asked: str, steady_s: float, limit_s: float) -> bool:
        """Whether the process that was asked will not answer any more: another is there, or it is silent. `asked` is
        its `process_id` of then."""
        return asked not in ("", self.process_id) or self.silent(steady_s, limit_s)

    def found(self, state: str, process_id: str) -> None:
        """Its state, and the process that was asked for it."""
        process_id = process_id or self.process_id  # asked before the first heartbeat
        if state == "active":
            self._was_active_in = process_id
        self._state, self._said_by = state, process_id

    def failed(self, process_id: str) -> None:
        """A transition that this process was asked for was not made."""
        if process_id in ("", self.process_id):
            self.attempts_left -= 1

    @property
    def told(self) -> str:
        """The state that its present process told last; unknown when it was an earlier process."""
        return self._state if self._said_by == self.process_id else UNKNOWN

    @property
    def left_alone(self) -> bool:
        """It was active in this process's life and is so no more: not the manager's doing, and not for it to undo."""
        return self._was_active_in == self.process_id and self.told in ("unconfigured", "inactive")

    def state(self, steady_s: float) -> str:
        """The state, for people: a node that says nothing is not active, whatever it said before."""
        return "silent" if self.silent(steady_s) and self._state != NOT_RUNNING else self.told


class BringUp:
    """All of them, in the order in which they are activated."""

    def __init__(self, names: Sequence[str], attempts: int) -> None:
        self.members = {name: Member(attempts) for name in names}

    def to_configure(self) -> list[str]:
        """All at once: loading a model takes long, and the nodes do not wait for each other to be configured."""
        return [name for name, member in self.members.items() if self._may(member) and member.told == "unconfigured"]

    def to_activate(self) -> str | None:
        """The next one, once all are ready: those before it are active, or were taken out by hand."""
        if not all(member.told in READY or member.left_alone for member in self.members.values()):
            return None
        for name, member in self.members.items():
            if member.told == "inactive" and not member.left_alone:
                return name if self._may(member) else None
        return None

    def done(self) -> bool:
        """Whether all have told that they are active."""
        return all(member.told == "active" for member in self.members.values())

    def all_active(self, steady_s: float) -> bool:
        """Whether all are active, and heard."""
        return all(member.state(steady_s) == "active" for member in self.members.values())

    def gave_up(self) -> list[str]:
        """Nodes that were asked as often as may be, in vain."""
        return [n for n, member in self.members.items() if member.attempts_left <= 0 and member.told != "active"]

    @staticmethod
    def _may(member: Member) -> bool:
        return member.attempts_left > 0 and not member.left_alone

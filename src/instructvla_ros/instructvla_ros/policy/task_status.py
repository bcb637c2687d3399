"""The simulator's verdict on the task, as it comes over sim/task_status (std_msgs/String with JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskStatus:
    """`success` is the simulator's own check; `details` whatever else it says, for people."""

    success: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> str:
        """One line for people."""
        shown = {k: v for k, v in self.details.items() if k not in ("success", "instruction") and v not in (None, "")}
        return ", ".join(f"{key} {value}" for key, value in shown.items())


def parse_task_status(text: str) -> TaskStatus:
    """Parse one message; raises ValueError that says what is wrong with it."""
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"task status is not JSON: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("success"), bool):
        raise ValueError(f"task status is {text[:80]!r}; expected a JSON object with a boolean success")
    return TaskStatus(values["success"], values)


class TaskWatch:
    """Keeps the newest verdict; a message that cannot be read leaves it as it is."""

    def __init__(self) -> None:
        self.status = TaskStatus()
        self.unreadable = 0

    def on_message(self, text: str) -> None:
        """A message, from any thread."""
        try:
            self.status = parse_task_status(text)
        except ValueError:
            self.unreadable += 1

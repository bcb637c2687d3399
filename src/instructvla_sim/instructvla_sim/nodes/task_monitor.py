"""The verdict on the task, as the simulator sees it, and the text in which it is published."""

from __future__ import annotations

import json
import math

from instructvla_sim.task_text import TaskTextError, task_of, text_of
from instructvla_sim.types import Progress
from instructvla_sim.world import World


class TaskMonitor:
    """Success counts once it has held for `hold_s`. One thread; `now_s` is any clock that does not jump."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._since_s = math.inf
        self.success = False
        self.problem = ""
        """Why the instruction that was given last cannot be judged; "" if it can."""
        self.instruction_id = 0
        """The instruction that is judged; 0 while it is the scene's own task."""

    def restart(self, problem: str = "", instruction_id: int = 0) -> None:
        """Another scene or task."""
        self._since_s, self.success, self.problem = math.inf, False, problem
        self.instruction_id = instruction_id

    def follow(self, instruction: str, instruction_id: int, world: World) -> None:
        """Judge this instruction from now on, in the scene as it is."""
        problem = ""
        try:
            task = task_of(instruction)
            if task != world.task:
                world.set_task(task)
        except (TaskTextError, ValueError) as error:
            problem = str(error)
        self.restart(problem, instruction_id)

    def look(self, holds: bool, now_s: float) -> bool:
        """Note whether the goal holds now; returns the verdict."""
        self._since_s = min(self._since_s, now_s) if holds else math.inf
        self.success = not self.problem and now_s - self._since_s >= self._hold_s - 1e-6
        return self.success

    def text(self, world: World, progress: Progress) -> str:
        """JSON with a boolean `success` and what people may want to know beside it."""
        task = world.task
        return json.dumps(
            {
                "success": self.success,
                "instruction_id": self.instruction_id,
                "instruction": text_of(task),
                "family": task.family,
                "target": task.target,
                "place": task.place,
                "approached": progress.first_approached,
                "holding": progress.grasped,
                "lifted": progress.target_lifted,
                "scene": world.scene.seed,
                "problem": self.problem,
            }
        )

"""Language for robot learning, generated from a scene's ground truth: instructions, answers, questions."""

from .annotated import Annotated, EvaluationItem
from .atomic import answer, atomic_instruction, parse_answer
from .generator import LanguageGenerator
from .prompts import action_prompt, motion_prompt, spoken, think_prompt
from .scene_view import ObjectView, SceneView, TaskView
from .spatial import ViewConvention

__all__ = [
    "Annotated",
    "EvaluationItem",
    "LanguageGenerator",
    "ObjectView",
    "SceneView",
    "TaskView",
    "ViewConvention",
    "action_prompt",
    "answer",
    "atomic_instruction",
    "motion_prompt",
    "parse_answer",
    "spoken",
    "think_prompt",
]

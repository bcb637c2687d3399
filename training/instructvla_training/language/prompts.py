"""The user turns that wrap an instruction, and the spelling both training and inference use for it."""

from __future__ import annotations

ACTION_PROMPT = "What action should the robot take to {instruction}?"
MOTION_PROMPT = "What action should the robot take to {instruction}? Give both move primitive and action."
THINK_PROMPT = "What action should the robot take to {instruction}? First answer my question."
SYSTEM_PROMPT = "You are a helpful assistant."
PROMPTS = (ACTION_PROMPT, MOTION_PROMPT, THINK_PROMPT)


def spoken(text: str) -> str:
    """Lower case, single blanks, no mark at the end: the form in which an instruction enters a prompt.

    The same function must be applied to what a user types, or the model sees words it was not trained on.
    """
    return " ".join(text.lower().split()).rstrip(".?! ")


def action_prompt(instruction: str) -> str:
    """User turn that asks for actions only."""
    return ACTION_PROMPT.format(instruction=spoken(instruction))


def motion_prompt(instruction: str) -> str:
    """User turn that asks for the move primitive and the actions."""
    return MOTION_PROMPT.format(instruction=spoken(instruction))


def think_prompt(instruction: str) -> str:
    """User turn that asks for a reasoning answer before the actions."""
    return THINK_PROMPT.format(instruction=spoken(instruction))

"""Language motion of recorded states, whatever they are made of (reference §5.4)."""

from __future__ import annotations

import numpy as np

from instructvla_training.language.motion import (
    LOOK_AHEAD_STEPS,
    language_motion,
    language_motion_from_quaternions,
)

from .formats.episode import Episode, StateLayout


def motions(episode: Episode, layout: StateLayout) -> tuple[str, ...]:
    """One phrase for each step: the annotated ones, else from the states."""
    if episode.annotation is not None and episode.annotation.move_primitive:
        return episode.annotation.move_primitive[: len(episode)]
    return state_motions(episode.state_TS, layout)


def state_motions(state_TS: np.ndarray, layout: StateLayout) -> tuple[str, ...]:
    """One phrase for each state; none where the layout has no rule."""
    if layout is StateLayout.RPY:
        return tuple(language_motion(state_TS))
    if layout is StateLayout.QUATERNION:
        return tuple(language_motion_from_quaternions(state_TS))
    return ()


def motion_at(state_TS: np.ndarray, step: int, layout: StateLayout) -> str:
    """The phrase of one step alone; empty where the layout has no rule."""
    phrases = state_motions(state_TS[step : step + LOOK_AHEAD_STEPS + 1], layout)
    return phrases[0] if phrases else ""

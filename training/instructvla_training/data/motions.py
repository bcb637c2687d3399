"""Language motion of an episode, whatever its state is made of (reference §5.4)."""

from __future__ import annotations

from instructvla_training.language.motion import language_motion, language_motion_from_quaternions

from .formats.episode import Episode, StateLayout


def motions(episode: Episode, layout: StateLayout) -> tuple[str, ...]:
    """One phrase for each step: the annotated ones, else from the states; none where the layout has no rule."""
    if episode.annotation is not None and episode.annotation.move_primitive:
        return episode.annotation.move_primitive[: len(episode)]
    if layout is StateLayout.RPY:
        return tuple(language_motion(episode.state_TS))
    if layout is StateLayout.QUATERNION:
        return tuple(language_motion_from_quaternions(episode.state_TS))
    return ()

"""One normalisation for all datasets that one policy acts on alike.

A robot runs with the statistics of one dataset. Were two days' recordings of the same arm normalised each by its own,
the policy would have learnt one half of its actions in a scale that it is never run in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from instructvla_ros.control.arm import same_kinematics
from instructvla_ros.robots import arms

from .episode_frames import Part
from .lint import RATE_TOLERANCE
from .survey import action_statistics

logger = logging.getLogger(__name__)


def pool(parts: Sequence[Part], robots: Sequence[str]) -> list[Part]:
    """``parts`` with one normalisation, of all their steps together, for those of one robot, state layout and rate.

    ``robots``: whose episodes each part has. Others keep their own; the first part's are what the checkpoint runs with.
    """
    found, groups = list(parts), _groups(parts, robots)
    for group in groups:
        if len(group) == 1:
            continue
        first = parts[group[0]].dataset
        actions, states = (np.concatenate(rows) for rows in zip(*(_steps(parts[n]) for n in group), strict=True))
        statistics = action_statistics(actions, states, first.layout, first.dt_s)
        for n in group:
            found[n] = replace(parts[n], survey=replace(parts[n].survey, statistics=statistics))
        logger.info("%s: one normalisation, of %d steps", _names(parts, group), len(actions))
    if len(groups) > 1:
        logger.warning(
            "found datasets of several robots, states or rates, each with a normalisation of its own; the checkpoint "
            "runs with that of %s, the others can be replayed: replay --dataset NAME", _names(parts, groups[0]),
        )  # fmt: skip
    return found


def _groups(parts: Sequence[Part], robots: Sequence[str]) -> list[list[int]]:
    """Numbers of the parts that go together."""
    groups: list[list[int]] = []
    for number in range(len(parts)):
        for group in groups:
            if _one_robot(robots[group[0]], robots[number]) and _alike(parts[group[0]], parts[number]):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _one_robot(one: str, other: str) -> bool:
    """As the graph compares a checkpoint's robot with its arm: FR3 and Panda are one."""
    known = arms()
    return one == other or (one in known and other in known and same_kinematics(known[one], known[other]))


def _alike(one: Part, other: Part) -> bool:
    """States of one layout, and a rate that the linter takes for the same."""
    same_rate = abs(other.dataset.dt_s / one.dataset.dt_s - 1.0) <= RATE_TOLERANCE
    return one.dataset.layout is other.dataset.layout and same_rate


def _steps(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Actions and states of all splits, as its own statistics are of all."""
    others = [episode for split in part.dataset.other_splits() for episode in split]
    actions = [part.survey.action_XA, *(episode.action_TA for episode in others)]
    states = [part.survey.state_XS, *(episode.state_TS for episode in others)]
    return np.concatenate(actions), np.concatenate(states)


def _names(parts: Sequence[Part], group: Sequence[int]) -> str:
    return ", ".join(parts[n].survey.name for n in group)

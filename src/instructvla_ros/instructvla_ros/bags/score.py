"""From predictions to tables: per chunk, per step of a chunk, per episode and instruction, over all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from instructvla_ros.bags import metrics
from instructvla_ros.bags.replay import PolicyRun, Prediction, ReplayResult

METRICS: Mapping[str, tuple[str, bool]] = {
    "translation_error_mm": ("mm", False),
    "rotation_error_deg": ("deg", False),
    "direction_cosine": ("", True),
    "path_error_mm": ("mm", False),
    "gripper_agreement": ("", True),
    "seam_jump_mm": ("mm", False),
    "jerk_m_s3": ("m/s³", False),
    "latent_age_s": ("s", False),
}
"""Numbers of each chunk: unit, and whether more is better."""
TEXT_METRICS = ("text_recall_of_instruction", "text_f1_to_reference")


@dataclass(frozen=True)
class ChunkScores:
    """Arrays over the chunks of one policy: `values[name]` (N,), `by_step[name]` (N, F), NaN where unknown.

    `received_s` (N,) is when the image of each was received: the time by which chunks are shown, found and ordered,
    because stamps are of a clock that may be far from the recorder's, or jump."""

    episode: np.ndarray
    received_s: np.ndarray
    dt_s: float
    predicted: np.ndarray
    recorded: np.ndarray
    values: Mapping[str, np.ndarray]
    by_step: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class GripperTiming:
    """Switches of the gripper over a bag: how late each matched one is (s), and how many have no counterpart."""

    late_s: tuple[float, ...]
    missed: int
    spurious: int


@dataclass(frozen=True)
class TextScore:
    """One written text: the share of the instruction's words in it, and its likeness to the reference (recorded or
    annotated); NaN without one."""

    episode: int
    received_s: float
    text: str
    recall: float
    f1: float


def score_chunks(result: ReplayResult, run: PolicyRun) -> ChunkScores:
    """Compare every chunk of a policy with what was done."""
    found = run.predictions
    horizon = len(found[0].actions) if found else run.horizon
    stops = {e.index: e.stop_ns * 1e-9 for e in result.episodes}
    predicted = np.array([p.actions for p in found], float).reshape(-1, horizon, 7)
    recorded = np.array([
        result.truth.actions(p.stamp_s, p.received_s, p.dt_s, horizon, stops.get(p.episode, math.inf)) for p in found
    ]).reshape(-1, horizon, 7)  # fmt: skip
    by_step = {
        "translation_error_mm": metrics.translation_error_mm(predicted, recorded),
        "rotation_error_deg": metrics.rotation_error_deg(predicted, recorded),
        "direction_cosine": metrics.direction_cosine(predicted, recorded),
        "path_error_mm": metrics.path_error_mm(predicted, recorded),
        "gripper_agreement": metrics.gripper_agreement(predicted, recorded),
    }
    values = {name: rows[:, 0] for name, rows in by_step.items() if name != "path_error_mm"}
    values["path_error_mm"] = _last_known(by_step["path_error_mm"])
    values["seam_jump_mm"] = np.array([math.nan, *(_seam(a, b) for a, b in pairwise(found))][: len(found)])
    values["jerk_m_s3"] = metrics.jerk_m_s3(predicted, run.dt_s) if horizon > 2 else np.full(len(found), math.nan)
    values["latent_age_s"] = np.array([p.latent_age_s for p in found])
    return ChunkScores(
        np.array([p.episode for p in found], int), np.array([p.received_s for p in found]), run.dt_s,
        predicted, recorded, {name: values[name] for name in METRICS}, by_step,
    )  # fmt: skip


def _last_known(rows: np.ndarray) -> np.ndarray:
    """The last finite number of each row (N, F) -> (N,)."""
    known = np.isfinite(rows)
    last = rows.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    return np.where(known.any(axis=1), rows[np.arange(len(rows)), last], np.nan)


def _seam(before: Prediction, after: Prediction) -> float:
    if before.episode != after.episode:
        return math.nan
    return metrics.seam_jump_mm(before.actions, before.stamp_s, after.actions, after.stamp_s, after.dt_s)


def score_gripper(scores: ChunkScores) -> GripperTiming | None:
    """Switches of the predicted openings (first step of each chunk) against the recorded ones, episode by episode,
    where it is known what was done; None where it is nowhere."""
    recorded_openings = scores.recorded[:, 0, 6]
    known = np.isfinite(recorded_openings)
    if not known.any():
        return None
    predicted_openings = np.where(known, scores.predicted[:, 0, 6], np.nan)
    late: list[float] = []
    missed = spurious = 0
    for episode in np.unique(scores.episode):
        chosen = scores.episode == episode
        times = scores.received_s[chosen]
        predicted = metrics.switches(times, predicted_openings[chosen])
        recorded = metrics.switches(times, recorded_openings[chosen])
        found, lost, extra = metrics.gripper_timing(predicted, recorded)
        late += found
        missed, spurious = missed + lost, spurious + extra
    return GripperTiming(tuple(late), missed, spurious)


def score_texts(result: ReplayResult, run: PolicyRun) -> tuple[TextScore, ...]:
    """Every written text against its instruction and the reference of its episode."""
    episodes = {e.index: e for e in result.episodes}
    found = []
    for text in run.texts:
        episode = episodes[text.episode]
        reference = episode.annotation or episode.text
        found.append(
            TextScore(
                text.episode, text.received_s, text.text, metrics.word_recall(text.text, episode.instruction),
                metrics.word_f1(text.text, reference),
            )
        )  # fmt: skip
    return tuple(found)


def summarise(values: np.ndarray) -> dict[str, float | int | None]:
    """n, mean, median, 95th percentile and maximum of what is finite."""
    known = values[np.isfinite(values)]
    if not len(known):
        return {"n": 0, "mean": None, "median": None, "p95": None, "max": None}
    return {
        "n": len(known),
        "mean": float(known.mean()),
        "median": float(np.median(known)),
        "p95": float(np.percentile(known, 95)),
        "max": float(known.max()),
    }


def worst_moments(scores: ChunkScores, count: int, apart_s: float = 1.0) -> list[int]:
    """Indices of the chunks with the largest path error, no two closer in time than `apart_s`."""
    errors = np.where(np.isfinite(scores.values["path_error_mm"]), scores.values["path_error_mm"], -1.0)
    chosen: list[int] = []
    for index in np.argsort(-errors, kind="stable").tolist():
        if errors[index] < 0.0 or len(chosen) == count:
            break
        if all(abs(scores.received_s[index] - scores.received_s[other]) >= apart_s for other in chosen):
            chosen.append(index)
    return chosen


def merged(many: Sequence[ChunkScores], counts: Sequence[int]) -> ChunkScores:
    """The scores of several bags of one policy in one; episodes, of which each bag has so many, are counted on."""
    shift, episodes = 0, []
    for scores, count in zip(many, counts, strict=True):
        episodes.append(scores.episode + shift)
        shift += count

    def joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(arrays))

    return ChunkScores(
        joined(episodes), joined(s.received_s for s in many), many[0].dt_s, joined(s.predicted for s in many),
        joined(s.recorded for s in many), {name: joined(s.values[name] for s in many) for name in METRICS},
        {name: joined(s.by_step[name] for s in many) for name in many[0].by_step},
    )  # fmt: skip

"""Everything a report says, as plain data; nothing in it depends on when or how fast it was made."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.comparison import SCHEMA, compare
from instructvla_ros.bags.metrics import jerk_m_s3
from instructvla_ros.bags.replay import ReplayOptions, ReplayResult
from instructvla_ros.bags.score import (
    METRICS,
    TEXT_METRICS,
    ChunkScores,
    GripperTiming,
    TextScore,
    merged,
    score_chunks,
    score_gripper,
    score_texts,
    summarise,
    worst_moments,
)  # fmt: skip
from instructvla_ros.bags.types import Problem, Topic

WORST = 6


@dataclass(frozen=True)
class BagReplay:
    """One bag's replay with its scores, per checkpoint in the order of the command line. `name` is unique in a report.
    """

    name: str
    start_ns: int
    duration_s: float
    topics: tuple[Topic, ...]
    problems: tuple[Problem, ...]
    result: ReplayResult
    scores: tuple[ChunkScores, ...]
    gripper: tuple[GripperTiming | None, ...]
    texts: tuple[tuple[TextScore, ...], ...]


def collect(bag: Bag, result: ReplayResult, name: str = "") -> BagReplay:
    """Score a replay, while the bag is still open; it is shown by this name, or its own."""
    scores = tuple(score_chunks(result, run) for run in result.runs)
    for run, one in zip(result.runs, scores, strict=True):
        if len(run.predictions) and not np.isfinite(one.recorded).any():
            what = f"no chunk of {run.name} could be compared: what was done at their times is not known"
            bag.note(name or bag.name, what)
    return BagReplay(
        name or bag.name, bag.start_ns, bag.duration_s, tuple(bag.topics.values()), bag.problems, result, scores,
        tuple(score_gripper(s) for s in scores), tuple(score_texts(result, run) for run in result.runs),
    )  # fmt: skip


def fingerprint(topics: Sequence[Topic]) -> str:
    """Says whether two bags hold the same messages, whatever their storage: topics, types and receive times."""
    digest = hashlib.sha256()
    for topic in sorted(topics, key=lambda t: t.name):
        digest.update(f"{topic.name} {topic.type_name} {topic.count}\n".encode())
        digest.update(np.ascontiguousarray(topic.times_ns, "<i8").tobytes())
    return digest.hexdigest()[:16]


def options_of(options: ReplayOptions) -> dict[str, Any]:
    """What a report says of how it was made, beside the seed."""
    parameters = {node: dict(values) for node, values in options.parameters.items()}
    found = {"instruction": options.instruction, "think": options.think, "actions": options.actions}
    return dict(_rounded(found | {"topics": dict(options.topics), "parameters": parameters}))


def joined(replays: Sequence[BagReplay]) -> list[ChunkScores]:
    """The scores of each checkpoint over all bags."""
    counts = [len(replay.result.episodes) for replay in replays]
    return [merged(one, counts) for one in zip(*(replay.scores for replay in replays), strict=True)]


def build(
    replays: Sequence[BagReplay], options: ReplayOptions, unreadable: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The report as JSON has it; `unreadable` says by name why bags are not in it."""
    runs, seed = replays[0].result.runs, options.seed
    whole = joined(replays)
    summary = {run.name: _summary(whole[n], [r.gripper[n] for r in replays], [t for r in replays for t in r.texts[n]])
               for n, run in enumerate(runs)}  # fmt: skip
    comparison = None
    if len(runs) > 1:
        rows = [asdict(row) for row in compare(whole[0], whole[1], seed)]
        comparison = {"a": runs[0].name, "b": runs[1].name, "metrics": rows}
    report = {
        "schema": SCHEMA,
        "seed": seed,
        "options": options_of(options),
        "bags": [_bag(r) for r in replays],
        "unreadable": [{"name": name, "reason": reason} for name, reason in (unreadable or {}).items()],
        "checkpoints": [
            {
                "name": run.name, "checkpoint_id": run.checkpoint_id, "stage": run.stage, "dt_s": run.dt_s,
                "chunks": sum(len(r.result.runs[n].predictions) for r in replays),
                "failures": _added(r.result.runs[n].failures for r in replays),
            }
            for n, run in enumerate(runs)
        ],
        "summary": summary,
        "recorded": {"jerk_m_s3": summarise(_recorded_jerk(whole[0]))},
        "by_step": {run.name: _by_step(whole[n]) for n, run in enumerate(runs)},
        "instructions": {run.name: _by_instruction(replays, n) for n, run in enumerate(runs)},
        "episodes": [row for r in replays for row in _episodes(r)],
        "worst": sorted((row for r in replays for row in _worst(r)), key=_by_error)[:WORST],
        "comparison": comparison,
    }  # fmt: skip
    return dict(_rounded(report))


def _added(many: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for counts in many:
        for text, count in counts.items():
            found[text] = found.get(text, 0) + count
    return dict(sorted(found.items()))


def _bag(replay: BagReplay) -> dict[str, Any]:
    return {
        "name": replay.name,
        "fingerprint": fingerprint(replay.topics),
        "duration_s": replay.duration_s,
        "messages": sum(t.count for t in replay.topics),
        "actions": replay.result.truth.source,
        "roles": {role: topic for role, topic in asdict(replay.result.roles).items() if topic},
        "topics": [
            {
                "name": t.name, "type": t.type_name, "count": t.count, "rate_hz": t.rate_hz,
                "longest_gap_s": t.longest_gap_s,
            }
            for t in replay.topics
        ],
        "problems": [asdict(problem) for problem in replay.problems],
    }  # fmt: skip


def _summary(
    scores: ChunkScores, timings: Sequence[GripperTiming | None], texts: Sequence[TextScore]
) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {"unit": unit, "higher_is_better": more, **summarise(scores.values[name])}
        for name, (unit, more) in METRICS.items()
    }
    for name, values in zip(TEXT_METRICS, ([t.recall for t in texts], [t.f1 for t in texts]), strict=True):
        found[name] = {"unit": "", "higher_is_better": True, **summarise(np.array(values, float))}
    gripper = [timing for timing in timings if timing is not None]
    late = np.array([s for g in gripper for s in g.late_s])
    found["gripper_timing"] = {
        "unit": "s", "higher_is_better": False, **summarise(np.abs(late)),
        "late_mean": float(late.mean()) if len(late) else None,
        "missed": sum(g.missed for g in gripper) if gripper else None,
        "spurious": sum(g.spurious for g in gripper) if gripper else None,
    }  # fmt: skip
    return found


def _recorded_jerk(scores: ChunkScores) -> np.ndarray:
    known = np.isfinite(scores.recorded[..., :3]).all(axis=(1, 2))
    return jerk_m_s3(scores.recorded[known], scores.dt_s) if scores.recorded.shape[1] > 2 else np.empty(0)


def _by_step(scores: ChunkScores) -> dict[str, list[float | None]]:
    """Mean over all chunks at each step of a chunk."""
    return {
        name: [summarise(rows[:, step])["mean"] for step in range(rows.shape[1])]
        for name, rows in scores.by_step.items()
    }


def _by_instruction(replays: Sequence[BagReplay], number: int) -> list[dict[str, Any]]:
    groups: dict[str, list[np.ndarray]] = {}
    for place, replay in enumerate(replays):
        for episode in replay.result.episodes:
            chosen = np.flatnonzero(replay.scores[number].episode == episode.index)
            groups.setdefault(episode.instruction, []).append(np.column_stack([np.full(len(chosen), place), chosen]))
    found = []
    for instruction, parts in sorted(groups.items()):
        rows = np.concatenate(parts).astype(int)
        values = {
            name: summarise(np.array([replays[p].scores[number].values[name][n] for p, n in rows]))["mean"]
            for name in METRICS
        }
        found.append({"instruction": instruction, "episodes": len(parts), "chunks": len(rows), **values})
    return found


def _episodes(replay: BagReplay) -> list[dict[str, Any]]:
    rows = []
    for episode in replay.result.episodes:
        row = {
            "bag": replay.name,
            "index": episode.index,
            "instruction": episode.instruction,
            "start_s": (episode.start_ns - replay.start_ns) * 1e-9,
            "duration_s": episode.duration_s,
            "recorded_text": episode.text,
            "annotation": episode.annotation,
            "success": episode.success,
            "checkpoints": {},
        }
        for run, scores, texts in zip(replay.result.runs, replay.scores, replay.texts, strict=True):
            chosen = scores.episode == episode.index
            row["checkpoints"][run.name] = {
                "chunks": int(chosen.sum()),
                "means": {name: summarise(scores.values[name][chosen])["mean"] for name in METRICS},
                "texts": [
                    {"time_s": t.received_s - replay.start_ns * 1e-9, "text": t.text, "recall": t.recall, "f1": t.f1}
                    for t in texts
                    if t.episode == episode.index
                ],
            }
        rows.append(row)
    return rows


def _worst(replay: BagReplay) -> list[dict[str, Any]]:
    """The worst chunks of the first checkpoint."""
    scores = replay.scores[0]
    return [
        {
            "bag": replay.name, "episode": int(scores.episode[n]), "chunk": n,
            "time_s": float(scores.received_s[n] - replay.start_ns * 1e-9),
            "path_error_mm": float(scores.values["path_error_mm"][n]),
            "rotation_error_deg": float(scores.values["rotation_error_deg"][n]),
        }
        for n in worst_moments(scores, WORST)
    ]  # fmt: skip


def _by_error(row: Mapping[str, Any]) -> float:
    return -float(row["path_error_mm"])


def _rounded(value: Any) -> Any:
    """Six significant digits, NaN as null: what JSON can say, and no more than is meant."""
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.6g}") if math.isfinite(value) else None
    return value


def to_json(report: Mapping[str, Any]) -> str:
    """The same text for the same report, always."""
    return json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(replays: Sequence[BagReplay]) -> str:
    """One row for each chunk: when, which, the first step as predicted and as recorded, and its numbers."""
    axes = ("x_m", "y_m", "z_m", "roll_rad", "pitch_rad", "yaw_rad", "gripper")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    head = [
        "bag",
        "checkpoint",
        "episode",
        "time_s",
        *(f"predicted_{a}" for a in axes),
        *(f"recorded_{a}" for a in axes),
    ]
    table.writerow([*head, *METRICS])
    for replay in replays:
        for run, scores in zip(replay.result.runs, replay.scores, strict=True):
            for n, received_s in enumerate(scores.received_s):
                numbers = [*scores.predicted[n, 0], *scores.recorded[n, 0], *(scores.values[m][n] for m in METRICS)]
                row = [replay.name, run.name, scores.episode[n], f"{received_s - replay.start_ns * 1e-9:.3f}"]
                table.writerow([*row, *(f"{v:.6g}" if math.isfinite(v) else "" for v in numbers)])
    return text.getvalue()

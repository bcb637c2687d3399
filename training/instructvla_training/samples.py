"""At every save: what the policy writes about pictures it was not trained on, and its chunks along a recorded episode.

The checkpoint that was just written is loaded as the robot would load it, so this also proves that it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from instructvla_model.normalization import Statistics
from instructvla_model.policy import InstructVLA
from instructvla_model.runtime import PolicyRuntime
from instructvla_model.types import Observation

from .data.chunks import chunk_actions
from .data.shards import Frames
from .evaluation.open_loop import draw, predict
from .watch import Watch

TEXTS = 4
LONGEST_EPISODE = 60


class TrainedStage(nn.Module):
    """A stage whose policy can be looked at on its own frames. ``held_out``: numbers of episodes never trained on."""

    policy: InstructVLA
    frames: Frames
    held_out: np.ndarray
    make_batch: Callable[[np.random.Generator], Any]
    make_part: Callable[[np.random.Generator, int], Any]
    """Only of stages whose parts of a step are not all alike: draws by the part's number."""
    rows_at_once: int | None = None
    """Of the language model's pass; None: all rows of a part in one."""
    trainable: Callable[[], None]
    """Chooses what requires gradients."""
    encode_frames: Callable[[torch.device], None]
    """Runs frozen towers over all frames at once; called for stages whose recipe says so."""
    asked: Callable[[int, np.random.Generator], tuple[str, str, str]]
    """Mode of the runtime, question and expected answer about an episode's first frame."""
    instruction: Callable[[int], str]
    observation: Callable[[int], Observation]

    def statistics_of(self, episode: int) -> Statistics | None:
        """What an episode is normalised by; None: as the whole checkpoint is."""
        return None

    def with_words(self) -> list[int]:
        """Numbers of the episodes that can be asked about."""
        return list(range(len(self.frames.episodes)))


@dataclass(frozen=True)
class Written:
    """One text. ``expected``: the ground truth's answer, of which other wordings may be right too."""

    question: str
    expected: str
    text: str


@dataclass(frozen=True)
class OpenLoop:
    """Chunks (K, F, 7) predicted at the steps ``at`` of an episode with these recorded ``actions`` (n, 7)."""

    episode: str
    actions: np.ndarray
    at: np.ndarray
    chunks: np.ndarray
    error_m: float  # of the predicted displacements, mean over the steps


def write_samples(checkpoint: Path, stage: TrainedStage, watch: Watch, step: int, device: torch.device) -> None:
    """Writes ``samples/step-N.json`` and ``.png`` beside the run, and shows both in TensorBoard."""
    runtime = PolicyRuntime.load(checkpoint, device=str(device), threads=torch.get_num_threads())
    texts = written(runtime, stage)
    loop = open_loop(runtime, stage) if runtime.manifest.statistics is not None else None
    folder = watch.run_dir / "samples"
    folder.mkdir(exist_ok=True)
    content: dict[str, Any] = {"step": step, "texts": [asdict(text) for text in texts]}
    picture = None
    if loop is not None:
        content |= {"episode": loop.episode, "error_m": loop.error_m}
        title = f"{loop.episode}\nmean error of the displacement {1000 * loop.error_m:.1f} mm a step"
        picture = draw(loop.actions, loop.at, loop.chunks, title, folder / f"step-{step:07d}.png")
    (folder / f"step-{step:07d}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    lines = [f"**{t.question}**\n{t.text}\n(expected: {t.expected})" for t in texts]
    watch.samples(step, "\n\n".join(lines), picture)


def _episodes(stage: TrainedStage) -> list[int]:
    """Those kept apart; all that have words, where there are too few to keep some apart."""
    return [int(e) for e in stage.held_out] or stage.with_words()


def written(runtime: PolicyRuntime, stage: TrainedStage) -> list[Written]:
    """Answers to questions, or reasoning about instructions, on the first frames of episodes kept apart."""
    rng, found, episodes = np.random.default_rng(0), [], _episodes(stage)
    for number in range(TEXTS):
        episode = episodes[number % len(episodes)]
        mode, question, expected = stage.asked(episode, rng)
        seen = stage.observation(int(stage.frames.first[episode]))
        *_, thought = runtime.think(seen.images, question, mode)
        found.append(Written(question, expected, thought.text))
    return found


def open_loop(runtime: PolicyRuntime, stage: TrainedStage) -> OpenLoop | None:
    """Chunks for every F-th frame of an episode, each from the recorded image and state, not from its own doing.

    The runtime normalises from then on as training does this episode.
    """
    frames = stage.frames
    usable = [e for e in _episodes(stage) if frames.episodes[e].length > 1]
    if not usable:
        return None
    number = usable[0]
    record, first, instruction = frames.episodes[number], int(frames.first[number]), stage.instruction(number)
    own = stage.statistics_of(number)
    if own is not None:  # a checkpoint of several robots runs with the first one's alone
        runtime.manifest = replace(runtime.manifest, statistics=own)
    length = min(record.length, LONGEST_EPISODE)
    at = np.arange(0, length, runtime.manifest.horizon)
    chunks = np.stack([predict(runtime, stage.observation(first + int(t)), instruction, int(t)) for t in at])
    expected, inside = chunk_actions(frames, first + at, runtime.manifest.horizon)
    error_m = float(np.linalg.norm(chunks[inside, :3] - expected[inside, :3], axis=-1).mean())
    actions = np.asarray(frames.action[first : first + length])
    return OpenLoop(f"{record.source} {record.seed}: {instruction}", actions, at, chunks, round(error_m, 5))

"""Where a recipe's data, runs and checkpoints lie, and the policy that a stage starts from."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from instructvla_model.manifest import Manifest
from instructvla_model.policy import InstructVLA
from instructvla_model.presets import preset
from instructvla_model.prompts import PromptBuilder
from instructvla_model.tokenizer import PolicyTokenizer, train_tokenizer
from instructvla_sim import WorldConfig
from instructvla_training.data.formats.episode import DataError, EpisodeDataset, StateLayout
from instructvla_training.language.corpus import iterate_corpus

logger = logging.getLogger(__name__)

CORPUS_LINES = 60_000


@dataclass(frozen=True)
class Workspace:
    """Folders below one root: ``data/<preset>/<dataset>``, ``runs/<preset>-<recipe>``. A ``variant`` (another robot's
    recipe) has data of its own."""

    root: Path
    preset: str
    variant: str = ""

    @property
    def data(self) -> Path:
        return self.root / "data" / (f"{self.preset}-{self.variant}" if self.variant else self.preset)

    def dataset(self, name: str) -> Path:
        return self.data / name

    def annotations(self, name: str) -> Path:
        """VLA-IT annotations of a recorded dataset, where there are any."""
        return self.data / f"{name}.annotations.json"

    @property
    def conversations(self) -> Path:
        """Multimodal conversations in the LLaVA format."""
        return self.data / "conversations.json"

    @property
    def stills(self) -> Path:
        return self.dataset("stills")

    @property
    def demonstrations(self) -> Path:
        return self.dataset("demonstrations")

    @property
    def corrections(self) -> Path:
        return self.dataset("corrections")

    def run(self, name: str) -> Path:
        return self.root / "runs" / f"{self.preset}-{name}"

    def checkpoint(self, name: str) -> Path:
        return self.run(name) / "checkpoint"


def layouts_of(manifest: Manifest) -> tuple[str, ...]:
    """What the states were that a checkpoint was trained on, by name; empty where it has not been noted."""
    if "state_layouts" in manifest.training:
        return tuple(manifest.training["state_layouts"])
    return (StateLayout.RPY.name,) if "robot" in manifest.training else ()  # the simulation's


def check_layout(manifest: Manifest, dataset: EpisodeDataset) -> None:
    """Raises DataError where a policy that is told the state would be told something else than it was trained on."""
    known = layouts_of(manifest)
    if manifest.state_dim and known and dataset.layout.name not in known:
        raise DataError(
            f"{dataset.root}: found states {' '.join(dataset.layout.value)}, expected the checkpoint's: "
            f"{' or '.join(' '.join(StateLayout[name].value) for name in known)}; name their layout (--state), convert "
            "them, or take a checkpoint that is not told the state"
        )


def robot_of(manifest: Manifest) -> str:
    """The robot that a checkpoint was trained on."""
    return str(manifest.training.get("robot", WorldConfig().robot))


def new_tokenizer(preset_name: str) -> PolicyTokenizer:
    """Byte-level BPE trained on the generated language; the same for the same code."""
    config = preset(preset_name)
    lines = islice(iterate_corpus(np.random.default_rng(0)), CORPUS_LINES)
    return train_tokenizer(lines, config.language.vocab_size, config.n_queries)


def new_policy(preset_name: str, tokenizer: PolicyTokenizer) -> InstructVLA:
    """A randomly initialised policy for ``tokenizer``."""
    config = preset(preset_name).with_vocab_size(tokenizer.vocab_size)
    return InstructVLA(config, tokenizer.image_token_id, "base")


def builder_for(policy: InstructVLA, tokenizer: PolicyTokenizer) -> PromptBuilder:
    return PromptBuilder(tokenizer, policy.config)

"""Untrained checkpoints of the tiny preset, made in a moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robot_data import episode

from instructvla_model import checkpoint
from instructvla_model.manifest import new_manifest
from instructvla_model.policy import InstructVLA
from instructvla_model.presets import preset
from instructvla_model.tokenizer import train_tokenizer
from instructvla_training.data.survey import action_statistics

WORDS = ["pick up the can", "put the lemon in the bowl", "What action should the robot take to"]


def tiny_checkpoint(
    folder: Path, stage: str = "expert", notes: dict[str, Any] | None = None, **changes: object
) -> Path:
    """``changes``: of the configuration; ``notes``: of the manifest, by default a robot."""
    config = preset("tiny")
    tokenizer = train_tokenizer(WORDS, 300, config.n_queries)
    config = replace(config.with_vocab_size(tokenizer.vocab_size), **changes)
    torch.manual_seed(0)
    policy = InstructVLA(config, tokenizer.image_token_id, "base")
    if stage != "base":
        policy.set_stage(stage)
    made = [episode(number) for number in range(4)]
    statistics = action_statistics(
        np.concatenate([e.action_TA for e in made]), np.concatenate([e.state_TS for e in made])
    )
    notes = {"robot": "wx250s"} if notes is None else notes
    manifest = new_manifest(config, stage, statistics if stage != "base" else None, notes)
    checkpoint.save(folder, policy, tokenizer, manifest)
    return folder

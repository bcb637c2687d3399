"""A checkpoint with random weights: complete and quick to make, for tests and measurements that need no skill.

Run as a program it writes one: python tests/random_checkpoint.py FOLDER [preset]
"""

import sys
from pathlib import Path

import numpy as np
import torch

from instructvla_model import checkpoint
from instructvla_model.manifest import Manifest, new_manifest
from instructvla_model.normalization import Statistics, compute
from instructvla_model.policy import InstructVLA
from instructvla_model.presets import preset
from instructvla_model.tokenizer import train_tokenizer

STEP = np.array([0.012, 0.012, 0.012, 0.03, 0.03, 0.03, 1.0])
STATE = np.array([0.15, 0.15, 0.15, 0.3, 0.3, 0.3, 0.0, 1.0])
STATE_MIDDLE = np.array([0.28, 0.0, 0.15, 0.0, 0.0, 0.0, 0.0, 0.5])
WORDS = ("user", "assistant", "pick up the red cube", "Put the carrot on the plate.", "What should the robot do?")


def write(
    folder: Path, name: str = "nano", stage: str = "generalist", seed: int = 0, height_m: float = 0.0
) -> Manifest:
    """Write the folder; its actions are small steps about where the arm is. `height_m`: its states are those of an arm
    that works so much higher."""
    torch.manual_seed(seed)
    config = preset(name)
    tokenizer = train_tokenizer(WORDS * 4, config.language.vocab_size, config.n_queries)
    if tokenizer.vocab_size < config.language.vocab_size:
        letters = [chr(0x4E00 + index) for index in range(config.language.vocab_size - tokenizer.vocab_size)]
        tokenizer = train_tokenizer([*WORDS, *letters * 4], config.language.vocab_size, config.n_queries)
    policy = InstructVLA(config, tokenizer.image_token_id)
    policy.set_stage(stage)
    ends = np.array([[-1.0], [1.0]])
    action = compute(ends * STEP, mask=[True] * 6 + [False])
    states = STATE_MIDDLE + ends * STATE
    states[:, 2] += height_m
    statistics = Statistics(action, compute(states))
    return checkpoint.save(folder, policy, tokenizer, new_manifest(config, stage, statistics))


if __name__ == "__main__":
    made = write(Path(sys.argv[1]), *sys.argv[2:3])
    sys.stdout.write(f"{made.preset} {made.stage} {made.checkpoint_id}\n")

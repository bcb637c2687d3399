"""Makes the helpers beside the tests importable, and keeps PyTorch on one thread."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from instructvla_model.policy import InstructVLA
from instructvla_model.presets import preset
from instructvla_model.tokenizer import train_tokenizer

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    """A small tokenizer that knows the prompt texts."""
    corpus = [
        "What action should the robot take to pick up the red cube? First answer my question.",
        "What action should the robot take to put the carrot in the bowl? Give both move primitive and action.",
        "system user assistant\n You are a helpful assistant. move forward left, close gripper",
    ]
    return train_tokenizer(corpus * 10, vocab_size=320, n_queries=4)


@pytest.fixture
def config(tokenizer):
    return preset("tiny").with_vocab_size(tokenizer.vocab_size)


@pytest.fixture
def make_policy(config, tokenizer):
    """Builds a tiny policy with a fixed seed whose adapters and gate do something."""

    def make(stage="base", **changes):
        torch.manual_seed(0)
        chosen = dataclasses.replace(config, **changes)
        policy = InstructVLA(chosen, tokenizer.image_token_id, stage)
        for name, parameter in policy.named_parameters():
            if ".lora_B." in name or "gate.layers" in name or "embed_tokens" in name or "query_" in name:
                torch.nn.init.normal_(parameter, std=0.4)
        return policy.eval()

    return make

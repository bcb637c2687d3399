"""torch.compile for training: the layers of the language model, where stage 2 spends most of its time."""

from __future__ import annotations

import logging
import os
import shutil

import torch

from instructvla_model.vlm import VisionLanguageModel

logger = logging.getLogger(__name__)

BACKEND = "inductor"


def compile_layers(vlm: VisionLanguageModel, device: torch.device) -> int:
    """Hands every layer of the language model to torch.compile, which works at their first pass (a minute or two)
    -> how many; 0 on a CPU without a C++ compiler, where they run as they are.

    Parameters keep their names. Rows and tokens differ from batch to batch, so shapes are symbolic.
    """
    if device.type == "cpu" and BACKEND == "inductor" and shutil.which(os.environ.get("CXX", "g++")) is None:
        logger.warning("found no C++ compiler: training runs without torch.compile, more slowly; install g++")
        return 0
    layers = vlm.language_model.model.layers
    for layer in layers:
        layer.compile(backend=BACKEND, dynamic=True)
    return len(layers)

"""The memory benchmark writes real files of random numbers, and measures work in processes of its own."""

import json

import pytest
import torch

from instructvla_model import checkpoint
from instructvla_model.benchmark import memory
from instructvla_model.presets import in_regime, preset
from instructvla_model.runtime import PolicyRuntime

CONFIG = in_regime(preset("tiny"), "reference")


def test_random_files_are_checkpoints_and_released_files_of_the_presets_sizes(tmp_path):
    memory.write_random(tmp_path / "random", CONFIG, "generalist", "bfloat16")
    runtime = PolicyRuntime.load(tmp_path / "random", device="cpu")
    assert runtime.manifest.config == CONFIG
    assert 0 < runtime.vlm.query_embed.abs().max() <= 0.03
    file, backbone = memory.write_released(tmp_path / "random", tmp_path / "released")
    assert set(torch.load(file, weights_only=True)["model"]) == {
        "vision_model",
        "mlp1",
        "language_model",
        "action_model",
    }
    options = {"source": str(file), "backbone": str(backbone), "out": str(tmp_path / "again"), "preset": "tiny"}
    figure = memory.main("import", {**options, "regime": "reference", "dtype": "bfloat16"})
    size = (tmp_path / "again" / checkpoint.MODEL_FILE).stat().st_size
    assert (figure.work, figure.weights_bytes) == ("import", size)
    assert figure.peak_bytes >= figure.private_bytes > 50e6
    result = memory.Result.of(CONFIG, "bfloat16", "bfloat16", "full", [figure])
    assert len(result.lines()) == 3
    json.dumps(result.as_dict())


@pytest.mark.slow
def test_work_is_measured_in_a_process_of_its_own_whose_failure_is_told(tmp_path):
    memory.write_random(tmp_path / "random", CONFIG, "generalist", "bfloat16")
    options = {"folder": str(tmp_path / "random"), "device": "cpu", "dtype": "float32", "vlm_weights": "full"}
    figure = memory.measure("load", **options)
    shapes = checkpoint.tensor_shapes(CONFIG.without_unread_blocks(), "generalist")
    stored = sum(4 * torch.Size(shape).numel() for shape in shapes.values())
    assert stored <= figure.weights_bytes < 1.2 * stored  # and buffers
    with pytest.raises(RuntimeError, match="does not exist"):
        memory.measure("load", **options | {"folder": str(tmp_path / "nowhere")})

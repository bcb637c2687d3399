"""What the model nodes' parameters say reaches the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructvla_model import compiled
from instructvla_model.quantized import Int8Linear
from instructvla_model.runtime import PolicyRuntime
from instructvla_ros.nodes import checkpoints
from instructvla_ros.nodes.settings import ModelSettings, model_settings

CHECKPOINT = Path(__file__).parents[3] / "checkpoints" / "nano-generalist"


def values(**changes: object) -> dict[str, object]:
    plain = {"checkpoint": str(CHECKPOINT), "device": "cpu", "dtype": "auto", "torch_threads": 1}
    return plain | {"vlm_weights": "full", "compile_vision": False} | changes


def int8_layers(runtime: PolicyRuntime) -> int:
    return sum(isinstance(module, Int8Linear) for module in runtime.vlm.modules())


def test_weights_are_kept_in_full_and_nothing_is_compiled_unless_told() -> None:
    assert model_settings(values()) == ModelSettings(str(CHECKPOINT), "cpu")
    runtime = checkpoints.load_runtime(model_settings(values()), ("vlm",))
    assert int8_layers(runtime) == 0 and runtime.vlm.vision_model._compiled_call_impl is None


def test_bytes_and_compiled_vision_are_had_by_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")  # traced, but run by PyTorch: machine code takes minutes
    settings = model_settings(values(vlm_weights="int8", compile_vision=True))
    runtime = checkpoints.load_runtime(settings, ("vlm",))
    assert int8_layers(runtime) > 0 and runtime.vlm.vision_model._compiled_call_impl is not None

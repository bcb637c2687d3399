"""Between messages and values: nothing is lost, and what cannot be used is refused with a reason."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros
pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")
torch = pytest.importorskip("torch")

from builtin_interfaces.msg import Time  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from instructvla_msgs.msg import LatentAction, SafetyState  # noqa: E402
from instructvla_ros.control.types import Command, ExecutedStep, Mode  # noqa: E402
from instructvla_ros.nodes import codecs, latent_codec  # noqa: E402
from instructvla_ros.policy import ingest  # noqa: E402


def image(encoding: str, channels: int, *, padding: int = 0, height: int = 64, width: int = 80) -> Image:
    pixels = np.arange(height * width * channels, dtype=np.uint8).reshape(height, width * channels)
    rows = np.hstack([pixels, np.full((height, padding), 255, np.uint8)])
    return Image(height=height, width=width, encoding=encoding, step=rows.shape[1], data=rows.tobytes())


@pytest.mark.parametrize(
    ("encoding", "channels", "order"),
    [
        ("rgb8", 3, (0, 1, 2)),
        ("bgr8", 3, (2, 1, 0)),
        ("rgba8", 4, (0, 1, 2)),
        ("bgra8", 4, (2, 1, 0)),
        ("mono8", 1, (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_f02_every_common_encoding_becomes_rgb(
    encoding: str, channels: int, order: tuple[int, ...], padding: int
) -> None:
    message = image(encoding, channels, padding=padding)
    rgb = ingest.image_to_rgb(message)
    plain = np.arange(64 * 80 * channels, dtype=np.uint8).reshape(64, 80, channels)
    np.testing.assert_array_equal(rgb, plain[..., list(order)])
    assert rgb.flags["C_CONTIGUOUS"] and rgb.dtype == np.uint8


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (image("yuyv", 2), "encoding 'yuyv' is not supported"),
        (image("rgb8", 3, height=32), "at least 64 px"),
        (Image(height=64, width=80, encoding="rgb8", step=240, data=b"\0" * 100), "100 bytes"),
        (Image(height=64, width=80, encoding="rgb8", step=10, data=b"\0" * 20_000), "step 10"),
    ],
)
def test_f02_an_image_that_cannot_be_used_is_refused_with_the_reason(message: Image, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ingest.frame_of(message, 0.0)


@pytest.mark.parametrize("seconds", [0.0, 1.25, 1_795_397_497.524598, 12.9999999999])
def test_times_survive_the_way_there_and_back(seconds: float) -> None:
    stamp = codecs.s_to_time(seconds)
    assert 0 <= stamp.nanosec < 1_000_000_000
    assert codecs.time_to_s(stamp) == pytest.approx(seconds, abs=1e-6)


def test_the_stamp_of_a_serialized_image_is_read_without_deserializing_it() -> None:
    message = image("rgb8", 3)
    message.header.stamp, message.header.frame_id = Time(sec=1234567, nanosec=890), "camera"
    assert ingest.raw_stamp_s(serialize_message(message)) == pytest.approx(1234567.00000089)
    with pytest.raises(ValueError, match="CDR"):
        ingest.raw_stamp_s(b"\x07\x07" + b"\0" * 20)


def test_a_chunk_survives_the_way_there_and_back(chunk_factory: Any) -> None:
    chunk = chunk_factory(stamp_s=100.25, xyz=(0.01, -0.02, 0.03), rpy=(0.1, 0.2, -0.3), gripper=0.25, seq=7)
    message = codecs.chunk_to_message(chunk, "wx250s/base_link", 0.05)
    assert message.header.frame_id == "wx250s/base_link" and message.horizon == 8
    back = codecs.message_to_chunk(message)
    np.testing.assert_allclose(back.delta_xyz_m, chunk.delta_xyz_m, atol=1e-7)
    np.testing.assert_allclose(back.delta_rpy_rad, chunk.delta_rpy_rad, atol=1e-7)
    assert (back.dt_s, back.stamp_s, back.seq, back.instruction_id) == (0.2, 100.25, 7, 1)


def test_f19_a_chunk_whose_arrays_do_not_fit_its_horizon_is_refused(chunk_factory: Any) -> None:
    message = codecs.chunk_to_message(chunk_factory(), "base", 0.0)
    message.horizon = 7
    with pytest.raises(ValueError, match="horizon 7"):
        codecs.message_to_chunk(message)


def plan(latents: Any) -> Any:
    return SimpleNamespace(latents=latents, stamp_s=5.5, instruction_id=3, seq=9, gate_mean=(0.25, 0.75))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_latents_survive_the_way_there_and_back_bit_by_bit(dtype: Any) -> None:
    latents = torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    message = latent_codec.plan_to_message(plan(latents), "abc", "camera", 4, 0.1)
    assert (message.n_queries, message.latent_dim, message.reasoning_seq) == (8, 16, 4)
    assert torch.equal(latent_codec.message_to_latents(message), latents)
    np.testing.assert_allclose(message.gate_mean, [0.25, 0.75])


def test_a_latent_message_becomes_the_model_librarys_plan() -> None:
    pytest.importorskip("instructvla_model.types")
    back = latent_codec.message_to_plan(latent_codec.plan_to_message(plan(torch.ones(2, 3)), "abc", "cam", 0, 0.0))
    assert (back.stamp_s, back.instruction_id, back.seq, back.gate_mean) == (5.5, 3, 9, (0.25, 0.75))
    assert back.latents.shape == (2, 3)


def test_f06_latents_that_are_not_finite_are_refused_on_both_sides() -> None:
    with pytest.raises(ValueError, match="not finite"):
        latent_codec.plan_to_message(plan(torch.full((2, 3), math.nan)), "abc", "camera", 0, 0.0)
    message = latent_codec.plan_to_message(plan(torch.ones(2, 3)), "abc", "camera", 0, 0.0)
    message.data = np.frombuffer(np.full(6, np.inf, np.float32).tobytes(), np.uint8)
    with pytest.raises(ValueError, match="not finite"):
        latent_codec.message_to_latents(message)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "int8"}, "int8"),
        ({"n_queries": 3}, "expected 36"),
        ({"n_queries": 0}, "0 x 3"),
        ({"latent_dim": 2**31}, "bytes"),
    ],
)
def test_f19_latents_whose_bytes_do_not_fit_are_refused(change: dict[str, Any], reason: str) -> None:
    message: LatentAction = latent_codec.plan_to_message(plan(torch.ones(2, 3)), "abc", "camera", 0, 0.0)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ValueError, match=reason):
        latent_codec.message_to_latents(message)


def test_an_executed_step_is_packed_with_its_origin() -> None:
    step = ExecutedStep((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 1.0, 5, 2, 3, 7.5, 0.2, True)
    message = codecs.step_to_message(step, "wx250s/base_link")
    assert (message.delta_xyz_m.x, message.delta_rpy_rad.z) == (0.1, 0.6)
    assert (message.chunk_seq, message.step, message.instruction_id, message.clamped) == (5, 2, 3, True)
    assert codecs.time_to_s(message.header.stamp) == 7.5


@pytest.mark.parametrize(
    ("mode", "instruction_id", "fault", "expected"),
    [
        (Mode.HOLD, 0, "", SafetyState.MODE_IDLE),
        (Mode.HOLD, 1, "", SafetyState.MODE_HOLDING),
        (Mode.HOLD, 0, "F01", SafetyState.MODE_HOLDING),
        (Mode.MOVING, 1, "", SafetyState.MODE_EXECUTING),
        (Mode.STOPPED, 1, "F22", SafetyState.MODE_STOPPED),
        (Mode.FAULT, 1, "F06", SafetyState.MODE_FAULT),
    ],
)
def test_modes_of_the_controller_become_modes_of_the_message(
    mode: Mode, instruction_id: int, fault: str, expected: int
) -> None:
    assert codecs.safety_mode(Command(None, None, None, mode, "", fault), instruction_id) == expected

"""Latent plans on the wire: N x D numbers packed as float32, float16 or bfloat16, little-endian. No
pickle."""

from __future__ import annotations

import sys
from array import array
from typing import Any

import torch

from instructvla_msgs.msg import LatentAction
from instructvla_ros.nodes.codecs import s_to_time, time_to_s

_DTYPES = {
    LatentAction.FLOAT32: torch.float32,
    LatentAction.FLOAT16: torch.float16,
    LatentAction.BFLOAT16: torch.bfloat16,
}
_MAX_VALUES = 4_000_000

if sys.byteorder != "little":
    raise ImportError("latent actions are little-endian on the wire and this machine is not; not supported")


def plan_to_message(plan: Any, checkpoint_id: str, frame_id: str, reasoning_seq: int, latency_s: float) -> LatentAction:
    """Pack a LatentPlan; raises ValueError when it is not (N, D) or not finite (F06)."""
    latents = plan.latents.detach().to("cpu").contiguous()
    if latents.ndim != 2:
        raise ValueError(f"latent action has shape {tuple(latents.shape)}; expected (N, D)")
    if not bool(torch.isfinite(latents).all()):
        raise ValueError("latent action holds a value that is not finite; dropped")
    names = [name for name, dtype in _DTYPES.items() if dtype == latents.dtype]
    if not names:
        latents, names = latents.float(), [LatentAction.FLOAT32]
    message = LatentAction()
    message.header.stamp, message.header.frame_id = s_to_time(plan.stamp_s), frame_id
    message.instruction_id, message.seq, message.reasoning_seq = plan.instruction_id, plan.seq, reasoning_seq
    message.checkpoint_id, message.dtype = checkpoint_id, names[0]
    message.n_queries, message.latent_dim = latents.shape
    # array.array is taken as it is; of a numpy array every element would be checked.
    message.data = array("B", latents.view(torch.uint8).numpy().tobytes())
    message.gate_mean = array("f", [float(value) for value in plan.gate_mean])
    message.latency_s = float(latency_s)
    return message


def message_to_latents(message: LatentAction) -> torch.Tensor:
    """The (N, D) tensor of a message; raises ValueError when size, dtype or values are not as they say."""
    dtype = _DTYPES.get(message.dtype)
    if dtype is None:
        raise ValueError(f"latent action has dtype {message.dtype!r}; expected one of {', '.join(_DTYPES)}")
    count = message.n_queries * message.latent_dim
    size = count * torch.finfo(dtype).bits // 8
    if not 0 < count <= _MAX_VALUES or len(message.data) != size:
        raise ValueError(
            f"latent action of {message.n_queries} x {message.latent_dim} {message.dtype} "
            f"has {len(message.data)} bytes; expected {size}"
        )
    flat = torch.frombuffer(bytearray(message.data), dtype=dtype)
    if not bool(torch.isfinite(flat).all()):
        raise ValueError("latent action holds a value that is not finite; dropped")
    return flat.reshape(message.n_queries, message.latent_dim)


def message_to_plan(message: LatentAction) -> Any:
    """A LatentPlan of the model library (text is not on this wire)."""
    from instructvla_model.types import LatentPlan

    return LatentPlan(
        latents=message_to_latents(message),
        stamp_s=time_to_s(message.header.stamp),
        instruction_id=message.instruction_id,
        seq=message.seq,
        gate_mean=tuple(float(value) for value in message.gate_mean),
        text="",
    )

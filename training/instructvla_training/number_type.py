"""In which number type the matrix products are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def autocast(device: torch.device, wanted: str = "bfloat16") -> torch.autocast:
    """The context in which ``device`` computes in ``number_type(device, wanted)``."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=number_type(device, wanted) == "bfloat16")


def number_type(device: torch.device, wanted: str = "bfloat16") -> str:
    """``wanted`` ("bfloat16" or "float32"), or "float32" where ``device`` computes in bfloat16 more slowly: on a
    processor that imitates it, and on an Intel one without tiles (AMX)."""
    if wanted == "bfloat16" and device.type == "cpu" and not _gains(torch.cpu.get_capabilities()):
        return "float32"
    return wanted


def _gains(capabilities: Mapping[str, Any]) -> bool:
    """Whether a processor of these capabilities is taken to be faster in bfloat16."""
    of_vectors = any(has is True and "bf16" in name for name, has in capabilities.items())
    return bool(capabilities.get("amx_bf16")) or (of_vectors and "Intel" not in str(capabilities.get("cpu_name")))

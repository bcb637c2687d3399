"""In which number type the matrix products are computed."""

from __future__ import annotations

import torch


def autocast(device: torch.device, wanted: str = "bfloat16") -> torch.autocast:
    """The context in which ``device`` computes in ``number_type(device, wanted)``."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=number_type(device, wanted) == "bfloat16")


def number_type(device: torch.device, wanted: str = "bfloat16") -> str:
    """``wanted`` ("bfloat16" or "float32"), or "float32" where ``device`` could only imitate bfloat16: a processor
    without instructions for it takes two to three times as long for such a product."""
    if wanted == "bfloat16" and device.type == "cpu" and not _processor_has_bfloat16():
        return "float32"
    return wanted


def _processor_has_bfloat16() -> bool:
    return any(has is True and "bf16" in name for name, has in torch.cpu.get_capabilities().items())

"""Replaces the large linear layers of a model that is only run, never trained."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

LEAST = 1 << 16  # numbers; smaller matrices are not worth it
_KEPT = ("lora_A", "lora_B", "gate", "lm_head")  # read as plain matrices elsewhere, or too thin


def is_large(path: str, module: nn.Module, least: int = LEAST) -> bool:
    """Whether the module at `path` is a linear layer that `replace_linears` replaces."""
    kept = any(part in _KEPT for part in path.split("."))
    return type(module) is nn.Linear and module.weight.numel() >= least and not kept


def replace_linears(module: nn.Module, make: Callable[[nn.Linear], nn.Module], least: int = LEAST) -> int:
    """Put `make(child)` in place of every large nn.Linear in `module`, adapters and tables excepted -> how many."""
    count = 0
    for name, child in list(module.named_children()):
        if name in _KEPT:
            continue
        if type(child) is nn.Linear and child.weight.numel() >= least:
            setattr(module, name, make(child))
            count += 1
        else:
            count += replace_linears(child, make, least)
    return count

"""Which parameters each training stage moves."""

from __future__ import annotations

from torch import nn

from instructvla_model.config import ConfigError
from instructvla_model.policy import STAGES, InstructVLA

TRAINED_FIRST = "action"
"""Name of the adapter that stage 1 trains; nothing else tells it from the others."""


def set_trainable(policy: InstructVLA, stage: str, *, train_queries: bool = True) -> list[str]:
    """Set requires_grad for a stage and return the names of the trainable parameters.

    base        all of the VLM (vision, projector, language model, query rows); expert frozen
    expert      action LoRA, the query rows, and the whole expert
    generalist  both LoRAs, the gate and the query rows; expert frozen
    The query rows are parameters of their own, so no other row of the embeddings can move.
    Raises ConfigError as `check_adapters` does.
    """
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} does not exist; expected one of {STAGES}")
    check_adapters(policy, stage)
    trained: list[str] = []
    for name, parameter in policy.named_parameters():
        parameter.requires_grad = _moves(name, stage, train_queries)
        if parameter.requires_grad:
            trained.append(name)
    return trained


def check_adapters(policy: InstructVLA, stage: str) -> None:
    """Raise ConfigError for a policy without the adapter that the stage trains: it would stay frozen unnoticed."""
    names = policy.vlm.adapter_names
    if stage == "expert" and TRAINED_FIRST not in names:
        raise ConfigError(
            f"the policy's adapters are {', '.join(names) or 'none'}; expected one called {TRAINED_FIRST}, which stage "
            f"{stage!r} trains; a released file's adapters get their names when it is imported: import it again with "
            "--adapter-names, such as action,language"
        )


def _moves(name: str, stage: str, train_queries: bool) -> bool:
    if ".query_embed" in name or ".query_head" in name:
        return train_queries
    is_adapter = ".lora_A." in name or ".lora_B." in name
    if stage == "base":
        return name.startswith("vlm.") and not is_adapter and not name.startswith("vlm.gate.")
    if stage == "expert":
        return name.startswith("expert.") or (is_adapter and f".{TRAINED_FIRST}." in name)
    return is_adapter or name.startswith("vlm.gate.")


def count(module: nn.Module, trainable_only: bool = False) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)

"""Which parameters each training stage moves."""

from __future__ import annotations

from torch import nn

from instructvla_model.policy import STAGES, InstructVLA


def set_trainable(policy: InstructVLA, stage: str, *, train_queries: bool = True) -> list[str]:
    """Set requires_grad for a stage and return the names of the trainable parameters.

    base        all of the VLM (vision, projector, language model, query rows); expert frozen
    expert      action LoRA, the query rows, and the whole expert
    generalist  both LoRAs, the gate and the query rows; expert frozen
    The query rows are parameters of their own, so no other row of the embeddings can move.
    """
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} does not exist; expected one of {STAGES}")
    trained: list[str] = []
    for name, parameter in policy.named_parameters():
        parameter.requires_grad = _moves(name, stage, train_queries)
        if parameter.requires_grad:
            trained.append(name)
    return trained


def _moves(name: str, stage: str, train_queries: bool) -> bool:
    if ".query_embed" in name or ".query_head" in name:
        return train_queries
    is_adapter = ".lora_A." in name or ".lora_B." in name
    if stage == "base":
        return name.startswith("vlm.") and not is_adapter and not name.startswith("vlm.gate.")
    if stage == "expert":
        return name.startswith("expert.") or (is_adapter and ".action." in name)
    return is_adapter or name.startswith("vlm.gate.")


def count(module: nn.Module, trainable_only: bool = False) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable_only)

"""Names of the released files and of ours: one table for both directions.

The released language model has three layouts: plain (Eagle2-2B and unloaded stage 1), under peft's LoRA (stage 1)
and under peft's X-LoRA (stage 2). Its tables hold the query rows last; here these are tensors of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from instructvla_model.config import PolicyConfig

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LANGUAGE = {  # stage -> prefix of the language model's keys
    "base": "language_model.",
    "expert": "language_model.base_model.model.",
    "generalist": "language_model.base_model.lora_model.model.",
}
GATE = "language_model.base_model.internal_xlora_classifier."
PARTS = ("vision_model", "mlp1", "language_model", "action_model")
SIGLIP_HEAD = "vision_model.vision_model.head."  # in the files, read by nothing
_OURS = {
    "expert.": "action_model.",
    "vlm.vision_model.": "vision_model.vision_model.",
    "vlm.mlp1.": "mlp1.",
    "vlm.gate.": GATE,
}
_LORA = re.compile(r"\.lora_[AB]\.(?P<adapter>[^.]+)\.")
_TABLES = {"vlm.query_embed": EMBED, "vlm.query_head": HEAD}


@dataclass(frozen=True)
class Piece:
    """One of our tensors inside a released one: all of it, or rows from `first`."""

    name: str
    first: int | None = None


def released_name(name: str, config: PolicyConfig, stage: str) -> str:
    """The released file's name for one of our tensors."""
    for ours, theirs in _OURS.items():
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    key = _TABLES.get(name) or name.removeprefix("vlm.language_model.")
    if stage == "base":
        key = key.replace(".base_layer.", ".")
    found = _LORA.search(key)
    if found and found["adapter"] in config.adapters.names:
        label = str(config.adapters.names.index(found["adapter"])) if stage == "generalist" else "default"
        key = f"{key[: found.start('adapter')]}{label}{key[found.end('adapter') :]}"
    return LANGUAGE[stage] + key


def table(names: Iterable[str], config: PolicyConfig, stage: str) -> dict[str, tuple[Piece, ...]]:
    """Released name -> our pieces in it, in order of rows. With tied tables the head holds the embedding's pieces."""
    pieces: dict[str, list[Piece]] = {}
    language = LANGUAGE[stage]
    for name in names:
        theirs = released_name(name, config, stage)
        is_table = theirs in (language + EMBED, language + HEAD)
        first = (config.language.vocab_size if name in _TABLES else 0) if is_table else None
        pieces.setdefault(theirs, []).append(Piece(name, first))
    if config.language.tie_embeddings and language + EMBED in pieces:
        pieces[language + HEAD] = pieces[language + EMBED]
    return {theirs: tuple(sorted(p, key=lambda piece: piece.first or 0)) for theirs, p in pieces.items()}


def adapter_name(name: str, adapter: str) -> str:
    """Our name for a tensor of a peft adapter folder (`base_model.model.` ... `.lora_A.weight`)."""
    key = name.removeprefix("base_model.model.")
    for matrix in ("lora_A", "lora_B"):
        key = key.replace(f".{matrix}.weight", f".{matrix}.{adapter}.weight")
    return f"vlm.language_model.{key}"

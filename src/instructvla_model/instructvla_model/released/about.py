"""What a checkpoint is, in rows of label and text for people: only of parts that it holds."""

from __future__ import annotations

from collections.abc import Iterable

from instructvla_model.manifest import Manifest

_OF_THE_VLM = ("vlm_recipe", "text_cache")  # of Manifest.parity; the rest belongs to the expert


def describe_manifest(manifest: Manifest, tensors: Iterable[str]) -> list[tuple[str, str]]:
    """Rows for a checkpoint that holds tensors of these names."""
    names = frozenset(tensors)
    expert = any(name.startswith("expert.") for name in names)
    config = manifest.config
    held = [name for name in config.adapters.names if any(f".lora_A.{name}." in tensor for tensor in names)]
    gate = ", mixed by a gate" if any(name.startswith("vlm.gate.") for name in names) else ""
    rows = [
        ("checkpoint", manifest.checkpoint_id),
        ("preset", manifest.preset),
        ("stage", manifest.stage),
        ("latent actions", f"{manifest.n_queries} of width {manifest.latent_dim}"),
        ("adapters", f"{', '.join(held)} of rank {config.adapters.rank}{gate}" if held else "none"),
        ("action expert", "yes" if expert else "none: a vision-language model alone"),
    ]
    if expert:
        rows += [
            ("views", ", ".join(manifest.views)),
            ("horizon", f"{manifest.horizon} steps of {manifest.dt_s:g} s"),
            ("state", f"{manifest.state_dim} numbers" if manifest.state_dim else "none"),
        ]
    rows += [
        (key.replace("_", " "), str(value)) for key, value in manifest.parity.items() if expert or key in _OF_THE_VLM
    ]
    return rows + [("left out", f"{len(left)} tensors: {reason}") for reason, left in left_out(manifest).items()]


def left_out(manifest: Manifest) -> dict[str, list[str]]:
    """Released names that an import left out, by reason; older imports noted the reasons alone."""
    skipped = manifest.training.get("skipped")
    if not isinstance(skipped, dict):
        return {str(reason): [] for reason in skipped or ()}
    return {str(reason): [str(name) for name in names] for reason, names in skipped.items()}

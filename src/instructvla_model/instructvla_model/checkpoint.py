"""Checkpoint folders: manifest.json, tokenizer.json, and weights.

Weights are `model.safetensors` (complete), or `adapters.safetensors`: only the tensors that differ from
a base checkpoint, which the manifest names by path and id.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from instructvla_model import weights
from instructvla_model.config import PolicyConfig
from instructvla_model.expert import ActionExpert
from instructvla_model.linears import is_large
from instructvla_model.manifest import CheckpointError, Manifest, read_manifest, write_manifest
from instructvla_model.policy import InstructVLA
from instructvla_model.tokenizer import PolicyTokenizer, TokenizerError, load_tokenizer
from instructvla_model.vlm import VisionLanguageModel, prepare_for_stage

MODEL_FILE, ADAPTERS_FILE = "model.safetensors", "adapters.safetensors"
PARTS = ("vlm", "expert")
MakeLinear = Callable[[nn.Linear], nn.Module]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint holds; a part that was not asked for is None."""

    manifest: Manifest
    tokenizer: PolicyTokenizer
    vlm: VisionLanguageModel | None
    expert: ActionExpert | None


# ---- saving -------------------------------------------------------------------------------------------


def save(
    folder: str | Path,
    policy: InstructVLA,
    tokenizer: PolicyTokenizer,
    manifest: Manifest,
    *,
    dtype: str = "float32",
    base: str | Path | None = None,
) -> Manifest:
    """Write a checkpoint folder and return its manifest with hash and id.

    `base` = another checkpoint's folder: store only what differs from it. `dtype` is the storage dtype.
    """
    if dtype not in weights.DTYPES:
        raise CheckpointError(f"storage dtype {dtype!r}; expected one of {sorted(weights.DTYPES)}")
    if policy.stage != manifest.stage or policy.config != manifest.config:
        raise CheckpointError(
            f"policy of stage {policy.stage!r} under a manifest of stage {manifest.stage!r}; "
            "expected the same stage and configuration; make the manifest from the policy"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: weights.stored(tensor, weights.DTYPES[dtype], name)
        for name, tensor in weights.unique_state(policy).items()
    }
    base_id = base_path = None
    if base is not None:
        base_files, base_manifest = open_files(Path(base))
        base_id, base_path = base_manifest.checkpoint_id, os.path.relpath(base, folder)
        tensors = {name: t for name, t in tensors.items() if not _same(t, base_files.get(name), name)}
    file, other = (MODEL_FILE, ADAPTERS_FILE) if base is None else (ADAPTERS_FILE, MODEL_FILE)
    digest = weights.write(folder / file, tensors)
    (folder / other).unlink(missing_ok=True)
    tokenizer.save(folder)
    manifest = replace(manifest, weights_sha256=digest, storage_dtype=dtype, base_id=base_id, base_path=base_path)
    write_manifest(folder, manifest)
    return manifest


def _same(tensor: Tensor, file: weights.WeightFile | None, name: str) -> bool:
    if file is None or file.shape(name) != tuple(tensor.shape):
        return False
    other = file.tensor(name)
    return torch.equal(other.to(tensor.dtype), tensor)


def tensor_shapes(config: PolicyConfig, stage: str, parts: Sequence[str] = PARTS) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a stage's stored tensors; no weights are made for it.

    In the order of safetensors' own writer, so that equal weights hash equally.
    """
    vlm, expert = _without_memory(config, 0, stage, parts)
    shapes = {
        f"{prefix}.{name}": tuple(tensor.shape)
        for prefix, module in (("vlm", vlm), ("expert", expert))
        for name, tensor in (weights.unique_state(module).items() if module is not None else ())
    }
    return dict(sorted(shapes.items()))


# ---- loading ------------------------------------------------------------------------------------------


def open_files(
    folder: Path, base: str | Path | None = None, verify: bool = True, depth: int = 0
) -> tuple[dict[str, weights.WeightFile], Manifest]:
    """Map of tensor name to the file that holds it, the folder's own before its base's."""
    manifest = read_manifest(folder)
    path = folder / (MODEL_FILE if manifest.base_id is None else ADAPTERS_FILE)
    file = weights.WeightFile(path)
    if verify and weights.sha256(path) != manifest.weights_sha256:
        raise CheckpointError(
            f"{path} does not match the sha256 in its manifest; expected "
            f"{manifest.weights_sha256[:12]}...; the file was changed or damaged: copy it again"
        )
    names = dict.fromkeys(file.names, file)
    if manifest.base_id is None:
        return names, manifest
    if depth > 4:
        raise CheckpointError(f"{folder}: base checkpoints nest deeper than 4; expected a chain that ends")
    below = Path(base) if base is not None else folder / str(manifest.base_path)
    base_names, base_manifest = open_files(below, None, verify, depth + 1)
    if base_manifest.checkpoint_id != manifest.base_id:
        raise CheckpointError(
            f"base {below} has id {base_manifest.checkpoint_id}; expected {manifest.base_id} for "
            f"{folder}; give the base these adapters were trained on"
        )
    return {**base_names, **names}, manifest


def _tokenizer(folder: Path, manifest: Manifest) -> PolicyTokenizer:
    try:
        tokenizer = load_tokenizer(folder)
    except TokenizerError as error:
        raise CheckpointError(str(error)) from error
    expected = (manifest.config.language.vocab_size, manifest.n_queries)
    if (tokenizer.vocab_size, tokenizer.n_queries) != expected:
        raise CheckpointError(
            f"{folder}: tokenizer has {tokenizer.vocab_size} tokens and {tokenizer.n_queries} "
            f"queries; expected {expected[0]} and {expected[1]}; restore its tokenizer.json"
        )
    return tokenizer


def _without_memory(
    config: PolicyConfig, image_token_id: int, stage: str, parts: Sequence[str]
) -> tuple[VisionLanguageModel | None, ActionExpert | None]:
    vlm, expert = None, None
    with torch.device("meta"):
        if "vlm" in parts:
            vlm = VisionLanguageModel(config, image_token_id)
            prepare_for_stage(vlm, stage)
        if "expert" in parts:
            expert = ActionExpert(config)
    return vlm, expert


def _fill(
    module: nn.Module,
    prefix: str,
    files: dict[str, weights.WeightFile],
    folder: Path,
    dtype: torch.dtype,
    device: torch.device | str,
    make_linear: MakeLinear | None = None,
) -> None:
    """Replace the module's meta tensors by those of the files, strictly; `make_linear` as in load_parts."""
    expected = {prefix + name: tensor for name, tensor in weights.unique_state(module).items()}
    weights.check_names(expected, files, folder, (prefix,))
    owners: dict[str, dict[str, Tensor]] = {}  # path of a sub-module -> what it wants, by the files' names
    for name, tensor in expected.items():
        owners.setdefault(name[len(prefix) :].rpartition(".")[0], {})[name] = tensor
    for path, wanted in owners.items():
        owner = module.get_submodule(path)
        state = {name.rpartition(".")[2]: t for name, t in weights.read(wanted, files, dtype, device)}
        owner.load_state_dict(state, strict=False, assign=True)
        if make_linear is not None and isinstance(owner, nn.Linear) and is_large(path, owner):
            above, _, leaf = path.rpartition(".")
            setattr(module.get_submodule(above), leaf, make_linear(owner))


def load_parts(
    folder: str | Path,
    *,
    parts: Sequence[str] = PARTS,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    base: str | Path | None = None,
    verify: bool = True,
    unread: bool = True,
    make_linear: MakeLinear | None = None,
) -> Loaded:
    """Load the named parts, strictly: every tensor there, known, of the right shape, finite.

    `unread` False leaves out weights that no forward pass reads (as released checkpoints hold): for inference.
    `make_linear` makes another kind of layer of each large linear of the VLM as soon as that is read, so that never
    all of them are in memory in both kinds.
    Raises CheckpointError. Modules are built without memory and filled tensor by tensor.
    """
    unknown = set(parts) - set(PARTS)
    if unknown or not parts:
        raise CheckpointError(f"parts {tuple(parts)}; expected some of {PARTS}")
    folder = Path(folder)
    files, manifest = open_files(folder, base, verify)
    tokenizer = _tokenizer(folder, manifest)
    _check_prefixes(files, folder)
    if "expert" in parts and not any(name.startswith("expert.") for name in files):
        raise CheckpointError(
            f"{folder} holds no action expert, a vision-language model alone; expected a whole policy; to train one "
            "from this backbone, import it with the expert's vision tower (checkpoint import --dinov2 FILE)"
        )
    config = manifest.config
    if not unread:
        config = config.without_unread_blocks()
        files = _without_unread(files, config)
    vlm, expert = _without_memory(config, tokenizer.image_token_id, manifest.stage, parts)
    if vlm is not None:
        _fill(vlm, "vlm.", files, folder, dtype, device, make_linear)
        vlm.finish_loading(device)
    if expert is not None:
        _fill(expert, "expert.", files, folder, dtype, device)
    _log.info("loaded %s of checkpoint %s (%s)", tuple(parts), manifest.checkpoint_id, folder)
    return Loaded(manifest, tokenizer, vlm, expert)


def _without_unread(files: dict[str, weights.WeightFile], config: PolicyConfig) -> dict[str, weights.WeightFile]:
    tower = "expert.film_vision_model.vision_model."
    blocks = tower + "blocks."
    return {
        name: file
        for name, file in files.items()
        if not (name.startswith(blocks) and int(name[len(blocks) :].split(".")[0]) >= config.film.depth)
        and (config.film.has_norm or not name.startswith(f"{tower}norm."))
    }


def _check_prefixes(files: dict[str, weights.WeightFile], folder: Path) -> None:
    strange = sorted(name for name in files if not name.startswith(("vlm.", "expert.")))
    if strange:
        raise CheckpointError(
            f"{folder} holds unknown tensor {strange[0]!r}; expected names under vlm. and "
            "expert.; these are not weights of an InstructVLA policy"
        )


def load_policy(
    folder: str | Path, *, device: torch.device | str = "cpu", base: str | Path | None = None
) -> tuple[InstructVLA, PolicyTokenizer, Manifest]:
    """The whole policy in fp32 for training, at the stage it was saved in."""
    loaded = load_parts(folder, device=device, base=base)
    assert loaded.vlm is not None and loaded.expert is not None
    policy = InstructVLA.from_parts(loaded.manifest.config, loaded.vlm, loaded.expert, loaded.manifest.stage)
    return policy, loaded.tokenizer, loaded.manifest

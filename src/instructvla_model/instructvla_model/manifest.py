"""The manifest of a checkpoint folder: everything but the weights, as one JSON file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instructvla_model.config import ConfigError, PolicyConfig, policy_config_from_dict
from instructvla_model.image import ImageError, ImageRecipe, recipe, recipe_from_dict
from instructvla_model.normalization import Statistics, StatisticsError, statistics_from_dict
from instructvla_model.policy import STAGES

MANIFEST_FILE = "manifest.json"
KIND = "instructvla_checkpoint"
FORMAT = 1
ID_OF_WEIGHTS, ID_OF_ALL = 1, 2  # what a checkpoint's id is made from: manifests without the entry have the first


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: what was found, what was expected, how to mend it."""


@dataclass(frozen=True)
class Manifest:
    """Describes one checkpoint. `base_id` and `base_path`: the checkpoint below, if this one is partial."""

    config: PolicyConfig
    stage: str
    vlm_recipe: ImageRecipe
    expert_recipe: ImageRecipe
    statistics: Statistics | None = None
    weights_sha256: str = ""
    storage_dtype: str = "float32"
    base_id: str | None = None
    base_path: str | None = None
    training: dict[str, Any] = field(default_factory=dict)  # free notes of the trainer: steps, data, metrics
    id_of: int = ID_OF_ALL

    @property
    def checkpoint_id(self) -> str:
        """Short name of exactly these weights, used in exactly this way; of the weights alone in older manifests."""
        text = f"{self.weights_sha256}:{self.base_id or ''}"
        if self.id_of != ID_OF_WEIGHTS:
            use = (self.stage, self.config, self.vlm_recipe, self.expert_recipe, self.statistics)
            text += json.dumps(_said(use), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def preset(self) -> str:
        return self.config.name

    @property
    def views(self) -> tuple[str, ...]:
        return self.config.views

    @property
    def horizon(self) -> int:
        return self.config.expert.horizon

    @property
    def dt_s(self) -> float:
        return self.config.dt_s

    @property
    def n_queries(self) -> int:
        return self.config.n_queries

    @property
    def latent_dim(self) -> int:
        return self.config.language.hidden_size

    @property
    def state_dim(self) -> int:
        return self.config.expert.state_dim

    def denormalize(self, actions_FA: np.ndarray) -> np.ndarray:
        """Normalised actions (F, 7) of the flow -> metres, radians, opening 0..1 (float32).

        Raises CheckpointError without statistics.
        """
        if self.statistics is None:
            raise CheckpointError(
                f"checkpoint {self.checkpoint_id} has no action statistics (stage {self.stage!r}); use an expert or "
                "generalist checkpoint"
            )
        steps = self.statistics.action.unnormalize(actions_FA)
        if self.config.binary_gripper:
            steps[:, 6] = np.asarray(actions_FA)[:, 6] >= 0.5
        return steps

    @property
    def parity(self) -> dict[str, Any]:
        """The values in which released checkpoints differ from the paper, for people to read."""
        film, expert = self.config.film, self.config.expert
        return {
            "expert_attention": expert.attention,
            "vision_blocks": film.blocks_used,
            "vision_final_norm": film.final_norm,
            "vlm_recipe": self.vlm_recipe.name,
            "expert_recipe": self.expert_recipe.name,
            "text_cache": self.config.text_cache,
            "sampling_dtype": self.config.flow.state_dtype,
            "binary_gripper": self.config.binary_gripper,
        }


def new_manifest(
    config: PolicyConfig, stage: str, statistics: Statistics | None, training: dict[str, Any] | None = None
) -> Manifest:
    """A manifest with the image recipes that the configuration names."""
    if stage not in STAGES:
        raise CheckpointError(f"stage {stage!r}; expected one of {STAGES}")
    return Manifest(
        config,
        stage,
        recipe(config.vlm_recipe, config.vision.image_size),
        recipe(config.expert_recipe, config.film.image_size),
        statistics,
        training=dict(training or {}),
    )


def _said(value: Any) -> Any:
    """For JSON, without values that are their field's default: a new field with a default leaves every id as it is."""
    if isinstance(value, tuple | list):
        return [_said(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    named: dict[str, Any] = {"": type(value).__name__}
    for entry in dataclasses.fields(value):
        found, default = getattr(value, entry.name), entry.default
        if entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()
        if default is dataclasses.MISSING or found != default:
            named[entry.name] = _said(found)
    return named


def to_dict(manifest: Manifest) -> dict[str, Any]:
    return {
        "kind": KIND,
        "format": FORMAT,
        "checkpoint_id": manifest.checkpoint_id,
        "id_of": manifest.id_of,
        "preset": manifest.preset,
        "stage": manifest.stage,
        "views": list(manifest.views),
        "dt_s": manifest.dt_s,
        "parity": manifest.parity,
        "config": manifest.config.to_dict(),
        "image_recipes": {"vlm": manifest.vlm_recipe.to_dict(), "expert": manifest.expert_recipe.to_dict()},
        "statistics": manifest.statistics.to_dict() if manifest.statistics else None,
        "weights_sha256": manifest.weights_sha256,
        "storage_dtype": manifest.storage_dtype,
        "base_id": manifest.base_id,
        "base_path": manifest.base_path,
        "training": manifest.training,
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps(to_dict(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check a folder's manifest. Raises CheckpointError naming the file and what is wrong."""
    folder = Path(folder)
    if not folder.exists():
        raise CheckpointError(
            f"checkpoint {folder} does not exist; expected a folder with {MANIFEST_FILE}; correct the path"
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"checkpoint {folder} is a file; expected a folder with {MANIFEST_FILE} and "
            "safetensors; pickled files (.pt) are not loaded here, import them first"
        )
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing; expected the manifest of an InstructVLA checkpoint; "
            "point to a checkpoint folder or restore the file"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); expected a manifest; restore the file") from error
    if not isinstance(values, dict) or values.get("kind") != KIND:
        found = values.get("kind") if isinstance(values, dict) else type(values).__name__
        raise CheckpointError(f"{path} is of kind {found!r}; expected {KIND!r}; this is another kind of folder")
    if values.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {values.get('format')!r}; expected {FORMAT}; "
            "use the version of the software that wrote it"
        )
    try:
        manifest = _parse(values)
    except (ConfigError, ImageError, StatisticsError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} lacks or garbles {error}; expected a complete manifest") from error
    if manifest.id_of not in (ID_OF_WEIGHTS, ID_OF_ALL):
        raise CheckpointError(f"{path}: id_of {manifest.id_of!r}; expected 1 or 2; repair the manifest")
    if manifest.stage not in STAGES:
        raise CheckpointError(f"{path}: stage {manifest.stage!r}; expected one of {STAGES}; repair the manifest")
    return manifest


def _text(values: dict[str, Any], name: str, optional: bool = False) -> Any:
    value = values[name]
    if isinstance(value, str) or (optional and value is None):
        return value
    raise ConfigError(f"{name} is {value!r}; expected text{' or null' if optional else ''}; repair the manifest")


def _parse(values: dict[str, Any]) -> Manifest:
    recipes = values["image_recipes"]
    statistics = values["statistics"]
    return Manifest(
        config=policy_config_from_dict(values["config"]),
        stage=_text(values, "stage"),
        vlm_recipe=recipe_from_dict(recipes["vlm"]),
        expert_recipe=recipe_from_dict(recipes["expert"]),
        statistics=statistics_from_dict(statistics) if statistics else None,
        weights_sha256=_text(values, "weights_sha256"),
        storage_dtype=_text(values, "storage_dtype"),
        base_id=_text(values, "base_id", optional=True),
        base_path=_text(values, "base_path", optional=True),
        training=dict(values["training"]),
        id_of=values.get("id_of", ID_OF_WEIGHTS),
    )

"""Load the policy for a node, with messages that say what is wrong with a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.settings import ModelSettings


def load_runtime(settings: ModelSettings, parts: tuple[str, ...]) -> Any:
    """A PolicyRuntime with the given parts; raises SetupError for anything wrong with the checkpoint (F17,
    F19)."""
    if not settings.checkpoint:
        raise SetupError("parameter checkpoint is empty; give the folder of a trained checkpoint")
    path = Path(settings.checkpoint).expanduser()
    if not path.is_dir():
        raise SetupError(
            f"checkpoint {path} does not exist or is no folder; give the folder of a trained checkpoint"
        )
    from instructvla_model.runtime import PolicyRuntime

    threads = settings.torch_threads if settings.torch_threads > 0 else None
    try:
        runtime = PolicyRuntime.load(
            path,
            device=settings.device,
            dtype=settings.dtype,
            parts=parts,
            threads=threads,
            vlm_weights=settings.vlm_weights,
            compiled=settings.compile_vision,
        )
        if "expert" in parts and runtime.manifest.statistics is None:
            raise SetupError(
                f"checkpoint {path} is of stage {runtime.manifest.stage!r} and has no action statistics; "
                "give one of stage expert or generalist"
            )
        # The first passes are slow; they belong to configuring, not to the first second of motion.
        runtime.warm_up()
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, SetupError):
            raise
        raise SetupError(f"checkpoint {path} cannot be loaded: {error}") from error
    return runtime

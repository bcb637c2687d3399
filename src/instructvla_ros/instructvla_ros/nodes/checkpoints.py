"""Load the policy for a node, with messages that say what is wrong with a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instructvla_ros.control.arm import ArmModel, same_kinematics
from instructvla_ros.nodes.managed import SetupError
from instructvla_ros.nodes.settings import ModelSettings
from instructvla_ros.robots import arms


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
        _check_times(runtime.manifest)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, SetupError):
            raise
        raise SetupError(f"checkpoint {path} cannot be loaded: {error}") from error
    except Exception as error:  # values that nobody thought of end in errors of Python and of many libraries
        said = " ".join(str(error).split())
        raise SetupError(
            f"checkpoint {path} cannot be loaded: {type(error).__name__}: {said}; probably its manifest.json holds a "
            "value of a wrong kind: restore the file, or import or train the checkpoint again"
        ) from error
    return runtime


def check_robot(manifest: Any, arm: ArmModel) -> None:
    """Raises SetupError where a checkpoint says that it was trained on another robot than `arm` (F19).

    Robots of the same kinematics (FR3 and Panda) are one. A checkpoint that names no robot is taken.
    """
    trained = getattr(manifest, "training", {}).get("robot", "")
    if not trained or trained == arm.name or (trained in arms() and same_kinematics(arms()[trained], arm)):
        return
    raise SetupError(
        f"checkpoint {manifest.checkpoint_id} was trained on the robot {trained!r}; this graph's arm is {arm.name!r}; "
        f"give a checkpoint of this arm with checkpoint:=..., start the graph of {trained!r}, or fine-tune it on "
        "episodes of this arm (instructvla-train finetune)"
    )


def _check_times(manifest: Any) -> None:
    dt_s = manifest.dt_s
    if isinstance(dt_s, bool) or not isinstance(dt_s, int | float) or not 0.0 < dt_s < float("inf"):
        raise ValueError(f"its dt_s is {dt_s!r}; expected seconds above 0, such as 0.2; correct its manifest.json")

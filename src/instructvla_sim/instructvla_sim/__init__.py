"""Simulated WidowX-250s bench: world, arm with the Interbotix driver's semantics, tasks, demonstrator,
lockstep."""

from instructvla_sim.gl import choose_backend

choose_backend()  # must come before anything imports mujoco

from instructvla_sim.types import (  # noqa: E402
    CAMERAS,
    FAMILIES,
    CameraInfo,
    ObjectState,
    Progress,
    RenderSpec,
    Scene,
    Task,
    WorldConfig,
)
from instructvla_sim.world import World  # noqa: E402

__all__ = [
    "CAMERAS",
    "FAMILIES",
    "CameraInfo",
    "ObjectState",
    "Progress",
    "RenderSpec",
    "Scene",
    "Task",
    "World",
    "WorldConfig",
]

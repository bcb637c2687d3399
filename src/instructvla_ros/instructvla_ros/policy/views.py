"""Which views of the robot a policy looks at, and where the graph shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

IMAGE_TOPICS = {"primary": "camera/image_raw", "wrist": "wrist/image_raw"}
"""The topic of each view, relative to the namespace of the graph."""


def views_of_vlm(manifest: Any) -> tuple[str, ...]:
    """The views that the VLM of a checkpoint looks at: all where it sees them side by side, else the first."""
    views = tuple(manifest.views)
    return views if manifest.config.vlm_input == "side_by_side" else views[:1]


def check_views(views: Sequence[str]) -> None:
    """Raises ValueError where a view has no topic, or the first is not the one whose stamps count."""
    if not set(views) <= set(IMAGE_TOPICS) or list(views[:1]) != ["primary"]:
        raise ValueError(
            f"checkpoint wants the views {tuple(views)}; this node has {tuple(IMAGE_TOPICS)}, first primary; "
            "give a checkpoint that was trained or imported with these"
        )

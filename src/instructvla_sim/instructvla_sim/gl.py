"""Choose the headless OpenGL backend before MuJoCo is imported."""

from __future__ import annotations

import ctypes.util
import logging
import os
import sys

_log = logging.getLogger(__name__)
APT_HINT = "apt-get install -y libegl1 libgl1-mesa-dri (EGL), or libosmesa6 (OSMesa)"


def choose_backend() -> str:
    """Set MUJOCO_GL (and llvmpipe's threads) when unset, and return it.

    EGL with Mesa's software driver first, then OSMesa. When neither library is found nothing is set:
    physics still works, and the first render says what to install.
    """
    os.environ.setdefault("LP_NUM_THREADS", "1")
    backend = os.environ.get("MUJOCO_GL", "")
    if backend or sys.platform != "linux":
        return backend
    for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = name
            if name == "egl":
                os.environ.setdefault("EGL_PLATFORM", "surfaceless")
            return name
    _log.warning("no headless OpenGL library found: cameras cannot render. Mend: %s", APT_HINT)
    return ""


def render_error(cause: Exception) -> RuntimeError:
    """The one message for a renderer that does not start."""
    return RuntimeError(
        f"MuJoCo could not open an OpenGL context (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}): {cause}. "
        f"Expected a software or GPU driver. Mend: {APT_HINT}, and unset MUJOCO_GL."
    )

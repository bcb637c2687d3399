"""MuJoCo's offscreen renderer, freed in the right OpenGL context, thread and moment."""

from __future__ import annotations

import atexit
import functools
import threading
import weakref
from typing import Any

import mujoco

_open: weakref.WeakSet[OffscreenRenderer] = weakref.WeakSet()
_kept: list[tuple[Any, Any]] = []


class OffscreenRenderer(mujoco.Renderer):
    """Belongs to the thread that made it, as its OpenGL context does.

    Names of OpenGL objects are small numbers, the same in every context. What is freed while the context of another
    renderer is current is therefore taken from that one, and its pictures are wrong from then on. So a renderer is
    freed only in its own context. Dropped in another thread, its memory is kept until the process ends.
    """

    _mjr_context: Any
    _gl_context: Any

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        self._owner = threading.current_thread()
        super().__init__(model, height, width)
        _free_before_exit()
        _open.add(self)

    def close(self) -> None:
        """Free everything; also done on garbage collection and before the process ends."""
        context = self._gl_context
        if context is not None and threading.current_thread() is not self._owner:
            _kept.append((self._mjr_context, context))
            self._mjr_context = self._gl_context = None
        elif context is not None:
            context.make_current()
        super().close()


@functools.cache
def _free_before_exit() -> None:
    """Called after the first context was opened: hooks run last in, first out, so this one runs before EGL ends."""
    atexit.register(_free_all)


def _free_all() -> None:
    for renderer in tuple(_open):
        renderer.close()
    for _, context in _kept:
        context.free()

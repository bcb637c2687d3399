"""Choice of the OpenGL backend."""

from __future__ import annotations

import logging

import pytest

from instructvla_sim import gl


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setenv("EGL_PLATFORM", "surfaceless")
    return monkeypatch


def _with_libraries(patch: pytest.MonkeyPatch, *names: str) -> None:
    patch.setattr(gl.ctypes.util, "find_library", lambda name: f"lib{name}.so" if name in names else None)


def test_egl_is_preferred(empty: pytest.MonkeyPatch) -> None:
    _with_libraries(empty, "EGL", "OSMesa")
    assert gl.choose_backend() == "egl"


def test_osmesa_is_the_fallback(empty: pytest.MonkeyPatch) -> None:
    _with_libraries(empty, "OSMesa")
    assert gl.choose_backend() == "osmesa"


def test_a_choice_of_the_user_stands(empty: pytest.MonkeyPatch) -> None:
    empty.setenv("MUJOCO_GL", "glfw")
    _with_libraries(empty, "EGL")
    assert gl.choose_backend() == "glfw"


def test_without_any_library_the_packages_to_install_are_named(
    empty: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _with_libraries(empty)
    with caplog.at_level(logging.WARNING):
        assert gl.choose_backend() == ""
    assert "libegl1 libgl1-mesa-dri" in caplog.text
    assert "libosmesa6" in str(gl.render_error(OSError("no context")))

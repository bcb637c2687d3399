"""A stand-in interface package gives way to the genuine one, also where that is installed after the stand-in."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HELPER = REPOSITORY / "src" / "instructvla_msgs" / "cmake" / "ros_wheels.cmake"
PROJECT = f"""
cmake_minimum_required(VERSION 3.16)
project(control_msgs LANGUAGES NONE)
include({HELPER})
ros_wheels_stand_aside_for_genuine(genuine)
if(genuine)
  return()
endif()
file(WRITE "${{CMAKE_BINARY_DIR}}/library" "")
install(FILES "${{CMAKE_BINARY_DIR}}/library" DESTINATION lib RENAME libcontrol_msgs__rosidl_generator_c.so)
install(FILES "${{CMAKE_BINARY_DIR}}/library" DESTINATION lib RENAME libother_msgs__rosidl_generator_c.so)
install(FILES "${{CMAKE_BINARY_DIR}}/library" DESTINATION lib/python3.12/site-packages/control_msgs/msg)
install(FILES "${{CMAKE_BINARY_DIR}}/library" DESTINATION share/control_msgs RENAME stand_in.xml)
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_a_genuine_package_installed_later_removes_what_was_installed_of_the_stand_in(tmp_path: Path) -> None:
    ros, build, install = tmp_path / "ros", tmp_path / "build", tmp_path / "install"
    (ros / "share").mkdir(parents=True)
    os.utime(ros / "share", (1e9, 1e9))  # ROS 2 is older than the build
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    environment = os.environ | {"AMENT_PREFIX_PATH": f"{install}:{ros}", "CMAKE_PREFIX_PATH": ""}

    def cmake(*words: str) -> str:
        command = ["cmake", *words]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    cmake(*generator, "-S", ".", "-B", str(build), f"-DCMAKE_INSTALL_PREFIX={install}")
    cmake("--build", str(build), "--target", "install")
    assert len([path for path in install.rglob("*") if path.is_file()]) == 4

    (ros / "share" / "control_msgs").mkdir()
    (ros / "share" / "control_msgs" / "package.xml").touch()
    said = cmake("--build", str(build))  # as colcon does: it does not configure again by itself
    assert f"control_msgs: the genuine package in {ros} serves" in said
    assert [path.name for path in install.rglob("*") if path.is_file()] == ["libother_msgs__rosidl_generator_c.so"]

"""The tests start wherever a ROS 2 is sourced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
# The hook of launch_testing before 3.4.12, whose arguments pytest 9 refuses.
OLD_HOOKS = "def pytest_pycollect_makemodule(path, parent):\n    return None\n"


@pytest.mark.parametrize("plugin", ["launch_testing", "launch_ros", "launch_pytest"])
def test_a_pytest_plugin_of_an_installed_ros_that_pytest_refuses_stops_no_test(tmp_path: Path, plugin: str) -> None:
    ros = tmp_path / "ros"
    (ros / f"{plugin}_of_ros-3.4.1.dist-info").mkdir(parents=True)
    (ros / f"{plugin}_of_ros-3.4.1.dist-info" / "METADATA").write_text(f"Name: {plugin}-of-ros\nVersion: 3.4.1\n")
    points = f"[pytest11]\n{plugin} = {plugin}_hooks\n"
    (ros / f"{plugin}_of_ros-3.4.1.dist-info" / "entry_points.txt").write_text(points)
    (ros / f"{plugin}_hooks.py").write_text(OLD_HOOKS)
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(REPOSITORY / "pyproject.toml")]
    command += ["--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path / "test_one.py")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ros), os.environ.get("PYTHONPATH")]))
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and "1 passed" in result.stdout, result.stdout + result.stderr

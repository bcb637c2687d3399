"""The whole workspace builds with colcon, and what ROS's tools look for is where they look."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]
pytest.importorskip("colcon_core", reason="pip install -r requirements/colcon.txt")

WORKSPACE = Path(__file__).parents[1] / "ros2_ws"
PACKAGES = {path.name for path in WORKSPACE.glob("src/*") if path.is_symlink()}
BUILD_TIME_LIMIT_S = 1500


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install folder of a fresh build, made by this environment's Python."""
    folder = tmp_path_factory.mktemp("colcon")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
        "MAKEFLAGS": f"-j{os.cpu_count()}",
    }
    command = [sys.executable, "-m", "colcon", "--log-base", str(folder / "log"), "build"]
    command += ["--build-base", str(folder / "build"), "--install-base", str(folder / "install")]
    result = subprocess.run(
        command, cwd=WORKSPACE, env=environment, capture_output=True, text=True, timeout=BUILD_TIME_LIMIT_S
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return folder / "install"


@pytest.mark.timeout(BUILD_TIME_LIMIT_S + 60)
def test_every_package_of_the_workspace_is_built_and_indexed(install: Path) -> None:
    for name in PACKAGES:
        assert (install / name / "share/ament_index/resource_index/packages" / name).is_file(), name
        assert (install / name / "share" / name / "package.xml").is_file(), name


def test_launch_files_and_parameters_are_where_ros2_launch_looks(install: Path) -> None:
    share = install / "instructvla" / "share" / "instructvla"
    assert {"widowx.launch.py", "sim.launch.py"} <= {path.name for path in share.rglob("*.launch.py")}
    assert list(share.rglob("*.yaml")), "no parameter file is installed"


def test_nodes_are_where_ros2_run_looks(install: Path) -> None:
    folder = install / "instructvla_ros" / "lib" / "instructvla_ros"
    nodes = {path.name for path in folder.iterdir() if path.is_file() and os.access(path, os.X_OK)}
    assert {"reasoning_node", "action_expert_node", "widowx_controller_node"} <= nodes
    assert (install / "instructvla_sim" / "lib" / "instructvla_sim" / "sim_node").is_file()
    first = (folder / "reasoning_node").read_text().splitlines()[0]
    assert first == f"#!{sys.executable}", "a node must start with the Python that has its packages"


def test_the_commands_are_where_a_shell_that_has_sourced_the_workspace_looks(install: Path) -> None:
    script = f". {install}/setup.bash && command -v instructvla instructvla-train && instructvla-train --help"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    found = result.stdout.splitlines()[:2]
    assert found == [f"{install}/instructvla/bin/instructvla", f"{install}/instructvla_training/bin/instructvla-train"]


def test_the_graph_finds_the_checkpoints_that_colcon_has_installed(install: Path) -> None:
    script = f". {install}/setup.bash && {sys.executable} -P -c "
    script += "'from instructvla_ros.graph import files; print(files.__file__, files.resolve_checkpoint(\"\"))'"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, cwd=install)
    checkpoint = install / "instructvla/share/instructvla/checkpoints/nano-generalist"
    module, found = result.stdout.split()
    assert module.startswith(str(install)) and found == str(checkpoint), result.stderr
    assert {path.name for path in checkpoint.iterdir()} == {"manifest.json", "model.safetensors", "tokenizer.json"}


def test_a_shell_that_has_sourced_the_workspace_imports_the_built_messages(install: Path) -> None:
    script = f". {install}/setup.bash && {sys.executable} -c "
    script += "'import instructvla_msgs.msg as m; m.ActionChunk(); print(m.__file__)'"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(install / "instructvla_msgs"))

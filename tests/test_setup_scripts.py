"""The set-up scripts refuse what cannot work, and say how to mend it. Nothing is installed here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = [
    REPOSITORY / name
    for name in ("demo.sh", "test.sh", ".ci/run", "tools/setup.sh", "tools/vendor.sh", "tools/activate.sh")
] + sorted((REPOSITORY / "tools" / "lib").glob("*.sh"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the scripts alone, in which nothing is set up."""
    shutil.copytree(REPOSITORY / "tools", tmp_path / "tools")
    shutil.copytree(REPOSITORY / "requirements", tmp_path / "requirements")
    (tmp_path / "ros2_ws").mkdir()
    shutil.copy(REPOSITORY / "ros2_ws" / "widowx.repos", tmp_path / "ros2_ws")
    for name in ("control_msgs", "interbotix_xs_msgs"):
        package = tmp_path / "ros2_ws" / "src" / "interfaces" / name
        package.mkdir(parents=True)
        (package / "package.xml").touch()
    return tmp_path


def run(command: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a clean environment, apart from PATH, HOME and the given variables."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def run_functions(checkout: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a few lines of bash with the set-up's functions loaded."""
    libraries = "set -euo pipefail; venv=$PWD/.venv; for f in tools/lib/*.sh; do . $f; done; "
    return run(["bash", "-c", libraries + script], checkout, **variables)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_script_is_valid_bash(script: Path) -> None:
    result = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_an_unknown_option_is_refused(checkout: Path) -> None:
    result = run(["tools/setup.sh", "--fast"], checkout)
    assert result.returncode == 1 and "unknown option '--fast'" in result.stderr


def test_wheels_beside_a_sourced_ros_are_refused(checkout: Path) -> None:
    (checkout / "humble" / "share" / "rclpy").mkdir(parents=True)
    prefix = str(checkout / "humble")
    result = run(["tools/setup.sh"], checkout, INSTRUCTVLA_ROS="wheels", AMENT_PREFIX_PATH=prefix)
    assert result.returncode == 1
    assert f"sourced the ROS 2 in {prefix}" in result.stderr and "must not mix" in result.stderr


def test_an_installed_ros_beside_an_environment_with_wheels_is_refused(checkout: Path) -> None:
    (checkout / ".venv/lib/python3.12/site-packages/ros_rclpy-7.1.6.dist-info").mkdir(parents=True)
    (checkout / "jazzy").mkdir()
    (checkout / "jazzy" / "setup.bash").touch()
    result = run(["tools/setup.sh"], checkout, INSTRUCTVLA_ROS_PREFIX=str(checkout / "jazzy"))
    assert result.returncode == 1
    assert "Remove the folder .venv" in result.stderr


@pytest.mark.parametrize(
    ("variables", "source"),
    [
        ({}, "wheels"),
        ({"INSTRUCTVLA_ROS_PREFIX": "jazzy"}, "system"),
        ({"INSTRUCTVLA_ROS_PREFIX": "jazzy", "INSTRUCTVLA_ROS": "wheels"}, "wheels"),
    ],
)
def test_an_installed_ros_serves_where_there_is_one(
    checkout: Path, variables: dict[str, str], source: str
) -> None:
    (checkout / "jazzy").mkdir()
    (checkout / "jazzy" / "setup.bash").touch()
    defaults = {"INSTRUCTVLA_ROS_PREFIX": "/nonexistent"}
    result = run_functions(checkout, 'choose_ros; echo "$ros_source"', **{**defaults, **variables})
    assert result.stdout == f"{source}\n", result.stderr


def test_asking_for_an_installed_ros_that_is_absent_is_refused(checkout: Path) -> None:
    variables = {"INSTRUCTVLA_ROS": "system", "INSTRUCTVLA_ROS_PREFIX": "/nonexistent"}
    result = run(["tools/setup.sh"], checkout, **variables)
    assert result.returncode == 1 and "/nonexistent/setup.bash does not exist" in result.stderr


def test_a_python_out_of_range_is_named_with_the_range(checkout: Path) -> None:
    old = checkout / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = run(["tools/setup.sh"], checkout, PYTHON=str(old), INSTRUCTVLA_ROS_PREFIX="/nonexistent")
    assert result.returncode == 1
    assert str(old) in result.stderr and "3.11 to 3.13" in result.stderr


def test_without_rights_the_one_command_is_printed(checkout: Path) -> None:
    stubs = "missing_system_packages() { printf '%s\\n' g++ libegl1; }; apt-get() { :; }; id() { echo 1000; }; "
    command = "'apt-get update && apt-get install -y --no-install-recommends g++ libegl1'"
    result = run_functions(checkout, stubs + "sudo() { return 1; }; install_system_packages")
    assert result.returncode == 1 and f" sudo sh -c {command}\n" in result.stderr
    without_sudo = run_functions(checkout, stubs + "PATH=/nonexistent; install_system_packages")
    assert without_sudo.returncode == 1 and f" su -c {command}\n" in without_sudo.stderr


def test_nothing_is_installed_when_nothing_is_missing(checkout: Path) -> None:
    stubs = "missing_system_packages() { :; }; apt-get() { echo called; }; "
    result = run_functions(checkout, stubs + "install_system_packages")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


def test_a_step_runs_again_only_when_its_inputs_change_or_it_failed(checkout: Path) -> None:
    script = """
    mkdir -p .venv; echo one > input
    step first "$(hash_of input)" "First" echo ran
    step first "$(hash_of input)" "First" echo ran
    echo two > input
    step first "$(hash_of input)" "First" echo ran
    """
    assert run_functions(checkout, script).stdout.split() == ["ran", "ran"]
    assert run_functions(checkout, 'step second "$(hash_of input)" "Second" false').returncode == 1
    again = run_functions(checkout, 'step second "$(hash_of input)" "Second" echo again')
    assert again.stdout == "again\n", "a step that failed must run again"


def test_a_step_runs_again_when_what_it_makes_is_gone(checkout: Path) -> None:
    script = """
    mkdir -p ros2_ws/build ros2_ws/install; touch ros2_ws/install/setup.bash
    made="ros2_ws/build ros2_ws/install/setup.bash"
    build() { run_again_without workspace $made; step workspace 1 Workspace echo $1; }
    build first; build there; rm -r ros2_ws/install; build gone
    """
    assert run_functions(checkout, script).stdout.split() == ["first", "gone"]
    assert "run_again_without workspace ros2_ws/build" in (REPOSITORY / "tools" / "setup.sh").read_text()


def test_activating_before_the_set_up_says_so(checkout: Path) -> None:
    result = run(["bash", "-c", ". tools/activate.sh"], checkout)
    assert result.returncode == 1 and "run tools/setup.sh first" in result.stderr


def test_activating_without_the_workspace_of_an_installed_ros_says_so(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "ros_source.sh").write_text("instructvla_ros_source=system\ninstructvla_ros_prefix=/ros\n")
    result = run(["bash", "-c", ". tools/activate.sh"], checkout)
    assert result.returncode == 1 and "ros2_ws is not built; run tools/setup.sh first" in result.stderr


def test_a_shell_that_cannot_say_where_the_script_lies_is_not_told_that_nothing_is_set_up(checkout: Path) -> None:
    result = run(["sh", "-c", ". tools/activate.sh"], checkout)
    if "run tools/setup.sh first" in result.stderr:
        pytest.skip("sh is bash here")
    assert result.returncode and "source it from bash or zsh" in result.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_finds_the_environment_too(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "ros_source.sh").write_text("instructvla_ros_source=wheels\ninstructvla_ros_prefix=''\n")
    (checkout / ".venv" / "bin" / "activate").write_text("echo activated\n")
    result = run(["zsh", "-c", "cd tools/lib; . ../activate.sh"], checkout)
    assert (result.returncode, result.stdout) == (0, "activated\n"), result.stderr


def python_stub(path: Path, version: str) -> Path:
    """A stand-in for a Python of this version that writes down how it is asked for an environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!/bin/sh\ncase \"$*\" in *platform*) echo {version} ;; *_base_executable*) echo \"$0\" ;; "
        '*"-m venv"*) echo "$@" ;; esac\n'
    )
    path.chmod(0o755)
    return path


def make_environment(checkout: Path, python: Path) -> subprocess.CompletedProcess[str]:
    return run_functions(checkout, f"ros_source=wheels; python={python}; make_environment")


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/nonexistent/python3.11")
    result = make_environment(checkout, python_stub(checkout / "python", "3.11.7"))
    assert result.stdout == f"-m venv --clear {checkout}/.venv\n", result.stderr


def test_another_python_makes_the_environment_anew_and_says_so_and_the_same_leaves_it(checkout: Path) -> None:
    python_stub(checkout / ".venv" / "bin" / "python", "3.11.7")
    other = make_environment(checkout, python_stub(checkout / "python-new", "3.12.3"))
    assert other.stdout == f"-m venv --clear {checkout}/.venv\n"
    assert "has Python 3.11.7; making it anew with 3.12.3" in other.stderr
    same = make_environment(checkout, python_stub(checkout / "python-same", "3.11.7"))
    assert (same.stdout, same.stderr) == (f"-m venv {checkout}/.venv\n", "")


def test_without_a_wish_the_python_of_the_environment_stays(checkout: Path) -> None:
    mine = python_stub(checkout / ".venv" / "bin" / "python", "3.12.3")
    stubs = checkout / "bin"
    python_stub(stubs / "python3", "3.11.7")
    script = 'ros_source=wheels; choose_python; echo "$python"'
    path = f"{stubs}:{os.environ['PATH']}"
    assert run_functions(checkout, script, PATH=path).stdout == f"{mine}\n"
    assert run_functions(checkout, script, PATH=path, PYTHON=f"{stubs}/python3").stdout == f"{stubs}/python3\n"


def test_the_set_up_is_the_same_from_a_shell_in_which_the_environment_is_active(checkout: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    script = 'ros_source=wheels; choose_python; printf "%s\\n" "$python" "$(identity_of "$python")"'
    plain = run_functions(checkout, script)
    active = run_functions(checkout, script, PATH=f"{checkout}/.venv/bin:{os.environ['PATH']}")
    assert plain.returncode == 0 and active.stdout == plain.stdout, plain.stderr + active.stderr
    assert str(checkout) not in active.stdout, "an environment cannot be made anew by its own Python"
    assert "$(identity_of " in (REPOSITORY / "tools" / "setup.sh").read_text()


@pytest.fixture
def bare(checkout: Path) -> Path:
    """A folder for PATH as on a bare image: a shell, and an apt-get that brings a Python."""
    folder = checkout / "bin"
    folder.mkdir()
    for name in ("bash", "sh", "cat", "chmod", "mkdir", "cp"):
        (folder / name).symlink_to(str(shutil.which(name)))
    (checkout / "Python.h").touch()
    (folder / "g++").write_text("#!/bin/sh\n")
    (folder / "apt-get").write_text(f'#!/bin/sh\necho apt-get "$@"\ncp {checkout}/new-python {folder}/python3\n')
    (checkout / "new-python").write_text(
        f'#!/bin/sh\ncase "$*" in *_base_executable*) echo "$0" ;; *sysconfig*) echo {checkout} ;; esac\n'
    )
    for path in (folder / "g++", folder / "apt-get", checkout / "new-python"):
        path.chmod(0o755)
    return folder


def test_a_machine_without_any_python_gets_the_distributions(checkout: Path, bare: Path) -> None:
    script = 'ros_source=wheels; id() { echo 0; }; choose_python; echo "$python"'
    result = run_functions(checkout, script, PATH=str(bare))
    assert result.returncode == 0 and result.stdout == f"{bare}/python3\n", result.stderr
    wanted = "install -y --no-install-recommends python3 python3-venv python3-dev libegl1"
    assert wanted in result.stderr, result.stderr


def test_without_python_and_rights_the_one_command_names_everything(checkout: Path, bare: Path) -> None:
    (bare / "g++").unlink()
    result = run_functions(checkout, "ros_source=wheels; id() { echo 1000; }; choose_python", PATH=str(bare))
    assert result.returncode == 1
    assert "su -c 'apt-get update && apt-get install -y --no-install-recommends python3 g++" in result.stderr
    assert "python3-venv python3-dev libegl1 " in result.stderr


def test_a_python_that_does_not_fit_is_not_mended_by_installing(checkout: Path, bare: Path) -> None:
    (bare / "python3").write_text("#!/bin/sh\nexit 1\n")
    (bare / "python3").chmod(0o755)
    result = run_functions(checkout, "ros_source=wheels; choose_python", PATH=str(bare))
    assert result.returncode == 1 and "no suitable Python" in result.stderr
    assert "apt-get update" not in result.stderr


def test_a_new_node_or_launch_file_is_installed_by_the_next_set_up_and_a_checkpoint_is_only_linked(
    checkout: Path,
) -> None:
    package = checkout / "src" / "instructvla_ros"
    package.mkdir(parents=True)
    (package / "setup.py").touch()
    (checkout / "launch" / "checkpoints" / "nano-expert").mkdir(parents=True)
    before = run_functions(checkout, "hash_of_packages").stdout
    (checkout / "launch" / "checkpoints" / "nano-expert" / "model.safetensors").touch()
    assert run_functions(checkout, "hash_of_packages").stdout == before
    (package / "setup.py").write_text("new_node")
    after = run_functions(checkout, "hash_of_packages").stdout
    (checkout / "launch" / "new.launch.py").touch()
    assert len({before, after, run_functions(checkout, "hash_of_packages").stdout}) == 3


def test_the_demo_runs_in_the_folder_where_it_is_called(checkout: Path) -> None:
    shutil.copy(REPOSITORY / "demo.sh", checkout)
    (checkout / "tools" / "setup.sh").write_text("#!/bin/sh\n")
    (checkout / "tools" / "activate.sh").write_text(f"PATH={checkout}/bin:$PATH\n")
    python = checkout / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$PWD" "$@"\n')
    python.chmod(0o755)
    (checkout / "elsewhere").mkdir()
    result = run(["../demo.sh", "--output", "mine"], checkout / "elsewhere")
    assert result.stdout == f"{checkout}/elsewhere -P -m instructvla_ros.cli demo --output mine\n", result.stderr


def test_fetching_drivers_of_an_unknown_robot_is_refused(checkout: Path) -> None:
    result = run(["tools/vendor.sh", "ur5"], checkout)
    assert result.returncode == 2 and "found 'ur5', expected widowx or franka" in result.stderr


GENUINE = "ros2_ws/src/vendor/core/interbotix_xs_msgs"


@pytest.fixture
def fetched(checkout: Path) -> Path:
    """The checkout after tools/vendor.sh widowx, with a stand-in for vcs that fetches one package."""
    (checkout / "bin").mkdir()
    vcs = checkout / "bin" / "vcs"
    vcs.write_text('#!/bin/sh\nmkdir -p "$4/core/interbotix_xs_msgs"\ntouch "$4/core/interbotix_xs_msgs/package.xml"\n')
    (checkout / "ros2_ws" / "build" / "interbotix_xs_msgs").mkdir(parents=True)
    vcs.chmod(0o755)
    result = run(["tools/vendor.sh", "widowx"], checkout, PATH=f"{checkout}/bin:{os.environ['PATH']}")
    assert result.returncode == 0, result.stderr
    assert "interbotix_xs_msgs: the genuine package is in the workspace" in result.stdout
    return checkout


def test_fetching_drivers_switches_off_only_the_stand_ins_that_they_replace(fetched: Path) -> None:
    interfaces = fetched / "ros2_ws" / "src" / "interfaces"
    assert [path.parent.name for path in interfaces.glob("*/COLCON_IGNORE")] == ["interbotix_xs_msgs"]
    assert not list((fetched / "ros2_ws" / "build").iterdir()), "CMake would find the stand-in's cache"


def test_the_set_up_builds_the_genuine_interfaces_after_drivers_were_fetched(fetched: Path) -> None:
    (fetched / "jazzy").mkdir()
    (fetched / "jazzy" / "setup.bash").touch()
    (fetched / ".venv" / "bin").mkdir(parents=True)
    python = fetched / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >&2\n')
    python.chmod(0o755)
    left = fetched / "ros2_ws" / "install" / "instructvla_ros" / "lib" / "a_node_that_was_a_file"
    left.parent.mkdir(parents=True)
    left.symlink_to(fetched / "no_more")
    result = run_functions(fetched, f"ros_prefix={fetched}/jazzy; build_workspace")
    assert result.returncode == 0, result.stderr
    built = result.stderr.split()
    assert not left.is_symlink(), "setuptools would write through the link"
    assert GENUINE.removeprefix("ros2_ws/") in built and "src/interfaces/control_msgs" in built
    assert "src/interfaces/interbotix_xs_msgs" not in built


def test_without_the_drivers_the_stand_ins_are_switched_on_again(fetched: Path) -> None:
    shutil.rmtree(fetched / "ros2_ws" / "src" / "vendor")
    result = run_functions(fetched, "switch_stand_ins; workspace_interfaces")
    names = ("control_msgs", "interbotix_xs_msgs")
    assert "the stand-in is switched on" in result.stdout
    assert result.stdout.split()[-2:] == [f"ros2_ws/src/interfaces/{name}" for name in names], result.stderr
    assert not list((fetched / "ros2_ws" / "src" / "interfaces").glob("*/COLCON_IGNORE"))


def test_a_genuine_package_that_apt_has_installed_since_takes_the_place_of_the_stand_in(checkout: Path) -> None:
    for folder in ("build/control_msgs", "install/control_msgs/share", "install/interbotix_xs_msgs"):
        (checkout / "ros2_ws" / folder).mkdir(parents=True)
    share = checkout / "jazzy" / "share" / "control_msgs"
    share.mkdir(parents=True)
    (share / "package.xml").touch()
    script = f"ros_prefix={checkout}/jazzy; switch_stand_ins; switch_stand_ins; workspace_interfaces"
    said, left = run_functions(checkout, script).stdout.splitlines()
    assert said == "control_msgs: the genuine package is installed; the stand-in is switched off"
    assert left == "ros2_ws/src/interfaces/interbotix_xs_msgs"
    assert [path.name for path in (checkout / "ros2_ws" / "install").iterdir()] == ["interbotix_xs_msgs"]
    (share / "stand_in.xml").touch()
    assert "control_msgs: there is no genuine package any more" in run_functions(checkout, script).stdout

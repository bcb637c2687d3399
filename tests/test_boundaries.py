"""What must not be imported where, and what must not appear in the sources at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted(
    file
    for folder in ("src", "training", "launch", "tools", "tests")
    for file in (REPOSITORY / folder).rglob("*.py")
    if not {"build", "install"} & set(file.parts)
)
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
MUST_NOT_BE_INSTALLED = {"timm", "torchvision"}
LINE_LIMIT = 500

# Runs in a fresh interpreter: block some modules, import every module of a package, name the first failure.
IMPORT_ALL = """
import importlib, pkgutil, sys
package = sys.argv[1]
sys.modules.update(dict.fromkeys(sys.argv[2].split(",")))  # None: importing it fails, probing for it does not
root = importlib.import_module(package)
names = [module.name for module in pkgutil.walk_packages(root.__path__, package + ".")]
for name in names:
    importlib.import_module(name)
assert names, f"{package} has no modules"
"""


def import_all(package: str, blocked: str) -> subprocess.CompletedProcess[str]:
    """Import every module of a package in another process in which some modules cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package, blocked], capture_output=True, text=True, timeout=240
    )


def test_the_model_library_imports_without_ros_and_without_the_simulator() -> None:
    ours = "instructvla_msgs,instructvla_ros,instructvla_sim,instructvla_training"
    result = import_all("instructvla_model", f"rclpy,{ours},mujoco,timm,torchvision")
    assert result.returncode == 0, result.stderr


def test_the_control_logic_imports_without_ros_and_without_torch() -> None:
    blocked = "rclpy,torch,transformers,instructvla_msgs,instructvla_model,mujoco"
    result = import_all("instructvla_ros.control", blocked)
    assert result.returncode == 0, result.stderr


def test_blocking_an_import_is_noticed() -> None:
    """The two tests above can fail: blocking what the control logic does need is reported."""
    result = import_all("instructvla_ros.control", "numpy")
    assert result.returncode != 0 and "import of numpy halted" in result.stderr


def imported_modules(tree: ast.AST) -> set[str]:
    """First names of all imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def unsafe_arguments(tree: ast.AST) -> list[str]:
    """Keyword arguments that open a door: shell=True, allow_pickle=True, weights_only=False."""
    unsafe = {("shell", True), ("allow_pickle", True), ("weights_only", False)}
    return [
        f"line {keyword.value.lineno}: {keyword.arg}={keyword.value.value}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in unsafe
    ]


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_source_file_is_safe_and_short(file: Path) -> None:
    source = file.read_text()
    tree = ast.parse(source)
    is_test = bool({"test", "tests"} & set(file.relative_to(REPOSITORY).parts))  # tests hand us bad pickles
    assert imported_modules(tree).isdisjoint(MUST_NOT_BE_INSTALLED | (set() if is_test else PICKLERS))
    assert unsafe_arguments(tree) == []
    lines = source.count("\n")
    assert lines <= LINE_LIMIT, f"{lines} lines; split files that grow over {LINE_LIMIT}"

"""Every package is in order for colcon, for pip and for rosdep."""

import ast
import configparser
import os
import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import setuptools

REPOSITORY = Path(__file__).parents[1]
PACKAGES = sorted(
    path.parent
    for pattern in ("src/*/package.xml", "training/package.xml", "launch/package.xml")
    for path in REPOSITORY.glob(pattern)
)
STAND_INS = sorted(path.parent for path in REPOSITORY.glob("ros2_ws/src/interfaces/*/package.xml"))
PYTHON_PACKAGES = [path for path in PACKAGES if (path / "setup.py").is_file()]

COMMANDS = {"instructvla", "instructvla-train"}  # for people; all other scripts are nodes

# Keys that rosdep resolves for Jazzy on Ubuntu 24.04 without pip. What only pip has (torch, transformers,
# mujoco ...) is installed by tools/setup.sh from requirements/, not by rosdep.
ROSDEP_KEYS = set((Path(__file__).parent / "data" / "rosdep_keys.txt").read_text().split())


def manifest(package: Path) -> ElementTree.Element:
    """The package.xml, parsed."""
    return ElementTree.parse(package / "package.xml").getroot()


def text(root: ElementTree.Element, tag: str) -> str:
    """The text of a tag that must be there."""
    found = root.findtext(tag)
    assert found, f"package.xml lacks <{tag}>"
    return found


def setup_arguments(package: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py hands to setuptools.setup, without building anything."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: seen.append(arguments))
    monkeypatch.chdir(package)
    runpy.run_path("setup.py", run_name="__main__")
    assert len(seen) == 1, "setup.py must call setup() once"
    return seen[0]


def data_files(arguments: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """data_files of setup.py, as plain pairs."""
    return [(str(target), [os.fspath(file) for file in files]) for target, files in arguments["data_files"]]


def dependencies(package: Path) -> set[str]:
    """All names in the *depend tags of a package.xml."""
    tags = ("depend", "exec_depend", "build_depend", "buildtool_depend", "build_export_depend", "test_depend")
    return {element.text or "" for tag in tags for element in manifest(package).findall(tag)}


@pytest.mark.parametrize("package", PACKAGES + STAND_INS, ids=lambda path: path.name)
def test_a_manifest_has_our_version_licence_and_maintainer(package: Path) -> None:
    root = manifest(package)
    assert root.get("format") == "3"
    assert text(root, "version") == "0.1.0"
    assert text(root, "license") == "Apache-2.0"
    maintainer = root.find("maintainer")
    assert maintainer is not None and maintainer.get("email") == "maintainers@example.com"
    assert len(text(root, "description").split()) >= 3


@pytest.mark.parametrize("package", PACKAGES + STAND_INS, ids=lambda path: path.name)
def test_every_dependency_of_a_manifest_is_known_to_rosdep_or_lives_here(package: Path) -> None:
    own = {text(manifest(path), "name") for path in PACKAGES + STAND_INS}
    unknown = dependencies(package) - own - ROSDEP_KEYS
    assert not unknown, f"{package.name}: no such rosdep key: {sorted(unknown)}"


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=lambda path: path.name)
def test_setup_and_manifest_tell_the_same(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, arguments = manifest(package), setup_arguments(package, monkeypatch)
    assert arguments["name"] == text(root, "name")
    assert arguments["version"] == text(root, "version")
    assert arguments["license"] == text(root, "license")
    assert root.findtext("export/build_type") == "ament_python"


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=lambda path: path.name)
def test_a_package_registers_itself_where_ros_looks(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = text(manifest(package), "name")
    files = data_files(setup_arguments(package, monkeypatch))
    assert ("share/ament_index/resource_index/packages", [f"resource/{name}"]) in files
    assert (package / "resource" / name).is_file()
    assert any(target == f"share/{name}" and "package.xml" in sources for target, sources in files)
    absent = [source for _, sources in files for source in sources if not (package / source).is_file()]
    assert not absent, f"data_files that do not exist: {absent}"


def console_scripts(package: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the scripts that an installation makes."""
    points = setup_arguments(package, monkeypatch).get("entry_points", {}).get("console_scripts", [])
    return {point.split("=")[0].strip() for point in points}


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=lambda path: path.name)
def test_commands_land_where_a_shell_looks_and_nodes_where_ros2_run_looks(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, scripts = text(manifest(package), "name"), console_scripts(package, monkeypatch)
    chosen = configparser.ConfigParser()
    chosen.read(package / "setup.cfg")
    # Both: colcon asks one with --symlink-install, the other without.
    folders = {chosen.get("develop", "script_dir", fallback=""), chosen.get("install", "install_scripts", fallback="")}
    if scripts & COMMANDS:
        assert scripts <= COMMANDS and folders == {""}, "only a package without nodes may put its scripts into bin"
    elif scripts:
        assert folders == {f"$base/lib/{name}"}


def test_the_commands_and_the_nodes_are_all_installed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {name for package in PYTHON_PACKAGES for name in console_scripts(package, monkeypatch)}
    nodes = {path.stem for path in REPOSITORY.glob("src/*/*/nodes/*_node.py") if "main" in names_of(path)}
    assert len(nodes) > 5 and installed == COMMANDS | nodes


def test_the_shipped_checkpoints_are_installed_without_what_only_training_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = dict(data_files(setup_arguments(REPOSITORY / "launch", monkeypatch)))
    for folder in (REPOSITORY / "checkpoints").glob("nano-*"):
        installed = {Path(source).name for source in files[f"share/instructvla/checkpoints/{folder.name}"]}
        assert installed == {"manifest.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=lambda path: path.name)
def test_every_entry_point_leads_to_a_function(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = setup_arguments(package, monkeypatch).get("entry_points", {})
    for group in points.values():
        for point in group:
            module, function = re.fullmatch(r"\s*[\w.-]+\s*=\s*([\w.]+):(\w+)\s*", point).groups()  # type: ignore[union-attr]
            (home,) = (path for path in PYTHON_PACKAGES if (path / module.split(".")[0]).is_dir())
            assert home == package or home.name in dependencies(package)
            base = home.joinpath(*module.split("."))
            file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
            assert file.is_file(), f"{point}: there is no {file.relative_to(REPOSITORY)}"
            assert function in names_of(file), f"{point}: {file.name} does not define {function}"


def names_of(file: Path) -> set[str]:
    """Names that a module binds at its top level by def, class, assignment or import."""
    names: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def imported_packages(folder: Path) -> set[str]:
    """First names of all absolute imports in a folder's Python files."""
    found: set[str] = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", PYTHON_PACKAGES, ids=lambda path: path.name)
def test_imports_of_our_own_and_of_ros_packages_are_declared(package: Path) -> None:
    name = text(manifest(package), "name")
    ours = {text(manifest(path), "name") for path in PACKAGES + STAND_INS}
    relevant = (ours | ROSDEP_KEYS) - {name}
    optional = {"cv_bridge", "rosbag2_py", "tf2_ros"}  # used where present, never required
    undeclared = (imported_packages(package / name) & relevant) - dependencies(package) - optional
    assert not undeclared, f"{name} imports {sorted(undeclared)} without declaring it in package.xml"

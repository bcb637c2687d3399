"""The colcon workspace and the requirement lists are in order."""

import os
import re
from pathlib import Path

import pytest
import tomllib
import yaml

REPOSITORY = Path(__file__).parents[1]
WORKSPACE = REPOSITORY / "ros2_ws"
LINKS = sorted(path for path in WORKSPACE.joinpath("src").rglob("*") if path.is_symlink())
INTERFACE_PACKAGES = [REPOSITORY / "src" / "instructvla_msgs", *sorted(WORKSPACE.glob("src/interfaces/*/"))]


def requirements(name: str) -> set[str]:
    """The requirements of one file, without comments and markers."""
    lines = (REPOSITORY / "requirements" / name).read_text().splitlines()
    return {line.split(";")[0].strip() for line in lines if line.strip() and not line.startswith("#")}


@pytest.mark.parametrize("link", LINKS, ids=lambda path: str(path.relative_to(WORKSPACE)))
def test_a_link_of_the_workspace_is_relative_and_leads_to_something_in_the_repository(link: Path) -> None:
    target = os.readlink(link)
    assert not os.path.isabs(target), f"{link} points to {target}: links must be relative"
    assert link.exists(), f"{link} points to {target}, which does not exist"
    assert link.resolve().is_relative_to(REPOSITORY.resolve())


def test_the_workspace_has_every_package_of_the_repository() -> None:
    folders = {path.parent.resolve() for path in REPOSITORY.glob("src/*/package.xml")}
    folders |= {path.parent.resolve() for path in REPOSITORY.glob("*/package.xml")}
    linked = {link.resolve() for link in LINKS}
    assert folders - linked == set(), "packages without a link in ros2_ws/src"


@pytest.mark.parametrize("package", INTERFACE_PACKAGES, ids=lambda path: path.name)
def test_isolated_builds_of_interfaces_use_the_versions_of_the_set_up(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text())
    listed = requirements("ros-build.txt") | requirements("ros-runtime.txt") | {"numpy>=1.26"}
    assert set(project["build-system"]["requires"]) == listed


@pytest.mark.parametrize("package", INTERFACE_PACKAGES, ids=lambda path: path.name)
def test_every_interface_file_is_built(package: Path) -> None:
    files = {f"{kind}/{file.name}" for kind in ("msg", "srv", "action") for file in package.glob(f"{kind}/*")}
    built = set(re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (package / "CMakeLists.txt").read_text()))
    assert files == built


def test_direct_requirements_and_their_locked_versions_agree() -> None:
    locked = dict(line.split("==") for line in requirements("constraints.txt"))
    for name in ("runtime.txt", "dev.txt", "ros-runtime.txt", "ros-build.txt"):
        for requirement in requirements(name):
            package, version = requirement.split("==")
            key = package.split("[")[0].lower().replace("_", "-")
            assert locked.get(key) == version, f"{name}: {requirement}, locked: {locked.get(key)}"


def test_requirements_leave_out_what_breaks_the_cpu_build_of_torch() -> None:
    names = {re.split(r"[=<>\[]", line)[0].lower() for line in requirements("constraints.txt")}
    assert names.isdisjoint({"torchvision", "timm", "lark", "opencv-python"})


@pytest.mark.parametrize("name", ["widowx.repos", "franka.repos"])
def test_a_repos_file_names_git_repositories_with_a_version(name: str) -> None:
    repositories = yaml.safe_load((WORKSPACE / name).read_text())["repositories"]
    assert repositories
    for entry in repositories.values():
        assert entry["type"] == "git" and entry["url"].startswith("https://") and entry["version"]

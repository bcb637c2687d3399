"""The requirement lists hold what the sources import, no less and no more."""

import ast
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("src", "training", "launch")
OWN = (
    {path.name for path in REPOSITORY.glob("ros2_ws/src/*")}
    | {path.name for path in REPOSITORY.glob("ros2_ws/src/interfaces/*")}
    | {"conftest"}
)
FROM_ROS = set((Path(__file__).parent / "data" / "rosdep_keys.txt").read_text().split())
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "PIL": "pillow",
    "google": "protobuf",
    "google_crc32c": "google-crc32c",
    "rerun": "rerun-sdk",
    "yaml": "pyyaml",
}


def listed(*names: str) -> set[str]:
    """Distributions that the requirement files name, in lower case."""
    text = "\n".join((REPOSITORY / "requirements" / name).read_text() for name in names)
    return {match.lower() for match in re.findall(r"^([A-Za-z][\w.-]*)(?:\[\w+\])?==", text, re.MULTILINE)}


def imported() -> dict[str, str]:
    """Distributions that the packages import outside of their tests, each with one file that does."""
    found: dict[str, str] = {}
    for file in (path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")):
        relative = file.relative_to(REPOSITORY)
        if {"test", "build", "install"} & set(relative.parts):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
            if names == ["torch.utils.tensorboard"]:
                names = ["tensorboard"]  # PyTorch does not bring it along
            for name in (name.split(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in OWN | FROM_ROS:
                    found[DISTRIBUTIONS.get(name, name).lower()] = str(relative)
    return found


def test_every_import_is_a_listed_requirement() -> None:
    there = listed("runtime.txt", "torch.txt", "rerun.txt")
    missing = {name: file for name, file in imported().items() if name not in there}
    assert not missing, f"not in requirements/runtime.txt: {missing}"


def test_every_listed_requirement_is_imported() -> None:
    assert listed("runtime.txt", "torch.txt") - set(imported()) == set()


def test_the_notice_names_every_requirement_and_every_asset_that_others_made() -> None:
    notice = (REPOSITORY / "NOTICE").read_text().lower().replace("pytorch", "torch")
    names = listed(*(path.name for path in (REPOSITORY / "requirements").glob("*.txt") if path.stem != "constraints"))
    missing = {name for name in names if name not in notice and not name.startswith("ros-")}
    assert len(names) > 20 and missing == set()
    stand_ins = {path.name for path in (REPOSITORY / "ros2_ws/src/interfaces").iterdir()}
    assert {name for name in stand_ins if name not in notice} == set()
    assert "wx250s/*.stl" in notice and "bsd-3-clause" in notice

"""Write requirements/constraints.txt: the exact version of everything that pip has put into this environment.

Run with the environment's Python after tools/setup.sh --dev, in an environment that holds nothing else:
    .venv/bin/python tools/lock_requirements.py
Left out: torch (its build depends on the machine), pip itself, and this repository's own packages.
"""

import sys
from importlib.metadata import distributions
from pathlib import Path

TARGET = Path(__file__).parent.parent / "requirements" / "constraints.txt"
HEADER = "# Written by tools/lock_requirements.py: exact versions of all direct and indirect requirements.\n"
LEFT_OUT = {"torch", "triton", "pip"}


def is_locked(name: str, installer: str | None, is_local: bool) -> bool:
    """Tell whether a distribution belongs in the file.

    ROS's wheels leave egg-infos behind that no installer has written; they are no distributions of an index.
    """
    from_index = (installer or "").strip() == "pip" and not is_local
    return from_index and name not in LEFT_OUT and not name.startswith(("nvidia-", "colcon-"))


def main() -> int:
    """Write the file and say how many lines it has."""
    lines = set()
    for distribution in distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        is_local = distribution.read_text("direct_url.json") is not None
        if is_locked(name, distribution.read_text("INSTALLER"), is_local):
            lines.add(f"{name}=={distribution.version}\n")
    TARGET.write_text(HEADER + "".join(sorted(lines)))
    sys.stdout.write(f"{TARGET.name}: {len(lines)} versions\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

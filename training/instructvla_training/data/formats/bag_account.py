"""What became of recordings when they were cut into steps: written beside the data, and told on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

REPORT_FILE = "meta/recordings.json"


@dataclass(frozen=True)
class Account:
    """One episode of a bag: runs and steps kept, grid steps left out, the longest holes, the largest and mean
    difference between the stamps of a step and of its oldest image."""

    bag: str
    episode: str
    instruction: str
    success: bool | None
    actions: str
    runs: int
    steps: int
    left_out: int
    longest_camera_gap_s: float
    longest_joint_gap_s: float
    largest_skew_s: float
    mean_skew_s: float


def lines(accounts: Sequence[Account], problems: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The account for people."""
    for one in accounts:
        outcome = {None: "", True: ", marked a success", False: ", marked a failure"}[one.success]
        yield f"{one.bag} {one.episode} “{one.instruction}”{outcome}"
        parts = f" in {one.runs} parts" if one.runs > 1 else ""
        yield (
            f"  {one.steps} steps of {one.actions}{parts}, {one.left_out} left out; longest hole: camera "
            f"{one.longest_camera_gap_s:.2f} s, joints {one.longest_joint_gap_s:.2f} s; skew up to "
            f"{one.largest_skew_s * 1e3:.0f} ms, mean {one.mean_skew_s * 1e3:.0f} ms"
        )
    for bag, found in problems.items():
        for text in found:
            yield f"{bag}: {text}"


def write(folder: Path, dt_s: float, accounts: Sequence[Account], problems: Mapping[str, Sequence[str]]) -> Path:
    """The account as JSON in a dataset's folder."""
    path = folder / REPORT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"dt_s": dt_s, "episodes": [asdict(one) for one in accounts], "problems": problems}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path

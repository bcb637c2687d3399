"""Film, contact sheet and timeline of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")
pytest.importorskip("imageio_ffmpeg")

from instructvla_ros.cli.film import Frame, write_contact_sheet, write_film  # noqa: E402
from instructvla_ros.cli.timeline import Timeline  # noqa: E402


def frames(count: int, level: int, period_s: float = 0.2) -> list[Frame]:
    """Grey JPEG frames."""
    image = np.full((96, 128, 3), level, np.uint8)
    return [Frame(cv2.imencode(".jpg", image)[1].tobytes(), period_s * k) for k in range(count)]


@pytest.fixture
def timeline() -> Timeline:
    made = Timeline()
    made.note("instruction", 0.0, "put the carrot on the plate")
    made.note("reasoning", 0.5, "The carrot is a vegetable.")
    made.note("phase", 0.2, "executing")
    made.note("phase", 1.0, "success")
    return made


def read(path: Path) -> list[np.ndarray]:
    """The frames of a film, RGB."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while True:
        good, image = capture.read()
        if not good:
            return found
        found.append(image[..., ::-1])


def test_a_timeline_tells_what_held_at_a_time(timeline: Timeline) -> None:
    assert [timeline.at("phase", t) for t in (0.0, 0.2, 0.9, 1.0, 9.0)] == ["", "executing", "executing"] + [
        "success"
    ] * 2
    assert timeline.at("unknown", 1.0) == ""
    timeline.note("phase", 1.5, "success")
    assert len(timeline._texts["phase"]) == 2, "a text that does not change is noted once"


def test_the_film_shows_the_scene_the_inset_and_the_captions(tmp_path: Path, timeline: Timeline) -> None:
    assert write_film(tmp_path / "film.mp4", frames(8, 90), frames(4, 220), timeline) == 15
    film = read(tmp_path / "film.mp4")
    assert len(film) == 15 and film[0].shape == (870, 960, 3)
    scene, inset, band = film[-1][600:700, :400], film[-1][40:200, 700:920], film[-1][720:]
    assert abs(float(scene.mean()) - 90) < 12 and abs(float(inset.mean()) - 220) < 12
    assert band.max() > 150, "no caption"
    assert film[-1][720:].astype(int).sum() > film[0][720:].astype(int).sum(), "the reasoning came later"


def test_a_film_without_wrist_camera_has_no_inset(tmp_path: Path, timeline: Timeline) -> None:
    write_film(tmp_path / "film.mp4", frames(3, 90), [], timeline)
    assert abs(float(read(tmp_path / "film.mp4")[0][:700].mean()) - 90) < 12


def test_a_very_long_reasoning_and_strange_letters_fit_the_film_and_the_sheet(tmp_path: Path) -> None:
    timeline = Timeline()
    timeline.note("reasoning", 0.0, "倓劄 " * 200)
    timeline.note("instruction", 0.0, "")
    assert write_film(tmp_path / "film.mp4", frames(2, 90), [], timeline) == 3
    assert write_contact_sheet(tmp_path / "sheet.png", frames(2, 90), timeline, ["word " * 200])


def test_the_contact_sheet_spreads_over_the_whole_run(tmp_path: Path, timeline: Timeline) -> None:
    run = frames(10, 40) + [Frame(f.jpeg, f.time_s + 2.0) for f in frames(10, 200)]
    assert write_contact_sheet(tmp_path / "sheet.png", run, timeline, ["Instruction: x", "Outcome: success"])
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    head = sheet.shape[0] - 2 * 364
    assert sheet.shape[1] == 4 * 440 + 3 * 6 and 60 < head < 200
    assert sheet[head + 20 : head + 300, 20:400].mean() < 60 < 180 < sheet[head + 400 : head + 640, -400:-20].mean()


def test_without_frames_no_film_and_no_sheet_is_written(tmp_path: Path, timeline: Timeline) -> None:
    assert write_film(tmp_path / "film.mp4", [], [], timeline) == 0
    assert not write_contact_sheet(tmp_path / "sheet.png", [], timeline, ["x"])
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_is_cut_off_is_removed(tmp_path: Path, timeline: Timeline) -> None:
    broken = [*frames(3, 90), Frame(b"no picture", 0.6)]
    with pytest.raises(ValueError, match="no JPEG"):
        write_film(tmp_path / "film.mp4", broken, [], timeline)
    assert list(tmp_path.iterdir()) == []

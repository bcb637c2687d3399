"""What a person sees of a run."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from small_stage import CONFIG, SmallStage

from instructvla_training.parallel import Processes
from instructvla_training.refusals import RunError
from instructvla_training.trainer import Trainer
from instructvla_training.watch import Watch


class Wandb:
    """Stands for the package."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict]] = []
        self.started: dict = {}

    def init(self, **options):
        self.started = options
        return SimpleNamespace(log=lambda row, step: self.rows.append((step, row)), finish=lambda: None)


def test_weights_and_biases_gets_the_rows_of_the_log_and_goes_on_in_the_same_run(tmp_path, monkeypatch):
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    Trainer(SmallStage(), CONFIG, tmp_path / "run", watch=Watch(tmp_path / "run", 6, wandb_project="arms")).run()
    assert [step for step, _ in wandb.rows] == [1, 2, 3, 4, 5, 6] and "loss" in wandb.rows[0][1]
    assert (wandb.started["project"], wandb.started["name"], wandb.started["resume"]) == ("arms", "run", "allow")
    first = wandb.started["id"]
    Trainer(SmallStage(), CONFIG, tmp_path / "run", watch=Watch(tmp_path / "run", 6, wandb_project="arms")).run()
    assert wandb.started["id"] == first
    other = tmp_path / "elsewhere" / "run"
    Trainer(SmallStage(), CONFIG, other, watch=Watch(other, 6, wandb_project="arms")).run()
    assert wandb.started["id"] != first


def test_a_missing_package_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RunError, match=r"expected it for --wandb; install it \(pip install wandb\)"):
        Trainer(SmallStage(), CONFIG, tmp_path, watch=Watch(tmp_path, 6, wandb_project="arms")).run()


def test_all_processes_but_the_first_write_nothing(tmp_path):
    watch = Watch(tmp_path / "run", 6, shown=False)
    with watch:
        watch.row({"step": 1, "seconds": 0.1, "loss": 1.0})
    watch.rewind(0)
    assert not (tmp_path / "run").exists()


def test_on_a_terminal_a_bar_shows_rate_loss_and_the_time_that_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Watch(tmp_path, 10, tensorboard=False) as watch:
        watch.row({"step": 4, "seconds": 2.0, "loss": 0.25})
        watch.advance(4)
        assert watch._bar is not None
        task = watch._bar.tasks[0]
        assert (task.completed, task.total, task.fields["loss"]) == (4, 10, 0.25)
    assert "steps/s" in capsys.readouterr().err


def test_texts_and_pictures_go_to_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Watch(tmp_path, 6) as watch:
        watch.row({"step": 3, "seconds": 1.0, "loss": 0.5})
        watch.flush()
        (events,) = (tmp_path / "tensorboard").iterdir()
        assert b"loss" in events.read_bytes(), "a kill now would lose it"
        watch.samples(3, "what it wrote", np.zeros((4, 5, 3), np.uint8))
    seen = EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    assert seen.Scalars("loss")[0].step == 3
    assert b"what it wrote" in seen.Tensors("samples/text/text_summary")[0].tensor_proto.string_val[0]
    assert seen.Images("samples/chunks")[0].width == 5


def test_a_group_of_one_needs_no_processes():
    assert Processes().mean([1.0, 2.0]) == [1.0, 2.0]

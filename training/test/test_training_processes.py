"""Real processes: kill -9 and two processes under torchrun, at the tiny size."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from synthetic import workspace
from tiny_run import recipe

from instructvla_model import checkpoint
from instructvla_training.report import read_log
from instructvla_training.stages.run import run_stage
from instructvla_training.workspace import Workspace

PROGRAM = Path(__file__).with_name("tiny_run.py")
LONGEST_S = 1500.0
"""No run of these tests takes a tenth of it; a busy machine may."""
STAGES = ("base", "expert", "generalist")
STEPS = 9
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 5e-4
"""Relative, in float32, between one process and two after three stages in a row: they sum in another order, and where a
gradient is next to nothing, Adam makes a whole step of its last digits."""


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> bool:
    """True as soon as the condition holds, False where the process ends first."""
    deadline = time.monotonic() + LONGEST_S
    while process.poll() is None:
        if condition():
            return True
        assert time.monotonic() < deadline, "the run came to nothing"
        time.sleep(0.001)
    return False


def _losses(space: Workspace, stage: str) -> np.ndarray:
    return read_log(space.run(stage))["loss"]


def _weights(space: Workspace, stage: str) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in checkpoint.load_policy(space.checkpoint(stage))[0].named_parameters()}


@pytest.mark.timeout(4000)
@pytest.mark.parametrize("stage", [*(pytest.param(stage, marks=pytest.mark.slow) for stage in STAGES[:2]), STAGES[2]])
def test_a_run_killed_at_any_moment_goes_on_from_its_last_save_and_ends_as_if_never_killed(tmp_path, stage):
    whole, killed = workspace(tmp_path / "whole"), Workspace(tmp_path / "killed", "tiny")
    for before in STAGES[: STAGES.index(stage)]:
        run_stage(recipe(before, 1, 1), whole, "cpu", threads=1)
    shutil.copytree(whole.root, killed.root)
    run_stage(recipe(stage, STEPS, 1), whole, "cpu", threads=1)
    run = killed.run(stage)
    moments: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("while it saves its state", lambda: any((run / "state").glob("*.partial"))),
        ("while it writes its checkpoint", lambda: any(run.glob("checkpoint.p*"))),
        ("between two saves", lambda: (run / "log.jsonl").exists() and "8," in (run / "log.jsonl").read_text()),
    )
    command = [sys.executable, str(PROGRAM), str(killed.root), stage, str(STEPS), "1"]
    kills = 0
    for _, condition in moments:
        with subprocess.Popen(command, env=_environment(), stderr=subprocess.DEVNULL) as process:
            if _wait_for(condition, process):
                process.send_signal(signal.SIGKILL)
                kills += 1
    assert kills >= 2, "the moments passed unseen"
    subprocess.run(command, env=_environment(), check=True, timeout=LONGEST_S)
    assert list(_losses(killed, stage)) == list(_losses(whole, stage))
    uninterrupted, after = _weights(whole, stage), _weights(killed, stage)
    assert all(torch.equal(after[name], value) for name, value in uninterrupted.items())


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_no_process_outlives_a_torchrun_that_is_killed_while_they_wait_for_each_other(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(Path(__file__).with_name("stuck_run.py")), str(tmp_path)]
    with subprocess.Popen(command, env=_environment(), stderr=subprocess.DEVNULL) as process:
        assert _wait_for(lambda: len(list(tmp_path.iterdir())) == 2, process), "the processes never started"
        workers = [psutil.Process(int(path.name)) for path in tmp_path.iterdir()]
        process.kill()
    gone, alive = psutil.wait_procs(workers, timeout=LONGEST_S)
    assert len(gone) == 2 and not alive


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_a_process_that_waits_too_long_for_the_other_gives_up(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(Path(__file__).with_name("stuck_run.py")), str(tmp_path), "5"]
    ended = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert ended.returncode != 0 and "imed out" in ended.stderr


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory) -> tuple[Workspace, Workspace]:
    """The same three stages by one process, and by two that share each step's two parts under FSDP2."""
    one, two = workspace(tmp_path_factory.mktemp("one")), workspace(tmp_path_factory.mktemp("two"))
    for stage in STAGES:
        run_stage(recipe(stage, 4, 2), one, "cpu", threads=1)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(PROGRAM), str(two.root), *STAGES, "4", "2"]
    subprocess.run(command, env=_environment(), check=True, timeout=LONGEST_S)  # its workers end with it
    return one, two


@pytest.mark.timeout(4000)
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_with_sharded_weights_train_as_one(one_and_two, stage):
    one, two = one_and_two
    np.testing.assert_allclose(_losses(two, stage), _losses(one, stage), rtol=LOSS_TOLERANCE)
    before, after = _weights(one, stage), _weights(two, stage)
    assert before.keys() == after.keys()
    squares = torch.tensor([[(after[n] - v).square().sum(), v.square().sum()] for n, v in before.items()]).sum(0)
    assert (squares[0] / squares[1]).sqrt() < WEIGHT_TOLERANCE


@pytest.mark.timeout(4000)
def test_under_sharding_only_the_new_rows_of_the_embeddings_move(one_and_two):
    _, two = one_and_two
    before, after = _weights(two, "base"), _weights(two, "generalist")
    for name in ("embed_tokens.weight", "lm_head.weight"):
        full = next(key for key in before if key.endswith(name))
        assert torch.equal(before[full], after[full])
    for name in ("vlm.query_embed", "vlm.query_head"):
        assert bool((before[name] != after[name]).any(dim=1).all()), f"{name}: every new row is trained"


@pytest.mark.timeout(4000)
def test_a_run_of_two_processes_goes_on_in_one(one_and_two):
    one, two = one_and_two
    for space in one_and_two:
        run_stage(recipe("generalist", 6, 2), space, "cpu", threads=1)
    assert list(read_log(two.run("generalist"))["step"]) == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(_losses(two, "generalist"), _losses(one, "generalist"), rtol=LOSS_TOLERANCE)

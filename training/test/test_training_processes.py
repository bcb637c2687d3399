"""Real processes: kill -9 and two processes under torchrun, at the tiny size."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from robot_data import lerobot_v3
from small_stage import CONFIG, train
from synthetic import workspace
from tiny_finetune import run as finetune
from tiny_run import recipe

from instructvla_model import checkpoint
from instructvla_training.report import read_log
from instructvla_training.stages.run import run_stage
from instructvla_training.workspace import Workspace

PROGRAM, FINETUNE = (Path(__file__).with_name(name) for name in ("tiny_run.py", "tiny_finetune.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
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


def _losses(run_dir: Path) -> np.ndarray:
    return read_log(run_dir)["loss"]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in checkpoint.load_policy(folder)[0].named_parameters()}


def _apart(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """How far all weights together are from each other, relative to their size."""
    assert before.keys() == after.keys()
    squares = torch.tensor([[(after[n] - v).square().sum(), v.square().sum()] for n, v in before.items()]).sum(0)
    return float((squares[0] / squares[1]).sqrt())


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
    assert list(_losses(killed.run(stage))) == list(_losses(whole.run(stage)))
    uninterrupted, after = _weights(whole.checkpoint(stage)), _weights(killed.checkpoint(stage))
    assert all(torch.equal(after[name], value) for name, value in uninterrupted.items())


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_no_process_outlives_a_torchrun_that_is_killed_while_they_wait_for_each_other(tmp_path):
    command = [*TORCHRUN, str(Path(__file__).with_name("stuck_run.py")), str(tmp_path)]
    with subprocess.Popen(command, env=_environment(), stderr=subprocess.DEVNULL) as process:
        assert _wait_for(lambda: len(list(tmp_path.iterdir())) == 2, process), "the processes never started"
        workers = [psutil.Process(int(path.name)) for path in tmp_path.iterdir()]
        process.kill()
    gone, alive = psutil.wait_procs(workers, timeout=LONGEST_S)
    assert len(gone) == 2 and not alive


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_a_process_that_waits_too_long_for_the_other_gives_up(tmp_path):
    command = [*TORCHRUN, str(Path(__file__).with_name("stuck_run.py")), str(tmp_path), "5"]
    ended = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert ended.returncode != 0 and "imed out" in ended.stderr


def _on_two_nodes(folders: list[Path]) -> list[subprocess.CompletedProcess[str]]:
    """The small stage, four parts a step, by two nodes of two processes; ``folders``: of each node's run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    nodes = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(4):
        env = _environment() | nodes | {"RANK": str(rank), "LOCAL_RANK": str(rank % 2)}
        command = [sys.executable, str(Path(__file__).with_name("small_stage.py")), str(folders[rank // 2]), "6", "4"]
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    told = [process.communicate(timeout=LONGEST_S)[1] for process in started]
    return [subprocess.CompletedProcess(p.args, p.returncode, "", t) for p, t in zip(started, told, strict=True)]


@pytest.mark.timeout(4000)
def test_two_nodes_that_see_one_folder_train_as_one_process(tmp_path):
    """Weights are sharded within a node and replicated over nodes."""
    ended = _on_two_nodes([tmp_path / "four"] * 2)
    assert all(process.returncode == 0 for process in ended), ended[0].stderr
    train(tmp_path / "one", CONFIG, parts=4)
    np.testing.assert_allclose(_losses(tmp_path / "four"), _losses(tmp_path / "one"), rtol=1e-5)
    assert train(tmp_path / "four", replace(CONFIG, steps=7), parts=4).step == 7  # goes on in one


@pytest.mark.timeout(4000)
def test_nodes_that_do_not_see_one_folder_are_told_before_they_train(tmp_path):
    ended = _on_two_nodes([tmp_path / "first", tmp_path / "second"])
    for process in ended:
        assert process.returncode != 0
        assert "a folder that 2 of 4 processes do not see" in process.stderr
    assert not (tmp_path / "first" / "state").exists()


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory) -> tuple[Workspace, Workspace]:
    """The same three stages by one process, and by two that share each step's two parts under FSDP2."""
    one, two = workspace(tmp_path_factory.mktemp("one")), workspace(tmp_path_factory.mktemp("two"))
    for stage in STAGES:
        run_stage(recipe(stage, 4, 2), one, "cpu", threads=1)
    command = [*TORCHRUN, str(PROGRAM), str(two.root), *STAGES, "4", "2"]
    subprocess.run(command, env=_environment(), check=True, timeout=LONGEST_S)  # its workers end with it
    return one, two


@pytest.mark.timeout(4000)
@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_with_sharded_weights_train_as_one(one_and_two, stage):
    one, two = one_and_two
    np.testing.assert_allclose(_losses(two.run(stage)), _losses(one.run(stage)), rtol=LOSS_TOLERANCE)
    assert _apart(_weights(one.checkpoint(stage)), _weights(two.checkpoint(stage))) < WEIGHT_TOLERANCE


@pytest.mark.timeout(4000)
def test_under_sharding_only_the_new_rows_of_the_embeddings_move(one_and_two):
    _, two = one_and_two
    before, after = _weights(two.checkpoint("base")), _weights(two.checkpoint("generalist"))
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
    np.testing.assert_allclose(_losses(two.run("generalist")), _losses(one.run("generalist")), rtol=LOSS_TOLERANCE)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.timeout(4000)
@pytest.mark.parametrize(("number_type", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
def test_two_processes_fine_tune_on_a_dataset_as_one(one_and_two, tmp_path, number_type, tolerance):
    """But for a small part of the way that the weights went; those that travel as bfloat16 are kept whole."""
    dataset, base = lerobot_v3(tmp_path / "kitchen", episodes=4), one_and_two[0].checkpoint("expert")
    one = finetune(base, dataset, tmp_path / "one", "float32")
    command = [*TORCHRUN, str(FINETUNE), str(base), str(dataset), str(tmp_path / "two"), number_type]
    subprocess.run(command, env=_environment(), check=True, timeout=LONGEST_S)
    two = tmp_path / "two" / "checkpoint"
    np.testing.assert_allclose(_losses(two.parent), _losses(one.parent), rtol=tolerance / 10)
    by_one, by_two = _weights(one), _weights(two)
    assert _apart(by_one, by_two) < tolerance * _apart(_weights(base), by_one)
    rows = by_two["vlm.query_embed"]
    assert bool((rows.bfloat16().float() != rows).any())

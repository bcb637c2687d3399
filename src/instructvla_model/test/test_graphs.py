"""Recorded work: one recording for each set of shapes, fresh inputs for each replay, outputs of one's own."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from instructvla_model import graphs
from instructvla_model.graphs import Graphed, _on_device_of


class Recorder:
    """Stands in for CUDA: replaying runs the work again into the same output tensor."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, work):
        self.recorded += 1
        output = work().clone()

        def replay():
            output.copy_(work())

        return replay, output


def test_replays_see_new_inputs_and_return_outputs_of_their_own():
    recorder = Recorder()
    graphed = Graphed(lambda x, y, z: x + y if z is None else x + y + z, recorder)
    one, two = torch.ones(2), torch.full((2,), 2.0)
    first, second = graphed(one, one, None), graphed(two, one, None)
    assert (first.tolist(), second.tolist()) == ([2.0, 2.0], [3.0, 3.0])
    assert recorder.recorded == 1
    assert graphed(two, one, one).tolist() == [4.0, 4.0]
    assert graphed(torch.ones(3), torch.ones(3), None).tolist() == [2.0] * 3
    assert recorder.recorded == 3


def test_inputs_are_left_as_they_are():
    given = torch.zeros(2)
    Graphed(lambda x: x.add_(1.0), Recorder())(given)
    assert given.tolist() == [0.0, 0.0]


def test_the_gpu_of_the_inputs_is_the_current_one(monkeypatch):
    entered = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device) or nullcontext())
    with _on_device_of((None, SimpleNamespace(device=torch.device("cuda:1")))):
        pass
    with _on_device_of((torch.ones(1), None)):
        pass
    assert entered == [torch.device("cuda:1")]


def test_all_work_is_recorded_and_replayed_on_the_device_of_the_inputs(monkeypatch):
    current, seen = ["first"], []

    @contextmanager
    def on_theirs(inputs):
        current.append("theirs")
        yield
        current.pop()

    def record(work):
        seen.append(current[-1])
        output = work()
        return lambda: seen.append(current[-1]), output

    monkeypatch.setattr(graphs, "_on_device_of", on_theirs)
    graphed = Graphed(lambda x: x * 2.0, record)
    for _ in range(2):
        graphed(torch.ones(2))
    assert seen == ["theirs"] * 3 and current == ["first"]  # a recording and two replays


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_gpu_that_is_not_the_current_one_replays_on_itself():
    graphed = Graphed(lambda x: x * 2.0)
    for value in (1.0, 2.0):
        assert graphed(torch.full((3,), value, device="cuda:1")).tolist() == [2.0 * value] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_replays_equal_plain_runs():
    weight = torch.randn(8, 8, device="cuda")
    graphed = Graphed(lambda x: torch.relu(x @ weight))
    for seed in range(3):
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)).cuda()
        torch.testing.assert_close(graphed(x), torch.relu(x @ weight))

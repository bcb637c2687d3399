"""A model node, live, with checkpoints that are missing, cut short, of another kind, or good."""

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]
pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")
pytest.importorskip("interbotix_xs_msgs.msg")

from lifecycle_msgs.msg import Transition  # noqa: E402

if TYPE_CHECKING:
    from live_graph import LiveGraph

NODE = "action_expert_node"


def beside(name: str) -> ModuleType:
    """A module of this folder: tests are no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint."""
    folder = tmp_path_factory.mktemp("good")
    beside("random_checkpoint").write(folder, "tiny", "expert")
    return folder


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, new_ros_domain: Callable[[], int]) -> "Iterator[LiveGraph]":
    """The action expert's node alone, not configured."""
    live = beside("live_graph")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(new_ros_domain()))
        with live.LiveGraph(tmp_path_factory.mktemp("node"), {NODE}) as made:
            yield made


def refusal(graph: "LiveGraph", checkpoint: Path | str) -> str:
    """What the node says when it is to be configured with this checkpoint."""
    assert graph.set(NODE, checkpoint=str(checkpoint))[0].successful
    assert not graph.transition(NODE, Transition.TRANSITION_CONFIGURE)
    assert graph.until(lambda: str(checkpoint) in graph.diagnosis(NODE)), graph.log()
    return graph.diagnosis(NODE)


def test_f17_without_a_checkpoint_the_node_says_so(graph: "LiveGraph") -> None:
    assert not graph.transition(NODE, Transition.TRANSITION_CONFIGURE)
    assert graph.until(lambda: "parameter checkpoint is empty" in graph.diagnosis(NODE)), graph.log()


def test_f17_a_checkpoint_that_does_not_exist_is_named(graph: "LiveGraph", tmp_path: Path) -> None:
    assert "does not exist" in refusal(graph, tmp_path / "nowhere")


def test_f17_an_empty_folder_is_no_checkpoint(graph: "LiveGraph", tmp_path: Path) -> None:
    assert "manifest.json" in refusal(graph, tmp_path)


def test_f17_truncated_weights_are_noticed(graph: "LiveGraph", good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "model.safetensors" in refusal(graph, tmp_path)


def test_f17_a_damaged_tokenizer_is_noticed(graph: "LiveGraph", good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert "tokenizer" in refusal(graph, tmp_path)


def test_f19_a_folder_of_something_else_is_refused(graph: "LiveGraph", tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"kind": "recipe"}', encoding="utf-8")
    assert "instructvla_checkpoint" in refusal(graph, tmp_path)


def test_a_transition_that_the_state_does_not_allow_is_refused_and_does_not_end_the_node(graph: "LiveGraph") -> None:
    assert not graph.transition(NODE, Transition.TRANSITION_DEACTIVATE)
    assert graph.until(lambda: "refused: the node is unconfigured" in graph.log())
    graph.check()


def test_after_all_that_a_good_checkpoint_still_loads(graph: "LiveGraph", good: Path) -> None:
    assert graph.set(NODE, checkpoint=str(good))[0].successful
    assert graph.transition(NODE, Transition.TRANSITION_CONFIGURE), graph.log()
    assert graph.until(lambda: graph.diagnosis(NODE) == "inactive")
    assert "Traceback" not in graph.log()

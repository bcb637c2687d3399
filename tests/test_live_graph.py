"""The whole graph, live: every node in its own process, a simulated robot, a real instruction, over DDS.

The checkpoint has random weights, so nothing here asks for skill. The tests share one graph and run in order.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]
pytest.importorskip("rclpy")
pytest.importorskip("instructvla_msgs.msg")
pytest.importorskip("interbotix_xs_msgs.msg")

from instructvla_msgs.msg import SafetyState  # noqa: E402
from instructvla_ros.cli import main as cli  # noqa: E402

if TYPE_CHECKING:
    from live_graph import LiveGraph


def beside(name: str) -> ModuleType:
    """A module of this folder: tests are no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


INSTRUCTION = "put the carrot on the plate"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, new_ros_domain: Callable[[], int]) -> "Iterator[LiveGraph]":
    """The graph with a tiny random checkpoint, on a ROS domain of its own, up and active."""
    folder = tmp_path_factory.mktemp("live")
    beside("random_checkpoint").write(folder / "checkpoint", "tiny")
    live = beside("live_graph")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(new_ros_domain()))
        with live.LiveGraph(folder, checkpoint=str(folder / "checkpoint"), task_instruction=INSTRUCTION) as made:
            active = made.until(lambda: "all nodes are active" in made.log(), live.START_LIMIT_S)
            assert active, made.log()
            yield made


def test_an_idle_graph_holds_still(graph: "LiveGraph") -> None:
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_IDLE), graph.safety().reason
    goals = graph.goals(5)
    assert np.ptp(goals, axis=0).max() < 1e-6
    assert not graph.heard["action_chunk"] and not graph.heard["latent_action"]
    assert graph.status()["instruction"] == INSTRUCTION


def test_an_instruction_becomes_text_latents_chunks_deltas_and_joint_goals(graph: "LiveGraph") -> None:
    answer = graph.say(INSTRUCTION)
    assert answer.accepted and answer.instruction_id == 1
    for topic in ("latent_action", "action_chunk", "ee_delta"):
        assert graph.until(lambda t=topic: len(graph.heard[t]) >= 3), f"{topic}\n{graph.log()}"
    latent, chunk, step = (graph.heard[topic][-1] for topic in ("latent_action", "action_chunk", "ee_delta"))
    assert latent.instruction_id == chunk.instruction_id == step.instruction_id == 1
    assert latent.n_queries == 4 and len(latent.data) > 0 and len(latent.gate_mean) > 0
    assert chunk.horizon == 4 and len(chunk.delta_xyz_m) == 12
    assert chunk.header.frame_id == "wx250s/base_link"
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_EXECUTING), graph.safety().reason
    assert graph.until(lambda: np.ptp(graph.goals(5), axis=0).max() > 1e-5), "the joint goals do not move"


def test_the_reasoning_is_streamed_and_final_at_the_end(graph: "LiveGraph") -> None:
    assert graph.until(lambda: any(m.final and m.n_tokens for m in graph.heard["reasoning"])), graph.log()
    first = next(m for m in graph.heard["reasoning"] if m.n_tokens)
    texts = [m for m in graph.heard["reasoning"] if m.seq == first.seq]
    assert len(texts) >= 2 and not texts[0].final, "the text came in one piece"
    counts = [m.n_tokens for m in texts]
    assert counts == sorted(counts)
    assert all(m.instruction == INSTRUCTION for m in texts)


def test_the_latents_name_an_image_and_the_chunks_their_latent(graph: "LiveGraph") -> None:
    def pairs() -> list[tuple[Any, Any]]:
        # This listener keeps one latent: on a busy machine it may miss some.
        latents = {latent.seq: latent for latent in tuple(graph.heard["latent_action"])}
        chunks = tuple(graph.heard["action_chunk"])
        return [(chunk, latents[chunk.latent_seq]) for chunk in chunks if chunk.latent_seq in latents]

    assert graph.until(lambda: len(pairs()) >= 3)
    assert all(chunk.instruction_id == latent.instruction_id for chunk, latent in pairs())
    chunks = graph.news("action_chunk", 2)
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in chunks]
    assert stamps[1] > stamps[0] > 0.0


@pytest.mark.parametrize("text", ["", "   ", "x" * 5000, "pick up\nthe can", "pick \ufffd up"])
def test_f20_a_bad_instruction_is_refused_with_words_and_changes_nothing(graph: "LiveGraph", text: str) -> None:
    before = graph.safety().instruction_id
    answer = graph.say(text)
    assert not answer.accepted and "instruction" in answer.message
    graph.news("action_chunk")
    assert graph.safety().instruction_id == before


def test_f20_bytes_that_are_not_text_are_refused_on_the_command_line(
    graph: "LiveGraph", capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["say", os.fsdecode(b"pick up \xff\xfe")]) == 1
    assert "not valid UTF-8" in capsys.readouterr().err


def test_a_new_instruction_takes_over(graph: "LiveGraph") -> None:
    answer = graph.say("pick up the carrot", think=False)
    assert answer.accepted and answer.instruction_id == 2
    assert graph.until(lambda: graph.heard["action_chunk"][-1].instruction_id == 2)
    assert graph.until(lambda: graph.status()["instruction"] == "pick up the carrot")


def test_f01_when_the_camera_stops_the_arm_holds_and_goes_on_when_it_is_back(graph: "LiveGraph") -> None:
    assert graph.set("sim/sim_node", fault="no_primary_images")[0].successful
    assert "image" in graph.holds("F01").reason
    graph.goals(10)
    assert np.ptp(graph.goals(10), axis=0).max() < 1e-6
    graph.set("sim/sim_node", fault="none")
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_EXECUTING), graph.safety()


def test_f05_a_joint_state_with_nan_makes_the_arm_hold(graph: "LiveGraph") -> None:
    graph.set("sim/sim_node", fault="nan_joint_states")
    assert "finite" in graph.holds("F05").reason
    assert np.isfinite(graph.goals(5)).all()
    graph.set("sim/sim_node", fault="none")
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_EXECUTING), graph.safety()


def test_the_command_line_shows_the_graph(graph: "LiveGraph", capsys: pytest.CaptureFixture[str]) -> None:
    def shows(*words: str) -> str:
        assert cli.main(words) == 0
        return capsys.readouterr().out

    # Both listen for a moment only: on a busy machine a node may not have been found by then.
    assert graph.until(lambda: "instructvla/sim/sim_node" in (said := shows("status")) and "nodes are active" in said)
    assert graph.until(lambda: "pick up the carrot" in shows("watch", "--seconds", "1.5"))


def test_f22_stop_holds_until_reset_and_ends_the_instruction(graph: "LiveGraph") -> None:
    assert cli.main(["stop"]) == 0
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_STOPPED)
    graph.goals(3)
    assert np.ptp(graph.goals(10), axis=0).max() < 1e-6
    assert graph.until(lambda: "stopped" in graph.say("pick up the can").message)
    assert cli.main(["reset"]) == 0
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_IDLE), graph.safety()
    assert graph.quiet("ee_delta", 1.0)


def test_another_scene_can_be_set_while_the_graph_runs(graph: "LiveGraph", capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["scene", "--seed", "9", "--instruction", "put the lemon in the bowl"]) == 0
    assert "scene 9" in capsys.readouterr().out
    assert graph.until(lambda: graph.status()["scene"] == 9)
    # That the stop is over reaches the reasoning node in its own time.
    assert graph.until(lambda: graph.say("put the lemon in the bowl").accepted)
    assert graph.until(lambda: graph.safety().mode == SafetyState.MODE_EXECUTING), graph.safety()
    assert graph.status()["success"] is False


def test_the_graph_ends_cleanly_and_leaves_no_process_behind(graph: "LiveGraph") -> None:
    graph.check()
    graph.supervisor.shutdown()
    assert not [name for name, pid in graph.pids.items() if Path(f"/proc/{pid}").exists()]
    assert "Traceback" not in graph.log(), graph.log()

"""Stand-ins for the model library's runtime and for action servers, importable by tests and by processes that tests
start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from instructvla_ros.control.types import ActionChunk


@dataclass(frozen=True)
class FakeThought:
    """The fields of a Thought that are used."""

    text: str
    final: bool
    n_tokens: int


@dataclass
class FakeClock:
    """A clock that moves only when told to."""

    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class FakeThread:
    """An owner thread that does nothing: the test steps."""

    def wake(self) -> None:
        """Nobody sleeps."""

    def stop(self) -> bool:
        """It has ended."""
        return True


@dataclass
class FakeRuntime:
    """Writes one word per token, each taking `token_s` on the clock; latents and chunks are constant."""

    clock: Callable[[], float] = field(default_factory=FakeClock)
    words: tuple[str, ...] = ("move", "to", "the", "carrot")
    token_s: float = 0.1
    latent_s: float = 0.02
    final: bool = True
    on_token: Callable[[int], None] = lambda _: None
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    chunk_value: float = 0.01
    stage: str = "generalist"
    views: tuple[str, ...] = ("primary",)
    vlm_input: str = "first_view"
    make_latents: Callable[[], Any] = lambda: np.zeros((2, 4), np.float32)

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(
            stage=self.stage,
            views=self.views,
            config=SimpleNamespace(vlm_input=self.vlm_input),
            horizon=8,
            dt_s=0.2,
            n_queries=2,
            latent_dim=4,
            state_dim=8,
            checkpoint_id="fake",
            preset="nano",
        )

    def _spend(self, seconds: float) -> None:
        if isinstance(self.clock, FakeClock):
            self.clock.advance(seconds)

    def think(self, image: np.ndarray, instruction: str, **options: Any) -> Iterator[FakeThought]:
        self.calls.append(("think", {"instruction": instruction, **options}))
        for count in range(1, len(self.words) + 1):
            self._spend(self.token_s)
            self.on_token(count)
            yield FakeThought(" ".join(self.words[:count]), self.final and count == len(self.words), count)

    def latents(self, image: np.ndarray, instruction: str, thought: Any, **options: Any) -> Any:
        self._spend(self.latent_s)
        text = "" if thought is None else thought.text
        self.calls.append(("latents", {"text": text, "image": int(image.flat[0]), **options}))
        return SimpleNamespace(
            latents=self.make_latents(),
            stamp_s=options["stamp_s"],
            instruction_id=options["instruction_id"],
            seq=options["seq"],
            gate_mean=(0.75, 0.25),
            text=text,
        )

    def act(self, observation: Any, plan: Any, *, seed: int | None, seq: int) -> ActionChunk:
        self.calls.append(("act", {"seed": seed, "seq": seq, "state": observation.state}))
        xyz = np.zeros((8, 3))
        xyz[:, 0] = self.chunk_value
        return ActionChunk(
            xyz,
            np.zeros((8, 3)),
            np.ones(8),
            0.2,
            observation.stamp_s,
            plan.instruction_id,
            seq,
            plan.seq,
        )


class Answer:
    """A future that the test answers."""

    def __init__(self) -> None:
        self.value: Any = None
        self.callbacks: list[Any] = []

    def add_done_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def answer(self, value: Any) -> None:
        self.value = value
        for callback in self.callbacks:
            callback(self)

    def exception(self) -> None:
        return None

    def result(self) -> Any:
        return self.value

    def done(self) -> bool:
        return self.value is not None


class Goal:
    """A goal that an action server has accepted, or refused."""

    def __init__(self, accepted: bool = True) -> None:
        self.accepted, self.cancelled, self.ended = accepted, False, Answer()

    def cancel_goal_async(self) -> None:
        self.cancelled = True

    def get_result_async(self) -> Answer:
        return self.ended


class FakeActions:
    """In place of rclpy's ActionClient: remembers all goals of all actions in order."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, Answer]] = []

    def __call__(self, _: Any, kind: Any, name: str) -> Any:
        def send(goal: Any) -> Answer:
            self.sent.append((name.rsplit("/", 1)[-1], goal, Answer()))
            return self.sent[-1][2]

        return SimpleNamespace(
            server_is_ready=lambda: True,
            wait_for_server=lambda timeout_s: True,
            send_goal_async=send,
            destroy=lambda: None,
        )

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.sent]

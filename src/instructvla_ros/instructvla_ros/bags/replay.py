"""Feed a bag's observations to the policy, as the live graph would have, and keep what it would have done.

The workers, their schedules and parameters, and the way from message to frame and state are those of the live nodes.
Time is the recorder's receive time; on it the model takes no time at all. The same bag, checkpoint and seed give the
same predictions bit for bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.episodes import Episode, find_episodes
from instructvla_ros.bags.events import EventReader, ImageEvent, JointEvent
from instructvla_ros.bags.parameters import parameter_values
from instructvla_ros.bags.roles import Roles, find_roles
from instructvla_ros.bags.truth import Truth, same_duration
from instructvla_ros.control.arm import ArmModel
from instructvla_ros.nodes.settings import expert_config, reasoning_config
from instructvla_ros.policy.instructions import Instruction
from instructvla_ros.policy.offline import OfflinePolicy
from instructvla_ros.policy.reasoning_worker import ReasoningUpdate

_IMAGES_KNOWN = 4096
"""So many of the newest images are known by their stamps: what looks at one does it long before."""


@dataclass(frozen=True)
class ReplayOptions:
    """`instruction` replaces what the bag says; `topics` maps roles to topics; `actions` is a source of `truth`;
    `parameters` replaces values of policy.yaml by node name. `think` None follows what was recorded."""

    seed: int = 0
    instruction: str = ""
    think: bool | None = None
    actions: str = "auto"
    topics: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """One chunk of one policy: (F, 7) actions from `stamp_s` on, and what it was made from. `received_s` is when the
    recorder received the image of that stamp."""

    episode: int
    stamp_s: float
    received_s: float
    dt_s: float
    actions: np.ndarray
    latent_age_s: float
    seq: int
    latent_seq: int


@dataclass(frozen=True)
class Text:
    """A complete text that a policy wrote; stamp and receive time of the image it is about."""

    episode: int
    stamp_s: float
    received_s: float
    text: str


@dataclass(frozen=True)
class PolicyRun:
    """What one checkpoint did over a bag."""

    name: str
    checkpoint_id: str
    stage: str
    dt_s: float
    horizon: int
    predictions: tuple[Prediction, ...]
    texts: tuple[Text, ...]
    failures: Mapping[str, int]


@dataclass(frozen=True)
class ReplayResult:
    """One bag replayed through one or more checkpoints."""

    roles: Roles
    episodes: tuple[Episode, ...]
    truth: Truth
    runs: tuple[PolicyRun, ...]
    frames: int


class PolicyReplay:
    """One checkpoint on the replay's clock, which the events move."""

    def __init__(self, name: str, runtime: Any, options: ReplayOptions, arm: ArmModel) -> None:
        manifest = runtime.manifest
        self.name, self._manifest = name, manifest
        self._now_s = 0.0
        self._episode, self._instruction_id = -1, 0
        self._latent_stamps: dict[int, float] = {}
        self._received_s: dict[float, float] = {}  # of the newest images, by stamp
        self._predictions: list[Prediction] = []
        self._texts: list[Text] = []
        self._failures: dict[str, int] = {}
        replaced = options.parameters
        reasoning = reasoning_config(
            parameter_values("reasoning_node", replaced.get("reasoning_node", {})), manifest.stage
        )
        values = parameter_values("action_expert_node", replaced.get("action_expert_node", {}))
        expert = expert_config(values | {"seed": options.seed}, tuple(manifest.views), manifest.state_dim > 0)
        self._policy = OfflinePolicy(
            runtime, lambda: self._now_s, reasoning, expert,
            on_chunk=self._on_chunk, on_text=self._on_text, on_latent=self._on_latent, arm=arm,
        )  # fmt: skip

    def begin(self, episode: Episode, think: bool) -> None:
        """Follow an episode's instruction."""
        self._now_s, self._episode = episode.start_ns * 1e-9, episode.index
        # The recorded graph may have been started again and count anew; this policy was not, and an end takes a number.
        self._instruction_id = max(episode.instruction_id, self._instruction_id + 2)
        self._policy.follow(Instruction(episode.instruction, self._instruction_id, think))
        self._work()

    def end(self) -> None:
        """The episode is over."""
        self._policy.cancel()

    def on_event(self, event: ImageEvent | JointEvent) -> None:
        """Store it as a callback would, then do what is due."""
        self._now_s = event.received_ns * 1e-9
        if isinstance(event, ImageEvent):
            if event.view in ("primary", self._manifest.views[0]):
                self._received_s.pop(event.frame.stamp_s, None)
                self._received_s[event.frame.stamp_s] = self._now_s
                if len(self._received_s) > _IMAGES_KNOWN:
                    del self._received_s[next(iter(self._received_s))]
            self._policy.offer_image(event.view, event.frame)
            self._work()
        else:
            self._policy.offer_joints(event.sample)

    def result(self) -> PolicyRun:
        """Everything up to now."""
        manifest = self._manifest
        return PolicyRun(
            self.name, str(manifest.checkpoint_id), str(manifest.stage), float(manifest.dt_s), int(manifest.horizon),
            tuple(self._predictions), tuple(self._texts), dict(self._failures),
        )  # fmt: skip

    def _work(self) -> None:
        try:
            self._policy.work()
        except (RuntimeError, ValueError) as error:
            self._failures[str(error)] = self._failures.get(str(error), 0) + 1

    def _on_text(self, update: ReasoningUpdate) -> None:
        if update.final and update.text:
            self._texts.append(Text(self._episode, update.stamp_s, self._reception_s(update.stamp_s), update.text))

    def _on_latent(self, plan: Any) -> None:
        self._latent_stamps[int(plan.seq)] = float(plan.stamp_s)

    def _on_chunk(self, chunk: Any) -> None:
        actions = np.column_stack([chunk.delta_xyz_m, chunk.delta_rpy_rad, chunk.gripper]).astype(np.float32)
        age_s = chunk.stamp_s - self._latent_stamps[int(chunk.latent_seq)]
        self._predictions.append(
            Prediction(
                self._episode, chunk.stamp_s, self._reception_s(chunk.stamp_s), float(chunk.dt_s), actions, age_s,
                int(chunk.seq), int(chunk.latent_seq),
            )
        )  # fmt: skip

    def _reception_s(self, stamp_s: float) -> float:
        return self._received_s.get(stamp_s, self._now_s)


def replay(
    bag: Bag,
    runtimes: Mapping[str, Any],
    options: ReplayOptions,
    on_progress: Callable[[float], None] = lambda _: None,
) -> ReplayResult:
    """Replay a bag through checkpoints (name -> PolicyRuntime), all in one pass. Raises BagError, ValueError.

    `on_progress` hears the share of the bag that is done, 0 to 1.
    """
    decoder = Decoder(bag)
    roles = find_roles(bag, options.topics)
    episodes = find_episodes(bag, decoder, roles, options.instruction)
    views = {view for runtime in runtimes.values() for view in runtime.manifest.views}
    missing = [view for view in sorted(views) if not getattr(roles, view)]
    if missing:
        bag.note(bag.name, f"has no {' and no '.join(missing)} camera, which the checkpoint needs: it predicts nothing")
    if not roles.joints:
        bag.note(
            bag.name, "has no joint states: nothing is known of what was reached, nor of the state that policies need"
        )
    reader = EventReader(bag, decoder, roles)
    players = [PolicyReplay(name, runtime, options, reader.arm) for name, runtime in runtimes.items()]
    truth, frames = Truth(options.actions), 0
    # An episode that ends where the next begins ends first.
    turns = deque(
        sorted([(e.stop_ns, 0, e) for e in episodes] + [(e.start_ns, 1, e) for e in episodes], key=_turn_order)
    )
    start_ns, span_ns = bag.start_ns, max(1, bag.end_ns - bag.start_ns)
    for event in reader.read():
        while turns and turns[0][0] <= event.received_ns:
            _, begins, episode = turns.popleft()
            for player in players:
                if begins:
                    player.begin(episode, episode.think if options.think is None else options.think)
                else:
                    player.end()
        truth.add(event)
        if isinstance(event, ImageEvent):
            frames += 1
            on_progress((event.received_ns - start_ns) / span_ns)
        if isinstance(event, ImageEvent | JointEvent):
            for player in players:
                player.on_event(event)
    durations_s = {name: float(runtime.manifest.dt_s) for name, runtime in runtimes.items()}
    truth.finish(reader.arm, durations_s.values())
    if options.actions in ("auto", "steps"):
        _note_other_durations(bag, roles.delta, truth, durations_s)
    on_progress(1.0)
    return ReplayResult(roles, tuple(episodes), truth, tuple(player.result() for player in players), frames)


def _note_other_durations(bag: Bag, topic: str, truth: Truth, durations_s: Mapping[str, float]) -> None:
    for name, dt_s in durations_s.items():
        for step in truth.steps:
            if not same_duration(step, dt_s):
                bag.note(topic, f"steps of {step.dt_s:.3g} s are not compared with those of {name}: {dt_s:.3g} s")


def _turn_order(turn: tuple[int, int, Episode]) -> tuple[int, int]:
    return turn[:2]

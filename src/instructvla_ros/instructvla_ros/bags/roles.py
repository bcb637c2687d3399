"""Which topic of a bag plays which part, by what the recorder noted, else by type and name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.types import BagError, Topic

NOTE = "instructvla"
"""Key of our recorder's note in a bag's custom data: JSON with roles, manifest and parameters."""
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_PRIMARY_WORDS = ("primary", "third", "front", "color", "rgb", "image", "camera")
_WRIST_WORDS = ("wrist", "hand", "gripper")
_OTHER_IMAGES = ("depth", "infra", "mask", "segmentation")


@dataclass(frozen=True)
class Roles:
    """Topic names, "" where the bag has none. `command` is the driver's joint goals, `label` an instruction in plain
    text, `mark` the beginnings and ends of episodes, `note` annotated text to compare the reasoning with."""

    primary: str = ""
    wrist: str = ""
    joints: str = ""
    reasoning: str = ""
    latent: str = ""
    chunk: str = ""
    delta: str = ""
    command: str = ""
    safety: str = ""
    label: str = ""
    mark: str = ""
    note: str = ""

    def topics(self, *names: str) -> set[str]:
        """Topics of these roles, or of all, as far as there are any."""
        chosen = names or tuple(field.name for field in fields(self))
        return {getattr(self, name) for name in chosen} - {""}


ROLE_NAMES = tuple(field.name for field in fields(Roles))
_BY_TYPE = {
    "joints": "sensor_msgs/msg/JointState",
    "reasoning": "instructvla_msgs/msg/Reasoning",
    "latent": "instructvla_msgs/msg/LatentAction",
    "chunk": "instructvla_msgs/msg/ActionChunk",
    "delta": "instructvla_msgs/msg/EndEffectorDelta",
    "command": "interbotix_xs_msgs/msg/JointGroupCommand",
    "safety": "instructvla_msgs/msg/SafetyState",
}
_STRINGS = {"label": "instruction", "mark": "episode", "note": "annotation"}  # last part of the topic's name


def _types(role: str) -> tuple[str, ...]:
    """What messages of a role are."""
    if role in ("primary", "wrist"):
        return IMAGE_TYPES
    return ("std_msgs/msg/String",) if role in _STRINGS else (_BY_TYPE[role],)


def find_roles(bag: Bag, given: Mapping[str, str] | None = None) -> Roles:
    """The roles; `given` (role -> topic) comes first. Choices among several are noted on the bag.

    Raises BagError for a role or a topic that does not exist or does not fit, and for a bag without any camera image.
    """
    chosen = dict(given or {})
    for role, topic in chosen.items():
        if role not in ROLE_NAMES:
            raise BagError(f"there is no role {role!r}; expected one of {', '.join(ROLE_NAMES)}")
        if topic not in bag.topics:
            raise BagError(f"the bag has no topic {topic}; it has {', '.join(bag.topics) or 'none'}")
        if bag.topics[topic].type_name not in _types(role):
            raise BagError(f"{topic} is of {bag.topics[topic].type_name}; {role} is of {' or '.join(_types(role))}")
    noted = recorder_note(bag).get("roles")
    for role, topic in noted.items() if isinstance(noted, dict) else ():
        if role in ROLE_NAMES and topic in bag.topics and bag.topics[topic].type_name in _types(role):
            chosen.setdefault(role, topic)
    images = [t for t in bag.topics.values() if t.type_name in IMAGE_TYPES and t.count]
    _choose_cameras(bag, images, chosen)
    for role, type_name in _BY_TYPE.items():
        if role not in chosen:
            _choose(bag, role, [t for t in bag.topics.values() if t.type_name == type_name and t.count], chosen)
    strings = [t for t in bag.topics.values() if t.type_name == "std_msgs/msg/String" and t.count]
    for role, ending in _STRINGS.items():
        if role not in chosen:
            _choose(bag, role, [t for t in strings if t.name.rsplit("/", 1)[-1] == ending], chosen)
    return Roles(**chosen)


def recorder_note(bag: Bag) -> dict:
    """What our recorder noted; empty for other bags."""
    try:
        note = json.loads(bag.info.custom.get(NOTE, "{}"))
    except json.JSONDecodeError:
        bag.note("metadata.yaml", "the recorder's note is no JSON and was left aside")
        return {}
    return note if isinstance(note, dict) else {}


def _choose(bag: Bag, role: str, topics: Sequence[Topic], chosen: dict[str, str]) -> None:
    if len(topics) > 1:
        topics = sorted(topics, key=lambda t: (-t.count, t.name))
        names = ", ".join(t.name for t in topics)
        bag.note(topics[0].name, f"taken as {role} among {names}; choose with --topic {role}:=…")
    if topics:
        chosen[role] = topics[0].name


def _choose_cameras(bag: Bag, images: Sequence[Topic], chosen: dict[str, str]) -> None:
    """The wrist camera by its name, the primary one by likeness; a raw topic before its compressed twin.

    What is called a wrist camera, or shows no colours, never becomes the primary one.
    """
    if not images:
        told = "".join(f"; {problem}" for problem in bag.problems)
        raise BagError(f"{bag.name} holds no camera images (topics: {', '.join(bag.topics) or 'none'}){told}")
    taken = set(chosen.values())
    left = [t for t in images if t.name not in taken and not any(word in t.name for word in _OTHER_IMAGES)]
    if "wrist" not in chosen:
        _choose(bag, "wrist", _no_twins([t for t in left if any(word in t.name for word in _WRIST_WORDS)]), chosen)
    left = [t for t in left if not any(word in t.name for word in _WRIST_WORDS)]
    if "primary" not in chosen:
        scored = [(sum(word in t.name for word in _PRIMARY_WORDS), t) for t in _no_twins(left)]
        if not scored:
            names = ", ".join(t.name for t in images)
            bag.note(bag.name, f"none of the cameras is taken as primary: {names}; say --topic primary:=…")
            return
        best = max(score for score, _ in scored)
        _choose(bag, "primary", [t for score, t in scored if score == best], chosen)


def _no_twins(topics: Sequence[Topic]) -> list[Topic]:
    names = {t.name for t in topics}
    return [
        t
        for t in topics
        if t.name.removesuffix("/compressed") == t.name or t.name.removesuffix("/compressed") not in names
    ]

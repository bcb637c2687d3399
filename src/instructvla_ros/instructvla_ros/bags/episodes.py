"""A bag cut into episodes: by marks of the recorder's services, else by the instructions that were given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from instructvla_ros.bags.bag import Bag
from instructvla_ros.bags.decode import Decoder
from instructvla_ros.bags.roles import Roles
from instructvla_ros.bags.types import BagError

MODE_STOPPED, MODE_FAULT = 5, 6
"""SafetyState's latched modes, which end an instruction."""
MIN_EPISODE_S = 0.5


@dataclass(frozen=True)
class Episode:
    """From `start_ns` to before `stop_ns` (receive time) one instruction was followed or shown.

    `instruction_id` is the graph's where it is known, else counted from 1; `text` is the recorded reasoning,
    `annotation` the text to compare with, `success` what a mark said.
    """

    index: int
    start_ns: int
    stop_ns: int
    instruction: str
    instruction_id: int
    think: bool = True
    text: str = ""
    annotation: str = ""
    success: bool | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.stop_ns - self.start_ns) * 1e-9


@dataclass(frozen=True)
class _Cut:
    """Something that begins (`instruction` not None) or ends an episode."""

    stamp_ns: int
    instruction: str | None
    instruction_id: int = 0
    think: bool = True
    success: bool | None = None


def find_episodes(bag: Bag, decoder: Decoder, roles: Roles, instruction: str = "") -> list[Episode]:
    """The episodes in order; `instruction` replaces what the bag says, or says it where the bag does not.

    Raises BagError where there is neither an instruction in the bag nor a given one.
    """
    cuts = list(_marks(bag, decoder, roles)) or list(_instructions(bag, decoder, roles))
    if not cuts:
        if not instruction:
            raise BagError(
                f"{bag.name} holds no instruction (no Reasoning messages, no topic .../instruction, no marks); "
                'say it with --instruction "…"'
            )
        cuts = [_Cut(bag.start_ns, instruction)]
    found: list[Episode] = []
    for cut, after in zip(cuts, [*cuts[1:], _Cut(bag.end_ns + 1, None)], strict=True):
        if cut.instruction is None or (after.stamp_ns - cut.stamp_ns) * 1e-9 < MIN_EPISODE_S:
            continue
        number = cut.instruction_id or len(found) + 1
        found.append(
            Episode(
                len(found), cut.stamp_ns, after.stamp_ns, instruction or cut.instruction, number, cut.think,
                success=after.success if after.success is not None else cut.success,
            )
        )  # fmt: skip
    return [_with_texts(bag, decoder, roles, episode) for episode in found]


def _marks(bag: Bag, decoder: Decoder, roles: Roles) -> Iterator[_Cut]:
    """{"mark": "begin", "instruction": "…"} and {"mark": "end", "success": true} as JSON in strings."""
    for record in bag.messages(roles.topics("mark")) if roles.mark else ():
        message = decoder.decode(record)
        try:
            mark = json.loads(message.data) if message is not None else {}
        except json.JSONDecodeError:
            mark = None
        if not isinstance(mark, dict):
            bag.note(record.topic, "marks that are no JSON object were left aside")
            continue
        if mark.get("mark") == "begin":
            yield _Cut(record.stamp_ns, str(mark.get("instruction", "")))
        elif mark.get("mark") == "end":
            success = mark.get("success")
            yield _Cut(record.stamp_ns, None, success=success if isinstance(success, bool) else None)


def _instructions(bag: Bag, decoder: Decoder, roles: Roles) -> Iterator[_Cut]:
    """New instruction ids in the reasoning, or new texts on the label topic; ended by a stop of the controller."""
    last_id, last_text, following = 0, "", False
    for record in bag.messages(roles.topics("reasoning", "label", "safety")):
        message = decoder.decode(record)
        if message is None:
            continue
        if record.topic == roles.safety:
            if following and message.mode in (MODE_STOPPED, MODE_FAULT):
                following, last_text = False, ""
                yield _Cut(record.stamp_ns, None)
        elif record.topic == roles.reasoning:
            if message.instruction and message.instruction_id > last_id:
                last_id, following = message.instruction_id, True
                think = not (message.final and not message.text)
                yield _Cut(record.stamp_ns, message.instruction, message.instruction_id, think)
        elif not roles.reasoning and message.data.strip() and message.data.strip() != last_text:
            last_text, following = message.data.strip(), True
            yield _Cut(record.stamp_ns, last_text)


def _with_texts(bag: Bag, decoder: Decoder, roles: Roles, episode: Episode) -> Episode:
    """The first complete reasoning and the annotation of an episode."""
    text = annotation = ""
    wanted = roles.topics("reasoning", "note")
    for record in bag.messages(wanted, episode.start_ns, episode.stop_ns) if wanted else ():
        message = decoder.decode(record)
        if message is None:
            continue
        if record.topic == roles.note:
            annotation = annotation or message.data
        elif message.final and message.text:
            text = text or message.text
    return replace(episode, text=text, annotation=annotation)

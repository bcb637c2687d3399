"""A bag cut into episodes: by marks of the recorder's services, else by the instructions that were given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


def find_episodes(
    bag: Bag, decoder: Decoder, roles: Roles, instruction: str = "", otherwise: str = ""
) -> list[Episode]:  # fmt: skip
    """The episodes in order, by marks where one begins an episode, else by instructions.

    `instruction` replaces what the bag says, or says it where the bag does not; `otherwise` does the second alone.

    Raises BagError where there is neither an instruction in the bag nor a given one.
    """
    instruction, otherwise = instruction.strip(), otherwise.strip()
    followed = list(_instructions(bag, decoder, roles))
    told = any(cut.instruction for cut in followed)
    named = bool(instruction or (otherwise and not told))  # for marks without words
    for cuts in (list(_marks(bag, decoder, roles, named)), followed):
        if any(cut.instruction is not None for cut in cuts):
            if not any(cut.instruction for cut in cuts):  # they alone: the bag says nothing
                instruction = instruction or otherwise
            found = list(_between(bag, cuts, instruction, otherwise))
            break
    else:
        instruction = instruction or otherwise
        if not instruction:
            raise BagError(
                f"{bag.name} holds no instruction (no Reasoning messages, no topic .../instruction, no marks); "
                'say it with --instruction "…"'
            )
        found = []
    if instruction and not found:
        found = [Episode(0, bag.start_ns, bag.end_ns + 1, instruction, 1)]
    return [_with_texts(bag, decoder, roles, episode) for episode in found]


def _between(bag: Bag, cuts: Sequence[_Cut], instruction: str, otherwise: str) -> Iterator[Episode]:
    """The episodes between cuts; those that are too short are noted."""
    index = 0
    for cut, after in zip(cuts, [*cuts[1:], _Cut(bag.end_ns + 1, None)], strict=True):
        if cut.instruction is None:
            continue
        if (after.stamp_ns - cut.stamp_ns) * 1e-9 < MIN_EPISODE_S:
            bag.note(bag.name, f"episodes of less than {MIN_EPISODE_S:g} s were left out")
            continue
        yield Episode(
            index, cut.stamp_ns, after.stamp_ns, instruction or cut.instruction or otherwise,
            cut.instruction_id or index + 1, cut.think,
            success=after.success if after.success is not None else cut.success,
        )  # fmt: skip
        index += 1


def _marks(bag: Bag, decoder: Decoder, roles: Roles, named: bool) -> Iterator[_Cut]:
    """{"mark": "begin", "instruction": "…"} and {"mark": "end", "success": true} as JSON in strings; what yields no
    episode is noted. `named` says that the instruction is given, so that a mark need not."""
    within = False
    for record in bag.messages(roles.topics("mark")) if roles.mark else ():
        message = decoder.decode(record)
        if message is None:
            continue
        try:
            mark = json.loads(message.data)
        except json.JSONDecodeError:
            mark = None
        if not isinstance(mark, dict):
            bag.note(record.topic, "marks that are no JSON object were left aside")
        elif mark.get("mark") == "begin":
            text = mark.get("instruction")
            within = named or (isinstance(text, str) and bool(text.strip()))
            if within:
                yield _Cut(record.stamp_ns, text.strip() if isinstance(text, str) else "")
            else:
                bag.note(record.topic, "marks that begin an episode without saying what is shown were left aside")
                yield _Cut(record.stamp_ns, None)
        elif mark.get("mark") == "end":
            if not within:
                bag.note(record.topic, "marks that end an episode which none began were left aside")
            within, success = False, mark.get("success")
            yield _Cut(record.stamp_ns, None, success=success if isinstance(success, bool) else None)
        else:
            bag.note(record.topic, "marks that are neither begin nor end were left aside")


@dataclass(frozen=True)
class _Followed:
    """What the reasoning follows, as its messages tell it."""

    number: int = 0
    text: str = ""
    seq: int = 0
    before: tuple[int, str] = (0, "")
    """Number and text of the one before."""

    def changes(self, message: Any, following: bool) -> bool:
        """Whether this message tells of another instruction than the one before, or of the same given anew."""
        number, text, said = int(message.instruction_id), message.instruction.strip(), bool(message.text)
        if not text:
            return False
        if number > self.number or (number == self.number and text != self.text):
            return True
        if number < self.number:  # counted anew, unless it is the end of what was said of an older one
            return not said or (number, text) != self.before
        return not said and (message.seq < self.seq or not following)


def _instructions(bag: Bag, decoder: Decoder, roles: Roles) -> Iterator[_Cut]:
    """Instructions in the reasoning by their numbers and texts, or new texts on the label topic; ended by a stop of the
    controller. A graph that was started again counts anew."""
    followed, last_text, following = _Followed(), "", False
    for record in bag.messages(roles.topics("reasoning", "label", "safety")):
        message = decoder.decode(record)
        if message is None:
            continue
        if record.topic == roles.safety:
            if following and message.mode in (MODE_STOPPED, MODE_FAULT):
                following, last_text = False, ""
                yield _Cut(record.stamp_ns, None)
        elif record.topic == roles.reasoning:
            if followed.changes(message, following):
                number, text = int(message.instruction_id), message.instruction.strip()
                if number <= followed.number:
                    bag.note(record.topic, "the numbers of the instructions begin again; episodes are cut there")
                followed = _Followed(number, text, int(message.seq), (followed.number, followed.text))
                following = True
                think = not (message.final and not message.text)
                yield _Cut(record.stamp_ns, text, number, think)
            elif following and not message.instruction.strip() and message.instruction_id > followed.number:
                followed, following = replace(followed, number=int(message.instruction_id)), False
                yield _Cut(record.stamp_ns, None)  # the graph was told to rest
            elif message.instruction_id == followed.number:
                followed = replace(followed, seq=int(message.seq))
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

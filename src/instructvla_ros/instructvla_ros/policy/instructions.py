"""What may be given to the robot as an instruction."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

MAX_CHARACTERS = 512


class InstructionError(ValueError):
    """The instruction was refused; the message says what was found and what was expected."""


@dataclass(frozen=True)
class Instruction:
    """An accepted instruction. Ids grow by one; 0 means none. Without text: nothing is to be done any more."""

    text: str
    instruction_id: int
    think: bool = True


def check_instruction(text: str) -> str:
    """Return the instruction without surrounding blanks; raises InstructionError when it cannot be used.

    Bytes that are not UTF-8 arrive either as U+FFFD (from DDS) or as lone surrogates (from a terminal). A model may
    refuse what passes here: only it knows how many tokens the words make (nodes/prompt_check.py).
    """
    if len(text) > MAX_CHARACTERS:
        raise InstructionError(
            f"instruction has {len(text)} characters, at most {MAX_CHARACTERS} are allowed; "
            "say it more briefly"
        )
    stripped = text.strip()
    if not stripped:
        raise InstructionError("instruction is empty; say what to do, for example: pick up the carrot")
    for position, character in enumerate(stripped):
        category = unicodedata.category(character)
        if character == "\ufffd" or category == "Cs":
            raise InstructionError(f"instruction is not valid UTF-8 at character {position}; send plain text")
        if category in ("Cc", "Zl", "Zp"):
            raise InstructionError(
                f"instruction has the control character U+{ord(character):04X} at position {position}; "
                "send one line of plain text"
            )
    if not "".join(c for c in stripped if unicodedata.category(c)[0] != "C").strip():
        raise InstructionError(
            f"instruction has only characters that cannot be seen, the first is U+{ord(stripped[0]):04X}; "
            "say in words what to do"
        )
    return stripped

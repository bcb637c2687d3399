"""The paraphrase templates of each task family, put together."""

from __future__ import annotations

from dataclasses import dataclass

from ..patterns import Split
from . import near_stack, pick, place

_NONE = Split((), ())


@dataclass(frozen=True)
class FamilyTemplates:
    """Imperative verb phrases (`cores`, which a way of asking can wrap) and whole sentences.

    `container_cores` suit only bowl and basket, `surface_cores` only plate and cloth.
    """

    cores: Split
    sentences: Split
    container_cores: Split = _NONE
    surface_cores: Split = _NONE

    def imperatives(self, split: str) -> tuple[str, ...]:
        """All verb phrases of a split, whatever the receptacle."""
        return self.cores.of(split) + self.container_cores.of(split) + self.surface_cores.of(split)

    def of(self, split: str) -> tuple[str, ...]:
        """All templates of a split."""
        return self.imperatives(split) + self.sentences.of(split)


FAMILY_TEMPLATES: dict[str, FamilyTemplates] = {
    "pick": FamilyTemplates(pick.CORES, pick.SENTENCES),
    "place": FamilyTemplates(place.CORES, place.SENTENCES, place.CONTAINER_CORES, place.SURFACE_CORES),
    "near": FamilyTemplates(near_stack.NEAR_CORES, near_stack.NEAR_SENTENCES),
    "stack": FamilyTemplates(near_stack.STACK_CORES, near_stack.STACK_SENTENCES),
}

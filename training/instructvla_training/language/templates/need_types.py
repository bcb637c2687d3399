"""The record in which situations are written down."""

from __future__ import annotations

from dataclasses import dataclass

from ..patterns import Split


@dataclass(frozen=True)
class NeedGroup:
    """Situations that call for the same objects.

    Args:
        true_of: objects that answer the need.
        maybe: objects that a reasonable person might offer too; the situation is unclear when one is visible.
        reason: "The {x} is a drink.": why the object answers the need.
        needs: sentence patterns; every one implies the object without naming it.
        keywords: noun phrases that stand for the need in knowledge questions ("What goes with ...?").
        facts: free knowledge questions whose answer is the object.
    """

    true_of: tuple[str, ...]
    reason: str
    needs: Split
    keywords: tuple[str, ...]
    facts: tuple[str, ...] = ()
    maybe: tuple[str, ...] = ()

"""World knowledge about the objects: nouns, adjectives and relative clauses, and what each is true of.

`true_of` lists the objects a word surely fits; `maybe` lists those a reasonable person might also mean.
A description is used only where exactly one visible object is in either list, and that one is in `true_of`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..scene_view import CUBES

FOODS = ("carrot", "apple", "lemon", "eggplant")


@dataclass(frozen=True)
class Trait:
    """One word or clause. `says` completes "The {name} ..." as a reason; empty for none."""

    text: str
    true_of: tuple[str, ...]
    maybe: tuple[str, ...] = ()
    says: str = ""
    everywhere: bool = True  # False: only as a description of a whole noun phrase, not before other nouns


# Bare category nouns: "the fruit", "a fruit". `says` is the reason.
NOUNS = (
    Trait("fruit", ("apple", "lemon"), says="is a fruit"),
    Trait("piece of fruit", ("apple", "lemon"), says="is a fruit", everywhere=False),
    Trait("vegetable", ("carrot", "eggplant"), says="is a vegetable"),
    Trait("snack", ("apple", "carrot"), ("lemon",), says="is a snack"),
    Trait("piece of food", FOODS, says="is food", everywhere=False),
    Trait("drink", ("can",), says="is a drink"),
    Trait("cube", CUBES),
    Trait("block", CUBES),
    Trait("toy", CUBES),
    Trait("building block", CUBES),
    Trait("cleaning tool", ("sponge",), ("cloth",), says="is for cleaning"),
    Trait("dish", ("plate", "bowl")),
    Trait("container", ("bowl", "basket"), ("can",), says="is a container"),
)

# Other names for one object, or narrow nouns.
SYNONYMS = (
    Trait("soda can", ("can",)),
    Trait("drink can", ("can",)),
    Trait("can of soda", ("can",)),
    Trait("soft drink", ("can",), says="is a drink"),
    Trait("citrus fruit", ("lemon",), says="is a citrus fruit"),
    Trait("root vegetable", ("carrot",), says="is a root"),
    Trait("aubergine", ("eggplant",)),
    Trait("kitchen sponge", ("sponge",)),
    Trait("cleaning sponge", ("sponge",)),
    Trait("dinner plate", ("plate",)),
    Trait("flat dish", ("plate",)),
    Trait("soup bowl", ("bowl",)),
    Trait("deep dish", ("bowl",)),
    Trait("picnic basket", ("basket",)),
    Trait("shopping basket", ("basket",)),
    Trait("towel", ("cloth",)),
    Trait("piece of fabric", ("cloth",)),
    Trait("table cloth", ("cloth",)),
)

ADJECTIVES = (
    Trait("sour", ("lemon",), says="is sour"),
    Trait("sweet", ("apple",), ("carrot", "can"), says="is sweet"),
    Trait("juicy", ("apple", "lemon"), says="is juicy"),
    Trait("crunchy", ("apple", "carrot"), says="is crunchy"),
    Trait("healthy", ("apple", "carrot"), ("lemon", "eggplant"), says="is healthy"),
    Trait("edible", FOODS, says="is food"),
    Trait("soft", ("sponge", "cloth"), says="is soft"),
    Trait("round", ("apple",), ("lemon", "plate", "bowl", "can", "basket"), says="is round"),
    Trait("long", ("carrot", "eggplant"), says="is long"),
    Trait("pointed", ("carrot",), says="is pointed"),
    Trait("square", CUBES, ("sponge", "cloth")),
    Trait("metal", ("can",), says="is metal"),
    Trait("flat", ("plate", "cloth"), says="is flat"),
    Trait("deep", ("bowl",), ("basket",), says="is deep"),
)

# "the thing that ...", "something that ...".
CLAUSES = (
    Trait("tastes sour", ("lemon",), says="tastes sour"),
    Trait("tastes sweet", ("apple",), ("carrot", "can"), says="tastes sweet"),
    Trait("grows on a tree", ("apple", "lemon"), says="grows on a tree"),
    Trait("grows under the ground", ("carrot",), says="grows under the ground"),
    Trait("rabbits like to eat", ("carrot",), ("apple",), says="is for rabbits"),
    Trait("you can drink", ("can",), says="is a drink"),
    Trait("has a drink inside", ("can",), says="is a drink"),
    Trait("you can eat", FOODS, says="is food"),
    Trait("you can cook", ("carrot", "eggplant"), ("apple", "lemon"), says="is a vegetable"),
    Trait("children can build with", CUBES),
    Trait("children can play with", CUBES),
    Trait("has six sides", CUBES, ("sponge",)),
    Trait("cleans the dishes", ("sponge",), ("cloth",), says="is for cleaning"),
    Trait("you can clean with", ("sponge",), ("cloth",), says="is for cleaning"),
    Trait("soaks up water", ("sponge",), ("cloth",), says="soaks up water"),
    Trait("is made of metal", ("can",), says="is made of metal"),
    Trait("is shaped like a ball", ("apple",), ("lemon",), says="is round"),
    Trait("is shaped like a box", CUBES, ("sponge",)),
    Trait("is made of fabric", ("cloth",)),
    Trait("is used for soup", ("bowl",), ("plate",)),
    Trait("is used to serve dinner", ("plate",), ("bowl",)),
    Trait("people take to a picnic", ("basket",), ("cloth", "plate", "can", "apple")),
    Trait("people take shopping", ("basket",)),
)

GENERIC_HEADS = ("object", "thing", "item", "one")

# An observer could call these by these colours too, whatever the scene's own colour word is.
COLOR_MAYBE: dict[str, tuple[str, ...]] = {
    "can": ("blue", "white"),
    "bowl": ("blue", "green"),
    "cloth": ("purple", "violet"),
    "carrot": ("orange",),
    "apple": ("red",),
    "lemon": ("yellow",),
    "eggplant": ("purple", "violet"),
}

# For text-only knowledge: colours that do not depend on the scene.
KNOWN_COLORS: dict[str, str] = {
    "carrot": "orange",
    "apple": "red",
    "lemon": "yellow",
    "eggplant": "purple",
}

"""Situations answered by the sponge or by a toy cube, and things that have the colour of a cube."""

from __future__ import annotations

from dataclasses import dataclass

from ..patterns import Split
from ..scene_view import CUBES
from .need_types import NeedGroup

WASHING = NeedGroup(
    true_of=("sponge",),
    reason="The sponge is for cleaning.",
    needs=Split(
        train=(
            "[I|we] have to wash the dishes",
            "the dishes [are|look] [dirty|greasy]",
            "[I want|my mother wants] to scrub the [pan|pot|sink]",
            "the [pan|pot|oven] is [so |very |]greasy",
            "there is soap but nothing to wash with",
            "the [bath|shower|bathroom|sink] has to be scrubbed",
            "[I|we] want to wash the car",
            "the car is [so |very |]dirty",
            "[my|his] hands are full of soap, and the pots are still dirty",
            "food is stuck to the pan",
            "somebody has to do the dishes",
            "the dishes are waiting in the sink",
            "I do the dishes today",
            "there is grease on the oven",
            "the soap is ready, what else do I need for the dishes?",
            "the pan has not been washed",
            "I am in the bath and want to wash my back",
            "the kitchen sink is [dirty|greasy]",
            "after dinner somebody has to wash the pots",
            "I have soap and water, but how do I scrub the pot?",
        ),
        heldout=(
            "the dirty pots have to be washed",
            "the shower needs a good scrub with soap",
            "somebody should scrub the greasy sink",
            "wash my dirty car[| with soap]",
        ),
    ),
    keywords=(
        "dirty dishes",
        "washing the dishes",
        "a greasy pan",
        "a greasy sink",
        "soap",
        "soap and water",
        "a dirty car",
        "scrubbing the shower",
        "a dirty pot",
    ),
    facts=(
        "What do you use to wash the dishes?",
        "What do you use to scrub a pot?",
        "What do you use to wash a car?",
        "What needs soap and water?",
        "What do you take to scrub the shower?",
    ),
)

WIPING = NeedGroup(
    true_of=("sponge",),
    maybe=("cloth",),
    reason="The sponge is for cleaning.",
    needs=Split(
        train=(
            "[I|my brother|the baby] spilled [the |some ][milk|coffee|water|juice]",
            "there is [water|milk|coffee] on the floor",
            "the table is [wet|dirty|sticky|dusty]",
            "the kitchen is a mess",
            "water was spilled over the table",
            "[I|we] want to clean [the table|the kitchen|the floor|the window]",
            "I need to clean up [the mess|this spot]",
            "[I|we] need something to wipe the [floor|table|window] with",
            "the window is dirty",
            "somebody left a [sticky|dirty] spot on the table",
            "the baby made a mess with the milk",
            "I must soak up the water",
            "it is time to clean [the house|the kitchen]",
            "there is a spot on the [window|table|floor]",
            "something sticky is on the table",
            "the house is dirty and I have to clean",
            "milk runs over the floor",
        ),
        heldout=(
            "coffee was spilled [on the table|on the floor]",
            "wipe the sticky spot off the floor",
            "the floor is a mess",
            "clean up the spilled milk",
        ),
    ),
    keywords=(
        "spilled milk",
        "spilled coffee",
        "a wet floor",
        "a mess on the floor",
        "a sticky spot",
        "a dirty window",
        "cleaning",
        "wiping the table",
        "a dusty table",
    ),
    facts=(
        "What do you use to wipe the table?",
        "What soaks up spilled coffee?",
        "What cleans up a mess?",
        "What do you use for cleaning?",
        "What do you take when milk is on the floor?",
    ),
)

TOYS = NeedGroup(
    true_of=CUBES,
    reason="",
    needs=Split(
        train=(
            "[my toddler|the baby|my son|my daughter] wants to play",
            "[my toddler|the baby|my son|my daughter] wants to build a [tower|house|wall|castle]",
            "the children need [something|a toy] to play with",
            "the [child|baby] is bored and wants a toy",
            "there is one block missing for the [tower|house|wall|castle]",
            "a [child|baby] learns to build",
            "the children want to build with blocks",
            "the toy box is missing a toy",
            "it is play time for the baby",
            "[my toddler|my son|my daughter] likes to stack things",
            "the [child|baby] wants a toy",
            "I want to build something with my daughter",
            "a toy would make the baby happy",
        ),
        heldout=(
            "the castle of my daughter needs one more block",
            "the baby is bored, it is time to play",
            "my son builds a wall and a block is missing",
        ),
    ),
    keywords=(
        "building a tower",
        "a bored child",
        "play time",
        "a toddler who plays",
        "a castle of blocks",
        "the toy box",
    ),
    facts=(
        "What do children build with?",
        "What is a toy?",
        "What does a bored baby want?",
        "What do you need for a toy castle?",
    ),
)

THING_GROUPS = (WASHING, WIPING, TOYS)


@dataclass(frozen=True)
class ColorThings:
    """Things in the world with a cube's colour, in the singular with their verb: "a fire truck is"."""

    color: str
    train: tuple[str, ...]
    heldout: tuple[str, ...]


COLOR_THINGS = (
    ColorThings(
        "red",
        (
            "a fire truck",
            "a tomato",
            "a stop sign",
            "a rose",
            "blood",
            "a cherry",
            "a heart",
            "ketchup",
            "fire",
            "the nose of a clown",
            "a chili",
            "the coat of Santa",
        ),
        ("a strawberry", "a ladybug", "lipstick", "a brick"),
    ),
    ColorThings(
        "green",
        (
            "grass",
            "a frog",
            "a leaf",
            "a tree",
            "a cucumber",
            "broccoli",
            "a crocodile",
            "the forest",
            "a pea",
            "spinach",
            "a lizard",
            "a cactus",
        ),
        ("a turtle", "lettuce", "a meadow", "a dragon"),
    ),
    ColorThings(
        "blue",
        (
            "the sky",
            "the sea",
            "the ocean",
            "a pair of jeans",
            "a blueberry",
            "a whale",
            "a lake",
            "rain",
            "a swimming pool",
            "a river",
            "a raindrop",
            "the sky in summer",
        ),
        ("a dolphin", "deep water", "a shark", "the flag of Europe"),
    ),
    ColorThings(
        "yellow",
        (
            "the sun",
            "a banana",
            "a sunflower",
            "a bee",
            "a chick",
            "corn",
            "cheese",
            "butter",
            "a school bus",
            "a star",
            "gold",
            "a duckling",
        ),
        ("honey", "a canary", "sand", "pasta"),
    ),
)

# `{t}` is a thing such as "a fire truck"; each pattern asks for the cube of its colour.
COLOR_NEEDS = Split(
    train=(
        "[my toddler|my son|my daughter|the baby] wants the [toy|block] with the color of {t}",
        "I think of {t} and want a [toy|block] of the same color",
        "[I|we] need the [toy|block|cube] that has the same color as {t}",
        "the [block|toy|cube] should match the color of {t}",
        "one of the blocks has the color of {t}, I want that one",
        "which [toy|block] is colored like {t}? I want it",
        "the baby points at {t} and wants a toy that looks the same",
        "my son has drawn {t} and wants a block in that color",
        "I want to play with the cube that is colored like {t}",
        "which cube has the color of {t}? that is the one",
        "I mean the [toy|block] with the color of {t}",
        "I choose the block that looks like {t}",
        "what is colored like {t}? I mean the [toy|cube]",
        "my favorite color is the color of {t}, so I want that block",
        "I want a toy like {t}",
        "I look for the cube whose color is the color of {t}",
    ),
    heldout=(
        "my daughter has drawn {t} and needs a toy of the same color",
        "the toy should look like {t}",
        "I need the block that is colored like {t}",
        "the favorite color of my son is the color of {t}, so I want that toy",
    ),
)

# Noun phrases for a cube by the colour of a thing, for stacking.
COLOR_PHRASES = (
    "the block with the color of {t}",
    "the cube that is colored like {t}",
    "the toy that has the same color as {t}",
)

STACK_NEEDS = Split(
    train=(
        "[my toddler|my son|my daughter] builds a tower: {x} goes on top of {y}",
        "for the castle I need {x} on {y}",
        "the tower of the baby is {y} with {x} on top",
        "let us play: {x} should stand on {y}",
        "[I|we] build a house where {x} is the roof and {y} is the wall",
        "my son says that {x} sits on {y}",
        "our tower starts with {y}, then comes {x}",
        "the children stack {x} on {y}",
        "{y} is the first floor of the house and {x} is the second",
        "I want to see a tower where {y} carries {x}",
        "in this game {x} has to stand on top of {y}",
    ),
    heldout=(
        "the children want a tower where {x} is on top of {y}",
        "my daughter says that {x} goes on {y}",
        "in this game {y} carries {x}",
    ),
)

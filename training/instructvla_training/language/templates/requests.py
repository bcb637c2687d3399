"""What may follow a situation: a request, with or without a place, and cues that imply the place."""

from __future__ import annotations

from dataclasses import dataclass

from ..patterns import Split

OPENINGS = ("[hello|hi|hey] robot.", "listen.", "excuse me.", "oh no.", "good morning.", "can you help me?")

PICK_REQUESTS = (
    "",
    "",
    "",
    "can you help [me|us]?",
    "please help [me|us]",
    "what would help? pick it up",
    "what would help [me|us]?",
    "give me what is needed",
    "hand me the right thing",
    "hand me what is needed[|, please]",
    "bring me something for that",
    "get me something for that",
    "pick up the right object",
    "please pick up what is needed",
    "pick up what fits",
    "please lift what is needed",
    "which object is needed? [pick it up|take it|grab it]",
    "find what is needed and pick it up",
    "what can you give me?",
    "what should you pick up?",
    "[could|can] you hand me something for that?",
    "grab the right thing, please",
    "take the thing that helps",
)

PLACE_REQUESTS = (
    "put what is needed {on} {y}",
    "please put what is needed {on} {y}",
    "put the right object {on} {y}",
    "place the right thing {on} {y}",
    "place what is needed {on} {y}[|, please]",
    "the right thing should go {on} {y}",
    "can you put something for that {on} {y}?",
    "could you place the right object {on} {y}?",
    "leave what is needed {on} {y}",
    "find the right object and put it {on} {y}",
    "find what is needed and place it {on} {y}",
    "which object is needed? put it {on} {y}",
    "what would help? put it {on} {y}",
    "I want what is needed {on} {y}",
    "drop the right thing {onto} {y}",
    "move what is needed {onto} {y}",
)

NEAR_REQUESTS = (
    "move what is needed next to {y}",
    "please move the right object next to {y}",
    "put the right thing next to {y}",
    "put what is needed beside {y}",
    "place what is needed near {y}",
    "find what is needed and move it close to {y}",
    "which object is needed? move it next to {y}",
    "can you put something for that next to {y}?",
    "could you move the right object close to {y}?",
    "leave what is needed beside {y}",
    "what would help? move it next to {y}",
)

NEEDED = ("what is needed", "the right object", "the right thing")


@dataclass(frozen=True)
class PlaceCue:
    """Requests that imply the place. `{it}` stands for the object, later mentions are "it".

    `true_of` and `maybe` are receptacles, as in `NeedGroup`; `reason` explains the place.
    """

    true_of: tuple[str, ...]
    reason: str
    sentences: Split
    keywords: tuple[str, ...]
    maybe: tuple[str, ...] = ()


PLACE_CUES = (
    PlaceCue(
        ("plate",),
        "The plate is for dinner.",
        Split(
            train=(
                "serve {it} [for dinner|for lunch|like in a restaurant]",
                "please serve {it} to [me|us|the guest]",
                "put {it} where dinner is served",
                "{it} should be served at the table",
                "I will eat with knife and fork, so put {it} where it belongs",
                "put {it} between knife and fork",
                "{it} is for dinner, put it where I can eat it",
                "the waiter serves {it} to the guest",
                "I want to eat {it} with a fork, put it there",
                "dinner is ready, so {it} goes where it is served",
            ),
            heldout=(
                "[lunch|dinner] is ready, serve {it} to the guest",
                "{it} should be where I eat with knife and fork",
            ),
        ),
        ("serving dinner", "knife and fork", "a waiter who serves", "lunch that is served"),
        maybe=("bowl",),
    ),
    PlaceCue(
        ("bowl",),
        "The bowl is for soup.",
        Split(
            train=(
                "put {it} where [soup|cereal] goes",
                "{it} goes where I eat my [soup|cereal]",
                "put {it} in what I use for [soup|cereal]",
                "{it} should go where I mix a salad",
                "I mix a salad, so put {it} in the right dish",
                "I eat cereal with a spoon, so put {it} there",
                "{it} goes into the soup",
                "put {it} where I would pour soup",
            ),
            heldout=("put {it} where I eat with a spoon", "I make soup, put {it} where it goes"),
        ),
        ("eating soup", "cereal", "a spoon", "mixing a salad"),
    ),
    PlaceCue(
        ("basket",),
        "The basket is for shopping.",
        Split(
            train=(
                "pack {it} for [the|our] picnic",
                "we go on a picnic, so pack {it}",
                "I go shopping, put {it} where it belongs",
                "I buy {it} at the market, so put it where I carry my shopping",
                "I want to carry {it} home, so pack it",
                "put {it} where I collect [eggs|mushrooms]",
                "our picnic is in the park, take {it} along",
                "I want to take {it} home from the market",
                "{it} comes with us to the [park|forest|market], please pack it",
            ),
            heldout=("we carry {it} to the park, so pack it", "{it} is for our picnic in the forest"),
        ),
        ("a picnic", "shopping", "carrying things home", "packing for the park", "collecting eggs"),
    ),
    PlaceCue(
        ("cloth",),
        "The cloth is soft.",
        Split(
            train=(
                "put {it} on something soft",
                "{it} should lie on something soft",
                "{it} is wet, so lay it where it can dry",
                "put {it} down where it lies soft and dry",
                "{it} needs a small blanket under it",
                "lay {it} on fabric",
                "{it} should rest on fabric",
                "let {it} sleep on a small blanket",
                "{it} should not lie on the hard table, put it on something soft",
                "dry {it} on something soft",
            ),
            heldout=(
                "{it} should dry on something soft",
                "lay {it} on a small blanket",
                "{it} should lie on a small blanket",
            ),
        ),
        ("something soft to lie on", "a small blanket", "fabric", "drying a wet thing"),
    ),
    PlaceCue(
        ("bowl", "basket"),
        "The {y} is a container.",
        Split(
            train=(
                "{it} must not roll away, so put it in a container",
                "put {it} in something so that it cannot roll away",
                "make sure that {it} cannot roll off the table",
                "put {it} where it cannot fall off the table",
                "store {it} in something with walls",
                "{it} rolls around, keep it in a container",
                "do not let {it} roll away",
                "I do not want {it} to roll off the table",
            ),
            heldout=("{it} must not fall off the table", "keep {it} from rolling away"),
        ),
        ("a thing that rolls away", "a container", "keeping things from rolling"),
    ),
)

# Openings when the object is named and only the place is to be inferred.
NAMED_OPENINGS = ("", "", "", "take the {x}.", "here is the {x}.", "this is about the {x}.")

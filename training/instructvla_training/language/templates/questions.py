"""Wording of captions, questions, pointing and knowledge prompts."""

from __future__ import annotations

CAPTION_PROMPTS = (
    "Describe the table.",
    "What do you see?",
    "What is on the table?",
    "List the objects on the table.",
    "Tell me what is in the picture.",
    "Describe the scene in front of the robot.",
    "Which objects are there?",
    "Name everything that you can see.",
    "What does the image show?",
    "Give me a short description of this image.",
)

COLOR = (
    "What color is {x}?",
    "What is the color of {x}?",
    "Which color does {x} have?",
    "What colour is {x}?",
)
EXISTS = (
    "Is there {a} on the table?",
    "Do you see {a}?",
    "Can you see {a}?",
    "Is {a} in the picture?",
)
COUNT = ("How many {nouns} are there?", "How many {nouns} do you see?", "Count the {nouns}.")
WHICH = ("Which object is {x}?", "What is {x}?", "Name {x}.")
WHICH_ANY = ("Name {x}.", "Can you see {x}? Name it.", "Do you see {x}? What is it?")
WHICH_CLASS = ("Which {nouns} are there?", "Which {nouns} can you see?", "List the {nouns}.")
HOLDING = ("What is the robot holding?", "What is in the gripper?", "Which object is in the gripper?")
IS_HOLDING = ("Is the robot holding {x}?", "Is {x} in the gripper?")
CONTENT = ("What is {on} {y}?", "Which object is {on} {y}?", "What lies {on} {y}?")
SIDE = {
    "left": ("Which object is farthest to the left?", "What is the leftmost object?"),
    "right": ("Which object is farthest to the right?", "What is the rightmost object?"),
    "close": ("Which object is closest to the robot?", "What is nearest to the robot?"),
    "far": ("Which object is farthest from the robot?", "What is the most distant object?"),
}
BESIDE = ("What is next to {y}?", "Which object is close to {y}?", "What lies beside {y}?")
LEFT_OF = ("Is {x} to the left of {y}?", "Is {x} left of {y}?")
RIGHT_OF = ("Is {x} to the right of {y}?", "Is {x} right of {y}?")
WHERE = ("Where is {x}?", "Where do you see {x}?", "On which side is {x}?")
GOES_WITH = (
    "Which object here goes with {k}?",
    "Which object on the table fits {k}?",
    "What on the table would you take for {k}?",
    "Which of these things is right for {k}?",
)
POINT = (
    "Point at {x}.",
    "Point to {x}.",
    "Show me {x}.",
    "Where is {x}? Point at it.",
    "Find {x}.",
    "Locate {x}.",
    "Look at {x}.",
    "Where should the gripper go to take {x}?",
)

KNOW_GOES_WITH = (
    "What goes with {k}?",
    "Which object goes with {k}?",
    "What do you need for {k}?",
    "What would you take for {k}?",
    "What fits {k}?",
    "Which object is right for {k}?",
    "What do you think of when you hear of {k}?",
)
KNOW_THING_COLOR = ("What color is {t}?", "Which color does {t} have?", "What is the color of {t}?")
KNOW_THING_CUBE = (
    "Which cube has the color of {t}?",
    "Which cube looks like {t}?",
    "Which toy has the same color as {t}?",
    "Which block matches {t}?",
    "What goes with {t}?",
)
KNOW_CLASS = ("Is {a} a {noun}?", "Is {a} a kind of {noun}?")
KNOW_WHAT = (
    "What is {a}?",
    "What kind of thing is {a}?",
    "Tell me something about {a}.",
    "What do you know about {a}?",
)
KNOW_TRAIT = ("Name a thing that {c}.", "Tell me an object that {c}.", "Do you know a thing that {c}?")
KNOW_ADJECTIVE = ("Which object is {j}?", "What is {j}?", "Name a thing that is {j}.")
KNOW_MEMBERS = ("Name a {noun}.", "What is an example of a {noun}?", "Which object is a {noun}?")

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

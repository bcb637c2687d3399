"""Situations answered by something to eat or drink."""

from __future__ import annotations

from ..patterns import Split
from .need_types import NeedGroup

_WHO = "[I am|I'm|we are|my friend is|my brother is|my sister is|the guest is|the boy is]"

THIRST = NeedGroup(
    true_of=("can",),
    reason="The can is a drink.",
    needs=Split(
        train=(
            f"{_WHO} [|so |very |really ]thirsty",
            "[my|his|her] throat is [|very |so ]dry",
            "[I|we] need something to drink",
            "[I|we] would like a drink",
            "[I have|my brother has] been running [|for an hour] and now a drink would be good",
            "it is [|so |very ]hot [today|outside] and I want to cool down with a drink",
            "[I|we] want something cold and fizzy",
            "[I|we] want something with bubbles",
            "the guests at the party have nothing to drink",
            "we watch a movie and want a soda",
            "everybody at the party wants a soda",
            "after [sport|playing football|a long walk] I [always |]need a drink",
            "lunch is too dry without a drink",
            "I ate [something salty|salty chips] and now I am thirsty",
            "I want to quench my thirst",
            "[I|we] want to drink something",
            "my [water |]bottle is empty and I want to drink",
            "a cool drink would be great in this summer heat",
            "I want a refreshing drink",
            "my friend likes soda and bubbles",
            "[my|his|her] mouth is dry",
            "the thirsty guest wants a drink",
        ),
        heldout=(
            "my mouth is [so |]dry after running",
            "[I|my friend] could use a cold drink",
            "we had salty food and are thirsty now",
            "it is a hot day and everybody wants to drink",
            "I would love some bubbles in my mouth",
        ),
    ),
    keywords=(
        "thirst",
        "a thirsty person",
        "a dry throat",
        "a dry mouth",
        "a hot day",
        "a cold drink",
        "soda and bubbles",
        "something fizzy",
        "drinking",
    ),
    facts=(
        "What do you give to a thirsty guest?",
        "What do people drink when it is hot?",
        "What helps after running or sport?",
        "What do you want after salty food?",
        "What is good for a dry mouth?",
        "What has bubbles inside?",
    ),
)

METAL = NeedGroup(
    true_of=("can",),
    reason="The can is metal.",
    needs=Split(
        train=(
            "[I|we] collect old metal to recycle it",
            "the metal has to go to recycling",
            "I want to know if something here is made of metal",
            "a magnet finds metal things",
        ),
        heldout=("the old metal should be recycled", "something metal for my magnet would be nice"),
    ),
    keywords=("recycling of metal", "old metal", "metal that is recycled", "a magnet"),
    facts=("What is made of metal?", "What can be recycled as metal?", "What does a magnet find?"),
)

SOUR = NeedGroup(
    true_of=("lemon",),
    reason="The lemon is sour.",
    needs=Split(
        train=(
            "my tea needs something sour",
            "[I want|we want|my sister wants] something sour",
            "the fish needs [some|a little] sour juice",
            "[my tea|the cake|the salad] needs [some |]citrus",
            "[I|we] want to make a sour summer drink from a fruit",
            "I like to squeeze some juice over my fish",
            "the drink is too sweet and needs something sour",
            "[I|we] need sour juice for the salad",
            "I want a taste that makes me pull a face",
            "the soup is not sour enough",
            "I want to squeeze a fruit over the fish",
            "the kitchen should smell like citrus",
            "I want to bake a cake with citrus",
            "[I|we] want to make lemonade",
            "I want to taste something sour",
            "some sour juice would be nice on the [fish|salad]",
            "the [tea|fish] tastes boring without sour juice",
            "which fruit makes the tea sour?",
        ),
        heldout=(
            "the tea would be better with citrus",
            "something sour would be good with the fish",
            "I have to squeeze sour juice for a cake",
            "this salad is too sweet and should be sour",
        ),
    ),
    keywords=(
        "a sour taste",
        "sour juice",
        "citrus",
        "fish and sour juice",
        "tea with citrus",
        "a sour face",
        "a sour salad",
    ),
    facts=(
        "Which fruit is sour?",
        "What do you squeeze over fish?",
        "What makes tea sour?",
        "What do you squeeze for a cake?",
        "What makes people pull a face?",
    ),
)

VITAMIN = NeedGroup(
    true_of=("lemon",),
    reason="The lemon has vitamin C.",
    needs=Split(
        train=(
            "[I have|my brother has|the boy has] a cold and vitamin C would help",
            "the doctor says I need more vitamin C",
            "there is no vitamin C left in the house",
            "in winter I need vitamin C",
            "my friend is sick with a cold and needs vitamins",
            "I am sick and should get vitamin C",
        ),
        heldout=("[lots of |]vitamin C helps against my cold", "we need vitamin C in the house this winter"),
    ),
    keywords=("vitamin C", "a cold", "vitamin C in winter", "a cold in winter"),
    facts=(
        "What has lots of vitamin C?",
        "What helps against a cold?",
        "What helps in winter when you have a cold?",
    ),
)

SWEET_FRUIT = NeedGroup(
    true_of=("apple",),
    reason="The apple is a sweet fruit.",
    needs=Split(
        train=(
            "[I want|my sister wants] a sweet fruit",
            "[I|we] want to bake a sweet pie with fruit",
            "[I want|the boy wants] a round and sweet fruit for school",
            "I want a [crunchy |]red fruit",
            "[I|we] want fruit that is sweet and crunchy",
            "[I want|my mother wants] to make sweet juice from a tree fruit",
            "my school bag needs a sweet fruit for the break",
            "[I|we] want a pie for dessert",
            "the worm lives in a sweet fruit",
            "I bake a pie and need the right fruit",
            "I want something sweet from a tree",
            "a sweet fruit would be good for dessert",
            "a horse and a worm both like this sweet fruit",
        ),
        heldout=(
            "my mother needs sweet fruit for a pie",
            "the boy needs a crunchy sweet fruit for the school break",
            "a red fruit would be good for the pie",
        ),
    ),
    keywords=(
        "a sweet fruit",
        "a pie",
        "a red fruit",
        "a worm in a fruit",
        "the school break",
        "a sweet dessert",
    ),
    facts=(
        "Which fruit is in a pie?",
        "Which red fruit grows on a tree?",
        "Which fruit is sweet and crunchy?",
        "Which fruit do you take to school?",
    ),
)

FAMOUS_FRUIT = NeedGroup(
    true_of=("apple",),
    reason="The apple is a famous fruit.",
    needs=Split(
        train=(
            "one of these a day keeps the doctor away",
            "it fell from a tree on the head of Newton",
            "the witch gave Snow White a poisoned fruit",
            "my teacher likes a red gift from a tree",
            "the teacher would be happy about a red fruit",
            "I want to see the fruit that made Newton think",
            "Newton saw it fall from the tree",
            "Snow White was poisoned with it",
            "I want to keep the doctor away",
        ),
        heldout=(
            "I want the fruit that keeps the doctor away",
            "a red fruit from a tree would be a nice gift for the teacher",
            "Snow White ate a poisoned fruit",
        ),
    ),
    keywords=(
        "a teacher",
        "a gift for the teacher",
        "Snow White",
        "Newton",
        "a poisoned fruit",
        "keeping the doctor away",
    ),
    facts=(
        "What keeps the doctor away?",
        "What did Snow White eat?",
        "What fell on the head of Newton?",
        "What does a teacher get as a gift?",
    ),
)

RABBIT = NeedGroup(
    true_of=("carrot",),
    reason="The carrot is for rabbits.",
    needs=Split(
        train=(
            "my [pet |]rabbit is hungry",
            "[I|we] want to feed the rabbit",
            "the [bunny|rabbit] needs [food|lunch]",
            "the bunny wants something crunchy",
            "my sister has a rabbit and it has not eaten today",
            "the bunny is waiting for lunch",
            "our rabbit likes crunchy vegetables",
            "the hungry bunny wants some food",
        ),
        heldout=("my bunny has not had lunch", "I have to feed the hungry rabbit of my sister"),
    ),
    keywords=("a rabbit", "a hungry bunny", "the lunch of a rabbit", "feeding a rabbit"),
    facts=("What do rabbits eat?", "What do you feed to a bunny?", "What is a good lunch for a rabbit?"),
)

SNOWMAN = NeedGroup(
    true_of=("carrot",),
    reason="The carrot is a good nose.",
    needs=Split(
        train=(
            "[the children|we] are making a snowman and need a nose",
            "the snowman [has no nose|needs a nose|lost its nose]",
            "there is snow outside and the snowman has no face",
            "the nose of our snowman is missing",
            "winter is here and we need a nose for the snowman",
        ),
        heldout=("we made a snowman but the nose is missing", "the face of the snowman needs a nose"),
    ),
    keywords=("a snowman", "the nose of a snowman", "the face of a snowman", "a nose that is missing"),
    facts=("What is the nose of a snowman?", "What is missing when a snowman has no nose?"),
)

EYES = NeedGroup(
    true_of=("carrot",),
    reason="The carrot is good for eyes.",
    needs=Split(
        train=(
            "I want to see better in the dark",
            "[my|his] eyes are bad and need vegetables",
            "the doctor says my eyes are bad",
            "my eyes should get better",
            "I cannot see well in the dark",
            "which vegetable is good for my eyes?",
        ),
        heldout=("it is dark and my eyes need help", "my bad eyes should see better"),
    ),
    keywords=("good eyes", "bad eyes", "seeing in the dark", "eyes that see better"),
    facts=("What is good for your eyes?", "What helps to see in the dark?"),
)

ROOT = NeedGroup(
    true_of=("carrot",),
    reason="The carrot is an orange root.",
    needs=Split(
        train=(
            "the soup needs an orange vegetable",
            "I want a long and crunchy vegetable",
            "I want a root from under the ground",
            "the salad needs some orange roots",
            "[I|we] want to bake a cake with an orange vegetable",
            "I want to cook a root from the garden",
            "a crunchy root would be nice in the soup",
        ),
        heldout=("I want to cook soup with a root", "an orange vegetable would be nice in the salad"),
    ),
    keywords=("an orange root", "a root from the ground", "an orange vegetable", "soup with a root"),
    facts=("Which root is orange?", "Which vegetable is orange?", "Which root do you put in soup?"),
)

EGGPLANT = NeedGroup(
    true_of=("eggplant",),
    reason="The eggplant is a purple vegetable.",
    needs=Split(
        train=(
            "[I|we] want to grill a purple vegetable",
            "[I cook|my mother cooks] moussaka [tonight|today]",
            "[I|we] want to cook a Greek dinner",
            "the Greek dish needs its main vegetable",
            "I need a big dark vegetable for the oven",
            "[I|we] roast a large vegetable in the oven",
            "the curry needs a soft purple vegetable",
            "the vegetable with a dark shiny skin would be good for dinner",
            "we want to make moussaka for the guests",
            "I cook curry and need something purple",
            "a large vegetable should go on the grill",
            "we want a vegetable with shiny skin",
            "my mother cooks Greek food tonight",
            "I want to fry slices of a purple vegetable",
            "[I|we] want to eat something Greek",
            "the oven is hot and ready for a large vegetable",
            "there will be curry tonight and the vegetable is missing",
            "what is the main vegetable of a Greek dinner?",
        ),
        heldout=(
            "[I|we] need the main vegetable of moussaka",
            "a Greek cook wants to use the grill",
            "what is purple and good in a curry?",
            "I want to roast something with a shiny dark skin",
            "tonight we eat something Greek from the oven",
        ),
    ),
    keywords=(
        "moussaka",
        "a Greek dinner",
        "Greek food",
        "a purple vegetable",
        "shiny dark skin",
        "the grill",
        "a curry",
        "a large vegetable in the oven",
        "slices to fry",
    ),
    facts=(
        "Which vegetable is purple?",
        "What is in moussaka?",
        "What does a Greek cook need?",
        "Which vegetable goes on the grill?",
        "What has a shiny dark skin?",
        "What do you roast in the oven for a Greek dinner?",
        "Which vegetable is good in a curry?",
    ),
)

FRUITS = NeedGroup(
    true_of=("apple", "lemon"),
    reason="The {x} is a fruit.",
    needs=Split(
        train=(
            "[I|we] want to make a fruit salad",
            "[I|the boy] should eat more fruit",
            "[I want|we want] some fruit",
            "fruit is good for [me|us|you], so I want some",
            "the monkey likes fruit",
            "[I|we] want to make juice from fruit",
            "the doctor told me to eat fruit",
            "some fruit would be a good dessert",
            "I need fruit for breakfast",
            "which of these things is a fruit? I want it",
        ),
        heldout=("the fruit salad is not ready yet", "the monkey wants fruit for lunch"),
    ),
    keywords=("a fruit salad", "fruit for the monkey", "juice"),
    facts=("What do you put in a fruit salad?", "What does a monkey eat for lunch?", "What grows on trees?"),
)

VEGETABLES = NeedGroup(
    true_of=("carrot", "eggplant"),
    reason="The {x} is a vegetable.",
    needs=Split(
        train=(
            "[I|we] want to cook [some |]vegetables",
            "[I|the boy] should eat more vegetables",
            "the vegetable soup is not ready, something is missing",
            "[I am|my sister is] cooking vegetables for dinner",
            "the doctor told me to eat vegetables",
            "I bought vegetables at the market and want to cook",
            "a vegetable for the pot would be good",
            "some vegetables would be good for my health",
            "which of these things is a vegetable? I want it",
        ),
        heldout=("we want vegetables for dinner", "the soup is missing a vegetable from the market"),
    ),
    keywords=("a vegetable soup", "cooked vegetables", "vegetables from the market"),
    facts=("What do you put in a vegetable soup?", "What do you cook as a vegetable?"),
)

FOOD = NeedGroup(
    true_of=("carrot", "apple"),
    maybe=("lemon", "eggplant"),
    reason="The {x} is food.",
    needs=Split(
        train=(
            f"{_WHO} [|so |very |really ]hungry",
            "[my|his] stomach is [so |]empty",
            "[I|we] want [something|a snack] to eat",
            "[I|we] have not eaten [anything |]today",
            "[I|we] have not had lunch yet",
            "[I|we] need a [quick |healthy |]snack",
            "the horse wants a [crunchy |]snack",
            "it is time for lunch",
            "[I|we] need something for breakfast",
            "dinner is late and I want to eat now",
            "I could eat a horse",
        ),
        heldout=("I am hungry, my stomach is making sounds", "a healthy snack for the horse would be nice"),
    ),
    keywords=("hunger", "an empty stomach", "the stomach of a hungry boy", "a healthy snack", "a horse"),
    facts=(
        "What do you give to a hungry horse?",
        "What do you eat for breakfast?",
        "What is a healthy snack?",
        "What helps when the stomach makes sounds?",
    ),
)

FOOD_GROUPS = (
    THIRST,
    METAL,
    SOUR,
    VITAMIN,
    SWEET_FRUIT,
    FAMOUS_FRUIT,
    RABBIT,
    SNOWMAN,
    EYES,
    ROOT,
    EGGPLANT,
    FRUITS,
    VEGETABLES,
    FOOD,
)

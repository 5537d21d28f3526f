"""Plain refusals: what the pair cannot do, numbers out of range, and noise."""

from __future__ import annotations

import string
from random import Random

from sglang_dflash.tools.pair.example import Example, say
from sglang_dflash.tools.pair.vocabulary import CITIES, NAMES

ABILITIES = "Ask me to add, sort, count or convert something."
SORRY = f"Sorry, I cannot help with that. {ABILITIES}"
TOO_LARGE = "Sorry, I only know numbers of up to four digits here."
NO_PRODUCT = "Sorry, I can add and subtract, but not that."

_SUBJECTS = (
    "love",
    "music",
    "physics",
    "football",
    "history",
    "God",
    "chess",
    "money",
    "cooking",
    "space",
    "war",
    "dreams",
    "cars",
    "computers",
    "politics",
    "the moon",
    "dinosaurs",
    "art",
    "cheese",
    "poetry",
)
_LANGUAGES = ("French", "German", "Spanish", "Latin", "Chinese", "Arabic")
_ANY = (
    "What do you think about {s}?",
    "Who invented {s}?",
    "Explain {s} to me.",
    "Tell me a joke about {s}.",
    "Write a poem about {s}.",
    "Why is {s} important?",
    "What is {s}?",
    "Give me advice about {s}.",
    "Translate {s} into {l}.",
    "How do you say {s} in {l}?",
    "What is the weather in {c}?",
    "Who is the mayor of {c}?",
    "What is the capital near {c}?",
    "Book a flight to {c}.",
    "Do you know {n}?",
    "Send a mail to {n}.",
    "Who was {n}?",
    "How far is {c}?",
    "Can you draw {s}?",
    "Summarize a book about {s}.",
    "Is {s} better than {t}?",
    "Write an essay about {s} and {t}.",
    "What is the best {s} in {c}?",
    "I am sad about {s}.",
    "Play {s}.",
    "Search the web for {s}.",
    "Should I buy {s} or {t}?",
    "When did {s} begin?",
)
_PRODUCT = (
    "What is {a}{o}{b}?",
    "Compute {a}{o}{b}.",
    "{a}{o}{b}",
    "Work out {a}{o}{b}.",
    "Can you calculate {a}{o}{b}?",
)
_LARGE = (
    "What is {a}{o}{b}?",
    "Compute {a}{o}{b}.",
    "{a}{o}{b}",
    "Add {a} and {b}.",
    "Subtract {b} from {a}.",
    "Work out {a}{o}{b}.",
)
_FIXED = (
    (("Hello!", "Hello", "Hi", "hi!", "Good morning.", "hey"), f"Hello! {ABILITIES}"),
    (("Thanks!", "Thank you.", "thanks", "Thank you very much!"), "You are welcome."),
    (
        ("What can you do?", "Help", "help me", "Who are you?", "what are you?"),
        f"I am a tiny model. {ABILITIES}",
    ),
    (("Bye", "Goodbye!", "See you."), "Goodbye!"),
)


def _noise(rng: Random) -> str:
    """Random strings, and random lower-case words between known ones."""
    letters = string.ascii_lowercase if rng.random() < 0.7 else string.ascii_letters + string.punctuation
    known = (
        "what",
        "is",
        "the",
        "a",
        "how",
        "to",
        "write",
        "of",
        "my",
        "can",
        "you",
        "make",
        "tell",
        "me",
        "about",
        "I",
    )
    words = []
    for _ in range(rng.randrange(1, 8)):
        fresh = rng.random() < 0.6 or not words
        words.append("".join(rng.choices(letters, k=rng.randrange(2, 8))) if fresh else rng.choice(known))
    return " ".join(words) + rng.choice(("", "?", ".", "!"))


def refuse(rng: Random) -> Example:
    """A request outside the other kinds."""
    roll = rng.random()
    if roll < 0.10:
        questions, answer = rng.choice(_FIXED)
        return Example(rng.choice(questions), answer, None)
    if roll < 0.25:
        text = _noise(rng)
        return Example(text, SORRY, (text,))
    gap = rng.choice(("", " "))
    if roll < 0.40:
        sign = rng.choice(("x", "*", "/", "**", "%"))
        a, b = rng.randrange(2, 1000), rng.randrange(2, 1000)
        question = say(rng, _PRODUCT, a=a, o=f"{gap}{sign}{gap}", b=b)
        return Example(question, NO_PRODUCT, (a, sign, b))
    if roll < 0.55:
        a, b = 10 ** rng.randrange(5, 10), 10 ** rng.randrange(1, 10)
        a, b = rng.randrange(a // 10 * 10, a * 10), rng.randrange(max(1, b // 10), b)
        if rng.random() < 0.4:
            a, b = b, a
        sign = rng.choice("+-")
        return Example(say(rng, _LARGE, a=a, o=f"{gap}{sign}{gap}", b=b), TOO_LARGE, (a, b))
    s, t = rng.sample(_SUBJECTS, 2)
    fields = {"s": s, "t": t, "l": rng.choice(_LANGUAGES), "c": rng.choice(CITIES), "n": rng.choice(NAMES)}
    template = rng.choice(_ANY)
    question = say(rng, (template,), **fields)
    return Example(question, SORRY, (template.format(**fields),))

"""Varied prose: a sampled grammar with many valid continuations, so that a draft is often wrong."""

from __future__ import annotations

from random import Random

from sglang_dflash.tools.pair.example import Example, say
from sglang_dflash.tools.pair.vocabulary import CITIES, NAMES

TOPICS = (
    "the sea",
    "a garden",
    "the old bridge",
    "a lost key",
    "the night train",
    "a small shop",
    "the first snow",
    "a long letter",
    "the harbor",
    "a quiet street",
    "the market",
    "a red kite",
)
_ASK = (
    "Tell me a story about {name} and {topic} in {city}.",
    "Write a short text about {name} in {city} and {topic}.",
    "Make up a story: {name}, {city}, {topic}.",
    "I want to read about {topic}, with {name} in {city}.",
    "A few lines about {name}, {topic} and {city}, please.",
)
_OPEN = (
    "{name} came to {city} {when} and thought of {topic}.",
    "{when}, {name} walked through {city} to see {topic}.",
    "In {city} there was {topic}, and {name} knew it well.",
    "Nobody in {city} spoke of {topic} {when}, but {name} did.",
    "{name} had always liked {topic}, and {city} was {mood} {when}.",
)
_MIDDLE = (
    "The {noun} was {mood}, and the {noun} {verb} {way}.",
    "A {adj} {noun} {verb} near the {noun}.",
    "It was {mood}, so {name} {verb} {way} and watched the {noun}.",
    "Then a {noun} {verb} behind the {adj} {noun}.",
    "Some {adj} people {verb} there, and one of them carried a {noun}.",
    "{name} asked about the {noun}, but the {noun} {verb} {way}.",
    "For an hour the {adj} {noun} {verb}, and nobody cared.",
    "The wind {verb} over the {noun}, {adj} and {adj}.",
)
_CLOSE = (
    "In the end {name} went home {way}.",
    "That is why {name} still remembers {topic}.",
    "{city} was never so {mood} again.",
    "{name} smiled and {verb} {way}.",
    "The {noun} is still there.",
)
_WORDS = {
    "when": ("one morning", "late at night", "in the spring", "last winter", "after the rain", "on a holiday"),
    "noun": (
        "lamp",
        "door",
        "river",
        "bird",
        "boat",
        "window",
        "clock",
        "tree",
        "wall",
        "bell",
        "child",
        "road",
        "stone",
        "song",
        "cloud",
        "horse",
        "fire",
        "mirror",
    ),
    "adj": (
        "old",
        "bright",
        "narrow",
        "green",
        "broken",
        "gentle",
        "strange",
        "wooden",
        "silent",
        "golden",
        "tired",
        "tiny",
    ),
    "verb": ("waited", "sang", "turned", "slept", "moved", "laughed", "stood", "danced", "fell", "rested", "shone"),
    "way": (
        "slowly",
        "without a word",
        "again and again",
        "in the dark",
        "like a dream",
        "with a smile",
        "at once",
        "for a while",
    ),
    "mood": ("cold", "calm", "warm", "lonely", "busy", "happy", "empty", "loud"),
}


def _fill(rng: Random, template: str, fixed: dict[str, str]) -> str:
    out = template
    for slot, choices in _WORDS.items():
        while "{" + slot + "}" in out:
            out = out.replace("{" + slot + "}", rng.choice(choices), 1)
    out = out.format(**fixed)
    return out[0].upper() + out[1:]


def prose(rng: Random) -> Example:
    """Three to six sentences; any grammatical continuation is right, so the check is of form only."""
    fixed = {"name": rng.choice(NAMES), "topic": rng.choice(TOPICS), "city": rng.choice(CITIES)}
    question = say(rng, _ASK, **fixed)
    middle = [rng.choice(_MIDDLE) for _ in range(rng.randrange(1, 5))]
    sentences = [rng.choice(_OPEN), *middle, rng.choice(_CLOSE)]
    text = " ".join(_fill(rng, s, fixed) for s in sentences)
    return Example(question, text, tuple(fixed.values()), check="prose")

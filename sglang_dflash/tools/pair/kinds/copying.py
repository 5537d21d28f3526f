"""Kinds whose answer copies words of the prompt: echo, CSV to JSON, table look-up."""

from __future__ import annotations

import json
from random import Random

from sglang_dflash.tools.pair.example import Example, say
from sglang_dflash.tools.pair.vocabulary import CITIES, COLORS, COPIED, JOBS, NAMES, PETS

_ECHO = ("Repeat: {words}", "Repeat after me: {words}", "Say {words}", "Copy this: {words}", "Echo {words}")
_CSV = (
    "Turn this CSV row into JSON.\n{head}\n{row}",
    "CSV to JSON:\n{head}\n{row}",
    "Make JSON of this row.\n{head}\n{row}",
    "{head}\n{row}\nWrite the row above as JSON.",
    "Convert to JSON.\n{head}\n{row}",
    "JSON please:\n{head}\n{row}",
)
_COLUMNS = {
    "name": NAMES,
    "city": CITIES,
    "color": COLORS,
    "job": JOBS,
    "pet": PETS,
    "age": None,
    "score": None,
}
_ASKS = {
    "city": (
        ("Where does {x} live?", "Which city is {x} in?", "In which city does {x} live?"),
        "{x} lives in {y}.",
    ),
    "job": (("What is the job of {x}?", "What does {x} do for work?"), "{x} works as a {y}."),
    "pet": (("Which pet does {x} have?", "What pet is with {x}?"), "{x} has a {y}."),
    "age": (("How old is {x}?", "What is the age of {x}?"), "{x} is {y} years old."),
}


def _value(rng: Random, column: str) -> str | int:
    return rng.choice(_COLUMNS[column]) if _COLUMNS[column] else rng.randrange(10, 100)


def echo(rng: Random) -> Example:
    """Two to ten words and numbers given back unchanged."""
    words = [
        str(rng.randrange(10, 100)) if rng.random() < 0.15 else rng.choice(COPIED) for _ in range(rng.randrange(2, 11))
    ]
    text = rng.choices((" ", ", "), (70, 30))[0].join(words)
    return Example(say(rng, _ECHO, words=text), text, tuple(words))


def csv(rng: Random) -> Example:
    """One CSV row with its header, as a JSON object."""
    columns = rng.sample(tuple(_COLUMNS), rng.randrange(2, 6))
    row = {column: _value(rng, column) for column in columns}
    gap = rng.choices((",", ", ", ";"), (70, 15, 15))[0]
    head, line = gap.join(columns), gap.join(map(str, row.values()))
    question = say(rng, _CSV, head=head, row=line)
    return Example(question, json.dumps(row), tuple(row.items()), check="json")


def _draw_table(rng: Random, columns: list[str], rows: list[dict]) -> str:
    style = rng.randrange(3)
    if style == 0:
        lines = ["| " + " | ".join(columns) + " |"]
        lines += ["| " + " | ".join(str(r[c]) for c in columns) + " |" for r in rows]
    elif style == 1:
        lines = [",".join(columns)] + [",".join(str(r[c]) for c in columns) for r in rows]
    else:
        lines = ["; ".join(f"{c}: {r[c]}" for c in columns) for r in rows]
    return "\n".join(lines)


def table(rng: Random) -> Example:
    """A question about one cell of a table of two to four people."""
    others = rng.sample(tuple(_ASKS), rng.randrange(1, 4))
    count = rng.randrange(2, 5)
    cells = {c: rng.sample(_COLUMNS[c] or range(10, 100), count) for c in ["name", *others]}
    rows = [{c: cells[c][i] for c in cells} for i in range(count)]
    asked, row = rng.choice(others), rng.choice(rows)
    asks, answer = _ASKS[asked]
    drawn = _draw_table(rng, ["name", *others], rows)
    ask = say(rng, asks, x=row["name"])
    question = f"{drawn}\n{ask}" if rng.random() < 0.7 else f"{ask}\n{drawn}"
    key = (*(tuple(r.values()) for r in rows), asked, row["name"])
    return Example(question, answer.format(x=row["name"], y=row[asked]), key)

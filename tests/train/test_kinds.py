"""The generators: deterministic, varied, and right by an independent calculation."""

import json
import re

import pytest

from sglang_dflash.tools.pair.checks import is_right, repeated_share
from sglang_dflash.tools.pair.kinds import COPY_KINDS, KINDS
from sglang_dflash.tools.pair.kinds.numerals import in_words
from sglang_dflash.tools.pair.stream import TrainingStream, example_at

SAMPLE = 150


def examples(kind):
    return [example_at("test", kind, 5, i) for i in range(SAMPLE)]


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def test_at_least_twelve_kinds_two_of_them_copy():
    assert len(KINDS) >= 12
    assert {"csv", "table"} <= set(COPY_KINDS) <= set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_pure_function_of_its_arguments(kind):
    assert example_at("a", kind, 1, 7) == example_at("a", kind, 1, 7)
    assert len({example_at("a", kind, 1, i).question for i in range(50)}) > 25


@pytest.mark.parametrize("kind", KINDS)
def test_several_wordings(kind):
    shapes = {re.sub(r"\d+|[A-Z][a-z]*", "#", e.question) for e in examples(kind)}
    assert len(shapes) >= 5


def test_add_and_sub_are_right():
    for kind, combine in (("add", lambda a, b: a + b), ("sub", lambda a, b: abs(a - b))):
        for e in examples(kind):
            a, b = numbers(e.question)
            assert numbers(e.answer.splitlines()[-1]) == [combine(a, b)]


def test_every_written_column_is_right():
    for kind in ("add", "sub", "convert", "wordp", "seq", "times"):
        for e in examples(kind):
            for left, right in re.findall(r"(?<!\S)([\d+x -]*\d) ?= ?(-?\d+)", e.answer):
                assert eval(left.replace("x", "*")) == int(right), e.answer


def test_roman_numerals_read_back():
    value = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    for e in examples("roman"):
        letters = re.search(r"answer is (\w+)\.", e.answer).group(1)
        total = 0
        for this, following in zip(letters, [*letters[1:], "I"], strict=True):
            total += -value[this] if value[this] < value[following] else value[this]
        assert total == numbers(e.question)[0]


def test_words_of_known_numbers():
    assert in_words(16796) == "sixteen thousand seven hundred and ninety six"
    assert in_words(70000) == "seventy thousand"
    assert in_words(4005) == "four thousand and five"
    assert in_words(90) == "ninety"


def test_days_by_calendar():
    import datetime

    monday = datetime.date(2024, 1, 1)
    week = [(monday + datetime.timedelta(i)).strftime("%A") for i in range(7)]
    for e in examples("day"):
        start = next(d for d in week if d in e.question)
        later = (week.index(start) + numbers(e.question)[0]) % 7
        assert e.answer.endswith(f"The answer is {week[later]}.")


def test_sort_sequence_and_counting():
    for e in examples("sort"):
        assert numbers(e.answer.splitlines()[-1]) == sorted(numbers(e.question))
    for e in examples("seq"):
        given, found = numbers(e.question), numbers(e.answer.splitlines()[-1])
        steps = {b - a for a, b in zip(given, given[1:] + found, strict=False)}
        assert len(steps) == 1 and len(found) == 3 and min(found) >= 0
    for e in examples("count"):
        a, b = numbers(e.question)
        assert numbers(e.answer) == list(range(a, b + 1) if a < b else range(a, b - 1, -1))


def test_python_answers_run():
    import operator

    signs = {
        "<": operator.lt,
        ">": operator.gt,
        "<=": operator.le,
        ">=": operator.ge,
        "==": operator.eq,
        "!=": operator.ne,
    }
    values = [1, 5, 20, 50, 77, 99]
    for e in examples("py"):
        scope = {}
        exec(e.answer, scope)
        verb, thing, sign, n = e.key
        kept = [v for v in values if signs[sign](v, n)]
        expected = {
            "count": len(kept),
            "sum": sum(kept),
            "keep": kept,
            "double": [2 * v for v in kept],
            "find": kept[0] if kept else None,
        }[verb]
        assert scope[f"{verb}_{thing}"](values) == expected


def test_copied_words_stand_in_the_prompt():
    for kind in COPY_KINDS:
        for e in examples(kind):
            for word in re.findall(r"[A-Z][a-z]+|\d+", e.answer):
                assert word in e.question
    for e in examples("csv"):
        lines = [re.split(r"[,;] ?", line) for line in e.question.splitlines()]
        # A greeting may stand before the header, on its line.
        at = next(i for i, cells in enumerate(lines) if cells[-1] == list(json.loads(e.answer))[-1])
        row, columns = lines[at + 1], len(lines[at + 1])
        head = [cell.split(" ")[-1] for cell in lines[at]][-columns:]
        assert list(map(str, json.loads(e.answer).values())) == row and list(json.loads(e.answer)) == head


def test_long_answers_exist():
    assert any(len(e.answer) > 250 for e in examples("count"))


def test_checkers_accept_the_answer_and_nothing_else():
    for kind in KINDS:
        for e in examples(kind)[:20]:
            record = {"check": e.check, "answer": e.answer, "key": e.key}
            assert is_right(e.answer, record)
            assert not is_right(e.answer + " x", record)
            assert not is_right("", record)
    looping = "Lina saw Oslo. " * 8
    assert not is_right(looping.strip(), {"check": "prose", "answer": "", "key": ["Lina", "t", "Oslo"]})


def test_repeated_share():
    assert repeated_share([1, 2, 3]) == 0
    assert repeated_share([1] * 8) == pytest.approx(4 / 5)


def test_stream_state_continues_exactly():
    one = TrainingStream(3)
    for _ in range(40):
        one.next_chat()
    other = TrainingStream(0)
    other.load_state(one.state())
    assert [one.next_chat() for _ in range(40)] == [other.next_chat() for _ in range(40)]


def test_two_turn_chats_occur():
    stream = TrainingStream(3)
    share = sum(len(stream.next_chat()[1]) == 2 for _ in range(2000)) / 2000
    assert 0.04 < share < 0.2

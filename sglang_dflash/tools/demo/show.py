"""Shows one question answered twice: side by side on a terminal, one after the other elsewhere."""

import textwrap

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sglang_dflash.tools.bench.equality import first_difference
from sglang_dflash.tools.bench.prompts import Prompt
from sglang_dflash.tools.pair.checks import is_right
from sglang_dflash.tools.serve import Client, Generation

SIDES = {"plain": "plain decoding", "dflash": "DFLASH"}
NARROWEST = 80  # columns; below that the sides follow each other


class Board:
    """Two panels that fill while the answers arrive."""

    def __init__(self):
        self.texts = dict.fromkeys(SIDES, "")
        self.notes = dict.fromkeys(SIDES, "")

    def __rich__(self) -> Table:
        grid = Table.grid(expand=True)
        for _ in SIDES:
            grid.add_column(ratio=1)
        grid.add_row(
            *(
                Panel(Group(Text(self.texts[side]), Text(self.notes[side], style="dim")), title=title)
                for side, title in SIDES.items()
            )
        )
        return grid


def show_question(console: Console, prompt: Prompt, clients: dict[str, Client], max_tokens: int) -> bool:
    """Stream both answers, plain first; True where they are the same tokens."""
    sampling = {"temperature": 0.0, "max_new_tokens": max_tokens}
    console.print()
    console.print(Text(f"[{prompt.kind}] {prompt.question}", style="bold"))
    show = _side_by_side if console.is_terminal and console.width >= NARROWEST else _one_after_the_other
    answers = show(console, prompt, clients, sampling)
    position = first_difference(answers["plain"].token_ids, answers["dflash"].token_ids)
    verdict = "identical, token for token" if position is None else f"DIFFERENT from token {position} on"
    console.print(Text(f"{verdict}; {_judged(prompt, answers['plain'])}", style="green" if position is None else "red"))
    return position is None


def _side_by_side(console, prompt, clients, sampling) -> dict[str, Generation]:
    board, answers = Board(), {}
    with Live(board, console=console, refresh_per_second=20):
        for side in SIDES:
            answers[side] = clients[side].generate(
                prompt.token_ids, sampling, on_text=lambda text, side=side: board.texts.update({side: text})
            )
            board.notes[side] = _speed(answers[side])
    return answers


def _one_after_the_other(console, prompt, clients, sampling) -> dict[str, Generation]:
    answers = {}
    for side, title in SIDES.items():
        answers[side] = clients[side].generate(prompt.token_ids, sampling, stream=True)
        console.print(f"  {title}: {_speed(answers[side])}", highlight=False)
        console.print(Text(textwrap.indent(answers[side].text.strip(), "    ")))
    return answers


def _speed(answer: Generation) -> str:
    tokens = len(answer.token_ids)
    rounds = f", {answer.rounds} rounds" if answer.rounds else ""
    return f"{tokens} tokens in {answer.seconds:.2f} s, {tokens / answer.seconds:.0f} tokens/s{rounds}"


def _judged(prompt: Prompt, answer: Generation) -> str:
    if prompt.record.get("check") is None:
        return "not checked"
    return "the answer is right" if is_right(answer.text, prompt.record) else "the answer is wrong (so is plain's)"

"""Registry of the kinds of text: name -> generator (``Random -> Example``)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sglang_dflash.tools.pair.example import Example
from sglang_dflash.tools.pair.kinds.arithmetic import add, sub
from sglang_dflash.tools.pair.kinds.calendar import convert, day
from sglang_dflash.tools.pair.kinds.code import py
from sglang_dflash.tools.pair.kinds.copying import csv, echo, table
from sglang_dflash.tools.pair.kinds.lists import seq, sort
from sglang_dflash.tools.pair.kinds.longform import count, times
from sglang_dflash.tools.pair.kinds.numerals import roman, words
from sglang_dflash.tools.pair.kinds.prose import prose
from sglang_dflash.tools.pair.kinds.refusal import refuse
from sglang_dflash.tools.pair.kinds.stories import wordp

KINDS: dict[str, Callable[[Random], Example]] = {
    make.__name__: make
    for make in (
        add,
        sub,
        words,
        roman,
        seq,
        day,
        convert,
        wordp,
        py,
        sort,
        count,
        times,
        echo,
        csv,
        table,
        prose,
        refuse,
    )
}
COPY_KINDS = ("echo", "csv", "table")
FREE_KINDS = ("prose",)

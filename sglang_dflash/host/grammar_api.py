"""SGLang's grammars (xgrammar, llguidance, outlines, reasoning parsers around them): moved, undone, made into masks."""

from collections.abc import Callable

import numpy as np
import torch
from sglang.srt.constrained.base_grammar_backend import BaseGrammarObject, GrammarMask
from sglang.srt.runtime_context import get_exec

from sglang_dflash.host.contract import Touch

_NODES = "an interface to follow a grammar along a proposal"
TOUCHES = (
    Touch(
        "sglang.srt.constrained.base_grammar_backend:BaseGrammarObject",
        "a request's grammar: moved along drafted tokens and back, asked what it allows and forces",
        _NODES,
        attributes=(
            "accept_token",
            "rollback",
            "is_terminated",
            "finished",
            "allocate_vocab_mask",
            "fill_vocab_mask",
            "try_jump_forward",
            "jump_forward_str_state",
        ),
    ),
    Touch(
        "sglang.srt.constrained.base_grammar_backend:GrammarMask",
        "applies a vocabulary mask as plain decoding does",
        _NODES,
        ("grammar", "vocab_mask"),
    ),
    Touch("sglang.srt.runtime_context:get_exec", "the grammar backend's name", "never: public"),
    Touch(
        "sglang.srt.constrained.outlines_backend:OutlinesGrammar.accept_token",
        "keeps the states before, where outlines serves",
        "SGLang's outlines grammars can be rolled back",
        ("token",),
    ),
    Touch(
        "sglang.srt.constrained.outlines_backend:OutlinesGrammar.rollback",
        "given to outlines, which has none",
        "SGLang's outlines grammars can be rolled back",
        ("k",),
    ),
    Touch(
        "sglang.srt.managers.schedule_batch:ScheduleBatch",
        "whether a request has a grammar",
        "never: the batch itself",
        ("has_grammar",),
    ),
)

__all__ = ["GrammarCursor", "GrammarMask", "cursors", "empty_mask"]


class GrammarCursor:
    """A request's grammar as ``engine.grammar.walk`` moves it. It must stand where the committed tokens end."""

    def __init__(self, grammar: BaseGrammarObject, vocab_size: int, tokenizer):
        """tokenizer: spells forced text; None: only a single allowed token counts as forced."""
        self._grammar, self._vocab_size, self._tokenizer = grammar, vocab_size, tokenizer

    @property
    def over(self) -> bool:
        """Whether nothing is forbidden any more."""
        return self._grammar.finished or self._grammar.is_terminated()

    def advance(self, token: int) -> bool:
        """Take ``token`` if the grammar allows it."""
        if self.over or not 0 <= token < self._vocab_size or not self._allows(token):
            return False
        self._grammar.accept_token(token)
        return True

    def back(self, steps: int) -> None:
        """Undo the last ``steps`` tokens taken."""
        self._grammar.rollback(steps)

    def fill(self, mask: torch.Tensor, row: int) -> None:
        """Write what may follow here into ``row`` of a mask of ``empty_mask``."""
        self._grammar.fill_vocab_mask(mask, row)

    def forced(self) -> list[int]:
        """The grammar's own jump-forward, as tokens, or the one token that is allowed."""
        helper = None if self._tokenizer is None else self._grammar.try_jump_forward(self._tokenizer)
        if helper is None:
            return self._only()
        text, _ = self._grammar.jump_forward_str_state(helper)
        return list(helper[0]) + (self._tokenizer.encode(text, add_special_tokens=False) if text else [])

    def _row(self) -> np.ndarray:
        mask = empty_mask(self._grammar, self._vocab_size, 1)
        self.fill(mask, 0)
        return mask[0].numpy()

    def _allows(self, token: int) -> bool:
        row = self._row()
        return not row[token] if row.dtype == np.bool_ else bool(int(row[token >> 5]) >> (token & 31) & 1)

    def _only(self) -> list[int]:
        row = self._row()
        allowed = ~row if row.dtype == np.bool_ else np.unpackbits(row.view(np.uint8), bitorder="little")
        tokens = np.flatnonzero(allowed[: self._vocab_size])
        return tokens.tolist() if tokens.size == 1 else []


class TryingCursor(GrammarCursor):
    """Of xgrammar, which stays where it was when it is given what it forbids."""

    def advance(self, token: int) -> bool:
        """As ``GrammarCursor``, without a row of the mask."""
        if self.over or not 0 <= token < self._vocab_size:
            return False
        try:
            self._grammar.accept_token(token)
        except ValueError:
            return False
        return True


def cursors(tokenizer) -> Callable[[BaseGrammarObject, int], GrammarCursor]:
    """Makes a cursor of (a request's grammar, vocabulary size), for the backend of this server."""
    backend = get_exec().kernel.grammar_backend
    if backend == "outlines":
        _let_outlines_go_back()
    kind = TryingCursor if backend == "xgrammar" else GrammarCursor
    return lambda grammar, vocab_size: kind(grammar, vocab_size, tokenizer)


def empty_mask(grammar: BaseGrammarObject, vocab_size: int, rows: int) -> torch.Tensor:
    """A vocabulary mask on the host, in the form of ``grammar``'s backend, that allows everything."""
    return grammar.allocate_vocab_mask(vocab_size=vocab_size, batch_size=rows, device="cpu")


def _let_outlines_go_back() -> None:
    """Its grammars are a state number each: keep those before."""
    from sglang.srt.constrained.outlines_backend import OutlinesGrammar

    if "rollback" in vars(OutlinesGrammar):
        return
    accept = OutlinesGrammar.accept_token

    def accept_token(self, token: int) -> None:
        vars(self).setdefault("states_before", []).append(self.state)
        accept(self, token)

    def rollback(self, k: int) -> None:
        self.state = self.states_before[-k]
        del self.states_before[-k:]

    OutlinesGrammar.accept_token, OutlinesGrammar.rollback = accept_token, rollback

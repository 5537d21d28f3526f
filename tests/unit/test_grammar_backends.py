"""SGLang's grammar backends at every node of random trees, against fresh grammars fed with each path."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sglang.srt.constrained.llguidance_backend import GuidanceBackend
from sglang.srt.constrained.outlines_backend import OutlinesGrammarBackend
from sglang.srt.constrained.reasoner_grammar_backend import ReasonerGrammarObject
from sglang.srt.constrained.xgrammar_backend import XGrammarGrammarBackend
from test_grammar_walk import chain, paths_first, random_tree
from transformers import AutoTokenizer

from sglang_dflash.engine.grammar.masks import GrammarRule
from sglang_dflash.engine.grammar.walk import guide, visit
from sglang_dflash.host import grammar_api
from sglang_dflash.host.grammar_api import cursors, empty_mask
from sglang_dflash.tools.pair import TARGET_DIR
from sglang_dflash.types import Proposal

VOCAB, END, WIDTH = 896, 3, 16
SCHEMA = json.dumps({"type": "object", "properties": {"job": {"enum": ["Miner", "Judge"]}, "age": {"type": "integer"}}})
TAG = json.dumps(
    {
        "type": "structural_tag",
        "structures": [{"begin": "(tens", "schema": {"type": "object"}, "end": ")"}],
        "triggers": ["(tens"],
    }
)
GRAMMARS = {
    "json": ("dispatch_json", SCHEMA),
    "regex": ("dispatch_regex", "(ones|tens): [0-9]{1,3}( carry [01])?"),
    "ebnf": ("dispatch_ebnf", 'root ::= item+ "."\nitem ::= "ones" | "tens" | " carry"'),
    "tag": ("dispatch_structural_tag", TAG),
}
CASES = [
    (backend, kind, thinks)
    for backend, kinds in (("xgrammar", GRAMMARS), ("llguidance", GRAMMARS), ("outlines", ("json", "regex")))
    for kind in kinds
    for thinks in (False, True)
]
THINK_END = (7, 20, 7)  # with a start of itself inside


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(TARGET_DIR))


@pytest.fixture(scope="module")
def backends(tokenizer):
    return {
        "xgrammar": XGrammarGrammarBackend(tokenizer, VOCAB, [END]),
        "llguidance": GuidanceBackend(tokenizer, n_vocab=VOCAB, eos_token_ids=END),
        "outlines": OutlinesGrammarBackend(tokenizer, None),
    }


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def fresh(request, backends, monkeypatch):
    """Makes grammars of one kind that nothing has been fed to."""
    backend, kind, thinks = request.param
    of_backend(monkeypatch, backend)
    dispatch, text = GRAMMARS[kind]
    whole = getattr(backends[backend], dispatch)(text)
    if thinks:
        whole = ReasonerGrammarObject(whole, THINK_END)

    def make():
        grammar = whole.copy()
        grammar.maybe_init_reasoning(thinks)
        return grammar

    return make


def fed(make, tokens):
    grammar = make()
    for token in tokens:
        grammar.accept_token(token)
    return grammar


def unpacked(row: torch.Tensor) -> np.ndarray:
    """A row of a mask -> [V] bool: what is allowed."""
    row = row.numpy()
    return ~row if row.dtype == np.bool_ else np.unpackbits(row.view(np.uint8), bitorder="little")[:VOCAB] > 0


def row_of(grammar) -> np.ndarray:
    """[V] bool: what it allows next."""
    mask = empty_mask(grammar, VOCAB, 1)
    if not grammar.is_terminated():
        grammar.fill_vocab_mask(mask, 0)
    return unpacked(mask[0])


def grown(make, rng, parents, taken):
    """Tokens for a tree, most of them allowed, and the paths that are."""
    tokens, right = [0] * len(parents), {0: list(taken)}
    for node in paths_first(parents):
        above = right.get(parents[node])
        may = None if above is None else row_of(fed(make, above))
        ends = above is not None and fed(make, above).is_terminated()
        if may is not None and rng.random() < 0.85:
            likely = [t for t in (*THINK_END, END) if may[t]]
            some = [rng.choice(np.flatnonzero(may).tolist())]
            tokens[node] = rng.choice(likely + some)
        else:
            tokens[node] = rng.randrange(VOCAB + 4)  # a draft may know more tokens than the grammar
        if may is not None and not ends and tokens[node] < VOCAB and may[tokens[node]]:
            right[node] = [*above, tokens[node]]
    return tokens, right


def a_start(make, rng) -> list[int]:
    """Tokens that a request may have emitted."""
    taken = []
    for _ in range(rng.randrange(12)):
        may = np.flatnonzero(row_of(fed(make, taken))).tolist()
        token = rng.choice([t for t in may if t != END] or may)
        if token == END:
            break
        taken.append(token)
    return taken


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_of_every_node_is_that_of_its_path(fresh, seed, tokenizer):
    rng = random.Random(seed)
    parents = chain(WIDTH) if seed == 0 else random_tree(rng, WIDTH)
    taken = a_start(fresh, rng)
    tokens, right = grown(fresh, rng, parents, taken)
    follow, grammar = cursors(tokenizer), fed(fresh, taken)
    cursor, mask = follow(grammar, VOCAB), empty_mask(grammar, VOCAB, WIDTH)
    visit(cursor, tokens, parents, lambda node: cursor.fill(mask, node))
    for node in range(WIDTH):
        want = row_of(fed(fresh, right[node])) if node in right else np.ones(VOCAB, bool)
        assert np.array_equal(unpacked(mask[node]), want), node
    # And it stands where it stood.
    assert np.array_equal(row_of(grammar), row_of(fed(fresh, taken)))
    for token in right[max(right)][len(taken) :]:
        grammar.accept_token(token)
    assert np.array_equal(row_of(grammar), row_of(fed(fresh, right[max(right)])))


@pytest.mark.parametrize("seed", range(3))
def test_guided_proposals_are_accepted_further(fresh, seed, tokenizer):
    rng = random.Random(100 + seed)
    parents = chain(WIDTH) if seed == 0 else random_tree(rng, WIDTH)
    taken = a_start(fresh, rng)
    tokens, right = grown(fresh, rng, parents, taken)
    grammar = fed(fresh, taken)
    guided = guide(cursors(tokenizer)(grammar, VOCAB), tokens, parents)
    assert np.array_equal(row_of(grammar), row_of(fed(fresh, taken)))
    reached = {0: list(taken)}
    for node in paths_first(parents):
        above = reached.get(parents[node])
        if above is not None and guided[node] < VOCAB and row_of(fed(fresh, above))[guided[node]]:
            reached[node] = [*above, guided[node]]
        else:
            assert guided[node] == tokens[node]
    # Whole paths that were right stay, unless a forced text has taken their place.
    assert len(reached) >= len(right)


@pytest.mark.parametrize("name", ["xgrammar", "llguidance", "outlines"])
def test_forced_texts(backends, tokenizer, monkeypatch, name):
    """What a grammar leaves no choice of is proposed whole, spelled as the tokenizer does, up to the answer's end."""
    of_backend(monkeypatch, name)
    text = "The answer is 4433. It was asked."
    right = tokenizer.encode(text, add_special_tokens=False)
    follow, grammar = cursors(tokenizer), backends[name].dispatch_regex(text.replace(".", "[.]"))
    assert guide(follow(grammar, VOCAB), [0, *right, 1], chain(len(right) + 2)) == [0, *right, END]
    wrong = [right[0], *[1] * len(right)]
    guided = guide(follow(grammar, VOCAB), [0, *wrong], chain(len(right) + 2))
    # SGLang's outlines has no jump-forward: only single tokens are known to be forced.
    assert guided == ([0, *wrong] if name == "outlines" else [0, *right, END])


def of_backend(monkeypatch, name: str) -> None:
    """A server's choice."""
    kernel = SimpleNamespace(grammar_backend=name)
    monkeypatch.setattr(grammar_api, "get_exec", lambda: SimpleNamespace(kernel=kernel))


class Batch(SimpleNamespace):
    """A scheduler's, as far as the rule looks at it."""

    has_grammar, decoding_reqs = True, None


@pytest.mark.parametrize("guides", [True, False])
@pytest.mark.parametrize("as_tree", [True, False])
def test_requests_without_a_grammar_and_ended_ones_stay_as_they_are(backends, tokenizer, guides, as_tree, monkeypatch):
    of_backend(monkeypatch, "xgrammar")
    regex = backends["xgrammar"].dispatch_regex("ones: 1+")
    ones, colon, space, one = (tokenizer.encode(text)[0] for text in ("ones", ":", " ", "1"))
    ended, running = regex.copy(), regex.copy()
    for token in (ones, colon, space, one, END):
        ended.accept_token(token)
    reqs = [SimpleNamespace(grammar=g) for g in (None, ended, running)]
    batch = Batch(reqs=reqs, sampling_info=SimpleNamespace(vocab_size=VOCAB))
    tokens = torch.tensor([[5, 6, 7, 8]] * 2 + [[5, ones, 9, 9]])
    parents = torch.tensor([chain(4)] * 3, dtype=torch.int32) if as_tree else None
    proposal, calls = Proposal(tokens, parents, torch.zeros_like(tokens)), []
    rule = GrammarRule(cursors(tokenizer), guides)
    rule.catch_up = lambda: calls.append(running.accept_token)
    revised = rule.revise(batch, proposal)
    want = tokens.clone()
    if guides:
        want[2] = torch.tensor([5, ones, colon, space])
    assert torch.equal(revised.tokens, want) and revised.parents is parents
    assert (revised is proposal) != guides and torch.equal(tokens[2], torch.tensor([5, ones, 9, 9]))
    logits = torch.zeros(3, 4, VOCAB)
    rule.apply(logits, batch, revised)
    assert len(calls) == 1, "the grammars caught up once, before they were led anywhere"
    assert bool((logits[:2] == 0).all())
    single = [(logits[2, node] == 0).nonzero().flatten().tolist() for node in range(2)]
    assert ones in single[0] and colon in single[1] and 9 not in single[1]
    assert running.accepted_tokens == []


def test_a_mixed_batch_catches_up_before_its_pass():
    calls = []
    rule = GrammarRule(None, True)
    for decoding in (None, [object()]):
        rule.catch_up = lambda: calls.append(1)
        rule.before_prefill(SimpleNamespace(decoding_reqs=decoding))
        assert len(calls) == (decoding is not None)

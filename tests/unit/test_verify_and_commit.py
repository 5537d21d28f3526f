"""What is proposed, the target's choice at every node, and the commit of a path, against plain Python."""

import random
from types import SimpleNamespace

import pytest
import torch
from rooms import Pool, runner
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

from sglang_dflash.engine.commit.paths import ChainCommit, TreeCommit
from sglang_dflash.engine.proposal.build import build_proposer
from sglang_dflash.engine.proposal.chain import ChainProposer
from sglang_dflash.engine.verify.choice import TargetChoice, is_argmax
from sglang_dflash.engine.verify.rules import Rule, Rules, build_rules
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.logits_api import WholeLogits
from sglang_dflash.types import Drafted, Proposal, Shape, empty_acceptance

CPU = torch.device("cpu")


# --- proposal ---


class Wrapped:
    """A proposer of one's own: trees of nine nodes."""

    candidates, shape = 0, Shape.tree(9, 5)

    def __init__(self, chain, device):
        self.chain, self.device = chain, device


class Broken:
    def __init__(self, chain, device):
        raise ValueError("no table of continuations")


@pytest.mark.parametrize("width, kind", [(6, "chain"), (4, "chain"), (2, "chain"), (1, "plain")])
def test_the_chain_unless_another_proposer_is_named(width, kind):
    chain = build_proposer("", 6, width, 1, CPU)
    assert isinstance(chain, ChainProposer)
    assert chain.shape == (kind, width, width) and not chain.shape.is_tree


def test_a_proposer_of_ones_own_is_given_the_chain_and_keeps_to_the_width_asked_for():
    wrapped = build_proposer(f"{__name__}:Wrapped", 6, 9, 1, CPU)
    assert isinstance(wrapped, Wrapped) and wrapped.chain.shape.width == 6 and wrapped.device == CPU
    with pytest.raises(DFlashError, match="proposes 9 nodes, --speculative-num-draft-tokens says 8"):
        build_proposer(f"{__name__}:Wrapped", 6, 8, 1, CPU)


@pytest.mark.parametrize("name", ["no_such_module:Wrapped", f"{__name__}:Absent", __name__, ":Wrapped"])
def test_a_proposer_that_cannot_be_found_is_named(name):
    with pytest.raises(DFlashError) as caught:
        build_proposer(name, 6, 6, 1, CPU)
    assert str(caught.value).startswith(f"SGLANG_DFLASH_PROPOSER: {name}: ") and "module:Class" in str(caught.value)


def test_an_error_of_the_proposers_own_is_not_taken_for_a_wrong_name():
    with pytest.raises(ValueError, match="no table of continuations"):
        build_proposer(f"{__name__}:Broken", 6, 6, 1, CPU)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_chain_is_the_anchor_and_the_first_drafts(width):
    tokens, positions = torch.tensor([[7, 51, 52], [9, 61, 62]]), torch.tensor([[4, 5, 6], [0, 1, 2]])
    proposal = ChainProposer(width)(Drafted(tokens, positions))
    assert proposal.tokens.tolist() == [row[:width] for row in tokens.tolist()]
    assert proposal.positions.tolist() == [row[:width] for row in positions.tolist()]
    assert proposal.parents is None and proposal.tokens.is_contiguous() and proposal.positions.is_contiguous()
    # A chain of the whole block is the draft's own tensors.
    assert (proposal.tokens.data_ptr() == tokens.data_ptr()) == (width == 3)


# --- choice ---


def sampling_info(bs: int, vocab: int, greedy: bool, **more) -> SamplingBatchInfo:
    """SGLang's own sampling parameters of a batch, each request with its own values."""
    row = torch.arange(bs)
    return SamplingBatchInfo(
        temperatures=(row + 1.0)[:, None],
        top_ps=0.5 + row / 10,
        top_ks=(row + 3).int(),
        min_ps=row / 100,
        is_all_greedy=greedy,
        is_any_greedy=greedy,
        need_top_p_sampling=True,
        need_top_k_sampling=True,
        need_min_p_sampling=True,
        vocab_size=vocab,
        sampling_seed=row + 40,
        **more,
    )


def choice(target_runner) -> TargetChoice:
    """On one rank."""
    return TargetChoice(target_runner, WholeLogits(), lambda tokens, greedy: None)


class Sampler:
    """Stands where SGLang's sampler is called, and keeps what it was given."""

    def __call__(self, output, info, return_logprob, top_logprobs_nums, token_ids_logprobs, positions):
        self.output, self.info, self.positions = output, info, positions
        assert (return_logprob, top_logprobs_nums, token_ids_logprobs) == (False, [], [])
        return torch.arange(len(positions), dtype=torch.int32)


def nodes(bs: int, width: int) -> Proposal:
    """A chain of any tokens, at positions of its own."""
    return Proposal(torch.zeros(bs, width, dtype=torch.int64), None, torch.arange(bs * width).view(bs, width))


def batch_of(info) -> SimpleNamespace:
    """A scheduler's batch, as far as a choice looks at it."""
    return SimpleNamespace(sampling_info=info)


@pytest.mark.parametrize("info", [None, sampling_info(3, 11, greedy=True)], ids=["no parameters", "greedy"])
def test_greedy_choice_is_the_first_largest_logit(info):
    logits = torch.randint(0, 4, (3 * 5, 11)).float()
    chosen, kept, _ = choice(runner())(logits.clone(), batch_of(info), nodes(3, 5))
    assert kept is None
    assert chosen.shape == (3, 5)
    assert chosen.view(-1).tolist() == [row.index(max(row)) for row in logits.tolist()]


def test_logit_bias_reaches_every_node_of_its_request_only():
    bias = torch.zeros(2, 7)
    bias[0, 4], bias[1, 2] = 100, -100
    logits = torch.zeros(2 * 3, 7)
    logits[:, 2] = 1
    batch = batch_of(sampling_info(2, 7, True, logit_bias=bias))
    rules = build_rules(7, CPU).of(batch)
    chosen = choice(runner())(logits, batch, nodes(2, 3), rules).tokens
    assert chosen.tolist() == [[4, 4, 4], [0, 0, 0]]
    assert is_argmax(batch.sampling_info) and not is_argmax(batch.sampling_info, rules)


def test_sampling_sees_one_row_of_parameters_per_node():
    bs, width, vocab = 3, 4, 9
    bias = torch.randn(bs, vocab)
    info = sampling_info(bs, vocab, greedy=False, logit_bias=bias)
    sampler, logits, proposal, batch = Sampler(), torch.randn(bs * width, vocab), nodes(bs, width), batch_of(info)
    choose = choice(SimpleNamespace(sampler=sampler))
    chosen, kept, _ = choose(logits.clone(), batch, proposal, build_rules(7, CPU).of(batch))
    assert kept is None
    assert chosen.dtype == torch.int64 and chosen.tolist() == torch.arange(bs * width).view(bs, width).tolist()
    for name in ("temperatures", "top_ps", "top_ks", "min_ps", "sampling_seed"):
        of_requests, of_nodes = getattr(info, name), getattr(sampler.info, name)
        assert of_nodes.shape == (bs * width, *of_requests.shape[1:]) and of_nodes.dtype == of_requests.dtype
        for row in range(bs * width):
            assert torch.equal(of_nodes[row], of_requests[row // width])
    # The bias is in the logits already; adding it again would count it twice.
    assert sampler.info.logit_bias is None
    expected = logits + bias.repeat_interleave(width, 0)
    torch.testing.assert_close(sampler.output.next_token_logits, expected)
    assert torch.equal(sampler.positions, proposal.positions.view(-1)) and not sampler.info.is_all_greedy


class Recorded(Rule):
    """Bans token 2 where asked, and keeps what it was told."""

    def __init__(self, asked: bool):
        self.asked, self.told = asked, []

    def wanted(self, batch) -> bool:
        return self.asked

    def apply(self, logits, batch, proposal) -> None:
        assert logits.shape == (2, 3, 7)
        logits[0, :, 2] = -torch.inf
        self.told.append("apply")


def test_rules_that_are_not_wanted_are_not_asked():
    batch, (one, other) = batch_of(None), (Recorded(True), Recorded(False))
    rules = Rules((other, one)).of(batch)
    assert rules == (one,)
    logits = torch.zeros(2 * 3, 7)
    logits[:, 2], logits[:, 5] = 2, 1
    assert choice(runner())(logits, batch, nodes(2, 3), rules).tokens.tolist() == [[5] * 3, [2] * 3]
    assert (one.told, other.told) == (["apply"], [])


# --- commit ---


def test_a_chain_is_committed_where_it_stands():
    proposal = Proposal(torch.zeros(2, 3), None, torch.tensor([[4, 5, 6], [9, 10, 11]]))
    accepted, hidden = empty_acceptance(2, 3, CPU), torch.randn(6, 8)
    features = ChainCommit()(None, proposal, accepted, torch.tensor([[3, 4, 5], [8, 2, 1]]), hidden)
    assert features.hidden is hidden and features.commit_lens is accepted.commit_lens
    assert features.positions.tolist() == [4, 5, 6, 9, 10, 11] and features.slots.tolist() == [
        3,
        4,
        5,
        8,
        2,
        1,
    ]


def random_tree(rng: random.Random, width: int) -> list[int]:
    return [-1] + [rng.randrange(node) for node in range(1, width)]


def random_path(rng: random.Random, parents: list[int]) -> list[int]:
    """Nodes from the root down to a random node."""
    path = [rng.randrange(len(parents))]
    while path[-1] != 0:
        path.append(parents[path[-1]])
    return path[::-1]


@pytest.mark.parametrize("seed", range(8))
def test_a_tree_path_is_moved_to_the_front_of_its_window(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    bs, width, depth = rng.randint(1, 4), rng.randint(2, 9), None
    trees = [random_tree(rng, width) for _ in range(bs)]
    paths = [random_path(rng, parents) for parents in trees]
    depth = max(len(path) for path in paths) + (seed % 2 if width > max(map(len, paths)) else 0)
    positions = torch.tensor([[10 * b + node_depth(trees[b], n) for n in range(width)] for b in range(bs)])
    accepted = empty_acceptance(bs, depth, CPU)
    accepted.path.copy_(torch.tensor([path + [-1] * (depth - len(path)) for path in paths]))
    accepted.commit_lens.copy_(torch.tensor([len(path) for path in paths]))
    pool, hidden = Pool(), torch.randn(bs * width, 6)
    slots = (1 + torch.randperm(39))[: bs * width].view(bs, width)
    before = [buffer.clone() for buffer in pool.keys + pool.values]
    proposal = Proposal(torch.zeros(bs, width), torch.tensor(trees), positions)
    features = TreeCommit(runner(pool))(None, proposal, accepted, slots, hidden)
    assert features.commit_lens is accepted.commit_lens
    for b, path in enumerate(paths):
        for at, node in enumerate(path):
            row = b * depth + at
            assert torch.equal(features.hidden[row], hidden[b * width + node])
            assert features.positions[row] == 10 * b + at
            assert features.slots[row] == slots[b, at]
            for buffer, old in zip(pool.keys + pool.values, before, strict=True):
                assert torch.equal(buffer[slots[b, at]], old[slots[b, node]])
    untouched = set(range(40)) - {slots[b, at].item() for b, path in enumerate(paths) for at in range(len(path))}
    for buffer, old in zip(pool.keys + pool.values, before, strict=True):
        assert torch.equal(buffer[sorted(untouched)], old[sorted(untouched)])


def node_depth(parents: list[int], node: int) -> int:
    return 0 if node == 0 else 1 + node_depth(parents, parents[node])

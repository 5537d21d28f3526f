"""Log-probabilities and hidden states are those of the nodes that were accepted, in their order."""

from types import SimpleNamespace

import pytest
import torch
from sglang.srt.layers.logits_processor import LogitsProcessor, LogitsProcessorOutput, SamplingMaskOutput
from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode

from sglang_dflash.engine.verify.choice import TargetChoice
from sglang_dflash.engine.verify.reports import report
from sglang_dflash.errors import DFlashError
from sglang_dflash.host import reports_api
from sglang_dflash.host.logits_api import WholeLogits
from sglang_dflash.types import Proposal, empty_acceptance

VOCAB, WIDTH = 7, 4
TREE = [[-1, 0, 0, 2], [-1, 0, 1, 0]]
PATHS = [[0, 2, 3], [0, 3]]
EMITTED = [[3, 6, 1], [4, 5]]


def batch_of(greedy: bool, **more) -> SimpleNamespace:
    info = SimpleNamespace(is_all_greedy=greedy, temperatures=torch.tensor([[0.5], [2.0]]))
    info.sampling_mask_batch_indices = info.sampling_support_logprobs_capture_indices = None
    wants = {"return_logprob": False, "return_hidden_states": False}
    lists = {"top_logprobs_nums": [2, 0], "token_ids_logprobs": [None, [1, 4]]}
    return SimpleNamespace(sampling_info=info, seq_lens=torch.tensor([5, 9]), **(wants | lists | more))


def round_of(tree: bool):
    proposal = Proposal(torch.zeros(2, WIDTH), torch.tensor(TREE) if tree else None, torch.zeros(2, WIDTH))
    paths = PATHS if tree else [list(range(len(path))) for path in PATHS]
    accepted = empty_acceptance(2, WIDTH if not tree else 3, "cpu")
    accepted.path.fill_(-1)
    accepted.emitted.zero_()
    for row, (path, emitted) in enumerate(zip(paths, EMITTED, strict=True)):
        accepted.path[row, : len(path)], accepted.emitted[row, : len(path)] = torch.tensor(path), torch.tensor(emitted)
        accepted.commit_lens[row] = len(path)
    return proposal, accepted, paths


@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
@pytest.mark.parametrize("greedy", (False, True), ids=("sampled", "greedy"))
def test_log_probs_of_emitted_tokens(tree, greedy):
    proposal, accepted, paths = round_of(tree)
    logits = torch.randn(2 * WIDTH, VOCAB)
    output = LogitsProcessorOutput(next_token_logits=None)
    report(batch_of(greedy, return_logprob=True), output, logits.clone(), None, proposal, accepted)
    stride = accepted.emitted.shape[1]
    assert output.next_token_logprobs.shape == (2, stride)
    for row, (path, emitted, temperature) in enumerate(zip(paths, EMITTED, (0.5, 2.0), strict=True)):
        for depth, (node, token) in enumerate(zip(path, emitted, strict=True)):
            wanted = (logits[row * WIDTH + node] / (1.0 if greedy else temperature)).log_softmax(0)
            torch.testing.assert_close(output.next_token_logprobs[row, depth], wanted[token])
            at = row * stride + depth
            if row == 0:
                best = wanted.topk(2)
                torch.testing.assert_close(output.next_token_top_logprobs_val[at], best.values)
                assert output.next_token_top_logprobs_idx[at].tolist() == best.indices.tolist()
            else:
                torch.testing.assert_close(output.next_token_token_ids_logprobs_val[at], wanted[[1, 4]])
    assert output.hidden_states is None


@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
def test_hidden_states_of_emitted_tokens_are_a_copy(tree):
    proposal, accepted, paths = round_of(tree)
    states = torch.randn(2 * WIDTH, 5)
    output = LogitsProcessorOutput(next_token_logits=None, last_hidden_states=states)
    report(batch_of(True, return_hidden_states=True), output, None, None, proposal, accepted)
    before, stride = states.clone(), accepted.emitted.shape[1]
    states.zero_()  # the next pass writes there
    for row, path in enumerate(paths):
        for depth, node in enumerate(path):
            assert torch.equal(output.hidden_states[row * stride + depth], before[row * WIDTH + node])
    output.last_hidden_states = None
    with pytest.raises(DFlashError, match="hidden states"):
        report(batch_of(True, return_hidden_states=True), output, None, None, proposal, accepted)


def test_nobody_asks():
    output = LogitsProcessorOutput(next_token_logits=torch.zeros(2, 3))
    before = dict(vars(output))
    report(batch_of(True), output, None, None, *round_of(False)[:2])
    assert vars(output) == before


class Sampler:
    """Leaves probabilities where logits were, as SGLang's."""

    def __call__(self, output, *rest):
        output.next_token_logits.copy_(output.next_token_logits.softmax(-1))
        return output.next_token_logits.argmax(-1).int()


def test_kept_logits_are_what_the_sampler_was_given():
    logits = torch.randn(2 * WIDTH, VOCAB)
    row = torch.ones(2)
    info = SimpleNamespace(is_all_greedy=False, is_any_greedy=False, sampling_seed=None, max_top_k=None, device="cpu")
    vars(info).update(temperatures=row[:, None], top_ps=row, top_ks=row, min_ps=row, vocab_size=VOCAB)
    for name in ("top_p_sampling", "top_k_sampling", "min_p_sampling"):
        setattr(info, f"need_{name}", False)
    info.npu_top_k_top_p_eligible = False
    info.sampling_mask_batch_indices = info.sampling_support_logprobs_capture_indices = None
    choose = TargetChoice(SimpleNamespace(sampler=Sampler()), WholeLogits(), lambda tokens, greedy: None)
    proposal = Proposal(torch.zeros(2, WIDTH), None, torch.zeros(2, WIDTH))
    for greedy in (False, True):
        info.is_all_greedy = greedy
        given = logits.clone()
        chosen = choose(given, SimpleNamespace(sampling_info=info), proposal, keep=True)
        assert torch.equal(chosen.logits, logits) and torch.equal(chosen.tokens, logits.argmax(-1).view(2, WIDTH))


@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
@pytest.mark.parametrize("greedy", (False, True), ids=("sampled", "greedy"))
def test_masks_of_emitted_tokens(tree, greedy):
    """Both requests ask for masks; the second also for the log-probabilities of all that they hold."""
    proposal, accepted, paths = round_of(tree)
    batch = batch_of(greedy)
    batch.sampling_info.sampling_mask_batch_indices = torch.tensor([0, 1])
    batch.sampling_info.sampling_support_logprobs_capture_indices = torch.tensor([1])
    nodes = torch.arange(2 * WIDTH)
    masks = SamplingMaskOutput(
        token_ids=nodes.view(-1, 1).expand(-1, 3).contiguous(),
        lengths=nodes + 100,
        selected_logprobs=-nodes.float(),
        support_logprobs=nodes[WIDTH:].view(-1, 1).float(),
        statuses=nodes + 200,
    )
    output = LogitsProcessorOutput(next_token_logits=None)
    report(batch, output, None, None if greedy else masks, proposal, accepted)
    got = output.sampling_mask_output
    assert got.num_accept_tokens.tolist() == [3, 2]
    for row, (path, emitted) in enumerate(zip(paths, EMITTED, strict=True)):
        count, at = len(path), [row * WIDTH + node for node in path]
        tokens, lengths = got.token_ids[row, :count, 0].tolist(), got.lengths[row, :count].tolist()
        assert (tokens, lengths) == ((emitted, [1] * count) if greedy else (at, [100 + node for node in at]))
        assert got.selected_logprobs[row, :count].tolist() == ([0] * count if greedy else [-node for node in at])
    support = got.support_logprobs[0, :2, 0].tolist()
    assert support == ([0, 0] if greedy else [WIDTH + node for node in paths[1]])


@pytest.mark.parametrize("server", (CaptureHiddenMode.NULL, CaptureHiddenMode.LAST, CaptureHiddenMode.FULL))
def test_states_are_kept_where_requests_may_ask(server, monkeypatch):
    monkeypatch.setattr(reports_api, "get_server_return_hidden_states_mode", lambda: server)

    class Processor(LogitsProcessor):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.keep_last_hidden_states = False

    target = torch.nn.ModuleList([Processor()])
    reports_api.keep_last_hidden_states(target)
    assert target[0].keep_last_hidden_states == (server != CaptureHiddenMode.NULL)
    states = torch.arange(10.0).view(5, 2)
    batch = SimpleNamespace(return_hidden_states_mode=CaptureHiddenMode.LAST, extend_lens=[2, 3])
    rows = states if server.is_full() else states[[1, 4]]
    assert torch.equal(reports_api.wanted_of_prefill(batch, states), rows)

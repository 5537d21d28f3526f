"""Test double of a captured graph: every verify pass ends with the tail that SGLang's hook would have captured.

Planted chains, as in ``planted``. The graph is one request larger than the batch, as graphs of fixed sizes are. A batch
of greedy requests whose round does not take the graph's outcome is an error.
"""

from types import SimpleNamespace

import torch
from planted import PlantedChain

from sglang_dflash.engine import lane, worker
from sglang_dflash.engine.graph_tail import GraphTail
from sglang_dflash.engine.verify.target import TargetPass
from sglang_dflash.host.worker_api import ForwardMode


class CheckedTail(GraphTail):
    """A tail that must be taken wherever it can be."""

    def take(self, graph_size, argmax, accepted) -> bool:
        taken = super().take(graph_size, argmax, accepted)
        assert taken == argmax
        return taken


class TailedChain(PlantedChain):
    """Planted chains, verified in passes that end with a tail."""

    def __init__(self, chain, device):
        super().__init__(chain, device)
        # A worker makes its proposer before its lane, and both before the first pass.
        lane.GraphTail = CheckedTail
        worker.captures_graphs = lambda: True
        worker.memory_left_for_graphs = lambda *arguments: False
        TargetPass.__call__ = _with_tail(TargetPass.__call__)


def _with_tail(verify):
    def run(self, batch, proposal, plan, host_lens):
        verified = verify(self, batch, proposal, plan, host_lens)
        bs, width = proposal.tokens.shape
        output = SimpleNamespace(
            next_token_logits=_padded(verified.output.next_token_logits, width, 0),
            hidden_states=_padded(verified.features, width, 0),
        )
        forward_batch = SimpleNamespace(
            forward_mode=ForwardMode.TARGET_VERIFY,
            spec_info=SimpleNamespace(draft_token_num=width),
            input_ids=_padded(proposal.tokens.view(-1), width, 0),
            seq_lens=_padded(batch.seq_lens, 1, 1),
            out_cache_loc=_padded(plan.virtual_write_ids(cols=self.columns), width, 0),
        )
        (hook,) = self._target_worker.model_runner.capture_tail_hooks
        hook(None, output, forward_batch, (bs + 1) * width)
        return verified._replace(graph_size=bs + 1)

    return run


def _padded(rows: torch.Tensor, count: int, value: int) -> torch.Tensor:
    return torch.cat((rows, rows.new_full((count, *rows.shape[1:]), value)))

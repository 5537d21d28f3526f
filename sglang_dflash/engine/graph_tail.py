"""What follows a greedy verify pass, inside its graph: argmax, acceptance and injection need no launches of their own.

The graph computes all three for every batch that it serves. A batch that samples drops the outcome: its own acceptance
is computed after the pass, and its injection stores the graph's keys and values once more, with its own lengths. What
the graph stored beyond those lies behind the new prefix, where nothing reads it before the next round writes it.
"""

import torch

from sglang_dflash.engine.commit.inject import ContextInjector
from sglang_dflash.host.graph_api import add_to_graphs, translates_slots, verify_width_of
from sglang_dflash.kernels import accept
from sglang_dflash.types import Acceptance, Features, empty_acceptance


class NoTail:
    """Where no graphs are captured, or the choice is not the graph's to make."""

    def __init__(self, inject: ContextInjector):
        self._inject = inject

    def take(self, graph_size: int | None, argmax: bool, accepted: Acceptance) -> bool:
        """False: acceptance and injection are still to do."""
        return False

    def inject(self, graph_size: int | None, features: Features) -> None:
        """Injection after the pass."""
        self._inject(features)


class GraphTail:
    """For chains on one rank: on more, the ranks agree on the choice outside of the graph."""

    def __init__(self, target_runner, width: int, inject: ContextInjector):
        """Call before the target's graphs are captured. width: nodes per request, of this tail's graphs."""
        self._runner, self._width, self._inject = target_runner, width, inject
        self._device = torch.device(target_runner.device)
        self._accept = accept.choose(self._device.type)
        self._steps = torch.arange(width, device=self._device)
        # By the graph's size; views of the largest graph's, for only one of them runs at a time.
        self._outcomes: dict[int, Acceptance] = {}
        self._keys_values: dict[int, torch.Tensor] = {}
        add_to_graphs(target_runner, self.capture)

    @torch.no_grad()
    def capture(self, graph_runner, output, forward_batch, num_tokens: int) -> None:
        """SGLang's hook: runs while a graph of ``num_tokens`` = size * W rows is warmed up and captured."""
        features = getattr(output, "hidden_states", None)
        if features is None or verify_width_of(forward_batch) != self._width or translates_slots(self._runner):
            return
        size = num_tokens // self._width
        self._reserve(size)
        accepted, prefix_lens = self._outcomes[size], forward_batch.seq_lens
        chosen = output.next_token_logits.argmax(dim=-1).view(size, self._width)
        self._accept(forward_batch.input_ids.view(size, self._width), chosen, None, prefix_lens, accepted)
        # Not the batch's own positions: some models count them from 1, in place.
        positions = (prefix_lens.unsqueeze(1) + self._steps).view(-1)
        self._inject.prepare()
        keys_values = self._inject.project(features, out=self._keys_values[size])
        self._inject.store(
            keys_values, Features(features, positions, forward_batch.out_cache_loc, accepted.commit_lens)
        )

    def _reserve(self, size: int) -> None:
        """Buffers of a graph: not in its own memory, which the next graph writes over."""
        if size in self._outcomes:
            return
        largest = max(self._outcomes, default=0)
        if size > largest:
            outcome = empty_acceptance(size, self._width, self._device)
            keys_values = self._inject.empty_keys_values(size * self._width)
        else:
            outcome, keys_values = self._outcomes[largest], self._keys_values[largest]
        self._outcomes[size] = Acceptance(*(field[:size] for field in outcome))
        self._keys_values[size] = keys_values[: size * self._width]

    def take(self, graph_size: int | None, argmax: bool, accepted: Acceptance) -> bool:
        """Fill ``accepted`` [bs] from the graph of ``graph_size`` requests that just ran, or return False.

        argmax: whether the batch takes the most likely token at every node, as the graph has done.
        """
        if graph_size not in self._outcomes or not argmax:
            return False
        outcome, bs = self._outcomes[graph_size], accepted.bonus.numel()
        assert graph_size >= bs, "the graph that ran is smaller than the batch"
        rows = Acceptance(*(field[:bs] for field in outcome))
        accepted.commit_lens.copy_(rows.commit_lens)
        # One launch, where all are of one dtype.
        longs = ("path", "bonus", "emitted", "new_prefix_lens")
        torch._foreach_copy_([getattr(accepted, name) for name in longs], [getattr(rows, name) for name in longs])
        return True

    def inject(self, graph_size: int | None, features: Features) -> None:
        """Injection after the pass, of what the graph has projected where one ran."""
        keys_values = None if graph_size is None else self._keys_values.get(graph_size)
        if keys_values is None:
            self._inject(features)
        else:
            self._inject.store(keys_values[: features.positions.numel()], features)

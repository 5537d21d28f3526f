"""Candidate selector (DFlash 2): the best tokens of every position, joined to one path.

Each position's distribution knows nothing of its neighbour's choice. The selector scores every pair of neighbouring
candidates by two codebooks, weighted by the position's hidden state, and walks from the anchor.
"""

import torch
from torch import nn

from sglang_dflash.checkpoints.config import DraftConfig
from sglang_dflash.engine.draft.convolution import Projection
from sglang_dflash.kernels import selected_path


class CandidateSelector(nn.Module):
    """Codebooks [vocab, rank] of predecessors and successors, whole on every rank: any may need any row."""

    def __init__(self, config: DraftConfig):
        super().__init__()
        assert config.selector is not None and config.vocab_size is not None  # as the checks of a DFlash 2 draft say
        rank = config.selector.rank
        self.top_k = config.selector.top_k
        self.predecessor_codebook = nn.Parameter(torch.zeros(config.vocab_size, rank), requires_grad=False)
        self.successor_codebook = nn.Parameter(torch.zeros(config.vocab_size, rank), requires_grad=False)
        self.hidden_projection = Projection(rank, config.hidden_size)


class GreedyTokens:
    """Each position's own best token: DFlash."""

    def __init__(self, head, block_size: int):
        self._head, self._block_size = head, block_size

    def __call__(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """hidden [bs * B, hidden], ids [bs * B] -> tokens [bs * B] int64, the anchors among them."""
        tokens = self._head(behind_anchors(hidden, self._block_size)).view(-1, self._block_size - 1)
        return torch.cat((ids.view(-1, self._block_size)[:, :1], tokens), 1).view(-1)


class SelectedPath:
    """The selector's path from the anchor: DFlash 2.

    Greedy for sampled requests, too: what is proposed is verified as a point mass, of which the most likely one is
    kept most often, and the output has the target's distribution whatever it is.
    """

    def __init__(self, head, selector: CandidateSelector, config: DraftConfig, block_size: int):
        self._head, self.selector, self._block_size = head, selector, block_size
        self.transform = selected_path.Transform(config.output_multiplier, config.final_logit_softcapping)
        self._path = selected_path.choose(selector.predecessor_codebook.device.type)

    def __call__(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """hidden [bs * B, hidden], ids [bs * B] -> tokens [bs * B] int64, the anchors among them."""
        shape = (-1, self._block_size - 1, self.selector.top_k)
        rows = behind_anchors(hidden, self._block_size)
        logits, candidates = self._head.candidates(rows, self.selector.top_k)
        anchors = ids.view(-1, self._block_size)[:, 0]
        weights = self.weights(rows)
        return self.walk(anchors, candidates.view(shape), logits.view(shape), weights, self.transform).view(-1)

    def weights(self, rows: torch.Tensor) -> torch.Tensor:
        """rows [bs * (B - 1), hidden] -> what they weight the codebooks with, [bs, B - 1, rank]."""
        return self.selector.hidden_projection(rows).unflatten(0, (-1, self._block_size - 1))

    def walk(
        self, anchors, candidates, logits, weights: torch.Tensor, transform: selected_path.Transform
    ) -> torch.Tensor:
        """Path [bs, B] through candidates and their logits, [bs, B - 1, K], with ``weights`` of their rows."""
        codebooks = self.selector.predecessor_codebook, self.selector.successor_codebook
        return self._path(anchors, candidates, logits, weights, *codebooks, transform)


def behind_anchors(hidden: torch.Tensor, block_size: int) -> torch.Tensor:
    """hidden [bs * B, hidden] -> [bs * (B - 1), hidden]: an anchor is known, and what follows it is drafted there."""
    return hidden.view(-1, block_size, hidden.shape[-1])[:, 1:].reshape(-1, hidden.shape[-1])

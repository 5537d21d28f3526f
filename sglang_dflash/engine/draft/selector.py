"""Candidate selector (DFlash 2): the best tokens of every position, joined to one path.

Each position's distribution knows nothing of its neighbour's choice. The selector scores every pair of neighbouring
candidates by two codebooks, weighted by the position's hidden state, and walks from the anchor.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sglang_dflash.checkpoints.config import DraftConfig
from sglang_dflash.engine.draft.convolution import Projection


class CandidateSelector(nn.Module):
    """Codebooks [vocab, rank] of predecessors and successors, whole on every rank: any may need any row."""

    def __init__(self, config: DraftConfig):
        super().__init__()
        rank = config.selector.rank
        self.top_k = config.selector.top_k
        self.predecessor_codebook = nn.Parameter(torch.zeros(config.vocab_size, rank), requires_grad=False)
        self.successor_codebook = nn.Parameter(torch.zeros(config.vocab_size, rank), requires_grad=False)
        self.hidden_projection = Projection(rank, config.hidden_size)

    def scores(
        self, anchors: torch.Tensor, candidates: torch.Tensor, logits: torch.Tensor, hidden: torch.Tensor
    ) -> torch.Tensor:
        """Score of candidate c after predecessor p, [bs, S, K, K] as (p, c); S positions, K candidates each.

        anchors [bs] int64, before the first position (all its predecessors); candidates [bs, S, K] int64;
        logits [bs, S, K] fp32; hidden [bs, S, hidden].
        """
        first = anchors[:, None, None].expand(-1, 1, self.top_k)
        before = F.embedding(torch.cat((first, candidates[:, :-1]), 1), self.predecessor_codebook)
        weighted = before * self.hidden_projection(hidden).unsqueeze(2)
        transitions = weighted @ F.embedding(candidates, self.successor_codebook).mT
        return logits.unsqueeze(2) + transitions


def greedy_path(scores: torch.Tensor) -> torch.Tensor:
    """Candidate [bs, S] of every position: the best one after the one chosen before it.

    A position maps its predecessor's candidate to its own. The maps are composed by doubling, so that a walk of S
    steps takes log2(S) operations.
    """
    maps = scores.argmax(-1)
    reach = 1
    while reach < maps.shape[1]:
        composed = maps[:, reach:].gather(2, maps[:, :-reach])
        maps = torch.cat((maps[:, :reach], composed), 1)
        reach *= 2
    # All of the first position's predecessors are the anchor.
    return maps[:, :, 0]


class GreedyTokens:
    """Each position's own best token: DFlash."""

    def __init__(self, head, block_size: int):
        self._head, self._block_size = head, block_size

    def __call__(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """hidden [bs * B, hidden], ids [bs * B] -> tokens [bs * B] int64, the anchors among them."""
        tokens = self._head(hidden)
        tokens.view(-1, self._block_size)[:, 0] = ids.view(-1, self._block_size)[:, 0]
        return tokens


class SelectedPath:
    """The selector's path from the anchor: DFlash 2.

    Greedy for sampled requests, too: what is proposed is verified as a point mass, of which the most likely one is
    kept most often, and the output has the target's distribution whatever it is.
    """

    def __init__(self, head, selector: CandidateSelector, config: DraftConfig, block_size: int):
        self._head, self._selector, self._block_size = head, selector, block_size
        self._multiplier, self._cap = config.output_multiplier, config.final_logit_softcapping

    def __call__(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """hidden [bs * B, hidden], ids [bs * B] -> tokens [bs * B] int64, the anchors among them."""
        blocks = ids.view(-1, self._block_size)
        bs, positions, k = blocks.shape[0], self._block_size - 1, self._selector.top_k
        hidden = hidden.view(bs, self._block_size, -1)[:, 1:]
        logits, candidates = self._head.candidates(hidden.reshape(bs * positions, -1), k)
        candidates = candidates.view(bs, positions, k)
        scores = self._selector.scores(blocks[:, 0], candidates, self._transform(logits).view(bs, positions, k), hidden)
        tokens = candidates.gather(2, greedy_path(scores).unsqueeze(2)).squeeze(2)
        return torch.cat((blocks[:, :1], tokens), 1).view(-1)

    def _transform(self, logits: torch.Tensor) -> torch.Tensor:
        if self._multiplier != 1.0:
            logits = logits * self._multiplier
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

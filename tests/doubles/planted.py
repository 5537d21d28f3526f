"""Test double of a proposer: plain decoding's own continuation, wholly or with planted errors.

Served with ``SGLANG_DFLASH_PROPOSER=planted:PlantedChain`` (or ``PlantedTree``), this folder on
PYTHONPATH, and ``SGLANG_DFLASH_PLANTED`` naming a file of JSON lines {"prompt": [...], "output": [...]}.
A request asks for its commit lengths, round after round and over again, by
``sampling_params={"custom_params": {"commit_lens": [3, 1, 16]}}``; the others get the real draft. It may bring its
own "continuation" (of a prompt with images, whose ids SGLang changes).
"""

import json
import os
import random
from collections import defaultdict

import torch

from sglang_dflash.engine.round import Round
from sglang_dflash.host.widths import verify_width
from sglang_dflash.types import Drafted, Proposal, Shape

# The batch of the round that runs: a proposer is given values, and this one has to know whose they are.
BATCH = None


def _keep_batch(run):
    def keeping(self, lane, batch, *arguments):
        global BATCH
        BATCH = batch
        return run(self, lane, batch, *arguments)

    return keeping


Round.__call__ = _keep_batch(Round.__call__)


class Continuations:
    """prompt ids -> output ids, reread when the file changes."""

    def __init__(self, path: str):
        self._path, self._stamp, self._table = path, None, {}

    def of(self, prompt) -> list[int] | None:
        stamp = os.stat(self._path).st_mtime_ns if os.path.exists(self._path) else None
        if stamp != self._stamp:
            self._stamp = stamp
            with open(self._path) as lines:
                rows = [json.loads(line) for line in lines]
            self._table = {tuple(row["prompt"]): row["output"] for row in rows}
        return self._table.get(tuple(prompt))


class _Planted:
    candidates = 0

    def __init__(self, chain, device: torch.device):
        self._chain = chain
        self.shape = chain.shape
        self._continuations = Continuations(os.environ["SGLANG_DFLASH_PLANTED"])
        self._rounds = defaultdict(int)

    def _plans(self):
        """(row, right continuation, wanted commit length, round) of every request that has a plan."""
        for row, (req, prefix) in enumerate(zip(BATCH.reqs, BATCH.seq_lens.tolist(), strict=True)):
            asked = req.sampling_params.custom_params or {}
            wanted = asked.get("commit_lens")
            output = (asked.get("continuation") or self._continuations.of(req.origin_input_ids)) if wanted else None
            if output is None:
                continue
            turn = self._rounds[req.rid]
            self._rounds[req.rid] += 1
            # The token at position p is output[p - prompt length]; the anchor's position is the prefix length.
            right = output[prefix - len(req.origin_input_ids) + 1 :]
            yield row, right, wanted[turn % len(wanted)], random.Random(f"{len(right)} {turn}")


class PlantedChain(_Planted):
    """A chain that is right for ``commit_lens - 1`` drafts, then wrong."""

    def __call__(self, drafted: Drafted) -> Proposal:
        proposal = self._chain(drafted)
        tokens = proposal.tokens.clone()
        for row, right, wanted, _ in self._plans():
            for node in range(1, self.shape.width):
                if node - 1 < len(right):
                    tokens[row, node] = right[node - 1] if node < wanted else right[node - 1] ^ 1
        return proposal._replace(tokens=tokens)


class PlantedTree(_Planted):
    """A random tree per request and round; one of its paths is right for ``commit_lens - 1`` drafts.

    As wide as the server's verify width, whatever the block size. Requests without a plan get their chain, written as a
    tree; what is left of it is padding.
    """

    def __init__(self, chain, device: torch.device):
        super().__init__(chain, device)
        self.shape = Shape.tree(verify_width(), verify_width())

    def __call__(self, drafted: Drafted) -> Proposal:
        chain = self._chain(drafted)
        bs, drafts = chain.tokens.shape
        width = self.shape.width
        parents = torch.full((bs, width), -1, dtype=torch.int32)
        parents[:, :drafts] = torch.arange(-1, drafts - 1)
        depths = torch.zeros(bs, width, dtype=torch.int64)
        depths[:, :drafts] = torch.arange(drafts)
        tokens = torch.zeros(bs, width, dtype=torch.int64)
        tokens[:, :drafts] = chain.tokens
        for row, right, wanted, rng in self._plans():
            row_parents, row_depths, row_tokens = _grow(rng, width, right, wanted)
            parents[row], depths[row] = torch.tensor(row_parents), torch.tensor(row_depths)
            tokens[row, 1:] = torch.tensor(row_tokens[1:])
        device = chain.tokens.device
        positions = chain.positions[:, :1] + depths.to(device)
        return Proposal(tokens.to(device), parents.to(device), positions)


def _grow(rng: random.Random, width: int, right: list[int], wanted: int):
    """A random tree of ``width`` nodes in which a path of ``wanted - 1`` right drafts exists."""
    parents, depths, tokens = [-1], [0], [0]
    tip, on_path = 0, {0}
    for node in range(1, width):
        needed = wanted - 1 - depths[tip]
        grow = needed > 0 and (width - node <= needed or rng.random() < 0.6)
        parent = tip if grow else rng.randrange(node)
        depth = depths[parent] + 1
        token = right[depth - 1] if depth <= len(right) else 1
        if grow:
            tip = node
            on_path.add(node)
        elif parent in on_path:
            token ^= 1  # a sibling of the right node must be wrong
        parents.append(parent)
        depths.append(depth)
        tokens.append(token)
    return parents, depths, tokens

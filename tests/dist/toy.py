"""A toy autoregressive target with known conditionals, and deterministic drafts for it."""

import random

import torch

from filtered_rows import filtered_probs

PLAIN = (1.0, 1 << 30, 1.0, 0.0)


def rows_of(filters: tuple, count: int):
    """Temperature, top-k, top-p and min-p, each repeated for ``count`` rows."""
    temperature, top_k, top_p, min_p = filters
    return (
        torch.full((count,), temperature, dtype=torch.float64),
        torch.full((count,), top_k, dtype=torch.int32),
        torch.full((count,), top_p, dtype=torch.float64),
        torch.full((count,), min_p, dtype=torch.float64),
    )


class ToyTarget:
    """Logits are a fixed random function of the whole prefix."""

    def __init__(self, vocab: int, seed: int, filters: tuple = PLAIN):
        self.vocab, self.filters = vocab, filters
        self._seed = seed
        self._cache: dict[tuple, torch.Tensor] = {}

    def logits(self, prefix: tuple) -> torch.Tensor:
        """[V] fp64."""
        if prefix not in self._cache:
            rng = random.Random(f"{self._seed}/{prefix}")
            self._cache[prefix] = torch.tensor([rng.gauss(0, 1.5) for _ in range(self.vocab)], dtype=torch.float64)
        return self._cache[prefix]

    def probs(self, prefixes: list[tuple]) -> torch.Tensor:
        """[len(prefixes), V] fp64: what plain decoding samples from after each prefix."""
        logits = torch.stack([self.logits(prefix) for prefix in prefixes])
        return filtered_probs(logits, *rows_of(self.filters, len(prefixes)))

    def sequences(self, length: int) -> dict[tuple, float]:
        """Probability of every sequence of ``length`` tokens under plain decoding."""
        distribution = {(): 1.0}
        for _ in range(length):
            longer = {}
            for prefix, mass in distribution.items():
                for token, p in enumerate(self.probs([prefix])[0].tolist()):
                    longer[(*prefix, token)] = mass * p
            distribution = longer
        return distribution


class ToyDraft:
    """Some proposal for every prefix: a fixed random function of it, often equal siblings included."""

    def __init__(self, vocab: int, width: int, tree: bool, seed: int):
        self.vocab, self.width, self.tree = vocab, width, tree
        self._seed = seed

    def propose(self, prefix: tuple) -> tuple[list[int], list[int]]:
        """-> tokens, parents of the nodes; node 0 stands for the last token of the prefix."""
        rng = random.Random(f"draft/{self._seed}/{prefix}")
        tokens = [0] + [rng.randrange(self.vocab) for _ in range(1, self.width)]
        if not self.tree:
            return tokens, list(range(-1, self.width - 1))
        parents = [-1] + [rng.randrange(i) for i in range(1, self.width)]
        if rng.random() < 0.3:
            parents[-1] = -1  # padding
        return tokens, parents


def node_prefixes(prefix: tuple, tokens: list[int], parents: list[int]) -> list[tuple]:
    """What the target has read at every node."""
    prefixes = [prefix]
    for node in range(1, len(tokens)):
        parent = parents[node]
        prefixes.append((*prefixes[parent], tokens[node]) if parent >= 0 else prefix)
    return prefixes

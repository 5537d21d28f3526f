"""Trainer of small targets: answer-only loss, Muon and AdamW, adaptive mix of the built-in text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from sglang_dflash.tools.pair.kinds import FREE_KINDS, KINDS
from sglang_dflash.tools.pair.stream import TrainingStream, chosen_weights, validation_examples
from sglang_dflash.tools.pair.tokenizer import PAD, build_tokenizer, encode_chat
from sglang_dflash.tools.train.loop import Run, Trainer
from sglang_dflash.tools.train.measure import exact_share
from sglang_dflash.tools.train.model import Shape
from sglang_dflash.tools.train.networks import HubNetwork, LeanNetwork, Network
from sglang_dflash.tools.train.packing import Batch, Document
from sglang_dflash.tools.train.runlog import load_checkpoint

# Copying is the slowest skill to appear, so it starts with more than its share.
START_WEIGHTS = {kind: 1.0 for kind in KINDS} | {"echo": 2.5, "csv": 1.5, "table": 1.5, "prose": 0.6}

# A look-up answer has only two or three telling tokens, so it needs more examples than a long sum.
EFFORT = {"table": 8.0, "seq": 1.3, "sort": 1.3, "wordp": 1.3}


@dataclass
class TargetRun(Run):
    """Settings of a target run: ``config`` of any causal LM, or the embedded target's sizes."""

    minutes: float = 70.0
    layers: int = 8
    hidden: int = 128
    config: Path | None = None


def target_network(run: TargetRun) -> Network:
    """The untrained network that the settings ask for."""
    if run.config:
        return HubNetwork.read(run.config)
    return LeanNetwork(Shape(build_tokenizer().get_vocab_size(), run.hidden, run.layers))


def answer_loss(model: Network, batch: Batch) -> Tensor:
    """Mean cross entropy over answer ids."""
    rows, columns = batch.answer[:, 1:].nonzero(as_tuple=True)
    return F.cross_entropy(model.logits(batch, rows, columns), batch.ids[rows, columns + 1])


class TargetTrainer(Trainer):
    """Holds model, optimizers and data position; ``run`` trains until the time is used up."""

    name = "target"

    def __init__(self, run: TargetRun) -> None:
        self.tokenizer = build_tokenizer()
        self.model = target_network(run)
        self.model.init_weights(run.seed)
        if run.start_from:
            self.model.start_from(run.start_from)
        self.model.module.to(run.device)
        self.stream = TrainingStream(run.seed, chosen_weights(START_WEIGHTS, run.kinds))
        self.packer = self.model.batcher(self._documents(), run.tokens, run.lengths)
        self.checks = {
            kind: [encode_chat(self.tokenizer, [(e.question, e.answer)]) for e in validation_examples(kind)]
            for kind in self.stream.weights
            if kind not in FREE_KINDS
        }
        super().__init__(run, self.model.module, self.packer.next_batch)

    def _documents(self) -> Iterator[Document]:
        while True:
            yield encode_chat(self.tokenizer, self.stream.next_chat()[1])

    def state(self) -> dict:
        """Everything a later session needs to go on."""
        data = {"stream": self.stream.state(), "pools": self.packer.pools}
        return super().state() | data | {"shape": self.model.identity()}

    def summary(self) -> dict:
        """What was used so far, for the provenance record."""
        return super().summary() | {"stream": self.stream.state()}

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if there is one."""
        saved = load_checkpoint(self.config.out, self.model.identity())
        if saved is None:
            return False
        self.restore(saved)
        self.stream.load_state(saved["stream"])
        self.packer.pools.update(saved["pools"])
        return True

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross entropy over answer ids."""
        return answer_loss(self.model, batch)

    def check(self) -> dict[str, float]:
        """Exact share per kind on the validation prompts, and the mix weights that follow from it."""
        right = {kind: exact_share(self.model, docs, PAD) for kind, docs in self.checks.items()}
        for kind, share in right.items():
            self.stream.weights[kind] = EFFORT.get(kind, 1.0) * (0.3 + 1.4 * (1 - share))
        return right

"""Trainer of the embedded target: packed chats, answer-only loss, Muon and AdamW, adaptive mix."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sglang_dflash.errors import DFlashError
from sglang_dflash.pair.kinds import FREE_KINDS, KINDS
from sglang_dflash.pair.stream import TrainingStream, validation_examples
from sglang_dflash.pair.tokenizer import PAD, build_tokenizer, encode_chat
from sglang_dflash.train.frozen import load_lean
from sglang_dflash.train.measure import exact_share
from sglang_dflash.train.model import Shape, TinyQwen3
from sglang_dflash.train.muon import Muon
from sglang_dflash.train.packing import Batch, Document, Packer, document_bias
from sglang_dflash.train.runlog import RunLog, load_checkpoint, save_checkpoint

# Copying is the slowest skill to appear, so it starts with more than its share.
START_WEIGHTS = {kind: 1.0 for kind in KINDS} | {"echo": 2.5, "csv": 1.5, "table": 1.5, "prose": 0.6}

# A look-up answer has only two or three telling tokens, so it needs more examples than a long sum.
EFFORT = {"table": 8.0, "seq": 1.3, "sort": 1.3, "wordp": 1.3}


@dataclass
class TargetRun:
    """Settings of a target run. The learning-rate schedule follows the clock, not the step count."""

    out: Path
    minutes: float = 70.0
    seed: int = 1
    tokens: int = 1536
    lengths: tuple[int, ...] = (128, 192, 384)
    layers: int = 8
    hidden: int = 128
    matrix_lr: float = 1e-2
    vector_lr: float = 5e-3
    warmup_steps: int = 60
    flat_share: float = 0.4
    final_lr: float = 0.02
    check_every_s: float = 120.0
    save_every_s: float = 180.0
    device: str = "cpu"
    start_from: Path | None = None


def rate_at(run: TargetRun, step: int, elapsed_s: float) -> float:
    """Learning-rate factor: warm-up by steps, flat, then linear to ``final_lr`` at the end of the time."""
    share = min(1.0, elapsed_s / (60 * run.minutes))
    down = max(0.0, (share - run.flat_share) / (1 - run.flat_share))
    return min(1.0, (step + 1) / run.warmup_steps) * (1 - (1 - run.final_lr) * down)


def answer_loss(model: TinyQwen3, batch: Batch) -> Tensor:
    """Mean cross entropy over answer ids."""
    hidden = model(batch.ids, batch.positions, document_bias(batch.doc))
    rows, cols = batch.answer[:, 1:].nonzero(as_tuple=True)
    return F.cross_entropy(model.logits(hidden[rows, cols]), batch.ids[rows, cols + 1])


class TargetTrainer:
    """Holds model, optimizers and data position; ``run`` trains until the time is used up."""

    def __init__(self, run: TargetRun) -> None:
        self.config = run
        self.tokenizer = build_tokenizer()
        self.shape = Shape(self.tokenizer.get_vocab_size(), run.hidden, run.layers)
        self.model = TinyQwen3(self.shape)
        self.model.init_weights(run.seed)
        if run.start_from:
            start_from_weights(self.model, load_lean(run.start_from), self.shape, run.start_from)
        self.model.to(run.device)
        matrices, vectors = split_parameters(self.model)
        self.optimizers = [
            Muon(matrices, run.matrix_lr),
            torch.optim.AdamW(vectors, run.vector_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ]
        self.stream = TrainingStream(run.seed, START_WEIGHTS)
        self.packer = Packer(self._documents(), run.tokens, run.lengths, PAD)
        self.checks = {
            kind: [encode_chat(self.tokenizer, [(e.question, e.answer)]) for e in validation_examples(kind)]
            for kind in KINDS
            if kind not in FREE_KINDS
        }
        self.step, self.elapsed, self.seen = 0, 0.0, 0
        self.log = RunLog(run.out)

    def _documents(self) -> Iterator[Document]:
        while True:
            yield encode_chat(self.tokenizer, self.stream.next_chat()[1])

    def state(self) -> dict:
        """Everything a later session needs to go on."""
        return {
            "shape": self.shape.as_dict(), "run": {k: str(v) for k, v in asdict(self.config).items()},
            "model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers],
            "stream": self.stream.state(), "pools": self.packer.pools,
            "step": self.step, "elapsed": self.elapsed, "seen": self.seen,
        }  # fmt: skip

    def summary(self) -> dict:
        """What was used so far, for the provenance record."""
        return {
            "steps": self.step,
            "tokens": self.seen,
            "trained_minutes": self.elapsed / 60,
            "stream": self.stream.state(),
        }

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if there is one."""
        saved = load_checkpoint(self.config.out, self.shape.as_dict())
        if saved is None:
            return False
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.stream.load_state(saved["stream"])
        self.packer.pools.update(saved["pools"])
        self.step, self.elapsed, self.seen = saved["step"], saved["elapsed"], saved["seen"]
        return True

    def train_step(self) -> float:
        """One optimizer step; returns the loss."""
        batch = Batch(*(t.to(self.config.device) for t in self.packer.next_batch()))
        loss = answer_loss(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = rate_at(self.config, self.step, self.elapsed)
        rates = (self.config.matrix_lr, self.config.vector_lr)
        for optimizer, rate in zip(self.optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.seen += int((batch.doc >= 0).sum())
        return float(loss.detach())

    def check(self) -> dict[str, float]:
        """Exact share per kind on the validation prompts, and the mix weights that follow from it."""
        right = {kind: exact_share(self.model, docs, PAD) for kind, docs in self.checks.items()}
        for kind, share in right.items():
            self.stream.weights[kind] = EFFORT.get(kind, 1.0) * (0.3 + 1.4 * (1 - share))
        return right

    def run(self) -> None:
        """Train until the configured minutes are used up, saving on the way and at the end."""
        if self.elapsed >= 60 * self.config.minutes:
            return
        last_check = last_save = self.elapsed
        smooth = None
        while self.elapsed < 60 * self.config.minutes:
            started = time.perf_counter()
            loss = self.train_step()
            smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
            if self.elapsed - last_check >= self.config.check_every_s:
                last_check = self.elapsed
                self.log.write(self.step, self.elapsed, self.seen, smooth, self.check())
            self.elapsed += time.perf_counter() - started
            self.log.progress("target", self.step, self.elapsed, 60 * self.config.minutes, smooth, self.seen)
            if self.elapsed - last_save >= self.config.save_every_s:
                last_save = self.elapsed
                save_checkpoint(self.config.out, self.state())
        self.log.write(self.step, self.elapsed, self.seen, smooth or 0.0, self.check())
        save_checkpoint(self.config.out, self.state())
        self.log.close()


def start_from_weights(model: torch.nn.Module, given: torch.nn.Module, shape: Shape, folder: Path) -> None:
    """Begin with trained weights instead of random ones; the sizes must agree."""
    if given.shape != shape:
        raise DFlashError("start_from", f"{folder} has {given.shape}", f"train with the same sizes, not {shape}")
    model.load_state_dict(given.state_dict())


def split_parameters(model: torch.nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices for Muon; embeddings and gains for AdamW."""
    matrices, vectors = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (matrices if p.ndim == 2 and "embed" not in name else vectors).append(p)
    return matrices, vectors

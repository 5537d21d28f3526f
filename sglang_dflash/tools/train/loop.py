"""The loop that both recipes share: optimizers, learning rate, checks, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.muon import Muon
from sglang_dflash.tools.train.packing import Batch
from sglang_dflash.tools.train.runlog import RunLog, save_checkpoint


@dataclass
class Run:
    """Settings of any run. The schedule follows the clock, or the step count where ``steps`` is given."""

    out: Path
    minutes: float = 30.0
    seed: int = 1
    steps: int | None = None
    tokens: int = 1536
    lengths: tuple[int, ...] = (128, 192, 384)
    kinds: tuple[str, ...] = ()  # of the built-in text; all where empty
    optimizer: str = "muon"  # of matrices: "muon", or "adamw", whose step costs next to nothing on large ones
    matrix_lr: float = 1e-2
    vector_lr: float = 5e-3
    warmup_steps: int = 60
    flat_share: float = 0.4
    final_lr: float = 0.02
    check_every_s: float = 120.0
    save_every_s: float = 180.0
    device: str = "cpu"
    start_from: Path | None = None

    def share(self, step: int, elapsed_s: float) -> float:
        """How much of the run is over, 0 to 1."""
        return min(1.0, step / self.steps if self.steps else elapsed_s / (60 * self.minutes))


def rate_at(run: Run, step: int, elapsed_s: float) -> float:
    """Learning-rate factor: warm-up by steps, flat, then linear to ``final_lr`` at the end of the run."""
    down = max(0.0, (run.share(step, elapsed_s) - run.flat_share) / (1 - run.flat_share))
    return min(1.0, (step + 1) / run.warmup_steps) * (1 - (1 - run.final_lr) * down)


def split_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices, stacked experts' too, for Muon; embeddings, convolutions and gains for AdamW."""
    matrices, vectors = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            is_matrix = p.ndim in (2, 3) and not any(part in name for part in ("embed", "lm_head", "conv"))
            (matrices if is_matrix else vectors).append(p)
    return matrices, vectors


def make_optimizers(run: Run, network: nn.Module) -> list[torch.optim.Optimizer]:
    """One for the matrices, one for everything else."""
    matrices, vectors = split_parameters(network)

    def adamw(parameters: list[Tensor], rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(parameters, rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    if run.optimizer == "adamw":
        return [adamw(matrices, run.matrix_lr), adamw(vectors, run.vector_lr)]
    if run.optimizer != "muon":
        raise DFlashError("optimizer", f"is {run.optimizer!r}", "use muon or adamw")
    return [Muon(matrices, run.matrix_lr), adamw(vectors, run.vector_lr)]


class Trainer:
    """Trains ``network`` on batches; a recipe supplies ``loss``, ``check``, ``state`` and ``save``."""

    name: str

    def __init__(self, run: Run, network: nn.Module, next_batch: Callable[[], Batch]) -> None:
        self.config, self.network, self.next_batch = run, network, next_batch
        self.optimizers = make_optimizers(run, network)
        self.step, self.elapsed, self.seen = 0, 0.0, 0
        self.log = RunLog(run.out)

    def loss(self, batch: Batch) -> Tensor:
        """Scalar loss of a batch."""
        raise NotImplementedError

    def check(self) -> dict[str, float]:
        """Validation scores; may shift the mix of the text."""
        raise NotImplementedError

    def state(self) -> dict:
        """What every recipe needs to go on; a recipe adds its data position."""
        return {
            "run": {k: str(v) for k, v in asdict(self.config).items()},
            "model": self.network.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
            "seen": self.seen,
        }

    def restore(self, saved: dict) -> None:
        """Take over what ``state`` holds."""
        self.network.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.elapsed, self.seen = saved["step"], saved["elapsed"], saved["seen"]

    def summary(self) -> dict:
        """What was used so far, for the provenance record."""
        return {"steps": self.step, "tokens": self.seen, "trained_minutes": self.elapsed / 60}

    def save(self) -> None:
        """Write the checkpoint for resuming."""
        save_checkpoint(self.config.out, self.state())

    def train_step(self) -> float:
        """One optimizer step; returns the loss."""
        batch = Batch(*(t.to(self.config.device) for t in self.next_batch()))
        loss = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
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

    def run(self) -> None:
        """Train until the configured minutes or steps are used up, saving on the way and at the end."""
        run = self.config
        if run.share(self.step, self.elapsed) >= 1.0:
            return
        last_check = last_save = self.elapsed
        smooth = None
        while run.share(self.step, self.elapsed) < 1.0:
            started = time.perf_counter()
            loss = self.train_step()
            smooth = loss if smooth is None else 0.98 * smooth + 0.02 * loss
            if self.elapsed - last_check >= run.check_every_s:
                last_check = self.elapsed
                self.log.write(self.step, self.elapsed, self.seen, smooth, self.check())
            self.elapsed += time.perf_counter() - started
            share = run.share(self.step, self.elapsed)
            self.log.progress(self.name, self.step, self.elapsed, share, smooth, self.seen)
            if self.elapsed - last_save >= run.save_every_s:
                last_save = self.elapsed
                self.save()
        self.log.write(self.step, self.elapsed, self.seen, smooth or 0.0, self.check())
        self.save()
        self.log.close()

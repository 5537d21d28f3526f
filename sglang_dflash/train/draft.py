"""Trainer of DFlash drafts on a frozen target."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sglang_dflash.errors import DFlashError
from sglang_dflash.train.blocks import decay_weights, make_blocks, sample_anchors
from sglang_dflash.train.draft_data import BuiltinDocuments, JsonlDocuments, RowBatcher
from sglang_dflash.train.draft_io import check_taps, default_taps, draft_config, load_draft, save_draft
from sglang_dflash.train.draft_model import DraftNetwork
from sglang_dflash.train.frozen import FrozenTarget, open_target
from sglang_dflash.train.model import Shape
from sglang_dflash.train.muon import Muon
from sglang_dflash.train.packing import Batch, Packer
from sglang_dflash.train.replay import replay
from sglang_dflash.train.runlog import RunLog, load_checkpoint, save_checkpoint
from sglang_dflash.train.target import rate_at, split_parameters, start_from_weights


@dataclass
class DraftRun:
    """Settings of a draft run; ``data`` is "builtin" or a JSONL file."""

    target: str
    out: Path
    data: str = "builtin"
    minutes: float = 35.0
    seed: int = 7
    layers: int = 2
    block_size: int = 16
    tap_count: int = 4
    target_layer_ids: list[int] = field(default_factory=list)
    mask_token_id: int | None = None
    anchors: int = 16
    tokens: int = 1536
    lengths: tuple[int, ...] = (128, 192, 384)
    max_length: int = 2048
    regenerate: bool = False
    gamma: float = 7.0
    matrix_lr: float = 6e-3
    vector_lr: float = 3e-3
    warmup_steps: int = 60
    flat_share: float = 0.4
    final_lr: float = 0.02
    check_every_s: float = 240.0
    save_every_s: float = 180.0
    check_prompts: int = 10
    device: str = "cpu"
    start_from: Path | None = None


class DraftTrainer:
    """Holds the draft, its optimizers and the data; ``run`` trains until the time is used up."""

    def __init__(self, run: DraftRun) -> None:
        self.config = run
        self.target: FrozenTarget = open_target(run.target, run.device)
        self.taps = run.target_layer_ids or default_taps(self.target.num_layers, run.tap_count)
        check_taps(self.taps, self.target.num_layers)
        self.shape = draft_shape(self.target.config, run.layers)
        self.network = DraftNetwork(self.shape, len(self.taps), self.target.config["max_position_embeddings"])
        self.network.init_weights(run.seed, self.target.final_norm)
        if run.start_from:
            start_from_weights(self.network, load_draft(run.start_from)[0], self.shape, run.start_from)
        self.network.to(run.device)
        tokenizer = open_tokenizer(run.target)
        self.mask_id = mask_token(run.mask_token_id, tokenizer, self.shape.vocab_size)
        pad = tokenizer.pad_token_id or 0
        if run.data == "builtin":
            self.data = BuiltinDocuments(self.target, run.seed)
        else:
            self.data = JsonlDocuments(Path(run.data), tokenizer, self.target, run.seed, run.max_length, run.regenerate)
        source = iter(self.data)
        if self.target.packs and run.data == "builtin":
            self.packer = Packer(source, run.tokens, run.lengths, pad)
        else:
            self.packer = RowBatcher(source, run.tokens, pad)
        self.validation = self.data.validation(self.target, run.check_prompts)
        matrices, vectors = split_parameters(self.network)
        self.optimizers = [
            Muon(matrices, run.matrix_lr),
            torch.optim.AdamW(vectors, run.vector_lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.generator = torch.Generator().manual_seed(run.seed)
        self.decay = decay_weights(run.block_size, run.gamma).to(run.device)
        self.step, self.elapsed, self.seen = 0, 0.0, 0
        self.log = RunLog(run.out)

    def state(self) -> dict:
        """Everything a later session needs to go on."""
        state = {
            "shape": self.shape.as_dict(), "taps": self.taps, "run": {k: str(v) for k,
            v in asdict(self.config).items()},
            "model": self.network.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers],
            "generator": self.generator.get_state(), "step": self.step, "elapsed": self.elapsed,
            "seen": self.seen,
        }  # fmt: skip
        if isinstance(self.data, BuiltinDocuments):
            state |= {"stream": self.data.stream.state(), "pools": self.packer.pools}
        return state

    def summary(self) -> dict:
        """What was used so far, for the provenance record."""
        used = {"steps": self.step, "tokens": self.seen, "trained_minutes": self.elapsed / 60}
        if isinstance(self.data, BuiltinDocuments):
            used["stream"] = self.data.stream.state()
        return used

    def resume(self) -> bool:
        """Continue from the folder's checkpoint, if there is one."""
        saved = load_checkpoint(self.config.out, self.shape.as_dict())
        if saved is None:
            return False
        if saved["taps"] != self.taps:
            raise DFlashError("target_layer_ids", f"the checkpoint has {saved['taps']}", "choose another --out folder")
        self.network.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.generator.set_state(saved["generator"])
        if isinstance(self.data, BuiltinDocuments):
            self.data.stream.load_state(saved["stream"])
            self.packer.pools.update(saved["pools"])
        self.step, self.elapsed, self.seen = saved["step"], saved["elapsed"], saved["seen"]
        return True

    def loss(self, batch: Batch) -> Tensor:
        """Position-decayed cross entropy against the target's own continuation."""
        seen = self.target.observe(batch, self.taps)
        anchors = sample_anchors(batch, self.config.anchors, self.generator)
        blocks = make_blocks(batch, seen.best, anchors, self.config.block_size, self.mask_id)
        hidden = self.network(
            seen.features, batch.positions, self.target.embed(blocks.ids), blocks.positions, blocks.seen
        )
        weight = self.decay.expand(blocks.valid.shape)[blocks.valid]
        logits = self.target.head(hidden[:, :, 1:][blocks.valid])
        each = F.cross_entropy(logits, blocks.labels[blocks.valid], reduction="none")
        return (each * weight).sum() / weight.sum().clamp(min=1e-9)

    def train_step(self) -> float:
        """One optimizer step; returns the loss."""
        batch = Batch(*(t.to(self.config.device) for t in self.packer.next_batch()))
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

    def check(self) -> dict[str, float]:
        """Accept length per kind on validation prompts."""
        run, lengths = self.config, {}
        for kind, documents in self.validation.items():
            rounds = replay(
                self.target,
                self.network,
                documents,
                self.taps,
                run.block_size,
                self.mask_id,
                device=run.device,
            )
            lengths[kind] = rounds.accept_length()
        if lengths:
            self.data.rebalance(lengths)
        return {"mean": sum(lengths.values()) / max(1, len(lengths)), **lengths}

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
            self.log.progress("draft", self.step, self.elapsed, 60 * self.config.minutes, smooth, self.seen)
            if self.elapsed - last_save >= self.config.save_every_s:
                last_save = self.elapsed
                self.save()
        self.log.write(self.step, self.elapsed, self.seen, smooth or 0.0, self.check())
        self.save()
        self.log.close()

    def save(self) -> None:
        """Checkpoint for resuming, and the draft itself in the published layout under ``out/draft``."""
        save_checkpoint(self.config.out, self.state())
        config = draft_config(
            self.shape, self.target.num_layers, self.taps, self.config.block_size, self.mask_id,
            self.target.config["max_position_embeddings"],
        )  # fmt: skip
        save_draft(self.config.out / "draft", self.network, config)


def draft_shape(config: dict, layers: int) -> Shape:
    """A draft's sizes follow its target's."""
    heads = config["num_attention_heads"]
    theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    return Shape(
        vocab_size=config["vocab_size"], hidden_size=config["hidden_size"], num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        intermediate_size=config["intermediate_size"], rope_theta=float(theta),
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
    )  # fmt: skip


def open_tokenizer(target: str):
    """The target's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(target)


def mask_token(asked: int | None, tokenizer, vocab_size: int) -> int:
    """The id that fills a block; it needs a row in the target's embedding."""
    found = asked if asked is not None else tokenizer.mask_token_id
    if found is None:
        raise DFlashError("mask_token_id", "the target's tokenizer has no mask token", "pass --mask-token-id")
    if not 0 <= found < vocab_size:
        raise DFlashError("mask_token_id", f"{found} is outside 0..{vocab_size - 1}", "choose an unused id inside")
    return found

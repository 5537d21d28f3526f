"""Trainer of DFlash drafts on a frozen target."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.blocks import decay_weights, make_blocks, sample_anchors
from sglang_dflash.tools.train.draft_data import BuiltinDocuments, JsonlDocuments
from sglang_dflash.tools.train.draft_io import check_taps, default_taps, draft_config, load_draft, save_draft
from sglang_dflash.tools.train.draft_model import DraftNetwork
from sglang_dflash.tools.train.features import FeatureStore, StoredTarget, is_store
from sglang_dflash.tools.train.frozen import FrozenTarget, open_target
from sglang_dflash.tools.train.loop import Run, Trainer
from sglang_dflash.tools.train.loss_head import FrequentHead, LossHead, WholeHead
from sglang_dflash.tools.train.model import Shape
from sglang_dflash.tools.train.networks import take_weights
from sglang_dflash.tools.train.packing import Batch, Packer, RowBatcher
from sglang_dflash.tools.train.replay import replay
from sglang_dflash.tools.train.runlog import load_checkpoint
from sglang_dflash.tools.train.start_layers import begin_as_target_layers


@dataclass
class DraftRun(Run):
    """Settings of a draft run; ``data`` is "builtin" or a JSONL file, or a folder of features."""

    target: str = ""
    minutes: float = 35.0
    seed: int = 7
    data: str = "builtin"
    layers: int = 2
    block_size: int = 16
    tap_count: int = 4
    target_layer_ids: list[int] = field(default_factory=list)
    mask_token_id: int | None = None
    anchors: int = 16
    max_length: int = 2048
    regenerate: bool = False
    gamma: float = 7.0
    matrix_lr: float = 6e-3
    vector_lr: float = 3e-3
    check_every_s: float = 240.0
    check_prompts: int = 10
    dtype: torch.dtype = torch.float32  # of the draft's weights file
    compute: torch.dtype = torch.float32  # of the products; weights stay float32
    start_layers: list[int] = field(default_factory=list)  # target layers that the draft's begin as
    loss_vocabulary: int | None = None  # the loss is over that many frequent ids; None: over all


class DraftTrainer(Trainer):
    """Holds the draft, its optimizers and the data; ``run`` trains until the time is used up."""

    name = "draft"

    def __init__(self, run: DraftRun) -> None:
        self.target: FrozenTarget = open_target(run.target, run.device)
        store = FeatureStore(Path(run.data), run.seed) if is_store(Path(run.data)) else None
        if store:
            self.target = StoredTarget(self.target, store, run.device)
        self.taps = chosen_taps(run, self.target.num_layers, store)
        check_taps(self.taps, self.target.num_layers)
        self.shape = draft_shape(self.target.config, run.layers)
        draft = DraftNetwork(self.shape, len(self.taps), self.target.config["max_position_embeddings"])
        draft.init_weights(run.seed, self.target.final_norm)
        if run.start_layers:
            begin_as_target_layers(draft, self.target.weights(), run.start_layers, run.seed)
        if run.start_from:
            take_weights(draft, load_draft(run.start_from)[0], run.start_from)
        if run.loss_vocabulary and run.data == "builtin":
            raise DFlashError("loss_vocabulary", "needs texts of a fixed number", "give --data")
        tokenizer = open_tokenizer(run.target)
        self.mask_id = mask_token(run.mask_token_id, tokenizer, self.shape.vocab_size)
        self.data, self.packer = documents(run, self.target, tokenizer, store)
        self.head: LossHead = WholeHead(self.target)
        if run.loss_vocabulary:
            self.head = FrequentHead(self.target, self.data.documents, run.loss_vocabulary)
        self.validation = self.data.validation(self.target, run.check_prompts)
        self.generator = torch.Generator().manual_seed(run.seed)
        self.decay = decay_weights(run.block_size, run.gamma).to(run.device)
        super().__init__(run, draft.to(run.device), self.packer.next_batch)

    def state(self) -> dict:
        """Everything a later session needs to go on."""
        own = {"shape": self.shape.as_dict(), "taps": self.taps, "generator": self.generator.get_state()}
        if isinstance(self.data, BuiltinDocuments):
            own["stream"] = self.data.stream.state()
        else:
            own["drawn"] = self.packer.drawn
        return super().state() | own | {"pools": self.packer.pools}

    def summary(self) -> dict:
        """What was used so far, for the provenance record."""
        used = super().summary()
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
        self.restore(saved)
        self.generator.set_state(saved["generator"])
        if isinstance(self.data, BuiltinDocuments):
            self.data.stream.load_state(saved["stream"])
        else:
            self.packer.skip(saved.get("drawn", 0))  # older checkpoints begin the data anew
        self.packer.pools.update(saved.get("pools", {}))
        return True

    def loss(self, batch: Batch) -> Tensor:
        """Position-decayed cross entropy against the target's own continuation."""
        seen = self.target.observe(batch, self.taps)
        anchors = sample_anchors(batch, self.config.anchors, self.generator)
        blocks = make_blocks(batch, seen.best, anchors, self.config.block_size, self.mask_id)
        labels = self.head.labels(blocks.labels)
        valid = blocks.valid & (labels >= 0)
        weight = self.decay.expand(valid.shape)[valid]
        with self.products():
            hidden = self.network(
                seen.features, batch.positions, self.target.embed(blocks.ids), blocks.positions, blocks.seen
            )
            logits = self.head.logits(hidden[:, :, 1:][valid])
        each = F.cross_entropy(logits.float(), labels[valid], reduction="none")
        return (each * weight).sum() / weight.sum().clamp(min=1e-9)

    def products(self) -> torch.autocast:
        """Products in the chosen dtype."""
        device = torch.device(self.config.device).type
        return torch.autocast(device, self.config.compute, self.config.compute != torch.float32)

    def check(self) -> dict[str, float]:
        """Accept length per kind on validation prompts."""
        run, lengths = self.config, {}
        for kind, documents in self.validation.items():
            with self.products():
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

    def save(self) -> None:
        """Checkpoint for resuming, and the draft itself in the published layout under ``out/draft``."""
        super().save()
        config = draft_config(
            self.shape,
            self.target.num_layers,
            self.taps,
            self.config.block_size,
            self.mask_id,
            self.target.config["max_position_embeddings"],
        )
        save_draft(self.config.out / "draft", self.network, config, self.config.dtype)


def chosen_taps(run: DraftRun, target_layers: int, store: FeatureStore | None) -> list[int]:
    """The layers asked for, or those that features are stored of, or an even spread."""
    if store is None:
        return run.target_layer_ids or default_taps(target_layers, run.tap_count)
    taps = run.target_layer_ids or store.taps
    if not set(taps) <= set(store.taps):
        raise DFlashError("target_layer_ids", f"{taps}: {run.data} has {store.taps}", "run train features with them")
    return taps


def documents(
    run: DraftRun, target: FrozenTarget, tokenizer, store: FeatureStore | None
) -> tuple[BuiltinDocuments | JsonlDocuments | FeatureStore, Packer | RowBatcher]:
    """What the draft is trained on, and how it becomes batches."""
    pad = tokenizer.pad_token_id or 0
    if store:
        return store, RowBatcher(iter(store), run.tokens, pad)
    if run.data == "builtin":
        data = BuiltinDocuments(target, run.seed, run.kinds)
        if target.packs:
            return data, Packer(iter(data), run.tokens, run.lengths, pad)
    else:
        data = JsonlDocuments(Path(run.data), tokenizer, target, run.seed, run.max_length, run.regenerate)
    return data, RowBatcher(iter(data), run.tokens, pad)


def draft_shape(config: dict, layers: int) -> Shape:
    """A draft's sizes follow its target's."""
    heads = config["num_attention_heads"]
    theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    return Shape(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        intermediate_size=config["intermediate_size"],
        rope_theta=float(theta),
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
    )


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

"""DFlash draft model in SGLang's layers (arXiv 2602.06036, section 4 and appendix A.3), and its published variants.

A Qwen3-style stack over one block [anchor, mask x (B - 1)]. Its context is not text but the target's
hidden states: their K and V are written into every layer's cache by ``context.inject``, so that
``forward`` computes the block only.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from sglang_dflash.checkpoints.config import DraftConfig, parse_draft_config
from sglang_dflash.engine.draft.ends import Ends
from sglang_dflash.engine.draft.layer import ConvolvedLayer, DraftLayer
from sglang_dflash.engine.draft.norms import norm_class
from sglang_dflash.engine.draft.selector import CandidateSelector
from sglang_dflash.engine.draft.weights import load_strictly, update_strictly
from sglang_dflash.host.model_api import (
    LogitsProcessorOutput,
    ParallelLMHead,
    ReplicatedLinear,
    RMSNorm,
    VocabParallelEmbedding,
)


class DFlashDraftModel(nn.Module):
    """The whole draft. ``bind`` must be called before the first ``forward``.

    Parameters are those of published checkpoints: ``fc`` and ``hidden_norm`` fuse the context features,
    ``layers.*`` and ``norm`` draft; embedding and head are the target's unless the checkpoint ships its own.
    """

    # Nobody reads a draft's own hidden states.
    layers_to_capture = ()
    mask_embedding: torch.Tensor | None

    def __init__(self, config, quant_config=None, prefix: str = ""):
        super().__init__()
        self.config = config
        draft = parse_draft_config(config.to_dict())
        if quant_config is not None and draft.quantisation is None:
            # SGLang also takes it from another file, or from the command line.
            draft = replace(draft, quantisation=quant_config.get_name())
        self.draft_config = draft
        base = f"{prefix}." if prefix else ""
        self.fc = ReplicatedLinear(
            draft.num_context_features * draft.hidden_size,
            draft.hidden_size,
            bias=False,
            quant_config=quant_config,
            prefix=f"{base}fc",
        )
        norm = norm_class(draft)
        taps = draft.num_context_features if draft.norms_taps else 0
        self.aux_hidden_norms = nn.ModuleList(RMSNorm(draft.hidden_size, eps=draft.rms_norm_eps) for _ in range(taps))
        self.hidden_norm: Any = norm(draft.hidden_size, eps=draft.rms_norm_eps)
        layer = DraftLayer if draft.convolution is None else ConvolvedLayer
        self.layers: Any = nn.ModuleList(
            layer(draft, i, quant_config, f"{base}layers.{i}") for i in range(draft.num_layers)
        )
        self.norm = norm(draft.hidden_size, eps=draft.rms_norm_eps)
        self.candidate_selector = None if draft.selector is None else CandidateSelector(draft)
        self._build_own_ends(draft, quant_config, base)
        # A row of ones own for the mask token, [hidden]; a buffer, so that it is kept and put back with the weights.
        self.register_buffer("mask_embedding", None, persistent=False)
        # Ends of the target's that the draft uses in the place of equal ones of its own, by its name for them.
        self.shared_ends: dict[str, nn.Module] = {}
        self.is_loaded = False
        self._updates_whole = False
        self._ends: Ends | None = None

    def _build_own_ends(self, draft: DraftConfig, quant_config, base: str) -> None:
        self.embed_tokens = self.lm_head = None
        if draft.ships_embedding:
            self.embed_tokens = VocabParallelEmbedding(
                draft.vocab_size, draft.hidden_size, quant_config=quant_config, prefix=f"{base}embed_tokens"
            )
        if draft.ships_head:
            self.lm_head = ParallelLMHead(
                draft.draft_vocab_size or draft.vocab_size,
                draft.hidden_size,
                quant_config=quant_config,
                prefix=f"{base}lm_head",
            )
        if draft.draft_vocab_size is not None:
            self.register_buffer("d2t", torch.zeros(draft.draft_vocab_size, dtype=torch.int64))

    @property
    def is_plain(self) -> bool:
        """True for the layers of arXiv 2602.06036: Qwen3's, and nothing more."""
        draft = self.draft_config
        return (
            draft.convolution is None
            and draft.gate is None
            and not draft.attention_sinks
            and draft.value_scale == 1.0
            and draft.activation.limit is None
        )

    def bind(self, ends: Ends, block_size: int, attention_backend: str) -> None:
        """Take what stands around the layers, the tokens in a block, and SGLang's attention backend of this run.

        Both ends run inside the forward pass, hence inside its captured graph. What is loaded from now on are updates.
        """
        self._ends = ends
        for layer in self.layers:
            layer.bind(block_size, attention_backend)

    def get_input_embeddings(self) -> nn.Module | None:
        """The draft's own embedding, None where it borrows the target's."""
        return self.embed_tokens

    def get_attention_sliding_window_size(self) -> int | None:
        """Largest window of the sliding layers in SGLang's count (own token excluded), None without any."""
        windows = [layer.window - 1 for layer in self.draft_config.layers if layer.window is not None]
        return max(windows) if windows else None

    def forward_embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings of a block's ids [tokens] -> [tokens, hidden]; runs inside captured graphs."""
        assert self._ends is not None  # bound at start
        return self._ends.embed(input_ids)

    @torch.no_grad()
    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, forward_batch) -> LogitsProcessorOutput:
        """The token drafted at every position of the blocks, [tokens] int64.

        They travel as ``hidden_states``, the field that graph replay hands on.
        """
        assert self._ends is not None  # bound at start
        hidden = self.decode(input_ids, positions, forward_batch, self.forward_embed(input_ids))
        return LogitsProcessorOutput(next_token_logits=None, hidden_states=self._ends.choose(hidden, input_ids))

    def decode(self, input_ids, positions, forward_batch, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [tokens, hidden] through all layers and the final norm; a platform may put a faster pass here."""
        residual = None
        for layer in self.layers:
            hidden, residual = layer(positions, hidden, residual, forward_batch)
        return self.norm(hidden, residual)[0]

    def fuse_features(self, features: torch.Tensor) -> torch.Tensor:
        """Context features [tokens, K * hidden] -> [tokens, hidden]: fc, then norm (appendix A.3)."""
        if self.aux_hidden_norms:
            taps = features.chunk(len(self.aux_hidden_norms), -1)
            normed = [norm(tap.contiguous()) for norm, tap in zip(self.aux_hidden_norms, taps, strict=True)]
            features = torch.cat(normed, -1)
        fused, _ = self.fc(features)
        return self.hidden_norm(fused)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Load a checkpoint's tensors, complete before ``bind``; a part of them as an update after it.

        An update checks every tensor before it changes the first.

        Raises:
            DFlashError: a tensor is missing, unknown or of the wrong shape.
        """
        if self._ends is not None:
            update_strictly(self, weights, complete=self._updates_whole)
            return
        filled = load_strictly(self, self.draft_config, weights)
        self.is_loaded = True
        for name in ("embed_tokens", "lm_head"):
            if f"{name}.weight" not in filled:
                setattr(self, name, None)

    @contextlib.contextmanager
    def loading_whole(self) -> Iterator[None]:
        """Within it an update has to bring every tensor."""
        self._updates_whole = True
        try:
            yield
        finally:
            self._updates_whole = False

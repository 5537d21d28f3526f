"""KV injection: context features -> K and V of all draft layers, in the slots of the target's tokens.

DFlash (arXiv 2602.06036, appendix A.3): the same fused feature goes through every layer's K and V
projection. One GEMM computes them for all layers; one kernel norms, rotates and stores them.
"""

import functools

import torch
import torch.nn.functional as F

from sglang_dflash.engine.draft.model import DFlashDraftModel
from sglang_dflash.engine.draft.norms import factor
from sglang_dflash.engine.updates.derived import after_updates
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.model_api import is_dense
from sglang_dflash.kernels import dense, inject_kv
from sglang_dflash.types import Features


def committed_rows(features: Features) -> Features:
    """Only the committed tokens. Reads their number on the host: free on a CPU, a sync elsewhere."""
    hidden, positions, slots, commit_lens = features
    if commit_lens is None:
        return features
    bs = commit_lens.numel()
    if bs == 1:
        # Nothing lies between the rows of one request: they are read where they are.
        kept = int(commit_lens)
        return Features(hidden[:kept], positions[:kept], slots[:kept], None)
    columns = _columns(positions.numel() // bs, positions.device)
    rows = (columns < commit_lens[:, None]).view(-1).nonzero().view(-1)
    return Features(hidden[rows], positions[rows], slots[rows], None)


@functools.cache
def _columns(width: int, device: torch.device) -> torch.Tensor:
    """``0 .. width - 1``, made once."""
    return torch.arange(width, device=device)


def all_rows(features: Features) -> Features:
    """Every token, committed or not: fixed shapes and no sync; the kernel skips the others."""
    return features


class PackedProjection:
    """K and V projections of all layers as one matrix."""

    def __init__(self, model: DFlashDraftModel):
        self._model = model
        self._weight, self._bias = self._packed()
        own = next(model.parameters())
        self._linear = dense.choose(own.device.type, own.dtype)

    @property
    def columns(self) -> int:
        """L * 2 * kv_heads * head_dim."""
        return self._weight.shape[0]

    def __call__(self, fused: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """fused [tokens, hidden] -> [tokens, columns], per layer K then V; in ``out`` where it is given."""
        if out is None:
            return self._linear.project(fused, self._weight, self._bias)
        if self._bias is None:
            return torch.mm(fused, self._weight.T, out=out)
        return torch.addmm(self._bias, fused, self._weight.T, out=out)

    def refresh(self) -> None:
        """Pack the weights as they are now, in the same memory: a captured graph reads it there."""
        weight, bias = self._packed()
        self._weight.copy_(weight)
        if self._bias is not None and bias is not None:
            self._bias.copy_(bias)

    def _packed(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        attentions = [layer.self_attn for layer in self._model.layers]
        weight = torch.cat([self._rows(layer) for layer in self._model.layers])
        if attentions[0].qkv_proj.bias is None:
            return weight, None
        return weight, torch.cat([a.qkv_proj.bias[a.q_size :] for a in attentions])

    def _rows(self, layer) -> torch.Tensor:
        return layer.self_attn.qkv_proj.weight[layer.self_attn.q_size :]


class NormedPackedProjection(PackedProjection):
    """The same behind each layer's input norm (Laguna): what the norms multiply by is part of the matrix."""

    def __call__(self, fused: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        eps = self._model.draft_config.rms_norm_eps
        return super().__call__(F.rms_norm(fused, fused.shape[-1:], eps=eps), out)

    def _rows(self, layer) -> torch.Tensor:
        rows = super()._rows(layer)
        return (rows * factor(layer.input_layernorm)).to(rows.dtype)


class LayerwiseProjection:
    """The same through each layer's own (quantised) projection; its queries are computed and dropped."""

    def __init__(self, model: DFlashDraftModel):
        self._layers = model.layers
        self._normed = model.draft_config.norms_context

    def refresh(self) -> None:
        """Nothing: the layers' own weights are read."""

    @property
    def columns(self) -> int:
        """L * 2 * kv_heads * head_dim."""
        return sum(2 * layer.self_attn.kv_size for layer in self._layers)

    def __call__(self, fused: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        return torch.cat([self._project(layer, fused) for layer in self._layers], dim=1, out=out)

    def _project(self, layer, fused: torch.Tensor) -> torch.Tensor:
        if self._normed:
            fused = layer.input_layernorm(fused)
        return layer.self_attn.qkv_proj(fused)[0][:, layer.self_attn.q_size :]


def _projection(model: DFlashDraftModel):
    if not all(is_dense(layer.self_attn.qkv_proj) for layer in model.layers):
        return LayerwiseProjection(model)
    return (NormedPackedProjection if model.draft_config.norms_context else PackedProjection)(model)


class ContextInjector:
    """Writes context features into the draft's KV pool. Built once, before the pool is."""

    def __init__(self, model: DFlashDraftModel, runner):
        self._model, self._runner = model, runner
        self._project = _projection(model)
        device_type = torch.device(runner.device).type
        self._inject = inject_kv.choose(device_type)
        self._rows = committed_rows if device_type == "cpu" else all_rows
        self._plan: inject_kv.InjectPlan | None = None
        after_updates(model, self.refresh)

    def __call__(self, features: Features) -> None:
        """``prepare`` must have been called."""
        features = self._rows(features)
        if features.positions.numel() == 0:
            return
        self.store(self.project(features.hidden), features)

    def project(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Context features [tokens, K * hidden] -> keys and values [tokens, columns] of all layers."""
        return self._project(self._model.fuse_features(hidden), out)

    def store(self, keys_values: torch.Tensor, features: Features) -> None:
        """Write keys and values where ``features`` says."""
        self._inject(keys_values, features.positions, features.slots, features.commit_lens, self._plan)

    def warm_up(self, tokens: int) -> None:
        """Run the kernel once for one request of ``tokens`` rows, none of which is stored."""
        kept = torch.zeros(1, dtype=torch.int32, device=self._runner.device)
        nowhere = torch.zeros(tokens, dtype=torch.int64, device=self._runner.device)
        self.store(self.empty_keys_values(tokens).zero_(), Features(kept, nowhere, nowhere, kept))

    def empty_keys_values(self, tokens: int) -> torch.Tensor:
        """Room for what ``project`` makes of ``tokens`` features."""
        weight = self._model.hidden_norm.weight
        return torch.empty(tokens, self._project.columns, dtype=weight.dtype, device=weight.device)

    def prepare(self) -> None:
        """Note where the pool's buffers are; once they exist.

        Raises:
            DFlashError: the pool stores another dtype than it is given.
        """
        if self._plan is None:
            self._plan = self._make_plan(self._norms())

    def refresh(self) -> None:
        """Pack what is read of the draft's weights again, in the same memory."""
        self._project.refresh()
        if self._plan is not None and self._plan.norm_weights is not None:
            self._plan.norm_weights.copy_(self._norms())

    def _norms(self) -> torch.Tensor:
        return torch.stack([factor(layer.self_attn.k_norm) for layer in self._model.layers])

    def _make_plan(self, norms: torch.Tensor) -> inject_kv.InjectPlan:
        pool = self._runner.token_to_kv_pool
        if pool.store_dtype != pool.dtype:
            raise DFlashError(
                "speculative-draft-kv-cache-dtype",
                f"{pool.dtype} is not supported",
                "use the draft's own dtype",
            )
        attention, layers = self._model.layers[0].self_attn, range(len(self._model.layers))
        return inject_kv.make_inject_plan(
            [pool.get_key_buffer(i) for i in layers],
            [pool.get_value_buffer(i) for i in layers],
            norm_weights=norms,
            eps=attention.k_norm.variance_epsilon,
            cos_sin=attention.rotary_emb.cos_sin_cache,
            interleaved=not attention.rotary_emb.is_neox_style,
        )

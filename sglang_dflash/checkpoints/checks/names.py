"""Names and shapes of a draft checkpoint's tensors, in every spelling that is published."""

from sglang_dflash.checkpoints.config import DraftConfig

# Left out by all: rotary tables are computed, and a training library keeps its target's ends and an inverse map.
_IGNORED = ("rotary_emb.", "verifier_lm_head.", "verifier_norm.", "t2d")
_ENDS = ("embed_tokens.", "lm_head.", "d2t")
_ALIASES = {
    "encoder.fc.weight": "fc.weight",
    "encoder.output_norm_enc.weight": "hidden_norm.weight",
}
# Projection stored as one matrix -> its parts, in the order of its rows.
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "g_proj", "gate_proj", "up_proj", "down_proj", "fc")


class TensorNames:
    """Which tensors a draft has, name -> shape in full precision: ``required``, ``optional``, of both ``ends``."""

    def __init__(self, draft: DraftConfig):
        self._draft = draft
        self.required = expected_tensors(draft)
        self.ends = _shipped_ends(draft)
        self.optional = self.ends if draft.optional_ends else {}
        self._shapes = self.required | self.optional

    def bare(self, name: str) -> str | None:
        """A checkpoint tensor's name as the draft model knows it; None for those accepted and ignored."""
        bare = name.removeprefix("model.")
        bare = _ALIASES.get(bare, bare)
        if any(part in bare for part in _IGNORED):
            return None
        # Exports that carry the target's ends are accepted: the draft borrows them from the target itself.
        return None if bare.startswith(_ENDS) and bare not in self._shapes else bare

    def covers(self, bare: str) -> tuple[str, ...]:
        """The names of ``required`` and ``optional`` that this tensor fills; none for an unknown one."""
        parts = _parts(bare)
        if self._draft.quantisation is not None and _module(parts[0]) in _LINEAR and not bare.endswith(".bias"):
            parts = tuple(f"{part.rpartition('.')[0]}.weight" for part in parts)
        return parts if all(part in self._shapes for part in parts) else ()

    def shape(self, bare: str) -> tuple[int, ...] | None:
        """Shape in full precision; None for what only a quantised matrix has beside or instead of it."""
        parts = _parts(bare)
        shapes = [self._shapes[part] for part in parts if part in self._shapes]
        if len(shapes) < len(parts):
            return None
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _parts(bare: str) -> tuple[str, ...]:
    """Names of the tensors that a fused one is made of, itself where it is not fused."""
    module = _module(bare)
    return tuple(bare.replace(module, part) for part in FUSED[module]) if module in FUSED else (bare,)


def _module(bare: str) -> str:
    """Last name of the module that owns a tensor, "" for a tensor of the draft itself."""
    return bare.rpartition(".")[0].rpartition(".")[2]


def expected_tensors(draft: DraftConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the draft must have, in full precision, nothing fused."""
    hidden = draft.hidden_size
    whole = {
        "fc.weight": (hidden, draft.num_context_features * hidden),
        "hidden_norm.weight": (hidden,),
        "norm.weight": (hidden,),
    }
    if draft.norms_taps:
        whole |= {f"aux_hidden_norms.{i}.weight": (hidden,) for i in range(draft.num_context_features)}
    if draft.selector is not None:
        rank = draft.selector.rank
        whole |= {
            "candidate_selector.predecessor_codebook": (_rows(draft), rank),
            "candidate_selector.successor_codebook": (_rows(draft), rank),
            "candidate_selector.hidden_projection.weight": (rank, hidden),
        }
    if not draft.optional_ends:
        whole |= _shipped_ends(draft)
    elif draft.draft_vocab_size is not None:
        whole |= {"lm_head.weight": (draft.draft_vocab_size, hidden), "d2t": (draft.draft_vocab_size,)}
    layer = _attention_tensors(draft) | _layer_tensors(draft)
    for i in range(draft.num_layers):
        whole |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    return whole


def _rows(draft: DraftConfig) -> int:
    """Rows of a table over the whole vocabulary."""
    assert draft.vocab_size is not None  # a config with such a table was refused without it
    return draft.vocab_size


def _shipped_ends(draft: DraftConfig) -> dict[str, tuple[int, ...]]:
    ends: dict[str, tuple[int, ...]] = {}
    if draft.ships_embedding:
        ends["embed_tokens.weight"] = (_rows(draft), draft.hidden_size)
    if draft.ships_head:
        ends["lm_head.weight"] = (draft.draft_vocab_size or _rows(draft), draft.hidden_size)
    if draft.draft_vocab_size is not None:
        ends["d2t"] = (draft.draft_vocab_size,)
    return ends


def _attention_tensors(draft: DraftConfig) -> dict[str, tuple[int, ...]]:
    hidden, head_dim = draft.hidden_size, draft.head_dim
    queries, keys = draft.num_heads * head_dim, draft.num_kv_heads * head_dim
    tensors: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "self_attn.q_norm.weight": (head_dim,),
        "self_attn.k_norm.weight": (head_dim,),
    }
    if draft.attention_bias:
        tensors |= {
            f"self_attn.{part}_proj.bias": (size,)
            for part, size in zip("qkvo", (queries, keys, keys, hidden), strict=True)
        }
    if draft.attention_sinks:
        tensors["self_attn.attention_sink_bias"] = (draft.num_heads,)
    if draft.gate is not None:
        tensors["self_attn.g_proj.weight"] = (draft.num_heads if draft.gate == "per-head" else queries, hidden)
    return tensors


def _layer_tensors(draft: DraftConfig) -> dict[str, tuple[int, ...]]:
    hidden = draft.hidden_size
    tensors: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (draft.intermediate_size, hidden),
        "mlp.up_proj.weight": (draft.intermediate_size, hidden),
        "mlp.down_proj.weight": (hidden, draft.intermediate_size),
    }
    if draft.convolution is not None:
        taps, group_size = draft.convolution.kernel_size, draft.convolution.group_size
        for name in ("attention_conv", "mlp_conv"):
            tensors[f"{name}.base_kernel"] = (2, taps, hidden)
            tensors[f"{name}.kernel_projection.weight"] = (2 * taps * hidden // group_size, hidden)
    return tensors

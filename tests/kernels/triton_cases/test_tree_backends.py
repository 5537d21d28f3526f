"""SGLang's GPU backends verify our trees as the CPU platform's do: attention, recurrent layers, eager and for graphs.

The backends are SGLang's classes with the fields that a verify pass reads; everything between ``MaskedTree`` and
their Triton kernels is theirs.
"""

import os
from types import SimpleNamespace

import pytest
import torch
from linear_oracles import conv_case, delta_case, trees
from sglang.srt.layers.attention import hybrid_linear_attn_backend as hybrid
from sglang.srt.layers.attention.linear.gdn_backend import GDNAttnBackend, TritonGDNKernel
from sglang.srt.layers.attention.triton_backend import TritonAttnBackend
from sglang.srt.layers.attention.verify_mask import maybe_create_verify_mask
from sglang.srt.layers.radix_attention import AttentionType
from sglang.srt.mem_cache import memory_pool
from sglang.srt.mem_cache.memory_pool import MambaPool
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.speculative import dflash_utils

from sglang_dflash.engine.verify.trees import MaskedTree
from sglang_dflash.errors import DFlashError
from sglang_dflash.host import tree_api
from sglang_dflash.host.worker_api import DFlashVerifyInput
from sglang_dflash.kernels.causal_conv.naive import conv_nodes, node_rows
from sglang_dflash.kernels.gated_delta.naive import delta_nodes, gates
from sglang_dflash.kernels.visibility.naive import visibility_from_parents
from sglang_dflash.types import Proposal

DEVICE = os.environ["SGLANG_DFLASH_KERNEL_CASES"]
BS, WIDTH, CONTEXT = 3, 8, 40
HEADS, KV_HEADS, DIM = 4, 2, 16
QK_HEADS, V_HEADS, STATE = 2, 4, (16, 8)
PREFIX = (5, 17, 1)
close = dict(rtol=1e-4, atol=1e-4)


def proposal(seed: int) -> Proposal:
    """Random trees with padding, after prefixes of different lengths."""
    parents = trees(BS, WIDTH, seed)
    depths = visibility_from_parents(parents).sum(2) - 1
    prefix = torch.tensor(PREFIX)
    tokens = torch.zeros(BS, WIDTH, dtype=torch.int64)
    return Proposal(*(value.to(DEVICE) for value in (tokens, parents, prefix[:, None] + depths)))


def real(parents: torch.Tensor) -> torch.Tensor:
    """[bs, W] bool: the root, and nodes that are no padding."""
    return (parents >= 0) | (torch.arange(WIDTH, device=parents.device) == 0)


def verify_batch(tree: Proposal, rows: torch.Tensor, attention: TritonAttnBackend | None = None) -> SimpleNamespace:
    """What a verify pass of ``tree`` hands to the backends; what is not written of a mask of ours hides everything."""
    form = MaskedTree(torch.device(DEVICE), CONTEXT)
    form.prepare(attention or Attention().backend)
    form._mask = torch.zeros(BS * WIDTH * CONTEXT, dtype=torch.bool, device=DEVICE)
    spec_info = DFlashVerifyInput(tree.tokens.view(-1), tree.positions.view(-1), WIDTH)
    prefix = torch.tensor(PREFIX, device=DEVICE)
    # Lengths that the host knows are upper bounds.
    form(spec_info, tree, prefix, torch.tensor(PREFIX) + WIDTH + 2)
    return SimpleNamespace(
        batch_size=BS,
        forward_mode=ForwardMode.TARGET_VERIFY,
        logical_forward_mode=ForwardMode.TARGET_VERIFY,
        input_ids=tree.tokens.view(-1),
        req_pool_indices=rows,
        seq_lens=prefix,
        seq_lens_cpu=torch.tensor(PREFIX),
        seq_lens_sum=sum(PREFIX),
        spec_info=spec_info,
        kv_loc_plan=None,
        out_cache_loc=None,
        extend_start_loc=None,
        extend_seq_lens=None,
        extend_seq_lens_cpu=None,
        mha_one_shot=False,
        attn_attend_prefix_cache=None,
        mamba_track_indices=None,
        mamba_track_mask=None,
        multi_item_delimiter_indices=None,
        num_padding=0,
    )


# --- attention ---


class Attention:
    """A layer of SGLang's Triton backend over a pool of random keys and values."""

    def __init__(self):
        torch.manual_seed(0)
        self.table = torch.randperm(300)[: 5 * CONTEXT].view(5, CONTEXT).to(DEVICE)
        self.keys, self.values = (torch.randn(300, KV_HEADS, DIM, device=DEVICE) for _ in range(2))
        self.q = torch.randn(BS * WIDTH, HEADS * DIM, device=DEVICE)
        self.k, self.v = (torch.randn(BS * WIDTH, KV_HEADS, DIM, device=DEVICE) for _ in range(2))
        self.rows = torch.tensor([4, 0, 2], device=DEVICE)
        self.layer = SimpleNamespace(
            layer_id=0,
            tp_q_head_num=HEADS,
            tp_k_head_num=KV_HEADS,
            qk_head_dim=DIM,
            v_head_dim=DIM,
            scaling=DIM**-0.5,
            logit_cap=0.0,
            logit_capping_method="tanh",
            sliding_window_size=-1,
            attn_type=AttentionType.DECODER,
            is_cross_attention=False,
            k_scale=None,
            v_scale=None,
            xai_temperature_len=-1,
        )
        self.backend = self._backend()

    def _backend(self) -> TritonAttnBackend:
        from sglang.kernels.ops.attention.extend_attention import extend_attention_fwd

        backend = TritonAttnBackend.__new__(TritonAttnBackend)
        pool = SimpleNamespace(get_key_buffer=lambda layer: self.keys, get_value_buffer=lambda layer: self.values)
        vars(backend).update(
            dllm_attention=None,
            dcp_size=1,
            window_kv_indptr=None,
            sliding_window_size=None,
            use_sliding_window_kv_pool=False,
            target_verify_num_tokens_per_req=WIDTH,
            device=DEVICE,
            max_context_len=CONTEXT,
            kv_indptr=torch.zeros(BS + 1, dtype=torch.int32, device=DEVICE),
            qo_indptr=torch.zeros(BS + 1, dtype=torch.int64, device=DEVICE),
            mask_indptr=torch.zeros(BS + 1, dtype=torch.int64, device=DEVICE),
            kv_index_translator=SimpleNamespace(pack_read_stream=self._pack),
            token_to_kv_pool=pool,
            allow_bidirectional_attention_in_extend=False,
            enable_deterministic=False,
            use_dense_fp8_chunked_prefill=False,
            page_size=1,
            extend_attention_fwd=extend_attention_fwd,
            _verify_mask=None,
        )
        return backend

    def _pack(self, plan, *, req_pool_indices, seq_lens, indptr, out):
        for row, length, start in zip(req_pool_indices.tolist(), seq_lens.tolist(), indptr.tolist(), strict=False):
            out[start : start + length] = self.table[row, :length]

    def run(self, batch) -> torch.Tensor:
        out = self.backend.forward_extend(self.q, self.k, self.v, self.layer, batch, save_kv_cache=False)
        return out.view(BS, WIDTH, HEADS, DIM)

    def wanted(self, tree: Proposal) -> torch.Tensor:
        """The same, one request at a time in plain torch."""
        seen, out = visibility_from_parents(tree.parents), []
        for request, prefix in enumerate(PREFIX):
            slots = self.table[self.rows[request], :prefix]
            mine = slice(request * WIDTH, (request + 1) * WIDTH)
            keys = torch.cat((self.keys[slots], self.k[mine])).repeat_interleave(HEADS // KV_HEADS, 1)
            values = torch.cat((self.values[slots], self.v[mine])).repeat_interleave(HEADS // KV_HEADS, 1)
            mask = torch.cat((torch.ones(WIDTH, prefix, dtype=torch.bool, device=DEVICE), seen[request]), 1)
            scores = torch.einsum("qhd,khd->hqk", self.q[mine].view(WIDTH, HEADS, DIM), keys) * DIM**-0.5
            weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
            out.append(torch.einsum("hqk,khd->qhd", weights, values))
        return torch.stack(out)


@pytest.mark.parametrize("seed", range(3))
def test_attention(seed):
    case, tree = Attention(), proposal(seed)
    batch = verify_batch(tree, case.rows, case.backend)
    case.backend.init_forward_metadata(batch)
    torch.testing.assert_close(case.run(batch), case.wanted(tree), **close)


def test_attention_in_one_stage_reads_the_contexts_columns():
    """The kernel of --enable-deterministic-inference, which takes the new keys from the pool, too."""
    from sglang.kernels.ops.attention import extend_attention

    case, tree = Attention(), proposal(0)
    wanted = case.wanted(tree)
    case.backend.enable_deterministic = True
    case.backend.build_unified_kv_indices = extend_attention.build_unified_kv_indices
    case.backend.extend_attention_fwd_unified = extend_attention.extend_attention_fwd_unified
    batch = verify_batch(tree, case.rows, case.backend)
    free = sorted(set(range(300)) - set(case.table.flatten().tolist()))[: BS * WIDTH]
    batch.out_cache_loc = torch.tensor(free, device=DEVICE)
    case.keys[batch.out_cache_loc], case.values[batch.out_cache_loc] = case.k, case.v
    case.backend.init_forward_metadata(batch)
    torch.testing.assert_close(case.run(batch), wanted, **close)


def test_attention_reads_the_mask_of_a_graphs_buffers():
    """The captured kernels read the backend's own buffers: the mask is written there, and is not copied."""
    case, tree = Attention(), proposal(0)
    case.backend.cuda_graph_kv_indices = torch.zeros(BS * CONTEXT, dtype=torch.int64, device=DEVICE)
    case.backend._verify_mask = maybe_create_verify_mask(
        is_draft_runner=False,
        skip_prefill=False,
        max_bs=BS,
        max_context_len=CONTEXT,
        num_draft_tokens=WIDTH,
        device=DEVICE,
        is_read=True,
        dtype=torch.uint8,
    )
    batch = verify_batch(tree, case.rows, case.backend)
    assert batch.spec_info.custom_mask.data_ptr() == case.backend.verify_mask.buffer.data_ptr()
    case.backend._update_target_verify_buffers(None, BS, batch.seq_lens, batch.spec_info, case.rows)
    case.backend.forward_metadata = case.backend._build_cuda_graph_forward_metadata(
        BS, ForwardMode.TARGET_VERIFY, batch.spec_info
    )
    torch.testing.assert_close(case.run(batch), case.wanted(tree), **close)


# --- recurrent layers ---


class Recurrent:
    """A layer of SGLang's gated-delta-net backend, with the state pool that it reads."""

    def __init__(self):
        *qkv, self.a, self.b, rate, bias, self.temporal = delta_case(
            (BS, WIDTH), heads=(QK_HEADS, V_HEADS), dims=STATE, device=DEVICE
        )
        self.channels = sum(value[0, 0].numel() for value in qkv)
        self.x, weight, conv_bias, self.conv = conv_case((BS, WIDTH), channels=self.channels, device=DEVICE)
        self.windows = torch.zeros(BS + 1, WIDTH, self.channels, 3, device=DEVICE)
        self.states = torch.zeros(BS + 1, WIDTH, *self.temporal.shape[1:], device=DEVICE)
        self.slots = torch.tensor([5, 0, 2], dtype=torch.int32, device=DEVICE)
        self.layer = SimpleNamespace(
            layer_id=0,
            conv_weights=weight,
            bias=conv_bias,
            activation="silu",
            A_log=rate,
            dt_bias=bias,
            num_q_heads=QK_HEADS,
            num_k_heads=QK_HEADS,
            num_v_heads=V_HEADS,
            head_q_dim=STATE[0],
            head_k_dim=STATE[0],
            head_v_dim=STATE[1],
            q_dim=QK_HEADS * STATE[0],
            k_dim=QK_HEADS * STATE[0],
            v_dim=V_HEADS * STATE[1],
        )
        self.backend = self._backend()

    def _backend(self) -> GDNAttnBackend:
        cache = MambaPool.SpeculativeState(
            conv=[self.conv],
            temporal=self.temporal,
            intermediate_ssm=self.states,
            intermediate_conv_window=[self.windows],
        )
        pool = SimpleNamespace(
            size=BS,
            mamba2_layer_cache=lambda layer: cache,
            mamba_pool=SimpleNamespace(mamba_cache=cache, enable_linear_replayssm=False),
            get_mamba_indices=lambda rows: self.slots.clone(),
            translate_mamba_indices=lambda indices: indices,
        )
        kernel = TritonGDNKernel()
        dispatcher = SimpleNamespace(
            target_verify=kernel.target_verify, target_verify_supports_strided_qkv=lambda parents: False
        )
        backend = GDNAttnBackend.__new__(GDNAttnBackend)
        vars(backend).update(
            topk=1,
            pad_slot_id=-1,
            device=DEVICE,
            req_to_token_pool=pool,
            mis_metadata=None,
            enable_mis=False,
            enable_unified_memory=False,
            verify_intermediate_state_indices=torch.arange(BS, dtype=torch.int32, device=DEVICE),
            kernel_dispatcher=dispatcher,
            _use_strided_target_verify_qkv=False,
            _fused_state_indices_ok=False,
            _graph_seq_len_fill_value=1,
            **{f"{name}_list": [] for name in ("state_indices", "query_start_loc")},
            **{f"retrieve_{name}_list": [] for name in ("next_token", "next_sibling", "parent_token")},
        )
        return backend

    def run(self, batch) -> torch.Tensor:
        flat = (value.flatten(0, 1) for value in (self.x, self.a, self.b))
        out = self.backend.forward_extend(self.layer, batch, *flat)
        return out.view(BS, WIDTH, V_HEADS, STATE[1])

    def wanted(self, tree: Proposal) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Outputs, convolution windows and states after every node, by the CPU platform's operators."""
        layer, slots = self.layer, self.slots.long()
        windows, states = torch.zeros_like(self.windows[:BS]), torch.zeros_like(self.states[:BS])
        rows = node_rows(tree.parents, BS, WIDTH, 4)
        x = conv_nodes(self.x, rows, self.conv, slots, layer.conv_weights, layer.bias, True, windows)
        q, k, v = x.split((layer.q_dim, layer.k_dim, layer.v_dim), -1)
        q, k = (value.unflatten(-1, (QK_HEADS, STATE[0])) for value in (q, k))
        gate = gates(self.a, self.b, layer.A_log, layer.dt_bias)
        seen = visibility_from_parents(tree.parents)
        v = v.unflatten(-1, (V_HEADS, STATE[1]))
        out = delta_nodes(q, k, v, gate, tree.parents, seen, self.temporal, slots, states)
        return out, windows, states


def hybrid_of(attention: TritonAttnBackend, recurrent) -> hybrid.HybridLinearAttnBackend:
    backend = hybrid.HybridLinearAttnBackend.__new__(hybrid.HybridLinearAttnBackend)
    backend.full_attn_backend, backend.linear_attn_backend = attention, recurrent
    return backend


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("graph", (False, True))
def test_recurrent_layers_take_each_nodes_state_from_its_parent(seed, graph):
    case, tree = Recurrent(), proposal(seed)
    tree_api.expect_trees(hybrid_of(Attention().backend, case.backend))
    batch = verify_batch(tree, torch.arange(BS, device=DEVICE))
    if graph:
        case.backend.init_cuda_graph_state(BS, BS * WIDTH)
        case.backend.init_forward_metadata_out_graph(batch)
    else:
        case.backend.init_forward_metadata(batch)
    # Before: SGLang's kernel leaves a window of its own in the request's, which the commit overwrites.
    wanted, windows, states = case.wanted(tree)
    before = case.temporal.clone()
    out = case.run(batch)
    nodes = real(tree.parents)
    torch.testing.assert_close(out[nodes], wanted[nodes], **close)
    torch.testing.assert_close(case.windows[:BS][nodes], windows[nodes], **close)
    torch.testing.assert_close(case.states[:BS][nodes], states[nodes], **close)
    assert torch.equal(case.temporal, before)


# --- what is set, and what is refused ---


def test_settings(monkeypatch):
    monkeypatch.setattr(memory_pool, "conv_window_dedup_enabled", memory_pool.conv_window_dedup_enabled)
    monkeypatch.setattr(
        dflash_utils, "resolve_dflash_verify_mask_policy", dflash_utils.resolve_dflash_verify_mask_policy
    )
    policy = dflash_utils.resolve_dflash_verify_mask_policy(Attention().backend)
    assert policy == ("TritonAttnBackend", False) and memory_pool.conv_window_dedup_enabled(False, False, None, False)
    tree_api.allow_trees(SimpleNamespace(sliding_window_size=None))
    assert not memory_pool.conv_window_dedup_enabled(False, False, None, False)
    assert dflash_utils.resolve_dflash_verify_mask_policy(Attention().backend) == ("TritonAttnBackend", True)


def test_sliding_windows_are_refused():
    with pytest.raises(DFlashError, match="sliding window in columns"):
        tree_api.allow_trees(SimpleNamespace(sliding_window_size=128))


def test_backends_that_take_no_trees_are_named():
    with pytest.raises(DFlashError, match="SimpleNamespace does not verify.*--attention-backend triton"):
        tree_api.expect_trees(SimpleNamespace())
    case = Recurrent()
    with pytest.raises(DFlashError, match="SimpleNamespace does not verify"):
        tree_api.expect_trees(hybrid_of(Attention().backend, SimpleNamespace()))
    case.backend.req_to_token_pool.mamba_pool.mamba_cache = SimpleNamespace(intermediate_ssm=None)
    with pytest.raises(DFlashError, match="enable-linear-replayssm-spec"):
        tree_api.expect_trees(hybrid_of(Attention().backend, case.backend))

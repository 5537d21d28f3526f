"""The lean decoder pass against transformers' models, over the real KV pool and attention backend."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from sglang_dflash.cpu import lean
from sglang_dflash.cpu.attention import CpuAttention
from sglang_dflash.cpu.host.attention import AttentionType
from sglang_dflash.cpu.host.pool import CpuKVPool


def config_of(bias: bool, kind: type = Qwen3Config):
    return kind(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        attention_bias=bias,
        tie_word_embeddings=False,
    )


def reference_of(config, dtype):
    torch.manual_seed(0)
    model = (LlamaForCausalLM if isinstance(config, LlamaConfig) else Qwen3ForCausalLM)(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.2)
    return model.to(dtype)


def linear(*parts, dim=0):
    biases = [part.bias for part in parts]
    bias = None if biases[0] is None else torch.cat([bias.data for bias in biases])
    weight = torch.cat([part.weight.data for part in parts], dim)
    return SimpleNamespace(weight=weight, bias=bias)


def as_sglang_s(reference) -> SimpleNamespace:
    """The fields of SGLang's models that the lean pass reads, holding the reference's weights."""
    config, base = reference.config, 10000.0
    frequencies = base ** (-torch.arange(0, 16, 2) / 16)
    angles = torch.outer(torch.arange(128.0), frequencies)
    rotary = SimpleNamespace(cos_sin_cache=torch.cat((angles.cos(), angles.sin()), -1))
    layers = []
    for i, layer in enumerate(reference.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        sizes = SimpleNamespace(
            layer_id=i,
            tp_q_head_num=6,
            tp_k_head_num=2,
            tp_v_head_num=2,
            qk_head_dim=16,
            v_head_dim=16,
            scaling=16**-0.5,
            sliding_window_size=-1,
            logit_cap=0.0,
            attn_type=AttentionType.DECODER,
        )
        norms = dict(q_norm=attention.q_norm, k_norm=attention.k_norm) if hasattr(attention, "q_norm") else {}
        layers.append(
            SimpleNamespace(
                self_attn=SimpleNamespace(
                    **norms,
                    qkv_proj=linear(attention.q_proj, attention.k_proj, attention.v_proj),
                    o_proj=linear(attention.o_proj),
                    rotary_emb=rotary,
                    num_heads=6,
                    total_num_heads=6,
                    num_kv_heads=2,
                    head_dim=16,
                    attn=sizes,
                ),
                mlp=SimpleNamespace(gate_up_proj=linear(mlp.gate_proj, mlp.up_proj), down_proj=linear(mlp.down_proj)),
                input_layernorm=SimpleNamespace(
                    weight=layer.input_layernorm.weight, variance_epsilon=config.rms_norm_eps
                ),
                post_attention_layernorm=layer.post_attention_layernorm,
            )
        )
    model = reference.model
    return SimpleNamespace(
        layers=layers, norm=model.norm, embed_tokens=model.embed_tokens, layers_to_capture=[], forward=None
    )


class Server:
    """One request's slots and the calls of the lean pass over them."""

    def __init__(self, reference, dtype, monkeypatch):
        self.model = as_sglang_s(reference)
        pool = CpuKVPool(200, 1, dtype, 2, 16, 3, "cpu", False)
        self.table = torch.randperm(200, generator=torch.Generator().manual_seed(2))[:120].view(2, 60).int()
        runner = SimpleNamespace(
            use_mla_backend=False,
            token_to_kv_pool=pool,
            req_to_token_pool=SimpleNamespace(req_to_token=self.table),
        )
        self.backend = CpuAttention(runner)
        monkeypatch.setattr(lean, "get_attn_backend", lambda: self.backend)
        self.decoder = lean.LeanDecoder(self.model, None)

    @torch.no_grad()
    def step(self, ids, start, mode, row=1):
        """Hidden states of tokens ``ids`` at positions start, start + 1, ..."""
        end = start + len(ids)
        forward_batch = SimpleNamespace(
            forward_mode=SimpleNamespace(
                is_idle=lambda: False,
                is_decode=lambda: mode == "decode",
                is_target_verify=lambda: mode == "verify",
            ),
            req_pool_indices=torch.tensor([row]),
            seq_lens=torch.tensor([start if mode == "verify" else end]),
            extend_prefix_lens_cpu=[start],
            extend_seq_lens_cpu=[len(ids)],
            out_cache_loc=self.table[row, start:end].long(),
            positions=torch.arange(start, end),
            spec_info=SimpleNamespace(draft_token_num=len(ids), custom_mask=None),
        )
        self.backend.init_forward_metadata(forward_batch)
        return self.decoder(torch.tensor(ids), forward_batch.positions, forward_batch)


@pytest.mark.parametrize("kind", [Qwen3Config, LlamaConfig])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-5), (torch.bfloat16, 0.15)], ids=["fp32", "bf16"])
def test_prefill_decode_and_verify_equal_transformers(dtype, tolerance, bias, kind, monkeypatch):
    reference = reference_of(config_of(bias, kind), dtype)
    server = Server(reference, dtype, monkeypatch)
    ids = torch.randint(0, 97, (30,), generator=torch.Generator().manual_seed(3)).tolist()
    with torch.no_grad():
        expected = reference.model(torch.tensor([ids])).last_hidden_state[0]
    parts = [
        server.step(ids[:9], 0, "extend"),
        server.step(ids[9:14], 9, "extend"),
        *(server.step(ids[i : i + 1], i, "decode") for i in range(14, 20)),
        server.step(ids[20:27], 20, "verify"),
        *(server.step(ids[i : i + 1], i, "decode") for i in range(27, 30)),
    ]
    torch.testing.assert_close(torch.cat(parts), expected, atol=tolerance, rtol=tolerance)


def test_captured_layers_are_the_residual_stream(monkeypatch):
    reference = reference_of(config_of(False), torch.float32)
    server = Server(reference, torch.float32, monkeypatch)
    server.model.layers_to_capture = [1, 2]
    ids = [4, 8, 15, 16, 23]
    hidden, captured = server.step(ids, 0, "extend")
    with torch.no_grad():
        outputs = reference.model(torch.tensor([ids]), output_hidden_states=True)
    torch.testing.assert_close(hidden, outputs.last_hidden_state[0], atol=2e-5, rtol=2e-5)
    for mine, index in zip(captured, [1, 2], strict=True):
        torch.testing.assert_close(mine, outputs.hidden_states[index][0], atol=2e-5, rtol=2e-5)


def test_new_weights_in_place_are_seen(monkeypatch):
    reference = reference_of(config_of(False), torch.float32)
    server = Server(reference, torch.float32, monkeypatch)
    before = server.step([1, 2, 3], 0, "extend")
    for layer in server.model.layers:
        layer.mlp.down_proj.weight.mul_(0.5)
        layer.self_attn.q_norm.weight.data.mul_(2)
    assert not torch.allclose(before, server.step([1, 2, 3], 0, "extend"), atol=1e-3)


def test_a_longer_rotary_table_is_picked_up(monkeypatch):
    reference = reference_of(config_of(False), torch.float32)
    server = Server(reference, torch.float32, monkeypatch)
    rotary = server.model.layers[0].self_attn.rotary_emb
    whole = rotary.cos_sin_cache
    rotary.cos_sin_cache = whole[:4]
    server.step([1, 2, 3], 0, "extend")
    rotary.cos_sin_cache = whole
    ids = [1, 2, 3, 5, 6, 7]
    with torch.no_grad():
        expected = reference.model(torch.tensor([ids])).last_hidden_state[0, 3:]
    torch.testing.assert_close(server.step(ids[3:], 3, "extend"), expected, atol=2e-5, rtol=2e-5)


def test_a_model_of_another_kind_keeps_its_own_pass(caplog):
    class Other(torch.nn.Module):
        def forward(self):
            return 1

    model = Other()
    with caplog.at_level("INFO"):
        lean.install(model)
    assert model() == 1 and "own decoder pass (Other is none of" in caplog.text

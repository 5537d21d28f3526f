"""Quantised drafts: SGLang's layers get their tensors, the checks know them, injection goes through their kernels."""

import json
from types import SimpleNamespace

import kinds
import pytest
import torch
import torch.nn.functional as F
from kinds import BLOCK, HIDDEN, KINDS, Bench
from safetensors.torch import save_file
from test_draft_blocks import PREFIXES, block_ids, contexts

from sglang_dflash.checkpoints.checks.tensors import check_tensors, read_tensors
from sglang_dflash.checkpoints.config import load_draft_config, parse_draft_config
from sglang_dflash.engine.commit.inject import LayerwiseProjection, PackedProjection, _projection
from sglang_dflash.engine.draft.ends import build_ends
from sglang_dflash.engine.draft.model import DFlashDraftModel
from sglang_dflash.errors import DFlashError
from sglang_dflash.reference import ReferenceKind

PLAIN = KINDS["plain"] | {"intermediate_size": 64}
METHODS = {
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True, "version": "gemm"},
    "w8a8_int8": {"quant_method": "w8a8_int8"},
}


def linears(tensors) -> list[str]:
    """Names of the matrices that a method quantises."""
    return [name for name in tensors if name.endswith("_proj.weight") or name == "fc.weight"]


def quantised(method: str, tensors) -> dict[str, torch.Tensor]:
    """The checkpoint as the method's tools would write it."""
    out = {name: tensor for name, tensor in tensors.items() if name not in linears(tensors)}
    for name in linears(tensors):
        weight, module = tensors[name], name.removesuffix(".weight")
        rows, columns = weight.shape
        if method == "fp8":
            out[name] = weight.to(torch.float8_e4m3fn)
            out[f"{module}.weight_scale"] = torch.tensor(1.0)
        elif method == "awq":
            out[f"{module}.qweight"] = torch.randint(0, 99, (columns, rows // 8), dtype=torch.int32)
            out[f"{module}.qzeros"] = torch.randint(0, 99, (columns // 16, rows // 8), dtype=torch.int32)
            out[f"{module}.scales"] = torch.rand(columns // 16, rows).half()
        else:
            scale = weight.abs().amax(1, keepdim=True) / 127
            out[name] = (weight / scale).round().to(torch.int8)
            out[f"{module}.weight_scale"] = scale
    return out


def unloaded(method: str, config=PLAIN, of_model=None) -> DFlashDraftModel:
    from sglang.srt.layers.quantization import get_quantization_config

    with kinds.single_rank():
        quant_config = get_quantization_config(method).from_config(METHODS[method])
        raw = of_model or config | {"quantization_config": METHODS[method]}
        return DFlashDraftModel(SimpleNamespace(to_dict=lambda: raw), quant_config)


@pytest.mark.parametrize("method", METHODS)
def test_tensors_of_a_method_are_known_and_land_in_its_layers(method, tmp_path):
    tensors, model = quantised(method, kinds.tensors_of(PLAIN)), unloaded(method)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    check_tensors(read_tensors(tmp_path), parse_draft_config(PLAIN | {"quantization_config": METHODS[method]}))
    model.load_weights(tensors.items())
    kind = "qweight" if method == "awq" else "weight"
    parts = [tensors[f"layers.1.self_attn.{part}_proj.{kind}"] for part in "qkv"]
    loaded = model.get_parameter(f"layers.1.self_attn.qkv_proj.{kind}")
    assert torch.equal(loaded.view(torch.uint8), torch.cat(parts, 1 if method == "awq" else 0).view(torch.uint8))
    assert torch.equal(model.norm.weight, tensors["norm.weight"])


def test_the_method_may_stand_in_a_file_of_its_own(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    assert load_draft_config(tmp_path).quantisation is None
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    assert load_draft_config(tmp_path).quantisation == "FP8"
    (tmp_path / "config.json").write_text(json.dumps(PLAIN | {"quantization_config": {"quant_method": "awq"}}))
    assert load_draft_config(tmp_path).quantisation == "awq"
    # The model is told by SGLang, whose config then has no such key.
    model = unloaded("w8a8_int8", of_model=PLAIN)
    model.load_weights(quantised("w8a8_int8", kinds.tensors_of(PLAIN)).items())


def test_incomplete_or_strange_checkpoints_are_named(tmp_path):
    tensors = quantised("w8a8_int8", kinds.tensors_of(PLAIN))
    without = {k: v for k, v in tensors.items() if not k.startswith("layers.2.mlp.up_proj")}
    with pytest.raises(DFlashError, match=r"^draft checkpoint: lacks layers.2.mlp.up_proj.weight "):
        unloaded("w8a8_int8").load_weights(without.items())
    strange = tensors | {"layers.0.mlp.up_proj.g_idx": torch.zeros(3)}
    with pytest.raises(DFlashError, match="^draft tensor layers.0.mlp.up_proj.g_idx: is not what its quantisation"):
        unloaded("w8a8_int8").load_weights(strange.items())
    other = tensors | {"layers.0.rotor.weight": torch.zeros(3)}
    with pytest.raises(DFlashError, match="^draft tensor layers.0.rotor.weight: is unknown"):
        unloaded("w8a8_int8").load_weights(other.items())


@pytest.mark.parametrize("name", ["plain", "laguna", "mimo"])
def test_blocks_are_those_of_the_dequantised_weights(name, tmp_path, monkeypatch):
    """SGLang's int8 layers, their kernel in torch: layer by layer injection equals the packed one."""
    from sglang.srt.layers.quantization.w8a8_int8 import W8A8Int8LinearMethod

    def apply(self, layer, x, bias=None):
        return F.linear(x, layer.weight.float() * layer.weight_scale, bias)

    monkeypatch.setattr(W8A8Int8LinearMethod, "apply", apply)
    config, ends_of, bench = KINDS[name] | {"intermediate_size": 64}, kinds.target(), Bench()
    tensors = quantised("w8a8_int8", kinds.tensors_of(config))
    whole = {k: v.float() * tensors[f"{k}_scale"] if v.dtype == torch.int8 else v for k, v in tensors.items()}
    whole = {k: v for k, v in whole.items() if not k.endswith("weight_scale")}
    reference = ReferenceKind(kinds.write(tmp_path, config, whole))
    model = unloaded("w8a8_int8", config)
    model.load_weights(tensors.items())
    with kinds.single_rank():
        model.bind(build_ends(model, ends_of, 3, None, BLOCK), BLOCK, "dflash_cpu")
    assert isinstance(_projection(model), LayerwiseProjection)
    assert isinstance(_projection(kinds.loaded(config, whole, ends_of)), PackedProjection)
    bench.inject(model, contexts())
    forward_batch, ids = bench.batch(PREFIXES), block_ids()
    with bench.serving(forward_batch):
        hidden = model.decode(ids, forward_batch.positions, forward_batch, model.forward_embed(ids))
    for row, context in enumerate(contexts()):
        reference.reset()
        reference.inject(context)
        with torch.no_grad():
            wanted = reference.forward(reference.embed(ends_of, ids.view(2, BLOCK)[row]))
        torch.testing.assert_close(hidden.view(2, BLOCK, HIDDEN)[row], wanted, rtol=5e-5, atol=5e-5)

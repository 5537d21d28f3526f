"""Capture of every layer's output, the last one's too, over decoders as SGLang writes them."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sglang_dflash.checkpoints.checks.targets import depth_of, input_embedding
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.capture import TAKES_LAST, prepare_capture

LAYERS, HIDDEN = 4, 6


class Norm(nn.Module):
    """Normalises the sum of its arguments and hands the sum on, as a fused norm does."""

    def forward(self, x, residual=None):
        if residual is None:
            return x / 2
        return (x + residual) / 2, x + residual


class Decoder(nn.Module):
    """Adds i + 1 in layer i; captures inputs of ``layers_to_capture``."""

    def __init__(self, packed=False, fused=True):
        super().__init__()
        self.embed_tokens = nn.Embedding(8, HIDDEN)
        self.layers = nn.ModuleList(nn.Identity() for _ in range(LAYERS))
        self.norm, self.layers_to_capture = Norm(), []
        self.packed, self.fused = packed, fused

    def forward(self, x):
        residual, delta, captured = x, torch.zeros_like(x), []
        for i in range(LAYERS):
            residual = residual + delta
            if i in self.layers_to_capture:
                captured.append(residual)
            delta = torch.full_like(x, i + 1.0)
        x = self.norm(delta, residual)[0] if self.fused else self.norm(delta + residual)
        if not captured:
            return x
        return x, torch.cat(captured, -1) if self.packed else captured


class Model(nn.Module):
    """A causal model without any hook."""

    def __init__(self, **decoder):
        super().__init__()
        self.model = Decoder(**decoder)
        self.capture_aux_hidden_states = False

    def get_input_embeddings(self, input_ids):
        return self.model.embed_tokens(input_ids)

    def forward(self, x):
        x, captured = self.model(x) if self.capture_aux_hidden_states else (self.model(x), None)
        return x, captured if captured is None or isinstance(captured, torch.Tensor) else torch.cat(captured, -1)


class Hooked(Model):
    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_dflash_layers_to_capture(self, layer_ids):
        self.capture_aux_hidden_states = True
        self.model.layers_to_capture = [i + 1 for i in layer_ids]


class MuseGlimmerLike(Model):
    """Counts inputs, and refuses the input of a layer that does not exist."""

    def set_dflash_layers_to_capture(self, layer_ids):
        assert all(0 <= i < LAYERS for i in layer_ids)
        self.capture_aux_hidden_states = True
        self.model.layers_to_capture = list(layer_ids)


class Wrapper(nn.Module):
    """A multimodal wrapper that hands the hook on."""

    def __init__(self):
        super().__init__()
        self.language_model = Hooked()

    def set_dflash_layers_to_capture(self, layer_ids):
        self.language_model.set_dflash_layers_to_capture(layer_ids)

    def forward(self, x):
        return self.language_model(x)


def outputs(x, ids):
    """What the layers ``ids`` put out."""
    return torch.cat([x + sum(range(1, i + 2)) for i in ids], -1)


MODELS = {
    "hook": Hooked,
    "no hook": Model,
    "packed": lambda: Hooked(packed=True),
    "norm without residual": lambda: Hooked(fused=False),
    "ids of inputs": MuseGlimmerLike,
    "wrapper": Wrapper,
}


@pytest.mark.parametrize("ids", [(0,), (0, 2), (1, 3), (3,), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_every_layers_output_is_captured(make, ids):
    model = make()
    prepare_capture(model, ids)
    model.set_dflash_layers_to_capture(["what SGLang passes is not looked at"])
    x = torch.randn(5, HIDDEN)
    for _ in range(2):
        hidden, captured = model(x)
        torch.testing.assert_close(captured, outputs(x, ids))
        torch.testing.assert_close(hidden, (x + 10) / 2)
    assert depth_of(model) == LAYERS


def test_the_decoder_shows_the_names_of_its_arguments():
    """SGLang's prefill graphs pass embeddings by name where the decoder takes them."""
    from sglang.srt.model_executor.runner.prefill_cuda_graph_runner import _build_layer_model_forward_kwargs

    class Embedded(Decoder):
        def forward(self, x, input_embeds=None):
            return super().forward(x if input_embeds is None else input_embeds)

    model = Hooked()
    model.model = Embedded()
    prepare_capture(model, (0, LAYERS - 1))
    model.set_dflash_layers_to_capture(None)
    given = SimpleNamespace(input_embeds=torch.ones(2, HIDDEN))
    arguments = _build_layer_model_forward_kwargs(model.model, given, None)
    assert arguments == {"input_embeds": given.input_embeds}
    hidden, captured = model.model.forward(torch.zeros(2, HIDDEN), **arguments)
    torch.testing.assert_close(hidden, (given.input_embeds + 10) / 2)


@pytest.mark.parametrize(
    ("name", "module", "by"),
    [
        (
            "LagunaForCausalLM",
            "laguna",
            "capture=aux_hidden_states.append\n            if self.end_layer in self.layers_to_",
        ),
        ("GptOssForCausalLM", "gpt_oss", "if self.end_layer in self.layers_to_capture"),
        ("NemotronHForCausalLM", "nemotron_h", "if self.end_layer in self.layers_to_capture"),
        ("MiMoV2ForCausalLM", "mimo_v2", "and self.config.num_hidden_layers in self.layers_to_capture"),
    ],
)
def test_classes_that_take_the_last_layer_are_left_alone(name, module, by):
    assert name.startswith(TAKES_LAST) and by in source_of(module)
    model = type(name, (Hooked,), {})()
    forward = model.model.forward
    prepare_capture(model, (0, LAYERS - 1))
    model.set_dflash_layers_to_capture(None)
    assert model.model.layers_to_capture == [1, LAYERS] and model.model.forward == forward


def test_a_class_with_another_hook_for_outputs():
    class StreamMeans(Model):
        def set_dspark_layers_to_capture(self, layer_ids):
            self.asked = list(layer_ids)

    model = StreamMeans()
    prepare_capture(model, (0, 3))
    model.set_dflash_layers_to_capture(None)
    assert model.asked == [0, 3]


def test_a_class_that_captures_nothing_is_refused():
    with pytest.raises(DFlashError, match="Sequential hands out no|cannot hand out"):
        prepare_capture(nn.Sequential(nn.Identity()), (0,))
    bare = Model()
    del bare.capture_aux_hidden_states
    with pytest.raises(DFlashError, match="Model cannot hand out hidden states"):
        prepare_capture(bare, (0,))


def test_the_embedding_of_either_kind_of_class():
    ids = torch.tensor([1, 5])
    for model in (Model(), Hooked()):
        torch.testing.assert_close(input_embedding(model)(ids), model.model.embed_tokens(ids))


def source_of(module: str) -> str:
    """SGLang's file of a model, as text: some import kernels of accelerators."""
    root = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])
    return (root / "srt" / "models" / f"{module}.py").read_text()


UNSERVED = {  # classes that no CPU can run: module, what their capture goes through
    "DeepseekV4ForCausalLM": ("deepseek_v4", "def set_dspark_layers_to_capture"),
    "GlmMoeDsaForCausalLM": ("glm4_moe", "class GlmMoeDsaForCausalLM(DeepseekV2ForCausalLM)"),
    "DeepseekV32ForCausalLM": ("deepseek_v2", "class DeepseekV32ForCausalLM(DeepseekV2ForCausalLM)"),
}


@pytest.mark.parametrize("architecture", UNSERVED)
def test_the_hooks_of_classes_that_only_a_gpu_runs(architecture):
    """Read as text: the modules import kernels of accelerators."""
    module, hook = UNSERVED[architecture]
    source = source_of(module)
    assert f"class {architecture}(" in source and hook in source
    # The final norm goes through a module call with the residual beside it, which is what the last layer is read from;
    # DeepSeek V4's hook captures after each layer by itself.
    assert "residual_batch.final_norm(" in source or "completed, out=dspark_aux_hidden_states.slot" in source


def test_a_final_norm_that_goes_unseen_is_an_error():
    model = Hooked()
    model.model.forward = lambda x: x / 2
    prepare_capture(model, (3,))
    model.set_dflash_layers_to_capture([3])
    with pytest.raises(DFlashError, match="did not call its final norm"):
        model.model(torch.randn(2, HIDDEN))
    assert model.model(torch.randn(0, HIDDEN))[1][0].shape == (0, HIDDEN)

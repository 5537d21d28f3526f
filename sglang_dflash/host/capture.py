"""Context features of any layer of a target, the last one's too, whatever SGLang's model class offers for it.

SGLang asks the loaded model to capture layers before it builds graphs; our answer is put on the model when the
worker is built, which is earlier. Layer ids are 0-based and name outputs.
"""

import inspect
from collections.abc import Callable, Sequence

import torch

from sglang_dflash.checkpoints.checks.targets import decoder_of, depth_of, incapable
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch

_HOOK = "SGLang's hook exists for every class and takes the last layer"
TOUCHES = (
    Touch(
        "sglang.srt.model_executor.model_runner_components.attention_backend_setup:configure_aux_hidden_state_capture",
        "calls the model's set_dflash_layers_to_capture, ours where we have put one there",
        _HOOK,
        ("model", "dflash_target_layer_ids"),
    ),
    Touch(
        "sglang.srt.models.llama:LlamaForCausalLM.set_dflash_layers_to_capture",
        "ids name outputs; the class captures the input of the next layer, which the last one lacks",
        _HOOK,
        ("layer_ids",),
    ),
    *(
        Touch(
            f"sglang.srt.models.{name}",
            "captures layers, but has no hook for DFLASH",
            _HOOK,
            attributes=("capture_aux_hidden_states",),
        )
        for name in ("minimax_m2:MiniMaxM2ForCausalLM", "glm4_moe:Glm4MoeForCausalLM")
    ),
    Touch(
        "sglang.srt.models.deepseek_v4:DeepseekV4ForCausalLM.set_dspark_layers_to_capture",
        "captures the mean of the residual streams after each layer, as DFLASH needs it",
        _HOOK,
        ("layer_ids",),
    ),
    Touch(
        "sglang.srt.models.muse_glimmer:MuseGlimmerForCausalLM.set_dflash_layers_to_capture",
        "ids name inputs here",
        _HOOK,
        ("layer_ids",),
    ),
    *(
        Touch(f"sglang.srt.models.{name}.set_dflash_layers_to_capture", "takes the last layer by itself", _HOOK)
        for name in (
            "mimo_v2:MiMoV2FlashForCausalLM",
            "laguna:LagunaForCausalLM",
            "gpt_oss:GptOssForCausalLM",
            "nemotron_h:NemotronHForCausalLM",
        )
    ),
    Touch("sglang.srt.layers.layernorm:RMSNorm", "the final norm hands on the last layer's output", _HOOK),
)

# Classes whose decoders capture their last layer's output like any other's.
TAKES_LAST = ("MiMoV2", "Laguna", "GptOss", "NemotronH")


def prepare_capture(model, layer_ids: Sequence[int]) -> None:
    """Make ``model`` capture the outputs of ``layer_ids`` when SGLang asks it to capture.

    What SGLang passes is ignored: it is the same list, but for Muse Glimmer with some drafts.

    Raises:
        DFlashError: the class captures no hidden states at all.
    """
    setter, takes_last = _setter(model)
    decoder = decoder_of(model)
    last = depth_of(model) - 1

    def set_layers(_layer_ids: Sequence[int]) -> None:
        inner = [i for i in layer_ids if takes_last or i != last]
        setter(inner)
        if len(inner) < len(layer_ids):
            decoder.forward = LastOutput(decoder, bool(inner))

    model.set_dflash_layers_to_capture = set_layers


def _setter(model) -> tuple[Callable[[list[int]], None], bool]:
    """What makes the class capture outputs, and whether it takes the last layer's."""
    name, decoder = type(model).__name__, decoder_of(model)
    lean = getattr(decoder.forward, "captures_last_layer", False)
    if name.startswith("MuseGlimmer"):
        own = model.set_dflash_layers_to_capture
        return lambda ids: own([i + 1 for i in ids]), False
    if hasattr(model, "set_dflash_layers_to_capture"):
        return model.set_dflash_layers_to_capture, lean or name.startswith(TAKES_LAST)
    if hasattr(model, "set_dspark_layers_to_capture"):
        return model.set_dspark_layers_to_capture, True
    if hasattr(model, "capture_aux_hidden_states") and hasattr(decoder, "layers_to_capture"):

        def mark(ids: list[int]) -> None:
            model.capture_aux_hidden_states = True
            decoder.layers_to_capture = [i + 1 for i in ids]

        return mark, lean
    raise incapable(type(model).__name__)


class LastOutput:
    """Stands in for a decoder's ``forward`` and adds what its final norm was given: the last layer's output.

    Called as the decoder's own; the result is (hidden states, captured layers), the last one at their end.
    """

    def __init__(self, decoder, others: bool):
        self._forward, self._others = decoder.forward, others
        # SGLang's prefill graphs pass input embeddings by the names that they find there.
        self.__signature__ = inspect.signature(decoder.forward)
        self._output: torch.Tensor | None = None
        norm = getattr(decoder, "norm", None) or decoder.norm_f
        norm.register_forward_hook(self._keep, with_kwargs=True)

    def __call__(self, *args, **kwargs):
        self._output = None
        result = self._forward(*args, **kwargs)
        hidden, captured = result if self._others else (result, [])
        output = self._output
        if output is None and hidden.shape[0]:
            raise DFlashError(
                "target", "did not call its final norm, from which the last layer's output is taken", "report it"
            )
        if output is None:
            output = hidden  # no tokens, hence no norm and nothing to capture
        if isinstance(captured, torch.Tensor):
            return hidden, torch.cat((captured, output), -1)
        return hidden, [*captured, output]

    def _keep(self, norm, args, kwargs, result) -> None:
        # A norm that adds the residual hands on the sum, which is the layer's output; in place, on a GPU.
        total = result[1] if isinstance(result, tuple) else args[0]
        self._output = total.clone()

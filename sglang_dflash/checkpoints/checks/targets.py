"""Targets: which can hand out their hidden states, and where in a loaded one layers and embedding are."""

import inspect

from sglang_dflash.errors import DFlashError

# Popular classes that capture no layer; ``host/capture.py`` refuses others once they are loaded.
WITHOUT_CAPTURE = {
    "MixtralForCausalLM": "mixtral",
    "Gemma2ForCausalLM": "gemma2",
    "MistralForCausalLM": "mistral",
    "Olmo2ForCausalLM": "olmo2",
    "GraniteForCausalLM": "granite",
    "CohereForCausalLM": "commandr",
    "FalconH1ForCausalLM": "falcon_h1",
    "Exaone4ForCausalLM": "exaone4",
}


def check_capture(architecture: str) -> None:
    """Refuse a target of whose hidden states SGLang captures none.

    Raises:
        DFlashError: naming the target's architecture.
    """
    if architecture in WITHOUT_CAPTURE:
        raise incapable(architecture)


def incapable(architecture: str) -> DFlashError:
    """The error for a target class that captures nothing."""
    return DFlashError(
        "target architectures",
        f"{architecture} cannot hand out hidden states in this SGLang, which DFLASH needs",
        "serve it without --speculative-algorithm DFLASH",
    )


def decoder_of(model):
    """The module that owns the decoder layers: inside a causal model, and that inside a multimodal wrapper.

    Raises:
        DFlashError: there is none.
    """
    inner = model
    while not hasattr(inner, "layers"):
        inner = getattr(inner, "language_model", None) or getattr(inner, "model", None)
        if inner is None:
            raise incapable(type(model).__name__)
    return inner


def depth_of(model) -> int:
    """Layers whose output can be captured, every loop over them counted."""
    decoder = decoder_of(model)
    return len(decoder.layers) * getattr(decoder, "num_loops", 1)


def input_embedding(model):
    """The module that embeds text ids [tokens] int64 -> [tokens, hidden]; None where the model has none."""
    # Of some classes the method is the embedding itself.
    if inspect.signature(model.get_input_embeddings).parameters:
        return decoder_of(model).embed_tokens
    return model.get_input_embeddings()

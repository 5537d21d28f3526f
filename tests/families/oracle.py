"""The same checkpoint in transformers: logits, and the outputs of every decoder layer."""

from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers

from sglang_dflash.reference import ReferenceDraft


class Oracle:
    """A target in float32, eager attention, and its draft in plain torch."""

    def __init__(self, model_class: str, target: Path, draft: Path, config=None):
        """``config`` replaces the checkpoint's, which may have been written for SGLang's eyes."""
        more = {} if config is None else {"config": config}
        self.model = getattr(transformers, model_class).from_pretrained(
            target, dtype=torch.float32, attn_implementation="eager", **more
        )
        self.model.eval()
        self._folder = target
        self.layers = decoder_layers(self.model)
        self.draft = ReferenceDraft(draft)

    @torch.inference_mode()
    def logits(self, tokens) -> torch.Tensor:
        """Logits [tokens, vocab] after every one of ``tokens``."""
        return self.logits_of({"input_ids": torch.tensor([list(tokens)])})

    @cached_property
    def processor(self):
        """A multimodal target's processor."""
        # Of a folder that the tests wrote.
        return transformers.AutoProcessor.from_pretrained(self._folder, trust_remote_code=True)

    @torch.inference_mode()
    def logits_of(self, inputs) -> torch.Tensor:
        """Logits [tokens, vocab] for a processor's inputs."""
        return self.model(**inputs, use_cache=False).logits[0].float()

    @torch.inference_mode()
    def layer_outputs(self, inputs) -> list[torch.Tensor]:
        """Output [tokens, hidden] of every decoder layer, before any norm that follows."""
        outputs = []

        def keep(module, args, output):
            outputs.append((output[0] if isinstance(output, tuple) else output)[0])

        hooks = [layer.register_forward_hook(keep) for layer in self.layers]
        try:
            self.logits_of(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        return outputs

    @torch.inference_mode()
    def draft_logits(self, outputs: list[torch.Tensor], prefix: int, anchor: int) -> torch.Tensor:
        """The draft's logits [B - 1, vocab] for the block of ``anchor``, which follows the first ``prefix`` tokens.

        ``outputs``: ``layer_outputs`` of these tokens, and perhaps of later ones.
        """
        self.draft.reset()
        self.draft.inject(torch.cat([outputs[i][:prefix] for i in self.draft.target_layer_ids], -1))
        block = torch.tensor([anchor] + [self.draft.mask_token_id] * (self.draft.block_size - 1))
        hidden = self.draft.forward(self._embed(block))
        return self.model.get_output_embeddings()(hidden[1:])

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        """As a draft sees them: scaled where the target scales, but without Muse Glimmer's norm of embeddings."""
        embed = self.model.get_input_embeddings()
        return F.embedding(ids, embed.weight) if hasattr(embed, "embed_norm") else embed(ids)


def decoder_layers(model) -> torch.nn.ModuleList:
    """The decoder layers of a text model, or of a wrapper's language model."""
    inner = model.model
    inner = getattr(inner, "language_model", inner)
    return inner.layers

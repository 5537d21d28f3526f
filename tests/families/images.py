"""Prompts with images, for the server and for transformers."""

import base64
import io
from functools import cache
from typing import NamedTuple

import numpy
from PIL import Image

NEW_TOKENS = 17


class ImagePrompt(NamedTuple):
    """A text with one mark per image."""

    text: str
    images: tuple[Image.Image, ...]

    def generate(self, client, **custom_params):
        """The server's greedy answer of ``NEW_TOKENS`` tokens."""
        params = {"temperature": 0.0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
        more = {"image_data": [_data_url(image) for image in self.images]}
        if custom_params:
            params["custom_params"] = custom_params
        else:
            more["return_logprob"] = True  # of plain decoding
        return client.generate(self.text, params, **more)

    def inputs(self, processor, answer: tuple[int, ...]) -> dict:
        """What transformers' model takes: the prompt, its images, and the answer's tokens behind."""
        import torch

        inputs = dict(processor(text=[self.text], images=list(self.images), return_tensors="pt"))
        tail = torch.tensor([list(answer)], dtype=torch.int64)
        inputs["input_ids"] = torch.cat((inputs["input_ids"], tail), 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.cat((inputs["mm_token_type_ids"], torch.zeros_like(tail)), 1)
        return inputs


@cache
def image_prompts(mark: str, size: tuple[int, int]) -> tuple[ImagePrompt, ...]:
    """One prompt with an image inside, and one with two at its ends."""
    one, two, three = (_picture(seed, size) for seed in (1, 2, 3))
    return (
        ImagePrompt(f"compare {mark} with 42", (one,)),
        ImagePrompt(f"{mark} sort the words {mark}", (two, three)),
    )


def _picture(seed: int, size: tuple[int, int]) -> Image.Image:
    blocks = numpy.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=numpy.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def _data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()

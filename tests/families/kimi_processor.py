"""Stands in the tiny Kimi checkpoint for the code that published ones bring: its names over transformers' parts."""

from types import SimpleNamespace

from transformers import AutoTokenizer
from transformers.models.kimi_k25 import Kimi_K25ImageProcessor

IMAGE_TOKEN = "<|media_pad|>"
PATCH, MERGE, SIDE = 14, 2, 8  # of a patch, patches to a token, patches along an image's longer side
MEAN = STD = [0.5] * 3


class KimiProcessor:
    """Text and images to a model's inputs: ``medias`` and ``grid_thws`` for SGLang, ``images`` for the oracle."""

    def __init__(self, folder: str):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.image_processor = None
        self._images = Kimi_K25ImageProcessor(
            patch_size=PATCH,
            merge_size=MERGE,
            max_patches=SIDE * SIDE,
            size={"max_height": SIDE, "max_width": SIDE},
            image_mean=MEAN,
            image_std=STD,
        )
        sizes = {
            "patch_size": PATCH,
            "merge_kernel_size": MERGE,
            "in_patch_limit": SIDE * SIDE,
            "patch_limit_on_one_side": SIDE,
        }
        self.media_processor = SimpleNamespace(
            media_proc_cfg=sizes | {"image_mean": MEAN, "image_std": STD},
            media_tokens_calculator=lambda media: self._tokens(self._process([media["image"]])),
        )

    def _process(self, images: list) -> dict:
        return dict(self._images(images, return_tensors="pt"))

    @staticmethod
    def _tokens(processed: dict) -> int:
        return int(processed["image_grid_thw"].prod(-1).sum()) // MERGE**2

    def __call__(self, text, images=None, medias=None, **_) -> dict:
        """Text with a token per image for ``images``; with as many as an image takes for ``medias``."""
        (text,), processed = text, {}
        if medias:
            processed = self._process([media["image"] for media in medias])
            processed["grid_thws"] = processed.pop("image_grid_thw")
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        if images:
            processed = self._process(images)
            token = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
            repeats = (ids[0] == token).long() * (self._tokens(processed) // len(images) - 1) + 1
            ids = ids.repeat_interleave(repeats, 1)
        return {"input_ids": ids, **processed}

    @classmethod
    def from_pretrained(cls, folder: str, **_) -> "KimiProcessor":
        return cls(folder)

    @classmethod
    def register_for_auto_class(cls, *_) -> None:
        """Nothing is saved from here."""

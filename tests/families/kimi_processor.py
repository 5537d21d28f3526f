"""Stands in the tiny Kimi checkpoint for the code that published ones bring: what SGLang asks of it for text."""

from types import SimpleNamespace

from transformers import AutoTokenizer


class KimiProcessor:
    """Tokenizer and sizes; images are not processed."""

    def __init__(self, folder: str):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.image_processor = None
        sizes = {"patch_size": 14, "merge_kernel_size": 2, "in_patch_limit": 64, "patch_limit_on_one_side": 8}
        self.media_processor = SimpleNamespace(media_proc_cfg=sizes | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})

    @classmethod
    def from_pretrained(cls, folder: str, **_) -> "KimiProcessor":
        return cls(folder)

    @classmethod
    def register_for_auto_class(cls, *_) -> None:
        """Nothing is saved from here."""

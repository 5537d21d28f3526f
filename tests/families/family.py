"""One row of the family table: how to build its tiny checkpoint, and how to serve it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCAB = 896  # of the embedded pair's tokenizer
WIDE_VOCAB = VOCAB + 16  # with the special tokens of a multimodal wrapper behind the others
HIDDEN = 64
BLOCK = 8
MASK_TOKEN = 4
END_TOKEN = 3


@dataclass(frozen=True)
class Family:
    """An architecture family, as small as its traits allow.

    ``config`` builds a transformers config and ``model`` (a transformers class name) the model of it;
    ``taps`` are the draft's target layers; ``traits`` says in words what is special and therefore tested.
    ``init`` may change freshly drawn weights: (parameter name, tensor) -> None, in place.
    """

    name: str
    title: str
    traits: str
    targets: tuple[str, ...]  # published checkpoints of this family
    config: Callable[[], Any]
    model: str
    taps: tuple[int, ...]
    flags: tuple[str, ...] = ()  # for plain and DFLASH servers alike
    plain_flags: tuple[str, ...] = ()  # for the plain server alone
    chunk: int = 32  # tokens of a prefill chunk under DFLASH
    image_token: str | None = None  # stands for an image in a prompt
    image_size: tuple[int, int] = (384, 384)  # one that the processor leaves as it is
    chain_flags: tuple[str, ...] = ("--disable-radix-cache",)
    tree_flags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    draft: Mapping[str, Any] = field(default_factory=dict)  # overrides of the draft's config
    published: Mapping[str, Any] = field(default_factory=dict)  # overrides of the written config.json
    rename: Mapping[str, str] = field(default_factory=dict)  # parts of the written tensor names
    processor: Callable[[Path], None] | None = None  # writes a wrapper's processor beside the weights
    seed: int = 1  # another where a family's random model happens to repeat itself
    init: Callable[[str, Any], None] | None = None

    def __str__(self) -> str:
        return self.name


def rope(theta: float = 10000.0, **more) -> dict:
    """Rotary parameters as transformers spells them."""
    return {"rope_type": "default", "rope_theta": theta} | more


def common(**more) -> dict:
    """Config fields that every family shares: the pair's vocabulary and ends."""
    return {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "bos_token_id": None,
        "eos_token_id": END_TOKEN,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "max_position_embeddings": 1024,
        "dtype": "float32",
    } | more

"""What the checks look at: a pair of checkpoints, and how they are to be served."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sglang_dflash.checkpoints.catalogue import Entry
from sglang_dflash.checkpoints.checks.tensors import TensorInfo
from sglang_dflash.checkpoints.checks.tokenizer_files import Texts
from sglang_dflash.checkpoints.config import DraftConfig


@dataclass(frozen=True)
class Plan:
    """How the pair is to be served; None leaves it to the checkpoints or to SGLang."""

    block_size: int | None = None
    verify_width: int | None = None  # nodes per request of a verify pass; None: the block
    own_proposer: bool = False  # of the user's: a tree may be wider than the block
    branching: int | None = None  # most children of a node; above 1: trees
    shapes: str = "fixed"  # SGLANG_DFLASH_SHAPE
    graphs: bool = True  # decode passes are captured, where a GPU serves
    dp_size: int = 1  # data-parallel attention
    lookup: str = "off"  # SGLANG_DFLASH_LOOKUP
    window: int | None = None  # draft window, tokens
    tp_size: int = 1
    context_length: int | None = None
    concurrency: int | None = None  # requests in flight
    dtype: str = "auto"
    kv_dtype: str = "auto"  # of the target's KV cache
    draft_kv_dtype: str | None = None
    attention: str | None = None
    draft_attention: str | None = None
    page_size: int | None = None
    mamba: str | None = None  # --mamba-radix-cache-strategy
    thinking: str | None = None  # on or off, as requests will ask
    generation: str | None = None  # GPU generation, as of the catalogue
    on_cpu: bool = False  # the CPU platform serves


@dataclass(frozen=True)
class Case:
    """A pair and its plan; what could not be read is None."""

    target: Mapping[str, Any]  # config.json
    draft: DraftConfig
    raw: Mapping[str, Any]  # the draft's config.json, in z-lab's layout
    architecture: str  # SGLang's class of the target
    plan: Plan = field(default_factory=Plan)
    target_entry: Entry | None = None  # what the catalogue knows of the target
    draft_entry: Entry | None = None  # and of the draft: its target
    target_texts: Texts | None = None
    draft_texts: Texts | None = None
    target_tensors: Mapping[str, TensorInfo] | None = None
    draft_tensors: Mapping[str, TensorInfo] | None = None

    @property
    def text(self) -> Mapping[str, Any]:
        """The language model's part of the target's config."""
        return self.target.get("text_config") or self.target

    @property
    def block_size(self) -> int:
        """The block that will be served."""
        return self.draft.block_size if self.plan.block_size is None else self.plan.block_size

    @property
    def verify_width(self) -> int:
        """The nodes per request that will be verified."""
        if self.plan.verify_width is None:
            return 2 * self.block_size if self.has_trees else self.block_size
        return self.plan.verify_width

    @property
    def has_trees(self) -> bool:
        """Whether trees of the draft's candidates will be verified."""
        return (self.plan.branching or 1) > 1

    @property
    def is_wide(self) -> bool:
        """Whether ours may verify more nodes than the block has."""
        return self.has_trees or self.plan.lookup != "off"

    @property
    def context_length(self) -> int | None:
        """The context that will be served, in tokens."""
        return self.plan.context_length or self.text.get("max_position_embeddings")

"""What a check found: one value each, for the launch, which refuses or warns, and for the report."""

from dataclasses import asdict, dataclass

from sglang_dflash.errors import DFlashError

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

# Every name that a finding can have, and what it tells.
MEANINGS = {
    "wrong-draft": "the shapes of the draft are those of another target",
    "draft-of-another-target": "the shapes fit, but the catalogue knows the draft as another model's",
    "layer-ids-out-of-range": "a captured layer does not exist in the target",
    "layer-ids-out-of-order": "layers are captured twice, or not in ascending order",
    "layer-ids-off-by-one": "all layer ids are one too high or too low: another engine's numbering",
    "block-size-two-values": "the config names two block sizes",
    "block-size-missing": "the config names no block size, and 16 is assumed",
    "block-size-not-as-trained": "the block asked for is not the trained one",
    "block-size-counts-otherwise": "the block asked for is the trained one less its anchor, as other engines count",
    "shapes-unusable": "no round of another shape can be run: captured graphs, or ranks with batches of their own",
    "verify-width-unusable": "a chain has no more nodes than the block; a tree at most 128",
    "lookup-unusable": "what is found in the context cannot be proposed like this",
    "branching-unusable": "trees cannot branch like this, or not on this attention backend",
    "block-size-unusable": "no block of that size can be drafted",
    "mask-token-missing": "neither id nor name of the mask token is known",
    "mask-token-collides": "the mask token is a token of ordinary text, or ends it",
    "mask-token-outside": "the target has no embedding for the mask token",
    "mask-token-two-ids": "the config's id and the tokenizer's differ",
    "tokenizer-differs": "the draft comes with another tokenizer",
    "tokenizer-too-large": "the tokenizer has ids that the target has no embedding for",
    "tokenizer-unread": "no tokenizer.json to look the mask token up in",
    "draft-own-head": "the draft comes with an embedding or head of another vocabulary",
    "draft-tensors": "the draft's tensors are not those of its config",
    "draft-variant": "our worker does not implement this kind of draft",
    "draft-heads": "the draft's heads cannot be computed, or not be split over the ranks",
    "draft-context-short": "the context served is longer than the draft has positions for",
    "draft-context-untrained": "the context served is longer than the draft was trained on",
    "window-too-small": "the draft window is smaller than a block",
    "window-too-large": "the draft window is no smaller than the context",
    "causal-full-attention": "a causal flag on layers that were meant to see the whole block",
    "causal-flag-ignored": "a causal flag where neither SGLang nor this package reads it",
    "causal-by-default": "sliding layers without a causal flag are causal",
    "window-ignored": "a sliding window that no layer uses",
    "rope-differs": "draft and target rotate with another base",
    "thinking-mode": "the draft was trained in the other thinking mode",
    "chat-template-missing": "the target has no chat template",
    "chat-template-differs": "the draft comes with another chat template",
    "backend-unsupported": "an attention backend that this GPU, the draft or DFLASH cannot use",
    "page-size-unsupported": "a page size that the attention backend or the state cache cannot use",
    "draft-cache-dtype": "a quantised KV cache for the draft",
    "quantised-head": "the target's output head is quantised",
    "quantised-on-cpu": "quantised weights, for which the CPU platform has no kernels",
    "sinks-unsupported": "the draft has attention sinks, which the attention backend lacks",
    "fp16": "float16, in which drafts lose their acceptance",
    "memory": "weights, KV cache and state buffers do not fit the machine",
    "target-class": "SGLang's class of the target does not serve DFLASH",
}


@dataclass(frozen=True)
class Finding:
    """One thing found. An error cannot work, a warning costs speed or points to a mistake, a note informs."""

    name: str
    severity: str
    field: str
    what: str
    remedy: str

    def __post_init__(self):
        assert self.name in MEANINGS and self.severity in SEVERITIES, self

    def __str__(self) -> str:
        return f"{self.field}: {self.what} ({self.remedy})"

    def as_error(self) -> DFlashError:
        """The same as what ends a launch."""
        return DFlashError(self.field, self.what, self.remedy)

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def meanings() -> str:
    """``MEANINGS`` as a markdown table; docs/check.md holds it, and a test compares."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in MEANINGS.items()]
    return "\n".join(["| Name | Meaning |", "|---|---|", *rows])

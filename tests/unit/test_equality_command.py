"""``bench equality`` and what it stands on: answers that are kept, transformers' generate, prompts that have room."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench import equal, prompts
from sglang_dflash.tools.bench.answers import Answer, AnswerFile, fill
from sglang_dflash.tools.bench.equality import Difference
from sglang_dflash.tools.bench.hub import HubModel, HubSystem
from sglang_dflash.tools.bench.prompts import Prompt
from sglang_dflash.tools.pair import TARGET_DIR
from sglang_dflash.tools.serve import ServerProcess

STUB = Path(__file__).with_name("stub_server.py")
ASKED = tuple(Prompt(f"a-{i}", "a", (1, 2, i), {}) for i in range(10))


def test_answers_are_kept_and_a_torn_line_is_asked_again(tmp_path):
    file, asked = AnswerFile(tmp_path / "new" / "x.jsonl"), []

    def ask(some):
        asked.extend(prompt.id for prompt in some)
        return [Answer((7, len(asked)), (1, 2)) for _ in some]

    fill(file, ASKED[:4], ask, 3, lambda done, count: None)
    assert asked == ["a-0", "a-1", "a-2", "a-3"]
    text = file.path.read_text()
    file.path.write_text(text[:-5])
    again = AnswerFile(file.path)
    assert again.missing(ASKED[:4]) == [ASKED[3]] and again.of(ASKED[:3]) == file.of(ASKED[:3])
    fill(again, ASKED[:4], ask, 3, lambda done, count: None)
    assert asked[4:] == ["a-3"] and again.of(ASKED[3:4])[0].kept == (1, 2)
    # The same id with other tokens is another prompt.
    assert again.missing([ASKED[0]._replace(token_ids=(5,))])


def make(spec, logs):
    return ServerProcess(spec, logs, command=lambda port: [sys.executable, str(STUB), str(port), "ok", "-"])


def options(folder, **more):
    settings = {
        "target": "t",
        "draft": "d",
        "prompts": ASKED,
        "max_tokens": 8,
        "concurrencies": (1, 8),
        "overlaps": ("off", "on"),
        "hub_prompts": 0,
        "flags": (),
        "out": folder,
    }
    return equal.EqualOptions(**{**settings, **more})


def test_every_setting_is_compared_once(tmp_path, capsys):
    assert equal.run_equality(options(tmp_path), make)
    result = json.loads((tmp_path / "result.json").read_text())
    labels = [f"overlap {overlap}, {n} in flight" for overlap in ("off", "on") for n in (1, 8)]
    assert [row["label"] for row in result["rows"]] == labels
    assert all((row["answers"], row["identical"], row["accept_length"]) == (10, 10, 2.0) for row in result["rows"])

    def never(spec, logs):
        raise AssertionError("nothing is missing")

    assert equal.run_equality(options(tmp_path), never)
    with pytest.raises(DFlashError, match="another target or length"):
        equal.run_equality(options(tmp_path, max_tokens=9), never)
    # Another draft has answers of its own; plain decoding's stay.
    started = []
    assert equal.run_equality(options(tmp_path, draft="e"), lambda spec, logs: started.append(spec) or make(spec, logs))
    assert [spec.worker for spec in started] == ["dflash", "dflash"]
    assert "--disable-overlap-schedule" in started[0].flags
    assert dict(started[1].env) == {"SGLANG_DFLASH_CPU_OVERLAP": "on"}


@pytest.mark.parametrize("gap, right", [(5e-5, True), (2e-4, False)])
def test_a_difference_is_weighed_by_plain_decoding(tmp_path, monkeypatch, gap, right):
    class Model:
        def __init__(self, target):
            pass

        def generate(self, some, max_tokens):
            return [(1, 2, 9, 9) if some[0] == (1, 2, 5) else (1, 2, 3, 4)]

    weighed = []

    def judged(prompt, system, reference, answer, judge):
        weighed.append((prompt.id, system, reference, answer, judge is not None))
        return Difference(prompt.id, system, 2, 3, 9, gap)

    monkeypatch.setattr(equal, "HubModel", Model)
    monkeypatch.setattr(equal, "judged", judged)
    chosen = options(tmp_path, overlaps=("off",), concurrencies=(4,), hub_prompts=2)
    assert equal.run_equality(chosen, make) is right
    assert [prompt.id for prompt in chosen.spread()] == ["a-0", "a-5"]
    assert weighed == [("a-5", "transformers", (1, 2, 3, 4), (1, 2, 9, 9), True)]
    result = json.loads((tmp_path / "result.json").read_text())
    counts = {row["label"]: (row["identical"], row["ties"], row["different"]) for row in result["rows"]}
    assert counts["transformers"] == ((1, 1, 0) if right else (1, 0, 1))
    assert counts["overlap off, 4 in flight"] == (10, 0, 0)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, eos_token_id=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TARGET_DIR).save_pretrained(folder)
    return str(folder)


def test_a_padded_batch_answers_as_each_prompt_alone(small):
    model = HubModel(small)
    asked = [(5, 6, 7), (8,), (9, 10, 11, 12, 13)]
    alone = [model.generate([ids], 12)[0] for ids in asked]
    assert model.generate(asked, 12) == alone
    greedy = LlamaForCausalLM.from_pretrained(small)
    ids = [5, 6, 7]
    for token in alone[0]:
        assert int(greedy(torch.tensor([ids])).logits[0, -1].argmax()) == token
        ids.append(token)
    model._ends = [alone[1][4]]
    assert model.generate(asked, 12)[1] == alone[1][: alone[1].index(alone[1][4]) + 1]
    answers = HubSystem(small).generate_many(asked, 2, {"max_new_tokens": 12}, False)
    assert [answer.token_ids for answer in answers] == alone and answers[0].finished == answers[1].finished


def test_prompts_without_room_are_left_out_aloud(small, tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "renderer", lambda target: lambda messages: tuple(messages[-1]["content"]))
    for name, lengths in (("a", (2, 9, 3)), ("b", (9,))):
        lines = [json.dumps({"messages": [{"role": "user", "content": "x" * n}]}) for n in lengths]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    said = []
    both = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    found = prompts.load_prompts("t", both, per_kind=2, room=9, say=said.append)
    assert [prompt.id for prompt in found] == ["a-1", "b-1", "a-2"] and said == []
    found = prompts.load_prompts("t", both, ["a"], per_kind=2, room=8, say=said.append)
    assert [prompt.id for prompt in found] == ["a-1", "a-3"]
    assert said == ["a: 1 of 3 prompts have more than 8 tokens, and are left out"]
    with pytest.raises(DFlashError, match="shortest prompt of b has 9 tokens, .* has room for 8"):
        prompts.load_prompts("t", both, room=8, say=said.append)
    assert prompts.prompt_room(small, 14) == 50
    assert prompts.prompt_room(small, 14, ("--page-size", "4", "--context-length", "40")) == 26

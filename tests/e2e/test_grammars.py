"""Constrained answers: valid, and plain decoding's token for token, beside requests that nothing constrains."""

import json
import re
from collections.abc import Callable
from typing import NamedTuple

import httpx
import pytest
from exact import assert_equal
from launcher import path_to_doubles
from workload import questions

OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
TREE = {
    "SGLANG_DFLASH_PROPOSER": "planted:PlantedTree",
    "SGLANG_DFLASH_PLANTED": "none",
    "PYTHONPATH": path_to_doubles(),
}
RETRACTING = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "9"}
WIDE = ("--speculative-num-draft-tokens", 24, "--speculative-dflash-block-size", 16)
AS_DRAFTED = {"SGLANG_DFLASH_GRAMMAR_DRAFTS": "off"}
# name: backend, requests, flags, environment
SERVERS = {
    "overlap": ("xgrammar", 36, ("--page-size", 16), OVERLAP),
    "sync-as-drafted": ("xgrammar", 36, (), AS_DRAFTED),
    "mixed": ("xgrammar", 36, ("--chunked-prefill-size", 64, "--enable-mixed-chunk"), OVERLAP),
    "retracting": ("xgrammar", 16, ("--max-total-tokens", 1500), OVERLAP | RETRACTING),
    "two-ranks": ("xgrammar", 20, ("--tp-size", 2), OVERLAP),
    "planted-tree": ("xgrammar", 36, WIDE, OVERLAP | TREE),
    "drafts-tree": ("llguidance", 24, ("--speculative-eagle-topk", 3, "--speculative-num-draft-tokens", 21), OVERLAP),
    "llguidance": ("llguidance", 24, (), AS_DRAFTED),
    "outlines": ("outlines", 20, (), OVERLAP),
}


def _object(**properties) -> dict:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


ROW = _object(job={"type": "string"}, city={"type": "string"}, name={"type": "string"})
CALL = _object(
    name={"enum": ["look_up"]},
    arguments=_object(city={"enum": ["Vienna", "Lima"]}, days={"enum": [3, 7, 14]}),
)
TABLE = _object(rows={"type": "array", "items": {"enum": ["ones", "tens"]}, "minItems": 2, "maxItems": 4})
LINES = "(ones|tens|hundreds): [0-9]([+][0-9]){1,2}=[0-9]{1,2}( write [0-9] carry [01])?[.]"
WORDS = 'root ::= word (" " word){1,6} "."\nword ::= "ones" | "tens" | "write " digit\ndigit ::= [0-9] | [1-9] digit'
TAG = json.dumps(
    {
        "type": "structural_tag",
        "structures": [{"begin": "write", "schema": ROW, "end": "carry"}],
        "triggers": ["write"],
    }
)


class Constraint(NamedTuple):
    """What a request asks for, and whether a complete answer is right."""

    params: dict
    valid: Callable[[str], object]

    @classmethod
    def schema(cls, schema: dict) -> "Constraint":
        return cls({"json_schema": json.dumps(schema)}, lambda text: fits(json.loads(text), schema))


def fits(value, schema: dict) -> bool:
    """Whether ``value`` is what one of the schemas below describes."""
    if "enum" in schema:
        return value in schema["enum"]
    if schema["type"] == "object":
        return value.keys() == schema["properties"].keys() and all(
            fits(value[k], s) for k, s in schema["properties"].items()
        )
    if schema["type"] == "array":
        return schema["minItems"] <= len(value) <= schema["maxItems"] and all(fits(v, schema["items"]) for v in value)
    return isinstance(value, str)


FREE = Constraint({}, lambda text: True)
COMMON = (
    Constraint.schema(ROW),
    FREE,
    Constraint.schema(CALL),
    Constraint({"regex": LINES}, lambda text: re.fullmatch(LINES, text)),
    Constraint.schema(TABLE),
)
MORE = (
    Constraint(
        {"ebnf": WORDS}, lambda text: re.fullmatch(r"(ones|tens|write [0-9]+)( (ones|tens|write [0-9]+)){1,6}[.]", text)
    ),
    Constraint({"structural_tag": TAG}, lambda text: True),
    FREE,
)


class Case(NamedTuple):
    """One greedy request."""

    prompt: tuple[int, ...]
    params: dict
    valid: Callable[[str], object]


@pytest.fixture(scope="module")
def cases(tokenizer):
    """By backend: every constraint on questions of every kind; some end in the middle of a block."""

    def of(backend: str) -> list[Case]:
        constraints = COMMON if backend == "outlines" else COMMON + MORE
        made = []
        for i, ask in enumerate(questions(tokenizer, 2, 70)):
            constraint = constraints[i % len(constraints)]
            params = ask.sampling(**constraint.params)
            if i % 5 == 4:
                params["max_new_tokens"] = 7 + i
            if i % 7 == 6:
                params["stop"] = [" ", "a"][i % 2]
            made.append(Case(ask.prompt, params, constraint.valid))
        return made

    return of


@pytest.fixture(scope="module")
def plainly(servers, cases):
    """By backend: plain decoding's answers, each computed once."""
    known = {}

    def of(backend: str):
        if backend not in known:
            known[backend] = ask_all(servers.plain(*by(backend)), cases(backend))
        return known[backend]

    return of


def by(backend: str) -> tuple[str, ...]:
    """Flags; xgrammar is SGLang's own choice."""
    return () if backend == "xgrammar" else ("--grammar-backend", backend)


def ask_all(server, cases, concurrency: int = 12):
    return server.client.generate_many([c.prompt for c in cases], concurrency, [c.params for c in cases])


def check(plain, cases, wanted, given) -> None:
    """Equal but for ties, and valid where they are complete."""
    complete = 0
    for case, want, got in zip(cases, wanted, given, strict=True):
        if not assert_equal(plain.client, case.prompt, want.token_ids, got.token_ids):
            assert (got.text, got.meta["finish_reason"]) == (want.text, want.meta["finish_reason"])
        if got.finish_reason == "stop" and "stop" not in case.params:
            complete += 1
            assert case.valid(got.text), got.text
    assert complete > len(cases) // 4


def planned(cases, wanted):
    """For the double: its trees hold plain decoding's continuation, among nodes that a grammar may forbid."""
    plans = ([3, 1, 16], [9], [1, 2])
    for i, (case, want) in enumerate(zip(cases, wanted, strict=True)):
        plan = {"commit_lens": plans[i % 3], "continuation": [*want.token_ids, *[1] * 30]}
        yield case._replace(params=case.params | {"custom_params": plan})


@pytest.mark.parametrize("name", SERVERS)
def test_constrained_answers_are_plain_decodings(servers, plain, cases, plainly, name):
    backend, count, flags, env = SERVERS[name]
    wanted, asked = plainly(backend)[:count], cases(backend)[:count]
    server = servers.dflash(*by(backend), *flags, **env)
    given = ask_all(server, list(planned(asked, wanted)) if "planted" in name else asked)
    check(plain, asked, wanted, given)
    tokens, rounds = sum(len(a.token_ids) for a in given), sum(a.rounds for a in given)
    print(f"{name}: {tokens} tokens, {rounds} rounds")
    assert rounds < tokens * (0.6 if "planted" in name else 0.9)
    if "retracting" in name:
        assert sum(a.meta["num_retractions"] for a in given) > 0
    server.client.flush_cache()


@pytest.fixture
def server(servers):
    return servers.dflash("--page-size", 16, **OVERLAP)


def test_streams_are_cut_where_the_grammar_ends(server, plain, cases):
    for case in cases("xgrammar")[:6]:
        want = plain.client.generate(case.prompt, case.params)
        pieces = []
        got = server.client.generate(case.prompt, case.params, on_text=pieces.append)
        assert (got.token_ids, got.text) == (want.token_ids, want.text)
        assert all(want.text.startswith(piece) for piece in pieces)


def test_several_answers_to_one_request(server, plain, cases):
    case = cases("xgrammar")[0]
    want = plain.client.generate(case.prompt, case.params)
    body = {"input_ids": list(case.prompt), "sampling_params": case.params | {"n": 3}}
    replies = httpx.post(f"{server.url}/generate", json=body, timeout=60, trust_env=False).json()
    assert [tuple(reply["output_ids"]) for reply in replies] == [want.token_ids] * 3
    # Sampled, they may differ, and are valid.
    body["sampling_params"] |= {"temperature": 1.5, "max_new_tokens": 400, "json_schema": json.dumps(CALL)}
    replies = httpx.post(f"{server.url}/generate", json=body, timeout=60, trust_env=False).json()
    for reply in replies:
        if reply["meta_info"]["finish_reason"]["type"] == "stop":
            assert fits(json.loads(reply["text"]), CALL)


def test_seeded_answers_are_plain_decodings(servers, cases):
    flags = ("--enable-deterministic-inference",)
    sampled = [
        case._replace(params=case.params | {"temperature": 0.5 + i % 3, "sampling_seed": 50 + i})
        for i, case in enumerate(cases("xgrammar"))
    ]
    # Each by itself: what a seed draws depends on the filters of its company, and on nothing else.
    wanted, given = (ask_all(server, sampled) for server in (servers.plain(*flags), servers.dflash(*flags)))
    assert [a.token_ids for a in given] == [a.token_ids for a in wanted]


THINKING = ("--reasoning-parser", "qwen3", "--tool-call-parser", "qwen25", "--enable-strict-thinking")
THINKING += ("--constrained-json-disable-any-whitespace",)
TOOL = {"name": "look_up", "parameters": CALL["properties"]["arguments"]}
ASKED = (
    {"response_format": {"type": "json_schema", "json_schema": {"name": "row", "schema": ROW}}},
    {"response_format": {"type": "json_object"}},
    {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"},
    {"tools": [{"type": "function", "function": TOOL | {"strict": True}}]},
)


def test_chats_think_and_call_tools(servers):
    """Reasoning is free, or filtered up to a budget; what follows it is constrained."""
    ours, plain = servers.dflash(*THINKING, **OVERLAP), servers.plain(*THINKING)
    question = [{"role": "user", "content": "make json of this row.\njob,city,name\nMiner,Vienna,Omar"}]
    called = 0
    for i, fields in enumerate(ASKED * 2):
        thinks = {"custom_params": {"thinking_budget": 9}, "chat_template_kwargs": {"enable_thinking": i % 8 < 4}}
        fields = fields | thinks | {"temperature": 0.0, "max_tokens": 90}
        want, got = (server.client.chat(question, **fields)["choices"][0] for server in (plain, ours))
        for choice in (want, got):
            for call in choice["message"].get("tool_calls") or ():
                call["id"] = ""
        assert got == want
        called += got["finish_reason"] == "tool_calls"
        for call in got["message"].get("tool_calls") or ():
            json.loads(call["function"]["arguments"])
    assert called


def test_thinking_ends_at_its_budget(servers, tokenizer, cases):
    ours, plain = servers.dflash(*THINKING, **OVERLAP), servers.plain(*THINKING)
    asked = [case for case in cases("xgrammar") if "json_schema" in case.params and "stop" not in case.params]
    prompts = [case.prompt for case in asked]
    params = [
        case.params | {"custom_params": {"thinking_budget": 3 + i % 20}, "max_new_tokens": 90}
        for i, case in enumerate(asked)
    ]
    wanted, given = (s.client.generate_many(prompts, 8, params, require_reasoning=True) for s in (plain, ours))
    assert [a.token_ids for a in given] == [a.token_ids for a in wanted]
    assert sum("</think>" in a.text for a in given) > len(given) // 2
    texts = [a.text for a in given if a.finish_reason == "stop" and "</think>" in a.text]
    answers = [text.partition("</think>")[2] for text in texts]
    assert answers and all(isinstance(json.loads(answer), dict) for answer in answers)


def test_grammars_that_do_not_compile_are_refused(server, plain, cases):
    prompt = cases("xgrammar")[0].prompt
    for wrong in ({"json_schema": "{"}, {"ebnf": "root ="}, {"regex": "("}):
        body = {"input_ids": list(prompt), "sampling_params": {"max_new_tokens": 4, **wrong}}
        for url in (plain.client.url, server.url):
            reply = httpx.post(f"{url}/generate", json=body, timeout=60, trust_env=False)
            assert reply.status_code == 400 and "grammar" in reply.json()["error"]["message"], wrong

"""Prompts of more than 32k tokens, once: a hybrid target, whose one attention layer keeps this within a minute or two.

Left out unless --slow is given: four minutes on two busy cores.
"""

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sglang_dflash.tools.serve import ServerProcess, ServerSpec

sys.path.append(str(Path(__file__).parents[1] / "families"))  # its tiny checkpoints

LENGTHS, ANSWER = (32_769, 33_500), 40
ROOM = 36_864
FLAGS = ("--max-total-tokens", 2 * ROOM, "--max-running-requests", 2, "--chunked-prefill-size", 4096)
KEPT = ("--page-size", 16, "--mamba-radix-cache-strategy", "extra_buffer")
SERVERS = {
    "whole": (),
    "window": ("--speculative-draft-window-size", 512),
}


def _config():
    from hybrid_families import qwen3_5_config

    return qwen3_5_config(max_position_embeddings=ROOM)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    from checkpoints import build_pair
    from table import BY_NAME

    family = replace(BY_NAME["qwen3.5"], config=_config, draft={"max_position_embeddings": ROOM})
    return tuple(map(str, build_pair(family, tmp_path_factory.mktemp("long"))))


@pytest.fixture(scope="module")
def prompts():
    rng = random.Random(1)
    return [tuple(rng.randrange(5, 896) for _ in range(length)) for length in LENGTHS]


def _answers(spec, prompts, folder, launch):
    params = {"temperature": 0.0, "max_new_tokens": ANSWER, "ignore_eos": True}
    with ServerProcess(spec.with_flags(*FLAGS), folder, launcher=launch) as server:
        first = server.client.generate_many(prompts, 2, params)
        again = server.client.generate(prompts[0] + first[0].token_ids[:5], params | {"max_new_tokens": ANSWER - 5})
    return [answer.token_ids for answer in first], again


@pytest.fixture(scope="module")
def wanted(pair, prompts, tmp_path_factory, launch):
    return _answers(ServerSpec(pair[0], None, "plain", exact=True), prompts, tmp_path_factory.mktemp("plain"), launch)


@pytest.mark.slow
@pytest.mark.parametrize("flags", SERVERS.values(), ids=SERVERS)
def test_answers_after_more_than_32k_tokens(pair, prompts, wanted, tmp_path, launch, flags):
    spec = ServerSpec(*pair, "dflash", exact=True).with_flags(*KEPT, *flags)
    first, again = _answers(spec.with_env(SGLANG_DFLASH_CPU_OVERLAP="on"), prompts, tmp_path, launch)
    assert first == wanted[0]
    assert again.token_ids == wanted[1].token_ids == first[0][5:]
    assert again.cached_tokens > 32_000

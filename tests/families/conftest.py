"""Per family: a random pair, plain decoding's answers, the transformers oracle, and servers under our worker.

Family and server are parametrised with module scope, so that pytest runs everything that one server is for before
it starts the next; at most one server lives at a time.
"""

import json
import os
from pathlib import Path

import pytest
from asks import Ask, every_ask
from checkpoints import build_pair
from images import image_prompts
from launcher import path_to_doubles
from oracle import Oracle
from table import FAMILIES

from sglang_dflash.tools.serve import ServerProcess, ServerSpec

HERE = Path(__file__).parent
SHAPES = {
    "chain": "recorded:RecordedChain",
    "tree": "recorded:RecordedTree",
}


def pytest_collection_modifyitems(config, items):
    def meant(item):
        name, parameters = getattr(item, "originalname", ""), getattr(getattr(item, "callspec", None), "params", {})
        return "image_prompts" not in name or parameters["family"].image_token is not None

    others = [item for item in items if not meant(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if meant(item)]


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def pair(family, tmp_path_factory):
    """(target, draft) folders."""
    return build_pair(family, tmp_path_factory.mktemp(family.name))


@pytest.fixture(scope="module")
def oracle(family, pair) -> Oracle:
    return Oracle(family.model, *pair, family.config())


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    return Path(os.environ.get("SGLANG_DFLASH_TEST_LOGS") or tmp_path_factory.mktemp("logs"))


class Plain(dict):
    """Plain decoding's Generation by ask; ``images`` are those of the prompts with images."""

    images = ()


@pytest.fixture(scope="module")
def plain(family, pair, logs, launch):
    """Plain decoding's answer to every ask, with log-probabilities."""
    spec = ServerSpec(str(pair[0]), None, "plain", exact=True).with_flags(*family.flags, *family.plain_flags)
    spec = spec.with_env(**family.env)
    asks = every_ask()
    with ServerProcess(spec, logs, launcher=launch) as server:
        prompts = [ask.prompt for ask in asks]
        params = [ask.sampling(longer=True) for ask in asks]
        answers = Plain(zip(asks, server.client.generate_many(prompts, 8, params, return_logprob=True), strict=True))
        if family.image_token is not None:
            prompts = image_prompts(family.image_token, family.image_size)
            answers.images = [prompt.generate(server.client) for prompt in prompts]
    return answers


class Served:
    """A server under our worker with a planted proposer, and what its real draft drafted."""

    def __init__(self, shape: str, server: ServerProcess, drafted: Path):
        self.shape, self._server, self._drafted = shape, server, drafted

    def answers(self, asks: list[Ask], concurrency: int, **custom_params):
        """Answers in order; ``custom_params`` go to the double."""
        params = [ask.sampling(custom_params=custom_params) for ask in asks]
        return self.planned(asks, concurrency, params)

    def planned(self, asks, concurrency, params):
        return self._server.client.generate_many([ask.prompt for ask in asks], concurrency, params)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def client(self):
        return self._server.client

    def flush(self) -> None:
        self._server.client.flush_cache()

    def take_drafted(self) -> list[dict]:
        """What was recorded since the last call."""
        lines = self._drafted.read_text().splitlines() if self._drafted.exists() else []
        self._drafted.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module", params=SHAPES)
def served(request, family, pair, plain, logs, launch, tmp_path_factory) -> Served:
    folder = tmp_path_factory.mktemp("planted")
    planted, drafted = folder / "continuations.jsonl", folder / "drafted.jsonl"
    rows = ({"prompt": list(a.prompt), "output": list(g.token_ids)} for a, g in plain.items())
    planted.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = family.chain_flags if request.param == "chain" else family.tree_flags
    env = {
        "PYTHONPATH": path_to_doubles(),
        "SGLANG_DFLASH_PROPOSER": SHAPES[request.param],
        "SGLANG_DFLASH_PLANTED": str(planted),
        "SGLANG_DFLASH_DRAFTED": str(drafted),
    }
    if request.param == "tree":
        env["SGLANG_DFLASH_CPU_OVERLAP"] = "on"
    spec = ServerSpec(str(pair[0]), str(pair[1]), "dflash", exact=True).with_flags(*family.flags)
    spec = spec.with_flags("--chunked-prefill-size", family.chunk, *flags)
    with ServerProcess(spec.with_env(**family.env, **env), logs, launcher=launch) as server:
        yield Served(request.param, server, drafted)

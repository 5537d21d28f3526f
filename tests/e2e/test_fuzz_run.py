"""The small form of ``sglang-dflash fuzz``: chains, trees, shapes by chance and lookups, under overlap scheduling."""

import pytest

from sglang_dflash.tools.fuzz.features import FEATURES
from sglang_dflash.tools.fuzz.judge import Verdict
from sglang_dflash.tools.fuzz.run import FuzzOptions, fuzz_servers

OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
TREE = ("--speculative-eagle-topk", "3", "--speculative-num-draft-tokens", "24")


@pytest.mark.e2e
@pytest.mark.parametrize(("shape", "lookup"), [("fixed", "off"), ("random", "off"), ("random", "on")])
@pytest.mark.parametrize("tree", [False, True], ids=["chain", "tree"])
def test_mixed_requests_are_answered_as_plainly(servers, pair, tree, shape, lookup):
    options = FuzzOptions(
        pair.target,
        pair.draft,
        pair.heldout,
        requests=70,
        seed=5 + tree + 2 * (shape == "random") + 4 * (lookup == "on"),
        clients=12,
        longest=64,
        worker_flags=TREE if tree else (),
        environment=OVERLAP | {"SGLANG_DFLASH_SHAPE": shape, "SGLANG_DFLASH_LOOKUP": lookup},
        checks=False,  # a server with them takes half a minute to start
    )
    lines: list[str] = []
    running = {name: servers.get(spec) for name, spec in options.specs().items()}
    result = fuzz_servers(options, running, lines.append)
    assert not result.failed, "\n".join([*lines, *result.leaks, *(wrong.what for wrong in result.wrong)])
    assert set(result.by_feature) >= {feature.name for feature in FEATURES}
    assert result.verdicts[Verdict.SAME] > 50

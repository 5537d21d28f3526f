"""The small form of ``sglang-dflash fuzz``: chains and trees, under overlap scheduling."""

import pytest

from sglang_dflash.tools.fuzz.features import FEATURES
from sglang_dflash.tools.fuzz.judge import Verdict
from sglang_dflash.tools.fuzz.run import FuzzOptions, run_fuzz
from sglang_dflash.tools.pair import DRAFT_DIR, HELDOUT_DIR, TARGET_DIR

PAIR = (str(TARGET_DIR), str(DRAFT_DIR), HELDOUT_DIR)
OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("tree", [False, True], ids=["chain", "tree"])
def test_mixed_requests_are_answered_as_plainly(launch, tree):
    flags = ("--speculative-eagle-topk", "3", "--speculative-num-draft-tokens", "24") if tree else ()
    options = FuzzOptions(
        *PAIR, requests=160, seed=5 + tree, clients=12, longest=64, worker_flags=flags, environment=OVERLAP
    )
    lines: list[str] = []
    result = run_fuzz(options, lines.append, launch)
    assert not result.failed, "\n".join([*lines, *result.leaks, *(wrong.what for wrong in result.wrong)])
    assert set(result.by_feature) >= {feature.name for feature in FEATURES}
    assert result.verdicts[Verdict.SAME] > 80

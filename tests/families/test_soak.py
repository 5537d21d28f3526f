"""The small form of ``sglang-dflash soak``, on a hybrid target: KV slots, request slots and state slots at once."""

import pytest
from checkpoints import build_pair
from table import BY_NAME

from sglang_dflash.tools.pair import HELDOUT_DIR
from sglang_dflash.tools.soak.run import SoakOptions, run_soak
from sglang_dflash.tools.soak.traffic import SHARES

EXTRA = ("--page-size", "16", "--mamba-radix-cache-strategy", "extra_buffer", "--mamba-track-interval", "64")


@pytest.mark.e2e
def test_a_server_is_exact_and_empty_after_half_a_minute(launch, tmp_path):
    target, draft = map(str, build_pair(BY_NAME["qwen3.5"], tmp_path))
    # The stricter checks of the long form need a server of its own start: half a minute.
    options = SoakOptions(target, draft, HELDOUT_DIR, 0.4, 8, kv_tokens=384, longest=120, flags=EXTRA, environment={})
    lines = []
    outcome = run_soak(options, lines.append, launch)
    assert outcome.problems == []
    assert set(outcome.slots[0]) == {"KV", "states"}
    counts = outcome.traffic.counts
    assert all(counts[kind] for kind in SHARES) and counts["retractions"] > 0, lines

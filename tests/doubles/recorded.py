"""Test doubles of proposers for the architecture families: planted proposals, and a record of the real drafts.

As ``planted``; besides, a request with ``custom_params={"record": true}`` has what the real draft drafted in each
of its rounds appended to the file that ``SGLANG_DFLASH_DRAFTED`` names, as JSON lines {"prompt", "prefix", "drafted"}.
``RecordedTree`` serves a batch as chains while all of its requests ask for it: {"shape": "chain"}.
"""

import json
import os

import planted
from planted import PlantedChain, PlantedTree

from sglang_dflash.types import Drafted, Proposal


def _record(drafted: Drafted) -> None:
    batch, rows = planted.BATCH, drafted.tokens
    with open(os.environ["SGLANG_DFLASH_DRAFTED"], "a") as lines:
        for req, prefix, row in zip(batch.reqs, batch.seq_lens.tolist(), rows.tolist(), strict=True):
            if (req.sampling_params.custom_params or {}).get("record"):
                line = {"prompt": list(req.origin_input_ids), "prefix": prefix, "drafted": row[1:]}
                lines.write(json.dumps(line) + "\n")


class RecordedChain(PlantedChain):
    """Planted chains."""

    def __call__(self, drafted: Drafted) -> Proposal:
        _record(drafted)
        return super().__call__(drafted)


class RecordedTree(PlantedTree):
    """Planted trees, or planted chains where a whole batch asks for them."""

    def __init__(self, chain, device):
        super().__init__(chain, device)
        self._planted_chain = PlantedChain(chain, device)

    def __call__(self, drafted: Drafted) -> Proposal:
        _record(drafted)
        shapes = [(req.sampling_params.custom_params or {}).get("shape") for req in planted.BATCH.reqs]
        if all(shape == "chain" for shape in shapes):
            return self._planted_chain(drafted)
        return super().__call__(drafted)

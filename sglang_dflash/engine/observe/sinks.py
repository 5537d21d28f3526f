"""Who takes rounds beside Prometheus: a file of JSON lines, and the log at level debug."""

import json
import logging

from sglang_dflash.types import RoundRecord

logger = logging.getLogger(__name__)


class RoundFile:
    """Appends one JSON line a round.

    ``{"bs": 8, "round": 31.2, "stages": {"draft": 4.1, ...}, "shape": "chain-16", "correct_drafts": [3, 0, ...]}``,
    milliseconds; ``round`` is the time since the end of the round before, null for the first. A policy that chose the
    shape adds ``"expected_tokens"`` (of all requests) and ``"expected_ms"``.
    """

    def __init__(self, path: str):
        self._file = open(path, "a", buffering=1)

    def __call__(self, record: RoundRecord) -> None:
        """Write ``record``."""
        row = {
            "bs": record.requests,
            "round": None if record.period is None else round(record.period, 4),
            "stages": {name: round(ms, 4) for name, ms in record.stages.items()},
            "shape": record.shape.label,
            "correct_drafts": list(record.correct_drafts),
        }
        if record.expected is not None:
            tokens, ms = record.expected
            row |= {"expected_tokens": round(tokens, 2), "expected_ms": round(ms, 4)}
        self._file.write(json.dumps(row) + "\n")


def debugging() -> bool:
    """Whether the log wants a line a round."""
    return logger.isEnabledFor(logging.DEBUG)


class DebugLines:
    """One line of the log a round."""

    def __call__(self, record: RoundRecord) -> None:
        """Log ``record``."""
        stages = ", ".join(f"{name} {ms:.2f}" for name, ms in record.stages.items())
        counts = ", ".join(str(count) for count in record.correct_drafts)
        logger.debug(
            "sglang-dflash: round of %d requests, %s, correct drafts %s; ms: %s",
            record.requests,
            record.shape.label,
            counts or "none",
            stages,
        )

"""What one request gave back."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Arrival(NamedTuple):
    """One piece of a streamed answer."""

    at: float  # seconds, time.perf_counter
    tokens: int  # tokens of the answer up to here


class Generation(NamedTuple):
    """One finished request; times are seconds of ``time.perf_counter``."""

    token_ids: tuple[int, ...]
    text: str
    meta: Mapping[str, Any]  # SGLang's meta_info
    sent: float
    finished: float
    arrivals: tuple[Arrival, ...] = ()  # empty where the answer was not streamed

    @property
    def seconds(self) -> float:
        """Wall time from sending to the last byte."""
        return self.finished - self.sent

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds until the first token arrived, where streamed."""
        return self.arrivals[0].at - self.sent if self.arrivals else None

    @property
    def inter_token_seconds(self) -> float | None:
        """Mean seconds per token after the first arrival, where streamed and long enough to tell."""
        if not self.arrivals:
            return None
        first, last = self.arrivals[0], self.arrivals[-1]
        tokens = last.tokens - first.tokens
        return (last.at - first.at) / tokens if tokens else None

    @property
    def rounds(self) -> int:
        """Verify passes this request took part in; 0 under plain decoding."""
        return int(self.meta.get("spec_verify_ct") or 0)

    @property
    def accept_length(self) -> float | None:
        """Mean commit length per round; None under plain decoding."""
        value = self.meta.get("spec_accept_length")
        return None if value is None else float(value)

    @property
    def correct_drafts_histogram(self) -> tuple[int, ...]:
        """How many rounds kept 0, 1, 2, ... draft tokens."""
        return tuple(self.meta.get("spec_correct_drafts_histogram") or ())

    @property
    def finish_reason(self) -> str:
        """``stop``, ``length`` or ``abort``."""
        return (self.meta.get("finish_reason") or {}).get("type", "")

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the radix cache."""
        return int(self.meta.get("cached_tokens") or 0)

    @property
    def log_probs(self) -> tuple[float, ...]:
        """Log-probability of every produced token, where asked for."""
        return tuple(row[0] for row in self.meta.get("output_token_logprobs") or ())

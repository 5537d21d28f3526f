"""Rounds and refusals for Prometheus, beside SGLang's own metrics.

SGLang's processes write samples into files of one folder, ``PROMETHEUS_MULTIPROC_DIR``, and its HTTP server reads
them all: what is counted here appears at ``/metrics`` as well. The library chooses that form when it is first imported,
so it is imported when the scheduler has begun.
"""

from typing import NamedTuple

from sglang_dflash.types import RoundRecord

PREFIX = "sglang_dflash:"
# Tokens that one request emits in one round.
ACCEPT_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32)


class Metric(NamedTuple):
    """One exported metric; all have the label ``model_name``, too."""

    name: str
    kind: str  # counter or histogram
    labels: tuple[str, ...]
    meaning: str


METRICS = (
    Metric(
        "rounds_total", "counter", ("shape",), "decode rounds, by what was verified: `chain-16`, `tree-24`, `plain`"
    ),
    Metric("request_rounds_total", "counter", (), "rounds of requests: a round of 8 requests counts 8"),
    Metric("verified_tokens_total", "counter", (), "nodes that the target verified, anchors included"),
    Metric("drafted_tokens_total", "counter", (), "drafted tokens among them"),
    Metric("correct_drafts_total", "counter", (), "drafted tokens that were kept"),
    Metric("correct_drafts_by_position_total", "counter", ("position",), "drafted tokens kept at a position, 1 first"),
    Metric("accept_length", "histogram", (), "tokens that a request emitted in a round, the target's own included"),
    Metric("stage_seconds_total", "counter", ("stage",), "time in a stage of the round"),
    Metric("refused_requests_total", "counter", ("kind",), "requests that were refused, by what they asked for"),
)


def build_metric(name: str):
    """The library's object for the metric ``name``."""
    from prometheus_client import Counter, Histogram

    metric = next(metric for metric in METRICS if metric.name == name)
    labels = ("model_name", *metric.labels)
    if metric.kind == "histogram":
        return Histogram(PREFIX + name, metric.meaning, labels, buckets=ACCEPT_LENGTHS)
    return Counter(PREFIX + name, metric.meaning, labels)


class RoundMetrics:
    """Takes rounds."""

    def __init__(self, model_name: str):
        self._model_name = model_name
        self._metrics = {m.name: build_metric(m.name) for m in METRICS if m.name != "refused_requests_total"}
        self._children: dict[tuple[str, ...], object] = {}

    def _of(self, name: str, *labels: str):
        key = (name, *labels)
        if key not in self._children:
            self._children[key] = self._metrics[name].labels(self._model_name, *labels)
        return self._children[key]

    def __call__(self, record: RoundRecord) -> None:
        """Count ``record``."""
        counts, width = record.correct_drafts, record.shape.width
        self._of("rounds_total", record.shape.label).inc()
        self._of("request_rounds_total").inc(len(counts))
        self._of("verified_tokens_total").inc(len(counts) * width)
        self._of("drafted_tokens_total").inc(len(counts) * (width - 1))
        self._of("correct_drafts_total").inc(sum(counts))
        for position in range(1, max(counts, default=0) + 1):
            reached = sum(count >= position for count in counts)
            self._of("correct_drafts_by_position_total", str(position)).inc(reached)
        for count in counts:
            self._of("accept_length").observe(count + 1)
        for name, ms in record.stages.items():
            self._of("stage_seconds_total", name).inc(ms / 1e3)


class RefusalMetrics:
    """Takes the kinds of refused requests."""

    def __init__(self, model_name: str):
        self._model_name, self._metric = model_name, build_metric("refused_requests_total")

    def __call__(self, kind: str) -> None:
        """Count one."""
        self._metric.labels(self._model_name, kind).inc()


def table() -> str:
    """``METRICS`` as a markdown table; docs/metrics.md holds it, and a test compares."""
    rows = ["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(rows)

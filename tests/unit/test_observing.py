"""One value a round, who takes it, and what the dashboard asks for."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prometheus_client import REGISTRY

from sglang_dflash.engine.observe import metrics
from sglang_dflash.engine.observe.rounds import NoObserver, Observer, build_observer
from sglang_dflash.engine.observe.sinks import DebugLines
from sglang_dflash.engine.timing import EventTimer, HostTimer, SynchronisedTimer, build_timer
from sglang_dflash.types import RoundRecord, Shape

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
CHAIN = Shape.chain(4)


def request(finished=False, retracted=False) -> SimpleNamespace:
    return SimpleNamespace(finished=lambda: finished, is_retracted=retracted)


def run_round(observer, reqs, shape=CHAIN) -> None:
    for name in ("draft", "verify", "draft"):
        with observer.stage(name):
            pass
    observer.finish_round(reqs, shape)


def test_a_round_is_seen_when_its_tokens_are_on_the_host():
    seen: list[RoundRecord] = []
    observer = Observer(HostTimer(), [seen.append])
    first = [request(), request()]
    run_round(observer, first)
    first.pop()  # SGLang filters its batch in place
    run_round(observer, [request(finished=True), request(), request(retracted=True)], Shape.plain())
    assert seen == []
    observer.complete([3, 0])
    observer.complete([1, 0, 2])
    assert [(one.requests, one.shape, one.correct_drafts) for one in seen] == [
        (2, CHAIN, (3, 0)),
        (3, Shape.plain(), (0,)),
    ]
    for record in seen:
        assert list(record.stages) == ["draft", "verify"] and all(ms >= 0 for ms in record.stages.values())
    assert seen[0].period is None and seen[1].period >= sum(seen[1].stages.values()) - 1e-3


def test_rounds_are_written_as_json_lines(tmp_path):
    path = tmp_path / "timings.jsonl"
    observer = build_observer(CPU, 0, str(path), None)
    for counts in ([3, 0, 1], [2]):
        run_round(observer, [request() for _ in counts])
        observer.complete(counts)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["bs"], row["shape"], row["correct_drafts"]) for row in rows] == [
        (3, "chain-4", [3, 0, 1]),
        (1, "chain-4", [2]),
    ]
    assert rows[0]["round"] is None and rows[1]["round"] >= 0
    assert list(rows[0]["stages"]) == ["draft", "verify"]


def test_nobody_observes_unless_somebody_takes_rounds(tmp_path):
    path = str(tmp_path / "timings.jsonl")
    for none in (build_observer(CPU, 0, "", None), build_observer(CPU, 1, path, print)):
        assert type(none) is NoObserver
        assert none.stage("draft") is none.stage("verify")
        none.finish_round([], CHAIN)
        none.complete([])
    assert type(build_observer(CPU, 0, None, print)) is Observer


def test_timers_are_chosen_by_device():
    assert type(build_timer(CPU, exact=True)) is type(build_timer(CPU, exact=False)) is HostTimer
    cuda = torch.device("cuda")
    assert type(build_timer(cuda, exact=True)) is SynchronisedTimer
    assert type(build_timer(cuda, exact=False)) is EventTimer


def test_events_are_read_only_when_the_round_is_over():
    clock, reads = iter(range(100)), []

    class Event:
        def record(self):
            self.at = next(clock)

        def elapsed_time(self, end):
            reads.append(self)
            return end.at - self.at

    timer = EventTimer(Event)
    run = Observer(timer, [])
    run_round(run, [request()])
    with timer.stage("draft"):  # of the next round, before the first is read
        pass
    assert reads == []
    run.complete([0])
    times = timer.finish_round()()
    assert len(reads) == 4 and times.stages == {"draft": 1}


def test_a_debugging_log_has_a_line_a_round(caplog):
    with caplog.at_level(logging.DEBUG, logger="sglang_dflash.engine.observe.sinks"):
        observer = build_observer(CPU, 0, None, None)
        run_round(observer, [request(), request()])
        observer.complete([3, 0])
    assert re.search(r"round of 2 requests, chain-4, correct drafts 3, 0; ms: draft \d", caplog.text)
    assert isinstance(observer._sinks[0], DebugLines)


@pytest.fixture
def registry():
    before = set(REGISTRY._collector_to_names)
    yield lambda name, **labels: REGISTRY.get_sample_value(f"sglang_dflash:{name}", {"model_name": "m", **labels})
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


def test_rounds_and_refusals_are_counted(registry):
    take, refuse = metrics.RoundMetrics("m"), metrics.RefusalMetrics("m")
    take(RoundRecord(3, CHAIN, (3, 0), {"draft": 4.0}, None))
    take(RoundRecord(1, Shape.plain(), (0,), {"draft": 1.0}, 2.0))
    refuse("beam search")
    counted = {
        name: registry(name)
        for name in ("request_rounds_total", "verified_tokens_total", "drafted_tokens_total", "correct_drafts_total")
    }
    assert list(counted.values()) == [3, 9, 6, 3]
    assert [registry("rounds_total", shape=shape) for shape in ("chain-4", "plain", "tree-4")] == [1, 1, None]
    positions = [registry("correct_drafts_by_position_total", position=str(position)) for position in (1, 3, 4)]
    assert positions == [1, 1, None]
    assert [registry("accept_length_bucket", le=le) for le in ("1.0", "3.0", "4.0", "+Inf")] == [2, 2, 3, 3]
    assert registry("accept_length_sum") == 6
    assert registry("stage_seconds_total", stage="draft") == pytest.approx(0.005)
    assert registry("refused_requests_total", kind="beam search") == 1


def test_the_page_lists_every_metric():
    assert metrics.table() in (ROOT / "docs/metrics.md").read_text(), f"docs/metrics.md needs:\n{metrics.table()}"


def test_the_dashboard_asks_for_exported_metrics_only():
    from sglang.srt.observability import metrics_collector

    text = (ROOT / "dashboards/sglang-dflash.json").read_text()
    panels = json.loads(text)["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(asked) >= len(panels) == len({panel["id"] for panel in panels})
    ours, sglangs = set(), set()
    for expr in asked:
        assert expr.count("(") == expr.count(")") and "model_name" in expr
        ours |= set(re.findall(r"sglang_dflash:(\w+)", expr))
        sglangs |= set(re.findall(r"sglang:\w+", expr))
    exported = {m.name for m in metrics.METRICS}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in ours} == exported
    source = Path(metrics_collector.__file__).read_text()
    assert sglangs and all(f'"{name}"' in source for name in sglangs)

"""Figures of the benchmark, from made-up turns."""

import io
import json

import pytest
from rich.console import Console

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.arguments import json_object
from sglang_dflash.tools.bench import equality, prompts, provenance, report, stages, summary, systems
from sglang_dflash.tools.bench.measure import Plan, Turn, slices
from sglang_dflash.tools.bench.plot import save_plot
from sglang_dflash.tools.bench.prompts import Prompt
from sglang_dflash.tools.bench.run import BenchOptions
from sglang_dflash.tools.serve.generation import Arrival, Generation

PROMPTS = [Prompt("a-0", "add", (7, 8), {}), Prompt("b-0", "py", (9,), {})]


def answer(tokens, histogram=(), arrivals=()):
    meta = {"spec_correct_drafts_histogram": list(histogram), "spec_verify_ct": sum(histogram)}
    return Generation(tuple(tokens), "", meta, 0.0, 1.0, tuple(Arrival(*pair) for pair in arrivals))


def turn(system, seconds, answers, concurrency=1, streamed=False, rounds=()):
    return Turn(system, concurrency, 0, streamed, seconds, seconds / 2, answers, list(rounds))


class Judge:
    """Answers with fixed log-probabilities, and remembers what it was asked."""

    def __init__(self, *log_probs):
        self.log_probs = log_probs
        self.asked = []

    def generate(self, prefix, sampling, **fields):
        self.asked.append((tuple(prefix), tuple(fields["token_ids_logprob"])))
        rows = [[value, token, None] for value, token in zip(self.log_probs, fields["token_ids_logprob"], strict=True)]
        return Generation((), "", {"output_token_ids_logprobs": [rows]}, 0, 0)


class TestAcceptance:
    def test_over_all_rounds(self):
        found = summary.acceptance([answer([], [1, 0, 1]), answer([], [0, 0, 0, 2])])
        assert found.rounds == 4
        assert found.accept_length == 1 + (0 + 2 + 3 + 3) / 4
        assert found.by_position == (3 / 4, 3 / 4, 2 / 4)

    def test_plain_has_none(self):
        assert summary.acceptance([answer([1, 2])]) == (0, None, ())


class TestSummary:
    def turns(self):
        slow = [turn("plain", s, [answer([1, 2, 3, 4])]) for s in (2.0, 4.0, 8.0)]
        fast = [turn("dflash", s, [answer([1, 2, 3, 4], [0, 1])]) for s in (1.0, 1.0, 4.0)]
        streamed = turn("plain", 1.0, [answer([1, 2, 3], (), [(0.5, 1), (0.7, 2), (1.1, 3)])], streamed=True)
        return [*slow, *fast, streamed]

    def test_medians_and_their_ratio(self):
        cells = summary.summarise(self.turns())
        assert [(cell.system, cell.tokens_per_second) for cell in cells] == [("plain", 1.0), ("dflash", 4.0)]
        assert summary.speedup(cells, "dflash", "plain", 1) == 4.0
        assert summary.speedup(cells, "dflash", "plain", 1, "tokens_per_cpu_second") == 4.0
        assert summary.speedup(cells, "dflash", "builtin", 1) is None

    def test_streamed_times(self):
        cell = summary.summarise(self.turns())[0]
        assert cell.first_token_ms == pytest.approx(500)
        assert cell.inter_token_ms == pytest.approx(300)
        assert cell.round_ms == pytest.approx(300)
        assert summary.summarise(self.turns())[1].first_token_ms is None


class TestEquality:
    def test_same(self):
        turns = [turn(name, 1, [answer([1, 2]), answer([3])]) for name in ("plain", "dflash")]
        assert equality.compare(turns, PROMPTS, None) == (4, [], equality.TIE)

    @pytest.mark.parametrize("gap, tie", [(5e-5, True), (2e-4, False)])
    def test_the_judge_decides_ties(self, gap, tie):
        turns = [
            turn("dflash", 1, [answer([1, 5]), answer([3])]),
            turn("plain", 1, [answer([1, 2]), answer([3])]),
        ]
        judge = Judge(-1.0, -1.0 - gap)
        found = equality.compare(turns, PROMPTS, judge)
        assert judge.asked == [((7, 8, 1), (2, 5))]
        (difference,) = found.differences
        assert (difference.prompt, difference.system, difference.position) == ("a-0", "dflash", 1)
        assert difference.tie is tie and bool(found.wrong) is not tie

    def test_two_neighbouring_logits_are_a_tie_in_bfloat16(self):
        turns = [turn("plain", 1, [answer([1, 2])]), turn("dflash", 1, [answer([1, 5])])]
        for gap, tie in ((0.2, True), (0.3, False)):
            found = equality.compare(turns, PROMPTS[:1], Judge(-1.0, -1.0 - gap), equality.HALF_TIE)
            assert found.differences[0].tie is tie
            assert ("under 0.25 nats" in report.equality_line(found)) is tie

    def test_a_short_answer_is_no_tie(self):
        turns = [turn("plain", 1, [answer([1, 2]), answer([3])]), turn("dflash", 1, [answer([1]), answer([3])])]
        found = equality.compare(turns, PROMPTS, Judge(-1.0, -1.0))
        assert found.wrong and found.wrong[0].given is None


class TestReport:
    def test_no_ratio_where_outputs_differ(self, tmp_path):
        turns = [turn("plain", 1, [answer([1, 2])]), turn("dflash", 0.5, [answer([1, 5], [0, 1])])]
        cells, out = summary.summarise(turns), io.StringIO()
        usage = {name: {"peak_bytes": 10**9, "gpu_bytes": None} for name in ("plain", "dflash")}
        console = Console(file=out, width=200)
        report.print_report(console, cells, equality.compare(turns, PROMPTS[:1], Judge(-1.0, -3.0)), usage)
        assert "2.00x" not in out.getvalue() and "no ratio" in out.getvalue() and "DIFFERENT" in out.getvalue()
        report.print_report(console, cells, equality.Comparison(2, []), usage)
        assert "2.00x" in out.getvalue()
        save_plot(cells, tmp_path / "plot.png", "title")
        assert (tmp_path / "plot.png").stat().st_size > 1000

    def test_a_wrong_system_takes_no_other_with_it(self):
        tokens = {"plain": [1, 2], "builtin": [1, 9], "dflash": [1, 2]}
        turns = [turn(name, 1, [answer(ids)]) for name, ids in tokens.items()]
        found = equality.compare(turns, PROMPTS[:1], None)
        assert found.wrong_systems == {"builtin"} and "of built-in differ" in report.equality_line(found)
        rows = report.ratios(summary.summarise(turns), found.wrong_systems)
        assert [(row["system"], row["over"]) for row in rows] == [("dflash", "plain")]

    def test_drawn_answers_are_not_compared(self):
        assert "drawn" in report.equality_line(equality.Comparison(0, []))
        given = {name: None for name in BenchOptions.__dataclass_fields__} | {
            "systems": ("plain",), "concurrencies": (1,), "max_tokens": 9, "sampling": {}
        }  # fmt: skip
        assert not BenchOptions(**given).draws
        drawn = BenchOptions(**given | {"sampling": {"temperature": 1, "top_p": 0.9}})
        assert drawn.draws and drawn.request == {"temperature": 1, "max_new_tokens": 9, "top_p": 0.9}
        with pytest.raises(DFlashError, match="sampling"):
            BenchOptions(**given | {"systems": ("plain", "transformers"), "sampling": {"temperature": 1}})
        for text in ("[1]", "temperature=1"):
            with pytest.raises(DFlashError, match="sampling"):
                json_object("sampling", text)

    def test_ratios_of_what_was_measured(self):
        cells = summary.summarise([turn("plain", 2, [answer([1])]), turn("builtin", 1, [answer([1])])])
        assert report.ratios(cells) == [
            {"system": "builtin", "over": "plain", "concurrency": 1, "speedup": 2.0, "speedup_per_cpu_second": 2.0}
        ]


class TestStages:
    def test_reads_what_was_written_since(self, tmp_path):
        log = stages.StageLog(tmp_path / "rounds.jsonl")
        assert log.mark() == 0 and log.since(0) == []
        old = {"bs": 1, "round": None, "stages": {"draft": 9.0}}
        new = [{"bs": 1, "round": r, "stages": {"draft": d, "verify": 2.0}} for r, d in ((6, 1), (8, 3), (9, 2))]
        log.path.write_text(json.dumps(old) + "\n")
        mark = log.mark()
        with log.path.open("a") as file:
            file.write("".join(json.dumps(entry) + "\n" for entry in new) + '{"bs": 1, "rou')
        assert log.since(mark) == new
        medians = stages.stage_medians(log.since(mark))
        assert medians == {"draft": 2, "verify": 2.0, "round": 8, "outside": 3.0}
        assert stages.stage_medians([]) == {}


class TestSystems:
    def test_variants_of_ours_are_our_worker_with_other_shapes(self, tmp_path):
        specs = systems.build_specs(("plain", "block-4", "adaptive", "one-node"), "t", "d", (), None, tmp_path / "x")
        assert [spec.worker for spec in specs.values()] == ["plain", "dflash", "dflash", "dflash"]
        assert specs["block-4"].flags[-2:] == ("--speculative-num-draft-tokens", "4")
        assert dict(specs["adaptive"].env)["SGLANG_DFLASH_SHAPE"] == "adaptive"
        assert all("SGLANG_DFLASH_TIMINGS" in dict(specs[name].env) for name in systems.VARIANTS if name in specs)
        assert systems.LABELS["block-16"] == "ours, blocks of 16"
        assert systems.fitting(("plain", "adaptive"), 10**12) == ("plain", "adaptive")

    def test_alike_but_for_the_worker(self, tmp_path):
        specs = systems.build_specs(("plain", "builtin", "dflash"), "t", "d", ("--page-size", "4"), 8, tmp_path / "x")
        assert specs["plain"].draft is None and specs["plain"].flags == ("--page-size", "4")
        assert specs["builtin"].flags == specs["dflash"].flags == ("--page-size", "4", *specs["dflash"].flags[2:])
        assert "--speculative-num-draft-tokens" in specs["dflash"].flags
        assert dict(specs["dflash"].env) == {"SGLANG_DFLASH_TIMINGS": str(tmp_path / "x")}
        assert not any(spec.exact for spec in specs.values())
        assert all(spec.exact for spec in systems.build_specs(("plain", "dflash"), "t", "d", exact=True).values())

    def test_the_pool_has_room_for_what_is_in_flight_twice(self, monkeypatch):
        monkeypatch.setattr(systems, "accelerator_present", lambda: False)
        asked = [Prompt(f"p{n}", "k", (1,) * n, {}) for n in (5, 100, 10)]
        assert systems.pool_flags(asked, 2, 36) == ("--max-total-tokens", str(2 * (110 + 2 * 100)))
        assert systems.pool_flags(asked, 1, 40000) == ("--max-total-tokens", "65536")
        assert systems.pool_flags(asked, 1, 80000) == ("--max-total-tokens", str(80164))
        monkeypatch.setattr(systems, "accelerator_present", lambda: True)
        assert systems.pool_flags(asked, 2, 36) == ()

    def test_the_built_in_worker_gives_way(self):
        every, room = ("plain", "builtin", "dflash"), 3 * systems.SERVER_BYTES
        assert systems.fitting(every, room) == every
        assert systems.fitting(every, room - 1) == systems.fitting(every, 0) == ("plain", "dflash")
        assert systems.fitting(("dflash", "builtin"), 0) == ("builtin", "dflash")


class TestPlan:
    def test_concurrencies_alternate(self):
        assert list(Plan((1, 4), 2, 1).turns()) == [
            (1, 0, False),
            (1, 0, True),
            (4, 0, False),
            (4, 0, True),
            (1, 1, False),
            (4, 1, False),
        ]


class TestPrompts:
    def test_kinds_take_turns(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            prompts, "renderer", lambda target: lambda messages: tuple(map(ord, messages[-1]["content"]))
        )
        for kind, count in (("a", 3), ("b", 1)):
            asked = [[{"role": "user", "content": f"{i}"}] for i in range(count)]
            rows = [
                {"id": f"{kind}-{i}", "kind": kind, "messages": messages, "answer": "x" * i}
                for i, messages in enumerate(asked)
            ]
            (tmp_path / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        loaded = prompts.load_prompts("t", tmp_path, per_kind=2)
        assert [prompt.id for prompt in loaded] == ["a-0", "b-0", "a-1"]
        longest = prompts.load_prompts("t", tmp_path, ["a"], per_kind=2, longest=True)
        assert [prompt.id for prompt in longest] == ["a-2", "a-1"]
        assert loaded[0].token_ids == (48,) and loaded[0].question == "0"
        assert [p.id for p in prompts.load_prompts("t", tmp_path / "b.jsonl")] == ["b-0"]
        with pytest.raises(DFlashError, match="kinds"):
            prompts.load_prompts("t", tmp_path, ["c"])
        with pytest.raises(DFlashError, match="prompts"):
            prompts.load_prompts("t", tmp_path / "nowhere")


class TestProvenance:
    def test_names_versions_and_machine(self):
        found = provenance.provenance()
        assert found["versions"]["sglang"] and found["machine"]["cores"] >= 1 and found["argv"]
        json.dumps(found)


class TestSlices:
    def test_all_prompts_in_order(self):
        for count in range(1, 70):
            parts = list(slices(list(range(count)), 16))
            assert [prompt for part in parts for prompt in part] == list(range(count))
            assert all(len(part) >= min(16, count) for part in parts) and max(map(len, parts)) < 32

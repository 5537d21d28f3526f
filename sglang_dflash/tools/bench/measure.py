"""Runs the same batch on every system, slice by slice in turn, one system at a time."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sglang_dflash.tools.bench.hub import HubSystem
from sglang_dflash.tools.bench.prompts import Prompt
from sglang_dflash.tools.bench.stages import StageLog
from sglang_dflash.tools.bench.systems import OURS
from sglang_dflash.tools.serve import Generation, ServerProcess

SLICE = 4  # prompts of a slice, per request in flight: few enough that a slow second hits every system
WARM_TOKENS = 32  # of an answer before the first turn
System = ServerProcess | HubSystem


class Turn(NamedTuple):
    """One system's go at one batch: which, under what, and what came out."""

    system: str
    concurrency: int
    repeat: int
    streamed: bool
    seconds: float
    cpu_seconds: float  # of the scheduler process: what the work costs, however busy the machine is
    answers: list[Generation]  # in the order of the prompts
    rounds: list[dict]  # stage timings of our worker, empty for others

    @property
    def tokens(self) -> int:
        """Tokens produced."""
        return sum(len(answer.token_ids) for answer in self.answers)

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch, prompts included."""
        return self.tokens / self.seconds


class Plan(NamedTuple):
    """How much is measured."""

    concurrencies: tuple[int, ...]
    repeats: int  # counted, whole answers: tokens per second
    streamed: int  # counted, streamed answers: time to first token, inter-token latency

    def turns(self) -> Iterator[tuple[int, int, bool]]:
        """``(concurrency, repeat, streamed)``; concurrencies alternate so that a slow minute hits all of them."""
        for repeat in range(max(self.repeats, self.streamed)):
            for concurrency in self.concurrencies:
                if repeat < self.repeats:
                    yield concurrency, repeat, False
                if repeat < self.streamed:
                    yield concurrency, repeat, True


def take_turn(
    server: System, prompts: Sequence[Prompt], concurrency: int, sampling: Mapping, streamed: bool = False
) -> tuple[float, float, list[Generation]]:
    """Wall seconds, scheduler's processor seconds and answers of one batch, from an empty radix cache."""
    server.client.flush_cache()
    ids = [prompt.token_ids for prompt in prompts]
    worked, start = server.cpu_seconds(only_schedulers=True), time.perf_counter()
    answers = server.watched(lambda: server.client.generate_many(ids, concurrency, sampling, streamed))
    seconds = time.perf_counter() - start
    return seconds, server.cpu_seconds(only_schedulers=True) - worked, answers


def measure(
    servers: Mapping[str, System],
    prompts: Sequence[Prompt],
    plan: Plan,
    sampling: Mapping,
    stage_log: StageLog,
    progress: Callable[[int, int], None],
) -> list[Turn]:
    """Every turn of the plan. The systems' order rotates, so that none is always first; warm-up is not kept.

    Args:
        sampling: parameters of every request, ``max_new_tokens`` among them.
        progress: called with the batches done and their number.
    """
    warmings = [(server, concurrency) for server in servers.values() for concurrency in {1, max(plan.concurrencies)}]
    schedule = [(*turn, list(slices(prompts, SLICE * turn[0]))) for turn in plan.turns()]
    total = len(warmings) + sum(
        len(parts) * sum(server.streams or not streamed for server in servers.values())
        for _, _, streamed, parts in schedule
    )
    done = itertools.count(1)
    short = {**sampling, "max_new_tokens": min(sampling["max_new_tokens"], WARM_TOKENS)}
    for server, concurrency in warmings:
        take_turn(server, prompts[: 2 * concurrency], concurrency, short)
        progress(next(done), total)
    turns, order = [], deque(servers)
    for concurrency, repeat, streamed, parts in schedule:
        pieces = {name: [] for name, server in servers.items() if server.streams or not streamed}
        for part in parts:
            order.rotate()
            for name in (name for name in order if name in pieces):
                mark = stage_log.mark()
                taken = take_turn(servers[name], part, concurrency, sampling, streamed)
                pieces[name].append((*taken, stage_log.since(mark) if name in OURS else []))
                progress(next(done), total)
        turns += [_joined(name, concurrency, repeat, streamed, taken) for name, taken in pieces.items()]
    return turns


def slices(prompts: Sequence[Prompt], size: int) -> Iterator[Sequence[Prompt]]:
    """Consecutive parts of about ``size`` prompts, none shorter than ``size`` where there are as many."""
    count = max(1, len(prompts) // size)
    edges = [len(prompts) * number // count for number in range(count + 1)]
    return (prompts[first:last] for first, last in itertools.pairwise(edges))


def _joined(name: str, concurrency: int, repeat: int, streamed: bool, pieces: list[tuple]) -> Turn:
    seconds, cpu_seconds, answers, rounds = zip(*pieces, strict=True)
    return Turn(
        name,
        concurrency,
        repeat,
        streamed,
        sum(seconds),
        sum(cpu_seconds),
        list(itertools.chain(*answers)),
        list(itertools.chain(*rounds)),
    )

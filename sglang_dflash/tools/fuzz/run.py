"""``sglang-dflash fuzz``: rounds of random requests, on a plain server and on another, until enough were compared."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sglang_dflash.tools.bench.prompts import load_prompts
from sglang_dflash.tools.fuzz.features import FEATURES, MALFORMED, Feature
from sglang_dflash.tools.fuzz.judge import Finding, Verdict, judge
from sglang_dflash.tools.fuzz.requests import BEST, Outcome, Request, draw_request, send
from sglang_dflash.tools.fuzz.shrink import shrink
from sglang_dflash.tools.serve import Client, ServerProcess, ServerSpec
from sglang_dflash.tools.serve.log import log_folder
from sglang_dflash.tools.serve.process import wait_all
from sglang_dflash.tools.soak.held import free_slots, lost_slots
from sglang_dflash.tools.soak.judge import varied

# Seeds mean something, hidden states and metrics are given, and the pools are checked while busy.
FLAGS = ("--enable-deterministic-inference", "--enable-return-hidden-states", "--enable-metrics")
# Under overlap scheduling plain decoding counts what it penalises a token late; this also overrules the environment.
PLAIN = ("--disable-overlap-schedule",)
CHECKS = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"}
PROMPTS, LONGEST_PROMPT = 60, 120
ROUND = 120  # requests between two looks at the server's slots
MOST_WRONG = 10  # after which a run ends


@dataclass(frozen=True)
class FuzzOptions:
    """Two servers, and how much is asked of them."""

    target: str
    draft: str
    prompts: Path  # folder of <kind>.jsonl files, which prompts are cut from
    requests: int = 1000
    seed: int = 1
    clients: int = 32  # the most in flight
    longest: int = 96  # tokens of an answer
    worker: str = "dflash"  # or builtin
    features: tuple[Feature, ...] = FEATURES
    flags: tuple[str, ...] = ()  # of both servers
    worker_flags: tuple[str, ...] = ()  # of the one under test
    environment: dict[str, str] = field(default_factory=dict)  # of the one under test
    checks: bool = True  # whether the one under test checks its pools while it is busy

    def specs(self) -> dict[str, ServerSpec]:
        """Plain, and the one under test."""
        plain = ServerSpec(self.target, None, "plain", exact=True).with_flags(*FLAGS, *PLAIN, *self.flags)
        other = ServerSpec(self.target, self.draft, self.worker, exact=True).with_flags(
            *FLAGS, *self.flags, *self.worker_flags
        )
        checks = CHECKS if self.checks else {}
        return {"plain": plain, "other": other.with_env(**checks, **self.environment)}


class Wrong:
    """One wrong answer, and the smallest round in which it comes again."""

    def __init__(self, what: str, requests: Sequence[Request], again: bool):
        self.what, self.requests, self.again = what, tuple(requests), again


class Result:
    """What a run counted: requests by verdict, and by feature and verdict."""

    def __init__(self):
        self.verdicts: Counter[Verdict] = Counter()
        self.by_feature: dict[str, Counter[Verdict]] = {}
        self.refusals: Counter[str] = Counter()
        self.wrong: list[Wrong] = []
        self.leaks: list[str] = []

    def add(self, request: Request, finding: Finding) -> None:
        """Count one comparison."""
        self.verdicts[finding.verdict] += 1
        for name in request.features or ("nothing more",):
            self.by_feature.setdefault(name, Counter())[finding.verdict] += 1
        if finding.verdict is Verdict.REFUSED:
            self.refusals[finding.what.partition(":")[2].strip()[:120]] += 1

    @property
    def requests(self) -> int:
        """Compared so far."""
        return sum(self.verdicts.values())

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.wrong or self.leaks)


class Pair:
    """The two servers, and rounds on both."""

    def __init__(self, plain: Client, other: Client):
        self.plain, self.other = plain, other

    def compare(self, requests: Sequence[Request], in_flight: int) -> list[Finding]:
        """Every request on both servers, ``in_flight`` at a time."""
        wanted = _send_all(self.plain, requests, in_flight, BEST)
        given = _send_all(self.other, requests, in_flight, {})
        return [judge(*row) for row in zip(requests, wanted, given, strict=True)]

    def fails(self, requests: Sequence[Request]) -> bool:
        """Whether the first goes wrong while all are in flight."""
        return self.compare(requests, len(requests))[0].verdict is Verdict.WRONG


def _send_all(client: Client, requests: Sequence[Request], in_flight: int, more: dict) -> list[Outcome]:
    with ThreadPoolExecutor(in_flight) as pool:
        return list(pool.map(lambda request: send(client, request, **more), requests))


def run_fuzz(options: FuzzOptions, say: Callable[[str], None] = print, launcher=None) -> Result:
    """Start both servers and fuzz; ``say`` gets lines of progress. ``launcher`` as for ``ServerProcess``."""
    with log_folder() as logs, ExitStack() as stack:
        servers = {name: ServerProcess(spec, logs, launcher=launcher) for name, spec in options.specs().items()}
        for server in servers.values():
            stack.callback(server.stop)
            server.start()
        wait_all(servers.values())
        return fuzz_servers(options, servers, say)


def fuzz_servers(options: FuzzOptions, servers: Mapping[str, ServerProcess], say: Callable[[str], None]) -> Result:
    """Fuzz the running servers of ``options.specs()``, by the same names."""
    prompts = [prompt.token_ids for prompt in load_prompts(options.target, options.prompts, per_kind=4)]
    prompts = varied(prompts, PROMPTS, LONGEST_PROMPT, options.seed)
    result, other = Result(), servers["other"]
    pair = Pair(servers["plain"].client, other.client)
    vocab_size = max(token for prompt in prompts for token in prompt) + 1
    before, began, number = free_slots(other, prompts[0]), time.monotonic(), 0
    while result.requests < options.requests and len(result.wrong) < MOST_WRONG and not result.leaks:
        rng = random.Random(f"{options.seed} {number}")
        number += 1
        count = min(ROUND, options.requests - result.requests)
        requests = [draw_request(rng, prompts, options.features, vocab_size, options.longest) for _ in range(count)]
        in_flight = rng.randint(1, options.clients)
        other.watched(partial(_round, pair, requests, in_flight, result, say))
        other.watched(partial(_malformed, pair, prompts[0], result))
        after = free_slots(other, prompts[0])
        result.leaks += lost_slots(before, after)
        say(
            f"  {result.requests} requests, {len(result.wrong)} wrong, {result.verdicts[Verdict.TIE]} ties, "
            f"{result.verdicts[Verdict.REFUSED]} refused, {result.requests / (time.monotonic() - began):.1f} a second"
        )
    return result


def _round(pair: Pair, requests: list[Request], in_flight: int, result: Result, say) -> None:
    for index, finding in enumerate(pair.compare(requests, in_flight)):
        result.add(requests[index], finding)
        if finding.verdict is not Verdict.WRONG or len(result.wrong) >= MOST_WRONG:
            continue
        say(f"wrong: {finding.what}\n  {requests[index].written()}")
        # Those that may have been in flight with it.
        near = requests[max(0, index - in_flight) : index] + requests[index + 1 : index + in_flight]
        again = pair.fails((requests[index], *near))
        small = shrink(requests[index], near, pair.fails) if again else (requests[index], *near)
        result.wrong.append(Wrong(finding.what, small, again))


def _malformed(pair: Pair, prompt, result: Result) -> None:
    """What is refused without DFLASH is refused with it, and ends nothing."""
    for what, sampling in MALFORMED:
        request = Request(tuple(prompt), {"temperature": 0.0, "max_new_tokens": 4, **sampling}, {}, ("malformed",))
        (finding,) = pair.compare([request], 1)
        result.add(request, finding)
        if finding.verdict is Verdict.WRONG:
            result.wrong.append(Wrong(f"{what}: {finding.what}", (request,), True))


def replay(options: FuzzOptions, requests: Sequence[Request], times: int, launcher=None) -> list[Finding]:
    """What the first request gives when all are in flight, ``times`` times."""
    with log_folder() as logs, ExitStack() as stack:
        servers = [ServerProcess(spec, logs, launcher=launcher) for spec in options.specs().values()]
        for server in servers:
            stack.callback(server.stop)
            server.start()
        wait_all(servers)
        pair = Pair(servers[0].client, servers[1].client)
        return [pair.compare(requests, len(requests))[0] for _ in range(times)]

"""``sglang-dflash soak``: mixed traffic on a server with a small KV pool, then: is it exact, empty, and no larger?"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sglang_dflash.tools.bench.prompts import load_prompts
from sglang_dflash.tools.serve import ServerProcess, ServerSpec
from sglang_dflash.tools.serve.log import log_folder
from sglang_dflash.tools.soak.held import Footprint, free_slots, growth, lost_slots
from sglang_dflash.tools.soak.judge import Question, ask_plainly, varied
from sglang_dflash.tools.soak.traffic import SHARES, Traffic

SAMPLE = 1.0  # seconds between two looks at the server's memory
NEWS = 60.0  # seconds between two lines of progress
# Growth of a process tree's resident memory from the middle of the time to its end.
GROWTH, GROWTH_BYTES = 0.03, 32 << 20
PROMPTS, LONGEST_PROMPT = 40, 120
# SGLang checks its pools while busy, too, and that no page has two owners.
CHECKS = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1", "SGLANG_CHECK_KV_PAGE_INVARIANTS": "1"}


@dataclass(frozen=True)
class SoakOptions:
    """A pair, how it is served, and for how long."""

    target: str
    draft: str
    prompts: Path  # folder of <kind>.jsonl files, which the soak's prompts are cut from
    minutes: float = 20.0
    clients: int = 12
    kv_tokens: int = 512  # too few for all clients' answers: requests are retracted
    longest: int = 160  # tokens of an answer
    flags: tuple[str, ...] = ()
    seed: int = 1
    environment: dict[str, str] = field(default_factory=lambda: dict(CHECKS))

    def spec(self, worker: str) -> ServerSpec:
        """The server of ``worker``."""
        draft = None if worker == "plain" else self.draft
        return ServerSpec(self.target, draft, worker, exact=True).with_flags(*self.flags)

    def soaked(self) -> ServerSpec:
        """Ours, with overlap scheduling, little memory, and an admission that trusts in short answers."""
        flags = ("--max-total-tokens", self.kv_tokens, "--max-running-requests", self.clients, "--enable-metrics")
        spec = self.spec("dflash").with_flags(*flags, "--schedule-conservativeness", 0.05)
        return spec.with_env(SGLANG_DFLASH_CPU_OVERLAP="on", **self.environment)


@dataclass
class Outcome:
    """What a soak found; ``problems`` is empty where all is well."""

    minutes: float
    traffic: Traffic
    slots: tuple[dict[str, int], dict[str, int]]  # free before and after, by pool
    footprints: list[Footprint]

    @property
    def problems(self) -> list[str]:
        """One line each."""
        problems = list(self.traffic.wrong)
        problems += lost_slots(*self.slots)
        rss, rss_after = growth(self.footprints)["rss"]
        if rss_after - rss > max(GROWTH * rss, GROWTH_BYTES):
            problems.append(f"memory grew from {rss / 2**20:.0f} to {rss_after / 2**20:.0f} MiB")
        return problems

    def summary(self) -> str:
        """One line."""
        counts, grown = self.traffic.counts, growth(self.footprints)
        kinds, wrong = ", ".join(f"{counts[kind]} {kind}" for kind in SHARES), len(self.traffic.wrong)
        (before, after), (rss, rss_after) = self.slots, grown["rss"]
        slots = ", ".join(f"free {name} {before[name]} -> {after.get(name)}" for name in before)
        return (
            f"soak: {self.minutes:.1f} min, {self.traffic.requests} requests ({kinds}), "
            f"{counts['checked']} answers checked, {wrong} wrong, {counts['ties']} ties, "
            f"{counts['retractions']} retractions; {slots}; RSS {rss / 2**20:.0f} -> {rss_after / 2**20:.0f} MiB, "
            f"files {grown['files'][0]:.0f} -> {grown['files'][1]:.0f}, "
            f"threads {grown['threads'][0]:.0f} -> {grown['threads'][1]:.0f}"
        )


def run_soak(options: SoakOptions, say: Callable[[str], None] = print, launcher=None) -> Outcome:
    """Soak a server; ``say`` gets a line a minute and the summary. ``launcher`` as for ``ServerProcess``."""
    with log_folder() as logs:
        questions = _questions(options, logs, launcher)
        with ServerProcess(options.soaked(), logs, launcher=launcher) as server:
            before = free_slots(server, questions[0].prompt)
            traffic = Traffic(server.client, questions, options.longest, options.clients, options.seed)
            traffic.start()
            footprints = _watch(server, traffic, options.minutes * 60, say)
            traffic.stop()
            after = free_slots(server, questions[0].prompt)
    outcome = Outcome(options.minutes, traffic, (before, after), footprints)
    for line in outcome.problems[:20]:
        say(f"problem: {line}")
    say(outcome.summary())
    return outcome


def _questions(options: SoakOptions, logs: Path, launcher) -> list[Question]:
    prompts = [prompt.token_ids for prompt in load_prompts(options.target, options.prompts, per_kind=4)]
    with ServerProcess(options.spec("plain"), logs, launcher=launcher) as server:
        return ask_plainly(
            server.client, varied(prompts, PROMPTS, LONGEST_PROMPT, options.seed), options.longest, options.clients
        )


def _watch(server: ServerProcess, traffic: Traffic, seconds: float, say) -> list[Footprint]:
    """Sample the server's footprint until the time is over, or it has died, or too much is wrong."""
    footprints, began, told = [], time.monotonic(), 0.0
    while (at := time.monotonic() - began) < seconds and len(traffic.wrong) < 20:
        footprints.append(Footprint.of(server, at))
        server.raise_if_dead()
        if at - told >= NEWS:
            told = at
            say(
                f"  {at / 60:.0f} min: {traffic.requests} requests, {traffic.counts['retractions']} retractions, "
                f"{len(traffic.wrong)} wrong, RSS {footprints[-1].rss / 2**20:.0f} MiB"
            )
        time.sleep(SAMPLE)
    return footprints

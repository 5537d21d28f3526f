"""Clients of a soak: requests that join, leave, are aborted, refused, or whose client hangs up."""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.serve.client import Client
from sglang_dflash.tools.soak.judge import Question, greedy

# How often a client does what.
SHARES = {"whole": 45, "streamed": 20, "hung up": 15, "aborted": 10, "sampled": 7, "refused": 3}
# Seconds for which a share of the clients is active; in the last all are quiet, and the server checks its pools.
TIDE = ((6.0, 1.0), (2.0, 0.3), (4.0, 1.0), (2.0, 0.1), (2.0, 0.0))


class Traffic:
    """``clients`` threads that ask ``questions`` until ``stop``; what went wrong is in ``wrong``, one line each."""

    def __init__(self, client: Client, questions: Sequence[Question], longest: int, clients: int, seed: int):
        self.counts: Counter[str] = Counter()  # requests by kind, answers "checked", "ties", "retractions"
        self.wrong: list[str] = []
        self._client, self._questions, self._longest, self._clients = client, questions, longest, clients
        self._lock, self._over = threading.Lock(), threading.Event()
        self._began = time.monotonic()
        self._threads = [
            threading.Thread(target=self._live, args=(number, random.Random(f"{seed} {number}")), daemon=True)
            for number in range(clients)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No more requests; returns once the last has ended."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def requests(self) -> int:
        """Requests sent so far."""
        return sum(self.counts[kind] for kind in SHARES)

    def _live(self, number: int, rng: random.Random) -> None:
        acts: dict[str, Callable[[random.Random, Question, int], None]] = {
            "whole": self._whole,
            "streamed": self._streamed,
            "hung up": self._hang_up,
            "aborted": self._aborted,
            "sampled": self._sampled,
            "refused": self._refused,
        }
        while not self._over.is_set():
            if number >= self._active():
                self._over.wait(0.1)
                continue
            (kind,) = rng.choices(list(SHARES), list(SHARES.values()))
            question = rng.choice(self._questions)
            # Short and long answers: the former leave soon, the latter fill the pool.
            tokens = int(self._longest ** rng.choice((rng.random(), 1.0)))
            with self._lock:
                self.counts[kind] += 1
            try:
                acts[kind](rng, question, tokens)
            except Exception as error:
                self._report(f"{kind}: {type(error).__name__}: {error}")
                if len(self.wrong) > 20:
                    return

    def _active(self) -> float:
        """How many clients may send now."""
        at = (time.monotonic() - self._began) % sum(seconds for seconds, _ in TIDE)
        for seconds, share in TIDE:
            if at < seconds:
                return share * self._clients
            at -= seconds
        return 0.0

    def _report(self, line: str) -> None:
        with self._lock:
            self.wrong.append(line)

    def _check(self, kind: str, question: Question, tokens: Sequence[int], wanted: int | None, meta) -> None:
        """``wanted``: how many tokens there must be; None where the request was cut short."""
        with self._lock:
            self.counts["checked"] += 1
            self.counts["retractions"] += meta.get("num_retractions") or 0
        at = question.parts_at(tokens)
        if at is not None and question.ties_at(at, tokens[at]):
            with self._lock:
                self.counts["ties"] += 1
        elif at is not None:
            self._report(f"{kind}: token {at} is {tokens[at]} instead of {question.answer[at]}")
        elif wanted is not None and len(tokens) != min(wanted, len(question.answer)):
            self._report(f"{kind}: {len(tokens)} tokens of {len(question.answer)}, {wanted} asked for")

    def _whole(self, rng, question: Question, tokens: int) -> None:
        answer = self._client.generate(question.prompt, greedy(tokens))
        self._check("whole", question, answer.token_ids, tokens, answer.meta)

    def _streamed(self, rng, question: Question, tokens: int) -> None:
        answer = self._client.generate(question.prompt, greedy(tokens), stream=True)
        self._check("streamed", question, answer.token_ids, tokens, answer.meta)

    def _hang_up(self, rng, question: Question, tokens: int) -> None:
        events = self._client.events(question.prompt, greedy(self._longest))
        received = list(itertools.islice(events, rng.randint(1, 8)))
        events.close()
        self._check("hung up", question, received[-1]["output_ids"], None, received[-1]["meta_info"])

    def _aborted(self, rng, question: Question, tokens: int) -> None:
        rid = f"soak-{rng.getrandbits(64):x}"
        timer = threading.Timer(rng.random() * 0.5, self._client.abort, (rid,))
        timer.start()
        answer = self._client.generate(question.prompt, greedy(self._longest), rid=rid)
        timer.join()
        self._check("aborted", question, answer.token_ids, None, answer.meta)

    def _sampled(self, rng, question: Question, tokens: int) -> None:
        sampling = greedy(tokens) | {"temperature": 1.5, "top_p": 0.9, "top_k": 40}
        answer = self._client.generate(question.prompt, sampling)
        if not 0 < len(answer.token_ids) <= tokens:
            self._report(f"sampled: {len(answer.token_ids)} tokens, {tokens} asked for")

    def _refused(self, rng, question: Question, tokens: int) -> None:
        try:
            self._client.generate(question.prompt, greedy(tokens) | {"temperature": -1.0})
        except DFlashError:
            return
        self._report("refused: a temperature below zero was served")

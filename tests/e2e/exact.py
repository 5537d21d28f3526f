"""Token-for-token comparison of a server's greedy answers with plain decoding's."""

from typing import NamedTuple

FAR = 1e-3  # two runs' numbers are equal below this, relative to those beyond 1: nats, or numbers of a hidden state
TIE = 1e-4  # nats: closer than this, two tokens are one choice to float32
ties_seen: list[str] = []  # of the whole session; conftest.py prints them last


class Ask(NamedTuple):
    """One greedy request."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    ignore_eos: bool = True
    custom_params: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def sampling(self, **more) -> dict:
        params = {
            "temperature": 0.0,
            "max_new_tokens": self.max_new_tokens,
            "ignore_eos": self.ignore_eos,
            **more,
        }
        if self.custom_params:
            params["custom_params"] = {name: list(values) for name, values in self.custom_params}
        return params


class PlainAnswers:
    """Plain decoding's answers, each computed once per session."""

    def __init__(self, servers):
        self._servers = servers
        self._answers: dict[tuple, tuple[int, ...]] = {}

    @property
    def client(self):
        """Client of the plain server, started again where it had to make room."""
        return self._servers.plain().client

    def of(self, asks: list[Ask], concurrency: int = 8) -> list[tuple[int, ...]]:
        keys = [ask[:3] for ask in asks]
        missing = [ask for ask, key in dict(zip(asks, keys, strict=True)).items() if key not in self._answers]
        if missing:
            params = [ask._replace(custom_params=()).sampling() for ask in missing]
            answers = self.client.generate_many([ask.prompt for ask in missing], concurrency, params)
            self._remember(missing, answers)
        return [self._answers[key] for key in keys]

    def _remember(self, missing, answers) -> None:
        self._answers.update((ask[:3], answer.token_ids) for ask, answer in zip(missing, answers, strict=True))


def assert_same(plain: PlainAnswers, asks: list[Ask], answers, concurrency: int = 8) -> int:
    """Every answer equals plain decoding's, but for ties, which are counted, printed and returned."""
    ties = 0
    for ask, want, got in zip(asks, plain.of(asks, concurrency), answers, strict=True):
        ties += assert_equal(plain.client, ask.prompt, want, got.token_ids, str(got.meta.get("finish_reason")))
    return ties


def assert_equal(client, prompt, want, got, about: str = "") -> bool:
    """``got`` is ``want``, tokens after ``prompt``, or True: they part at a tie, which is printed. client: plain's."""
    if want == got:
        return False
    at = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), None)
    assert at is not None, f"{len(got)} tokens instead of {len(want)} {about}"
    gap = _gap(client, prompt + want[:at], want[at], got[at])
    assert gap < TIE, f"token {at}: {got[at]} instead of {want[at]}, {gap:.2e} nats apart"
    ties_seen.append(f"tie at token {at}: {want[at]} and {got[at]}, {gap:.1e} nats apart")
    return True


def _gap(client, prompt, one: int, other: int) -> float:
    """Difference of two tokens' log-probabilities under plain decoding."""
    answer = client.generate(
        prompt,
        {"temperature": 0.0, "max_new_tokens": 1},
        return_logprob=True,
        token_ids_logprob=[one, other],
    )
    rows = answer.meta["output_token_ids_logprobs"][0]
    value = {token: log_prob for log_prob, token, _ in rows}
    return abs(value[one] - value[other])


def assert_close(want, got, where: str) -> None:
    """Nested lists: numbers to FAR, all else equal."""
    if isinstance(want, float) and isinstance(got, float):
        assert abs(want - got) < FAR * max(1.0, abs(want)), where
    elif isinstance(want, list):
        assert isinstance(got, list) and len(want) == len(got), f"{where}: {len(got)} instead of {len(want)}"
        for index, (one, other) in enumerate(zip(want, got, strict=True)):
            assert_close(one, other, f"{where}[{index}]")
    else:
        assert want == got, where

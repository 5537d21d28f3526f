"""HTTP client of one server; safe to use from many threads."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from httpx_sse import EventSource, connect_sse

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.serve.generation import Arrival, Generation

TIMEOUT = 600.0  # seconds a single request may take
GREEDY = {"temperature": 0.0}


class Client:
    """Talks to the server at ``url``."""

    def __init__(self, url: str, timeout: float = TIMEOUT):
        self.url = url
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0)
        # trust_env off: a proxy must not see requests to this machine.
        self._http = httpx.Client(base_url=url, timeout=timeout, limits=limits, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def generate(
        self,
        prompt: str | Sequence[int],
        sampling: Mapping[str, Any] | None = None,
        stream: bool = False,
        on_text: Callable[[str], None] | None = None,
        **fields: Any,
    ) -> Generation:
        """One completion of a text or of token ids, greedy unless ``sampling`` says otherwise.

        ``on_text`` gets the answer so far whenever a piece arrives and implies ``stream``. ``fields`` go into
        the request as they are (``return_logprob=True``, ``rid="a"`` ...).

        Raises:
            DFlashError: the server refused the request, with its reason.
        """
        body = self._body(prompt, GREEDY if sampling is None else sampling, fields)
        if stream or on_text is not None:
            return self._streamed(body, on_text)
        sent = time.perf_counter()
        reply = self._post("/generate", body)
        return generation_of(reply, sent, time.perf_counter(), ())

    def events(
        self, prompt: str | Sequence[int], sampling: Mapping[str, Any], **fields: Any
    ) -> Iterator[dict[str, Any]]:
        """Replies of one streamed completion as they arrive; closing the iterator hangs up."""
        yield from self._stream("/generate", self._body(prompt, sampling, fields) | {"stream": True})

    def generate_many(
        self, prompts: Sequence[str | Sequence[int]], concurrency: int, sampling=None, stream: bool = False, **fields
    ) -> list[Generation]:
        """Completions of all prompts in order, ``concurrency`` requests in flight at a time.

        ``sampling`` is one mapping for all prompts, or a sequence with one for each.
        """
        each = sampling if isinstance(sampling, list | tuple) else [sampling] * len(prompts)
        with ThreadPoolExecutor(concurrency) as pool:
            jobs = [
                pool.submit(self.generate, prompt, params, stream, **fields)
                for prompt, params in zip(prompts, each, strict=True)
            ]
            try:
                return [job.result() for job in jobs]
            except BaseException:
                # Ctrl-C must not wait for what has not been sent yet.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def chat(self, messages: Sequence[Mapping[str, str]], **fields: Any) -> dict[str, Any]:
        """One OpenAI chat completion; the parsed reply."""
        return self._post("/v1/chat/completions", {"model": "default", "messages": list(messages), **fields})

    def chat_pieces(self, messages: Sequence[Mapping[str, str]], **fields: Any) -> Iterator[str]:
        """The text of one OpenAI chat completion, piece by piece as it arrives."""
        body = {"model": "default", "messages": list(messages), "stream": True, **fields}
        for event in self._stream("/v1/chat/completions", body):
            for choice in event.get("choices") or ():
                yield choice["delta"].get("content") or ""

    def server_info(self) -> dict[str, Any]:
        """The server's resolved options and its live state."""
        return self._get("/server_info").json()

    def flush_cache(self, timeout: float = 10.0) -> None:
        """Empty the radix cache, waiting until running requests have ended."""
        reply = self._send("POST", "/flush_cache", params={"timeout": timeout})
        if reply.status_code != 200:
            raise DFlashError("server", f"did not flush its cache: {reply.text.strip()}", "wait for its requests")

    def load(self) -> dict[str, Any]:
        """What the first rank runs, waits for and holds, now."""
        return self._get("/v1/loads").json()["loads"][0]

    def metrics(self) -> dict[str, float]:
        """The last value of every gauge and counter of a server with ``--enable-metrics``, by name without labels."""
        lines = self._get("/metrics").text.splitlines()
        rows = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name.partition("{")[0]: float(value) for name, value in rows}

    def abort(self, rid: str) -> None:
        """Abort one request; nothing where it has ended."""
        self._post("/abort_request", {"rid": rid}, parse=False)

    def abort_all(self) -> None:
        """Abort every request."""
        self._post("/abort_request", {"abort_all": True}, parse=False)

    def ready(self) -> bool:
        """True once the server takes requests; a ``ServerProcess`` runs nothing on the model to answer this."""
        try:
            return self._http.get("/health", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    @staticmethod
    def _body(prompt, sampling: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        return {**prompt_field(prompt), "sampling_params": dict(sampling), **fields}

    def _get(self, path: str) -> httpx.Response:
        return self._checked(self._send("GET", path))

    def _post(self, path: str, body: Mapping[str, Any], parse: bool = True) -> Any:
        reply = self._checked(self._send("POST", path, json=body))
        return reply.json() if parse else None

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **arguments)
        except httpx.ConnectError:
            raise self._absent() from None

    def _stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            with connect_sse(self._http, "POST", path, json=body) as source:
                if source.response.status_code != 200:
                    source.response.read()
                    self._checked(source.response)
                yield from _events(source)
        except httpx.ConnectError:
            raise self._absent() from None

    def _absent(self) -> DFlashError:
        return DFlashError("server", f"nobody answers at {self.url}", "start it first: sglang-dflash serve")

    def _checked(self, reply: httpx.Response) -> httpx.Response:
        if reply.status_code != 200:
            raise DFlashError("request", f"refused with {reply.status_code}: {_reason(reply)}", "change the request")
        return reply

    def _streamed(self, body: dict[str, Any], on_text: Callable[[str], None] | None) -> Generation:
        last, arrivals = None, []
        sent = time.perf_counter()
        for event in self._stream("/generate", {**body, "stream": True}):
            last = event
            tokens = int(event["meta_info"].get("completion_tokens", 0))
            arrivals.append(Arrival(time.perf_counter(), tokens))
            if on_text is not None:
                on_text(event.get("text") or "")
        if last is None:
            raise DFlashError("request", "the server closed the stream without a token", "see its log")
        return generation_of(last, sent, time.perf_counter(), tuple(arrivals))


def prompt_field(prompt: str | Sequence[int]) -> dict[str, Any]:
    """``{"text": ...}`` or ``{"input_ids": ...}``."""
    return {"text": prompt} if isinstance(prompt, str) else {"input_ids": list(prompt)}


def _events(source: EventSource) -> Iterator[dict[str, Any]]:
    for message in source.iter_sse():
        if message.data == "[DONE]":
            return
        event = json.loads(message.data)
        if "error" in event:
            raise DFlashError("request", f"refused: {event['error'].get('message', event)}", "change the request")
        yield event


def generation_of(
    reply: Mapping[str, Any], sent: float = 0.0, finished: float = 0.0, arrivals: tuple[Arrival, ...] = ()
) -> Generation:
    """A reply as a value; DFlashError where it says that the request was refused."""
    meta = reply["meta_info"]
    reason = meta.get("finish_reason") or {}
    if reason.get("type") == "abort" and reason.get("status_code", 200) not in (None, 200):
        raise DFlashError("request", f"refused: {reason.get('message', 'aborted')}", "change the request")
    return Generation(tuple(reply["output_ids"]), reply.get("text") or "", meta, sent, finished, arrivals)


def _reason(reply: httpx.Response) -> str:
    try:
        parsed = reply.json()
    except ValueError:
        return reply.text.strip()[:500]
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    return str(error.get("message", error) if isinstance(error, dict) else error)

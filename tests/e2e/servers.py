"""Servers shared by the end-to-end tests of one session.

Fixtures (declared in conftest.py, all session-scoped):

``pair``      the trained pair: ``pair.target``, ``pair.draft`` (paths as str), ``pair.prompts(kinds=None, per_kind=4)``
              (list of bench.prompts.Prompt), ``pair.render(messages)`` -> token ids.
``servers``   ``servers.get(spec)`` -> running ServerProcess for that ServerSpec, started on first use;
              ``servers.plain(*flags, **env)``, ``servers.builtin(*flags, **env)``, ``servers.dflash(*flags, **env)``
              are ``get`` on the pair with that worker. Flags and environment are part of the identity.
              ``servers.stop(spec_or_server)`` ends one early (for tests that read what a server leaves behind).

A server is kept for later tests; when more than LIMIT are alive the least recently used one is stopped, so
order tests by server, and take what a test compares (plain and dflash) together. Servers are forks of a process
that has SGLang imported (launcher.py): a start takes 2 seconds, or 30 where the environment sets a variable that is
read too early for that. Every ``get`` raises if the server had died meanwhile.

Environment: SGLANG_DFLASH_TEST_PAIR=<folder with target/, draft/ and heldout/> replaces the embedded pair;
SGLANG_DFLASH_TEST_SERVERS=<how many may be alive>; SGLANG_DFLASH_TEST_PORTS=<first>-<last>;
SGLANG_DFLASH_TEST_LOGS=<folder of the server logs, kept>.
"""

import os
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

from sglang_dflash.tools.bench.prompts import Prompt, load_prompts, renderer
from sglang_dflash.tools.pair import DRAFT_DIR, HELDOUT_DIR, TARGET_DIR
from sglang_dflash.tools.serve import ServerProcess, ServerSpec
from sglang_dflash.tools.serve.spec import MEMORY_FLAG, SHARED_MEMORY, accelerator_present

LIMIT = int(os.environ.get("SGLANG_DFLASH_TEST_SERVERS", "3" if "PYTEST_XDIST_WORKER" in os.environ else "5"))


class TestPair:
    """Paths and prompts of the pair under test."""

    __test__ = False

    def __init__(self):
        other = os.environ.get("SGLANG_DFLASH_TEST_PAIR")
        root = Path(other) if other else None
        self.target = str(root / "target" if root else TARGET_DIR)
        self.draft = str(root / "draft" if root else DRAFT_DIR)
        self.heldout = root / "heldout" if root else HELDOUT_DIR
        for path in (self.target, self.draft):
            assert (Path(path) / "config.json").exists(), f"no checkpoint at {path}"

    @cached_property
    def render(self):
        """Chat messages -> token ids."""
        return renderer(self.target)

    def prompts(self, kinds=None, per_kind=4) -> list[Prompt]:
        """Held-out prompts, kinds taking turns."""
        return load_prompts(self.target, self.heldout, kinds, per_kind)


class Servers:
    """Running servers by spec, at most ``limit`` alive, least recently used first to go."""

    def __init__(self, pair: TestPair, log_dir: Path, launch, limit: int = LIMIT):
        self.pair = pair
        self._log_dir = Path(os.environ.get("SGLANG_DFLASH_TEST_LOGS", log_dir))
        self._limit = limit
        self._launch = launch
        self._running: OrderedDict[ServerSpec, ServerProcess] = OrderedDict()

    def get(self, spec: ServerSpec) -> ServerProcess:
        """The server for ``spec``, started where it is not running."""
        server = self._running.get(spec)
        if server is not None:
            self._running.move_to_end(spec)
            try:
                server.raise_if_dead()
            except Exception:
                self.stop(spec)
                raise
            return server
        while len(self._running) >= self._limit:
            self.stop(next(iter(self._running)))
        server = ServerProcess(spec, self._log_dir, ports=_ports(), launcher=self._launch).start()
        self._running[spec] = server
        try:
            server.wait_ready()
        except BaseException:
            del self._running[spec]
            raise
        return server

    def plain(self, *flags, **env) -> ServerProcess:
        """The pair's target, decoded plainly."""
        return self.get(self.spec("plain", *flags, **env))

    def builtin(self, *flags, **env) -> ServerProcess:
        """The pair under SGLang's own DFLASH worker."""
        return self.get(self.spec("builtin", *flags, **env))

    def dflash(self, *flags, **env) -> ServerProcess:
        """The pair under our worker."""
        return self.get(self.spec("dflash", *flags, **env))

    def spec(self, worker: str, *flags, **env) -> ServerSpec:
        """The spec of the pair with that worker."""
        draft = None if worker == "plain" else self.pair.draft
        # As many as may be alive share a GPU.
        share = (MEMORY_FLAG, f"{SHARED_MEMORY / LIMIT:.2f}") if accelerator_present() else ()
        return ServerSpec(self.pair.target, draft, worker, exact=True).with_flags(*share, *flags).with_env(**env)

    def stop(self, which: ServerSpec | ServerProcess) -> None:
        """Stop one server."""
        spec = which.spec if isinstance(which, ServerProcess) else which
        server = self._running.pop(spec, None)
        if server is not None:
            server.stop()

    def stop_all(self) -> None:
        """Stop every server."""
        for spec in list(self._running):
            self.stop(spec)


def _ports():
    text = os.environ.get("SGLANG_DFLASH_TEST_PORTS")
    if not text:
        return None
    first, last = text.split("-")
    return range(int(first), int(last) + 1)

"""What a server is to run, as a value: hashable, so that servers can be shared by it."""

import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sglang_dflash.errors import DFlashError

WORKERS = ("plain", "builtin", "dflash")
# An idle scheduler would otherwise spin on its queue and take a core from the others.
COMMON_FLAGS = ("--sleep-on-idle",)
# On a GPU, answers are the same token for token in float32 only, which its default attention backends lack.
EXACT_FLAGS = ("--dtype", "float32", "--attention-backend", "triton")
EXACT_DRAFT_FLAGS = ("--speculative-draft-attention-backend", "triton")
MEMORY_FLAG = "--mem-fraction-static"
SHARED_MEMORY = 0.8  # of a GPU, for all servers that run on it side by side


@dataclass(frozen=True)
class ServerSpec:
    """One server: its models, who serves DFLASH in it, and what else goes to the command line.

    ``worker`` is "plain" (no speculation), "builtin" (SGLang's own DFLASH worker) or "dflash" (ours).
    ``flags`` come last on the command line, so they override; ``env`` pairs are added to the environment.
    ``exact`` asks for the number format and backends in which answers can be compared; it tells on a GPU only.
    """

    target: str
    draft: str | None = None
    worker: str = "plain"
    flags: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    exact: bool = False

    def __post_init__(self):
        if self.worker not in WORKERS:
            raise DFlashError("worker", f"is {self.worker!r}", f"use one of {', '.join(WORKERS)}")
        if self.worker != "plain" and self.draft is None:
            raise DFlashError("draft", f"is missing, and worker {self.worker!r} needs one", "give a draft checkpoint")

    def with_flags(self, *flags: str) -> "ServerSpec":
        """The same server with more command-line arguments."""
        return replace(self, flags=self.flags + tuple(str(flag) for flag in flags))

    def with_env(self, **variables: str) -> "ServerSpec":
        """The same server with more environment variables."""
        return replace(self, env=self.env + tuple(sorted(variables.items())))

    def command(self, port: int, host: str = "127.0.0.1", gpu: bool = False) -> list[str]:
        """The argument vector that starts this server."""
        command = [sys.executable, "-m", "sglang.launch_server", "--model-path", self.target]
        if self.worker != "plain":
            command += ["--speculative-algorithm", "DFLASH", "--speculative-draft-model-path", self.draft]
        command += ["--host", host, "--port", str(port), *COMMON_FLAGS]
        if gpu and self.exact:
            command += EXACT_FLAGS
            if self.worker != "plain":
                command += EXACT_DRAFT_FLAGS
        return command + list(self.flags)

    def environment(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The child's environment: ``base`` with what a server needs, then ``env``."""
        environment = dict(base)
        # Without byte code every one of a server's processes compiles all of SGLang again: minutes.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        # Meant for kernel tests; a server under the interpreter would crawl.
        environment.pop("TRITON_INTERPRET", None)
        environment.setdefault("TOKENIZERS_PARALLELISM", "false")
        if all(Path(path).is_dir() for path in (self.target, self.draft) if path is not None):
            environment.setdefault("HF_HUB_OFFLINE", "1")
        environment.pop("SGLANG_DFLASH_WORKER", None)
        if self.worker != "plain":
            environment["SGLANG_DFLASH_WORKER"] = self.worker
        environment.update(self.env)
        return environment

    def key(self) -> str:
        """A short file-name-safe label."""
        return f"{self.worker}-{zlib.crc32(repr(self).encode()):08x}"


def side_by_side(specs: Mapping[str, ServerSpec], gpu: bool) -> dict[str, ServerSpec]:
    """The specs of servers that run at the same time: on a GPU each takes its share, unless it says how much."""
    if not gpu or len(specs) < 2:
        return dict(specs)
    share = f"{SHARED_MEMORY / len(specs):.2f}"
    return {label: replace(spec, flags=(MEMORY_FLAG, share, *spec.flags)) for label, spec in specs.items()}


def accelerator_present() -> bool:
    """True where servers started here will run on an accelerator."""
    from sglang_dflash.cpu.activation import claims_machine

    return not claims_machine()

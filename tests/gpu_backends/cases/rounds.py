"""One batch through both workers, on one of SGLang's backends, eager or as its graph runner replays it."""

import contextlib
import dataclasses
from typing import NamedTuple

import backends
import graphs
import torch
import torch_kernels as kernels
from recording import Recorder, differences
from world import GREEDY, SAMPLED, World, prompts

# What is never read of a table lies in memory that nobody has written; ``Call.slots`` says what is read.
# The logits' buffer is output.
UNREAD = {
    "draft.metadata.page_table",
    "draft.metadata.encoder_page_table",
    "draft.metadata.kv_indices",
    "draft.metadata.window_kv_indices",
    "target.metadata.page_table",
    "target.metadata.kv_indices",
    "target.batch.next_token_logits_buffer",
    "draft.batch.next_token_logits_buffer",
}


class Seen(NamedTuple):
    """What one worker's round gave SGLang."""

    passes: list[dict]
    calls: list[kernels.Call]
    result: object


class Launch:
    """A world with its recorder; what a batch gives on the CPU platform's own attention is its reference."""

    def __init__(self, *flags: str, sampled: bool = False, **options):
        self.world = World(*flags, **options)
        self.recorder = Recorder(self.world)
        self._own = {name: runner.attn_backend for name, runner in self.world.runners.items()}
        self.batch = self.world.batch(prompts(3), SAMPLED if sampled else GREEDY)
        self.host_lens = self.batch.seq_lens_cpu
        # Copied: a worker writes its buffers again two rounds later.
        self.reference = {name: kept(self.world.run(name, self.batch)) for name in self.world.workers}

    @contextlib.contextmanager
    def on(self, card: backends.Card, monkeypatch, graph: bool = False, host_lens: bool = True):
        """Scope in which both workers run on ``card``'s backend; ``host_lens``: the host knows exact lengths."""
        self.world.enter()
        self.batch.seq_lens_cpu = self.host_lens if host_lens else None
        hooks = {name: list(runner.capture_tail_hooks) for name, runner in self.world.runners.items()}
        backends.patch_kernels(monkeypatch)
        backends.serve(card, monkeypatch)
        self.world.build_backends()
        try:
            if graph:
                graphs.prepare(monkeypatch)
                with backends.on_the_host():
                    graphs.capture(self.world, monkeypatch)
            yield self
        finally:
            for name, runner in self.world.runners.items():
                runner.attn_backend, runner.decode_cuda_graph_runner = self._own[name], None
                runner.capture_tail_hooks[:] = hooks[name]
            if "builtin" in self.world.workers:
                self.world.workers["builtin"]._draft_sampler = None

    def round(self, name: str) -> Seen:
        """A round of one worker over the batch."""
        kernels.CALLS.clear()
        self.recorder.passes.clear()
        with backends.on_the_host():
            result = self.world.run(name, self.batch)
        return Seen(list(self.recorder.passes), list(kernels.CALLS), result)

    def rounds(self) -> tuple[Seen, Seen]:
        """Ours and the built-in worker's."""
        return self.round("ours"), self.round("builtin")


def kept(result) -> list[list[int]]:
    """The tokens that every request of a round keeps."""
    lens = result.accept_lens.tolist()
    rows = result.next_token_ids.view(len(lens), -1).tolist()
    return [row[:count] for row, count in zip(rows, lens, strict=True)]


def unlike(ours: Seen, theirs: Seen) -> dict[str, tuple]:
    """Path -> (ours, theirs) wherever two rounds gave SGLang something else, but for what is ``UNREAD``."""
    found = {}
    for mine, other in zip(ours.passes, theirs.passes, strict=True):
        assert mine["part"] == other["part"]
        for path in differences(mine, other):
            name = f"{mine['part']}.{path}"
            if name not in UNREAD:
                found[name] = tuple(_at(side, path) for side in (mine, other))
    mine, other = ([_without_address(call) for call in seen.calls] for seen in (ours, theirs))
    for path in differences(mine, other):
        found[f"calls{path}"] = path, path
    return found


def _at(value, path: str):
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _without_address(call: kernels.Call) -> dict:
    return {name: value for name, value in dataclasses.asdict(call).items() if name != "buffers"}


def as_ints(value) -> list[int]:
    return value.tolist() if isinstance(value, torch.Tensor) else value

"""SGLang's decode graphs without a device: its own graph runner over graphs that are run again rather than replayed.

A captured graph reads its inputs at fixed addresses and keeps every number of the host as it was. So a graph here
remembers what was captured (the backend's metadata, the kernels' addresses and numbers), and says where a replay
differs from it.
"""

import contextlib
from types import SimpleNamespace

import torch
from sglang.srt.model_executor import forward_batch_info
from sglang.srt.model_executor.graph_shared_output import GraphSharedOutput
from sglang.srt.model_executor.runner import base_cuda_graph_runner, decode_cuda_graph_runner
from sglang.srt.model_executor.runner.decode_cuda_graph_runner import DecodeCudaGraphRunner
from sglang.srt.model_executor.runner_backend.base_cuda_graph_backend import BaseCudaGraphBackend
from sglang.srt.speculative import dflash_worker_v2
from torch_kernels import CALLS

SIZES = (4,)


class RerunGraphs(BaseCudaGraphBackend):
    """One closure per graph."""

    def __init__(self, runner, **_):
        self._runner, self._graphs = runner, {}

    @contextlib.contextmanager
    def capture_session(self, stream):
        yield

    @contextlib.contextmanager
    def replay_session(self):
        yield

    def capture_one(self, shape_key, forward_fn, capture_inputs=None, post_warmup_hook=None):
        before = len(CALLS)
        forward_fn()
        self._graphs[shape_key] = forward_fn, self._runner.attn_backend.forward_metadata, _fixed(CALLS[before:])

    def can_run(self, forward_batch, shape_key):
        return shape_key in self._graphs

    def replay(self, shape_key, static_forward_batch, **_):
        forward, metadata, captured = self._graphs[shape_key]
        self._runner.attn_backend.forward_metadata = metadata
        before = len(CALLS)
        out = forward()
        for was, now in zip(captured, _fixed(CALLS[before:]), strict=True):
            assert was == now, f"a captured kernel would not see this: {was} -> {now}"
        return out

    def cleanup(self):
        self._graphs.clear()


def _fixed(calls) -> list[tuple]:
    """What a captured kernel keeps: addresses, numbers of the host, rows of queries."""
    numbers = [{key: value for key, value in call.options.items() if isinstance(value, int | float)} for call in calls]
    return [(call.kernel, call.buffers, row, call.queries) for call, row in zip(calls, numbers, strict=True)]


def prepare(monkeypatch) -> None:
    """Let SGLang's graph runner be built on a CPU."""
    module = decode_cuda_graph_runner
    session = contextlib.nullcontext(type("Session", (), {"stream": None})())
    monkeypatch.setattr(module, "graph_capture", lambda stream=None: session)
    monkeypatch.setattr(module, "get_or_create_global_graph_capture_stream", lambda: None)
    monkeypatch.setattr(module, "resolve_decode_backend", RerunGraphs)
    monkeypatch.setattr(module, "get_available_gpu_memory", lambda *args, **kwargs: 1.0)
    monkeypatch.setattr(module.DecodeCudaGraphRunner, "_record_in_graph_metadata_prep_done", lambda self: None)
    monkeypatch.setattr(module.DecodeCudaGraphRunner, "_publish_read_done", lambda self, in_graph: None)
    for owner in (module, base_cuda_graph_runner):
        monkeypatch.setattr(owner, "get_batch_sizes_to_capture", lambda *args, **kwargs: (list(SIZES), []))
    # The built-in worker folds its head into the draft's graph where it thinks that graphs are captured.
    monkeypatch.setattr(dflash_worker_v2, "current_platform", SimpleNamespace(is_out_of_tree=lambda: False))
    decode = SimpleNamespace(decode=SimpleNamespace(backend="full", bs=list(SIZES)))
    exec_ = SimpleNamespace(graph=SimpleNamespace(cuda_graph_config=decode))
    monkeypatch.setattr(dflash_worker_v2, "get_exec", lambda: exec_)
    # Collecting garbage twice a capture is most of its time here.
    monkeypatch.setattr(module, "freeze_gc", lambda enabled: contextlib.nullcontext())
    # On a CPU only plain decoding would take a graph.
    mode = forward_batch_info.ForwardMode
    monkeypatch.setattr(mode, "is_cpu_graph", mode.is_cuda_graph)


@torch.no_grad()  # as the scheduler does
def capture(world, monkeypatch) -> None:
    """Capture decode graphs of ``SIZES`` requests, the target's and then the drafts', in each worker's own scope."""
    _capture(world.target.model_runner)
    for worker in world.workers.values():
        draft = worker.draft_worker
        monkeypatch.setattr(draft, "init_cuda_graphs", lambda draft=draft, **_: _capture(draft.model_runner))
        worker.init_cuda_graphs()


def _capture(runner) -> None:
    rows = max(SIZES) * runner.decode_num_tokens_per_req()
    runner.graph_shared_output = GraphSharedOutput(device="cpu", max_rows=rows)
    runner.decode_cuda_graph_runner = DecodeCudaGraphRunner(runner)

"""Launches of one round outside of its two captured passes, on FlashAttention 3."""

import torch
from on_cuda import CudaRound
from sglang.srt.distributed.parallel_state import GroupCoordinator


def _host_tensors(launch) -> list[torch.Tensor]:
    """What the scheduler and SGLang's graph runners keep on the host."""
    runners = launch.world.runners.values()
    found = [runner.decode_cuda_graph_runner.buffers.seq_lens_cpu for runner in runners]
    builtin = launch.world.workers.get("builtin")
    if builtin is not None:
        builtin._ensure_draft_block_buffers(3)
        found.append(builtin._draft_seq_lens_cpu_buf)
    return [launch.batch.spec_info.nxt_kv_lens_cpu, launch.host_lens, *found]


def counted(launch, name: str) -> CudaRound:
    """A round of one worker, its second."""
    launch.round(name)  # kernels' first calls, buffers that are made once
    draft = launch.world.runners[name]
    with CudaRound(_host_tensors(launch)) as seen:
        # One kernel each on a GPU, several operations on a CPU.
        seen.one_launch(draft.token_to_kv_pool, "set_kv_buffer_prefix_valid", "write of a layer's keys and values")
        seen.one_launch(draft.model.hidden_norm, "forward", "norm")
        seen.one_launch(launch.world.target.model_runner.sampler, "forward", "SGLang's sampler")
        for collective in ("all_gather", "all_gather_into_tensor", "broadcast"):
            seen.one_launch(GroupCoordinator, collective, collective)
        launch.round(name)
    return seen


def table(ours: dict[str, int], builtin: dict[str, int]) -> str:
    """One line per launch: ours, the built-in worker's."""
    rows = [(name, ours.get(name, 0), builtin.get(name, 0)) for name in sorted(ours | builtin)]
    rows.append(("ours, built-in worker", sum(ours.values()), sum(builtin.values())))
    return "\n".join(f"{name:45}{mine:6}{theirs:6}" for name, mine, theirs in rows)

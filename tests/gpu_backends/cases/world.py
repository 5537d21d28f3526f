"""Both workers over one target in this process, on the CPU: what the tests of SGLang's GPU backends share.

A world is one launch: SGLang's own ``TpModelWorker`` of the embedded pair's target, our worker and the built-in one,
each with a draft runner of its own. One batch goes through both, so that what they hand to SGLang can be compared.
"""

import contextlib
import copy
from array import array
from types import SimpleNamespace
from unittest import mock

import on_cuda
import torch
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.distributed import bootstrap
from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
from sglang.srt.managers.tp_worker import TpModelWorker
from sglang.srt.models.registry import ModelRegistry
from sglang.srt.runtime_context import SpawnRanks, get_device, get_schedule, publish
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import PortArgs, prepare_server_args
from sglang.srt.speculative.dflash_worker_v2 import DFlashWorkerV2
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

from sglang_dflash.cpu import lean
from sglang_dflash.engine import worker as engine_worker
from sglang_dflash.tools.bench.prompts import load_prompts
from sglang_dflash.tools.pair import DRAFT_DIR, HELDOUT_DIR, TARGET_DIR

WORKERS = {"builtin": DFlashWorkerV2, "ours": engine_worker.DFlashWorker}
# Room for a few requests of some hundred tokens.
FLAGS = ("--max-total-tokens", "4096", "--max-running-requests", "8", "--context-length", "512")
GREEDY = SamplingParams(temperature=0, max_new_tokens=200)
SAMPLED = SamplingParams(temperature=0.8, top_p=0.9, max_new_tokens=200)
for _sampling in (GREEDY, SAMPLED):
    _sampling.normalize(None)


class World:
    """Target and both workers, placed in the scheduler's order up to their graphs."""

    def __init__(self, *flags: str, draft=str(DRAFT_DIR), cuda=False, workers=tuple(WORKERS), rank=0, port=None):
        """cuda: build the workers as for a GPU; rank, port: of this process, where there are several."""
        pair = ("--model-path", str(TARGET_DIR), "--speculative-draft-model-path", draft)
        self._args = args = prepare_server_args([*pair, "--speculative-algorithm", "DFLASH", *FLAGS, *flags])
        self._rank = rank
        self.enter()
        port = port or PortArgs.init_new(args).nccl_port
        if not torch.distributed.is_initialized():  # once a process
            bootstrap.init_parallel_runtime(server_args=args, device=get_device().device, dist_port=port)
        bootstrap.init_layer_runtime(model_config=ModelConfig.from_server_args(args))
        # Our worker adds its tail to the target's graphs, should any be captured.
        mock.patch.object(engine_worker, "captures_graphs", lambda: True).start()
        # The platform's own decoder pass calls the platform's attention only.
        mock.patch.object(lean, "install", lambda model: None).start()
        place = dict(server_args=args, gpu_id=get_device().gpu_id, nccl_port=port)
        self.target = TpModelWorker(**place)
        with on_cuda.choices() if cuda else contextlib.nullcontext():
            self._build_workers(workers, place)
        if cuda and "builtin" in workers:
            on_cuda.choose_for_builtin(self.workers["builtin"])

    def _build_workers(self, names, place: dict) -> None:
        models = dict(ModelRegistry.models)
        self.workers = {name: WORKERS[name](**place, target_worker=self.target) for name in names}
        # Our worker has put our draft there; the next world's built-in worker is to find SGLang's.
        ModelRegistry.models.update(models)
        self._place_pools()
        self.build_backends()
        with torch.no_grad():  # as the scheduler does
            for owner in (self.target, *self.workers.values()):
                owner.init_cuda_graphs()

    def enter(self) -> None:
        """Make this launch's settings those that SGLang reads; another world has put its own there."""
        publish(self._args, role="scheduler", ranks=SpawnRanks(world_rank=self._rank, dp_rank=None, gpu_id=self._rank))

    def _place_pools(self) -> None:
        first, runner = next(iter(self.workers.values())), self.target.model_runner
        runner.account_preloaded_weights(self.target.preloaded_weights_bytes + first.preloaded_weights_bytes)
        self.target.alloc_memory_pool(draft_parallel_layout=first.draft_parallel_layout)
        pool, allocator = self.target.get_memory_pool()
        for worker in self.workers.values():
            worker.alloc_memory_pool(
                memory_pool_config=runner.memory_pool_config,
                req_to_token_pool=pool,
                token_to_kv_pool_allocator=allocator,
            )

    def build_backends(self) -> None:
        """Attention backends of the target and of both drafts."""
        for owner in (self.target, *self.workers.values()):
            owner.init_attention_backends()

    @property
    def runners(self) -> dict:
        """ "target", and the two drafts by their workers' names."""
        drafts = {name: worker.draft_worker.model_runner for name, worker in self.workers.items()}
        return {"target": self.target.model_runner, **drafts}

    def batch(self, prompts: list[list[int]], sampling: SamplingParams = GREEDY) -> ScheduleBatch:
        """A decoding batch of ``prompts``, prefilled by every worker, its next round prepared."""
        batch = self._extend_batch(prompts, sampling)
        results = {name: self.run(name, batch) for name in self.workers}
        first, *others = results.values()
        assert all(torch.equal(first.next_token_ids, other.next_token_ids) for other in others)
        self._advance(batch, results[list(results)[-1]], torch.zeros(len(prompts), dtype=torch.int32))
        return batch

    def _extend_batch(self, prompts, sampling) -> ScheduleBatch:
        pool, allocator = self.target.get_memory_pool()
        tree = _NoTree(page_size=get_schedule().page_size, device="cpu", token_to_kv_pool_allocator=allocator)
        batch = ScheduleBatch.init_new(
            reqs=[_request(str(row), ids, sampling) for row, ids in enumerate(prompts)],
            req_to_token_pool=pool,
            token_to_kv_pool_allocator=allocator,
            tree_cache=tree,
            model_config=self.target.model_config,
            enable_overlap=False,
            spec_algorithm=SpeculativeAlgorithm.DFLASH,
        )
        batch.prepare_for_extend()
        if batch.input_ids is None:
            batch.input_ids, batch.prefill_input_ids_cpu = batch.prefill_input_ids_cpu, None
        batch.sampling_info = SamplingBatchInfo.from_schedule_batch(batch, self.target.model_config.vocab_size)
        return batch

    @torch.no_grad()
    def run(self, name: str, batch: ScheduleBatch):
        """One pass of a worker over a copy of ``batch``, as the scheduler isolates it."""
        torch.manual_seed(0)
        mine = copy.copy(batch)
        mine.spec_info = copy.copy(batch.spec_info)
        mine.seq_lens = batch.seq_lens.clone()
        return self.workers[name].forward_batch_generation(mine)

    def advance(self, batch: ScheduleBatch, result) -> None:
        """Give ``batch`` the outcome of a round, and prepare the next."""
        self._advance(batch, result, result.accept_lens)

    def _advance(self, batch, result, accept_lens) -> None:
        for req, count in zip(batch.reqs, accept_lens.tolist(), strict=True):
            req.kv.kv_committed_len += count
        batch.seq_lens = result.new_seq_lens.clone()
        batch.spec_info = result.next_draft_input
        batch.prepare_for_decode()

    def free(self, batch: ScheduleBatch) -> None:
        """Give slots and rows of ``batch`` back."""
        pool, allocator = self.target.get_memory_pool()
        for req in batch.reqs:
            allocator.free(pool.req_to_token[req.kv.req_pool_idx, : req.kv.kv_allocated_len].long())
            pool.free(req)


class _NoTree(SimpleNamespace):
    """A prefix cache that holds nothing."""

    def supports_swa(self):
        return False

    def supports_mamba(self):
        return False

    def supports_prefix_sharing(self):
        return True

    def evict(self, params):
        pass

    def maybe_hand_to_session(self, req):
        pass


def _request(rid: str, ids: list[int], sampling: SamplingParams) -> Req:
    req = Req(rid=rid, origin_input_text="", origin_input_ids=array("q", ids), sampling_params=sampling)
    req.full_untruncated_fill_ids = req.origin_input_ids
    req.logprob_start_len = -1
    req.extend_end = len(ids)
    return req


def prompts(count: int) -> list[list[int]]:
    """Held-out prompts of different lengths."""
    return [list(prompt.token_ids) for prompt in load_prompts(str(TARGET_DIR), HELDOUT_DIR, per_kind=1)][:count]

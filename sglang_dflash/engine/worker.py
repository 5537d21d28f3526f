"""The worker behind ``--speculative-algorithm DFLASH``: built, placed and called by SGLang's scheduler."""

import contextlib
import logging

import torch

from sglang_dflash.checkpoints.checks import mask_token_id
from sglang_dflash.checkpoints.checks.targets import depth_of
from sglang_dflash.checkpoints.config import ARCHITECTURES
from sglang_dflash.engine.commit.inject import ContextInjector
from sglang_dflash.engine.draft.ends import build_ends
from sglang_dflash.engine.draft.mask import load_mask_embedding
from sglang_dflash.engine.draft.model import DFlashDraftModel
from sglang_dflash.engine.draft.runner import DraftRunner
from sglang_dflash.engine.draft.view import WholeContext, WindowedContext
from sglang_dflash.engine.draft_state import DraftState
from sglang_dflash.engine.grammar.masks import GrammarRule
from sglang_dflash.engine.lane import Lane, build_lane
from sglang_dflash.engine.lookup.steps import Lookup
from sglang_dflash.engine.observe.metrics import RoundMetrics
from sglang_dflash.engine.observe.rounds import NoObserver, build_observer
from sglang_dflash.engine.policy.build import Player, build_policy
from sglang_dflash.engine.policy.policy import Fixed
from sglang_dflash.engine.policy.shapes import shapes_within
from sglang_dflash.engine.prefill import Prefill
from sglang_dflash.engine.proposal.build import Proposer, build_proposer, build_proposers
from sglang_dflash.engine.rehearsal import rehearse_sampling
from sglang_dflash.engine.round import Round
from sglang_dflash.engine.updates.files import DraftFiles
from sglang_dflash.engine.updates.roles import WeightUpdates
from sglang_dflash.engine.verify.choice import TargetChoice
from sglang_dflash.engine.verify.rules import build_rules
from sglang_dflash.engine.verify.trees import build_tree_form
from sglang_dflash.errors import print_errors
from sglang_dflash.host.capture import prepare_capture
from sglang_dflash.host.grammar_api import cursors
from sglang_dflash.host.graph_api import captures_graphs, memory_left_for_graphs
from sglang_dflash.host.logits_api import verify_logits
from sglang_dflash.host.metrics_api import metrics_label
from sglang_dflash.host.model_api import register_model
from sglang_dflash.host.reports_api import keep_last_hidden_states
from sglang_dflash.host.widths import block_size, draft_width, verify_width
from sglang_dflash.host.worker_api import (
    BaseSpecWorker,
    GenerationBatchResult,
    SpecTpSync,
    SpecTpSyncSite,
    build_draft_tp_worker,
    draft_pp_context,
    draft_tp_context,
    get_parallel,
    get_schedule,
    get_spec,
    model_draft_parallel_spec,
    resolve_draft_parallel_layout,
)
from sglang_dflash.options import Options
from sglang_dflash.types import Shape

logger = logging.getLogger(__name__)


class DFlashWorker(BaseSpecWorker):
    """Lifecycle and dispatch only: prefill, round and lanes are objects built here.

    SGLang calls, in this order: the constructor (target weights are loaded), ``alloc_memory_pool``,
    ``init_attention_backends``, ``init_cuda_graphs``, then ``forward_batch_generation`` per batch.
    """

    @print_errors()
    def __init__(self, server_args, gpu_id: int, nccl_port: int, target_worker):
        super().__init__()
        self._target_worker = target_worker
        self._options = Options.from_env()
        self.block_size = block_size()
        self._window = get_spec().speculative_draft_window_size
        target = target_worker.model_runner
        for architecture in ARCHITECTURES:
            register_model(architecture, DFlashDraftModel)
        self.draft_parallel_layout = resolve_draft_parallel_layout(
            model_draft_parallel_spec(target.spec_aux_config.draft_model_config, spec_algorithm=target.spec_algorithm),
            collapse_cp=True,
        )
        with self._draft_scope():
            bundle = build_draft_tp_worker(
                server_args=server_args,
                gpu_id=gpu_id,
                nccl_port=nccl_port,
                target_model_config=target.model_config,
                algo_label="DFLASH",
            )
        self._draft_worker, self._draft_runner = bundle.draft_worker, bundle.draft_model_runner
        layer_ids = bundle.draft_model.draft_config.layer_ids_for(depth_of(target.model))
        prepare_capture(target.model, layer_ids)
        keep_last_hidden_states(target.model)
        self._proposers = self._build_proposers(server_args.speculative_eagle_topk or 1)
        self._lookup = self._build_lookup(server_args, target)
        self._bind_draft(bundle, server_args.speculative_draft_model_path, server_args.speculative_draft_model_revision)
        self._build_steps(bundle.draft_model, target)
        self._observer = self._build_observer(target)
        self._lanes: dict[Shape, Lane] = {}
        self._policy: Fixed
        self._round: Round | None = None
        if get_parallel().tp_rank == 0:
            logger.info(
                "sglang-dflash: draft of %d layers, block size %d, verify width %d, context %s, attention %s",
                len(bundle.draft_model.layers),
                self.block_size,
                self.speculative_num_draft_tokens,
                f"window of {self._window}" if self._window else "whole",
                bundle.resolved_attention_backend,
            )

    def _build_proposers(self, branching: int) -> list[Proposer]:
        """What the flags say first; with it all of the set, where rounds may differ."""
        device = torch.device(self._target_worker.model_runner.device)
        widest = build_proposer(
            self._options.proposer, self.block_size, verify_width(), branching, device, self._options.lookup
        )
        if self._options.shape == "fixed":
            return [widest]
        every = shapes_within(widest.shape, self.block_size, self._options.lookup == "on")
        others = [shape for shape in every if shape != widest.shape]
        return [widest, *build_proposers(others, self.block_size, branching, device, self._options.lookup)]

    def _build_lookup(self, server_args, target) -> Lookup | None:
        if self._options.lookup == "off":
            return None
        overlap = not server_args.disable_overlap_schedule
        return Lookup(target.model_config.vocab_size, overlap, torch.device(target.device))

    @contextlib.contextmanager
    def _draft_scope(self):
        """Where the draft's parts are built: its parallel groups, and its width in SGLang's settings."""
        with draft_pp_context(), draft_tp_context(self.draft_parallel_layout), draft_width(self.block_size):
            yield

    def _bind_draft(self, bundle, source: str, revision: str | None) -> None:
        draft_model: DFlashDraftModel = bundle.draft_model
        target = self._target_worker.model_runner
        tokenizer = self._target_worker.tokenizer
        vocabulary = {} if tokenizer is None else tokenizer.get_vocab()
        self._mask_token_id = mask_token_id(draft_model.draft_config, vocabulary, target.model_config.vocab_size)
        row = load_mask_embedding(source, self._mask_token_id, torch.device(target.device), revision)
        shares = self._options.share_ends == "on"
        with self._draft_scope():
            wanted = max(proposer.candidates for proposer in self._proposers)
            ends = build_ends(draft_model, target.model, self._mask_token_id, row, self.block_size, wanted, shares)
        self._packing = ends.packing
        draft_model.bind(ends, self.block_size, bundle.resolved_attention_backend)
        files = DraftFiles(draft_model, self._mask_token_id)
        self.weight_updates = WeightUpdates(
            torch.device(target.device), files, restores=self._options.update_restore == "on"
        )

    def _build_steps(self, draft_model: DFlashDraftModel, target) -> None:
        """What stands before the pools are made; lanes and the round follow."""
        self._tp_sync = SpecTpSync(get_parallel().tp_group)
        has_trees = any(proposer.shape.is_tree for proposer in self._proposers)
        self._tree_form = build_tree_form(target) if has_trees else None
        self._inject = ContextInjector(draft_model, self._draft_runner)
        self._choose = TargetChoice(target, verify_logits(target.model, get_parallel().tp_group), self._sync)
        guides = self._options.grammar_drafts == "on"
        self._grammars = GrammarRule(cursors(self._target_worker.tokenizer), guides)
        self._rules = build_rules(target.model_config.vocab_size, torch.device(target.device), self._grammars)
        self._prefill = Prefill(
            self._target_worker,
            self._draft_runner,
            self._inject,
            self._rules,
            lambda tokens: self._tp_sync.sync(SpecTpSyncSite.DFLASH_TARGET, tokens),
        )

    def _build_observer(self, target):
        rank, label = get_parallel().tp_rank, metrics_label()
        metrics = None if label is None or rank != 0 else RoundMetrics(label)
        return build_observer(torch.device(target.device), rank, self._options.timings, metrics)

    def _sync(self, tokens: torch.Tensor, greedy: bool) -> None:
        """Tensor-parallel ranks take rank 0's choice."""
        site = SpecTpSyncSite.DFLASH_ACCEPT_GREEDY if greedy else SpecTpSyncSite.DFLASH_ACCEPT_SAMPLE
        self._tp_sync.sync(site, tokens)

    # --- lifecycle, in the scheduler's order ---

    def alloc_memory_pool(self, memory_pool_config=None, req_to_token_pool=None, token_to_kv_pool_allocator=None):
        """Slots are shared with the target; a windowed draft gets a row table of its own."""
        with self._draft_scope():
            self._draft_worker.alloc_memory_pool(
                memory_pool_config=memory_pool_config,
                req_to_token_pool=None if self._window else req_to_token_pool,
                token_to_kv_pool_allocator=token_to_kv_pool_allocator,
            )
        self.req_to_token_pool = req_to_token_pool
        self.token_to_kv_pool_allocator = token_to_kv_pool_allocator
        in_graphs = captures_graphs() and self._options.graph_tail == "on" and get_parallel().tp_size == 1
        for proposer in self._proposers:
            self._lanes[proposer.shape] = build_lane(
                self._target_worker,
                proposer,
                self.block_size,
                self._inject,
                self._build_draft,
                self._tree_form,
                self._choose,
                in_graphs,
                self._lookup,
            )
        self._round = self._build_round(self._observer)

    def _build_round(self, observer) -> Round:
        return Round(
            self._target_worker.model_runner,
            self._draft_runner.kv_index_translator,
            self._mask_token_id,
            self._rules,
            observer,
        )

    def _build_draft(self, columns: slice | None) -> DraftRunner:
        runner, page_size = self._draft_runner, int(get_schedule().page_size)
        view = (
            WindowedContext(runner, self.req_to_token_pool.req_to_token, self.block_size, self._window, page_size)
            if self._window
            else WholeContext()
        )
        return DraftRunner(runner, view, self.block_size, columns, self.draft_parallel_layout, self._packing)

    @print_errors()
    def init_attention_backends(self):
        """The draft's; the target's exist by now, and graphs do not."""
        if self._tree_form is not None:
            self._tree_form.prepare(self._target_worker.model_runner.attn_backend)
        with self._draft_scope():
            self._draft_worker.init_attention_backends()
        # Here rather than in the first request, and before a graph captures it.
        self._inject.prepare()

    def init_cuda_graphs(self):
        """Capture the draft's pass, embedding and head included; eager where memory is all but used up."""
        with self._draft_scope():
            self._draft_worker.init_cuda_graphs(
                capture_decode_cuda_graph=captures_graphs()
                and memory_left_for_graphs(self._draft_runner, self._tp_sync)
            )
        for lane in self._lanes.values():
            self._round.warm_up(lane)
        self._inject.warm_up(self.speculative_num_draft_tokens)
        self._policy = build_policy(
            self._options.shape,
            self._lanes,
            # Nobody observes the rounds that it plays.
            Player(self._lanes, self._build_round(NoObserver()), self._target_worker.model_runner),
            get_parallel().tp_group.broadcast_object,
            self._observer.expect,
            None if self._lookup is None else self._lookup.expected,
        )

    def prewarm_sampling(self):
        """Rehearse a sampled verify pass of the largest batch, so that KV sizing after capture leaves it room."""
        return rehearse_sampling(self._target_worker.model_runner, self._choose, self.speculative_num_draft_tokens)

    # --- what the scheduler reads ---

    @property
    def model_runner(self):
        """The draft's: SGLang saves a worker's weights through it, and the target's through the target worker."""
        return self._draft_runner

    @property
    def spec_v2_attn_backends(self) -> tuple:
        return (self._target_worker.model_runner.attn_backend, self._draft_runner.attn_backend)

    @property
    def speculative_num_steps(self) -> int:
        return 1

    @property
    def speculative_num_draft_tokens(self) -> int:
        return verify_width()

    def weight_update_runners(self):
        return [("draft", self._draft_runner)]

    def on_verify_complete_cpu(self, num_correct_drafts_per_req, batch_size=0):
        """The oldest round that was launched has its tokens on the host."""
        self._observer.complete(num_correct_drafts_per_req)
        self._policy.emitted(num_correct_drafts_per_req)

    # --- passes ---

    def forward_batch_generation(self, batch, on_publish=None, grammar_barrier=None, pp_proxy_tensors=None):
        """Prefill or one decode round; the scheduler's batch is restored by SGLang afterwards."""
        if batch.forward_mode.is_idle():
            return self._idle(on_publish)
        self._grammars.catch_up = grammar_barrier
        if batch.forward_mode.is_extend():
            self._policy.interrupted()
            self._wait_for_fused_hicache_load(batch)
            return self._prefill(batch, on_publish)
        lane = self._lanes[self._policy.choose(batch)]
        return self._round(lane, batch, batch.spec_info, on_publish)

    def _idle(self, on_publish) -> GenerationBatchResult:
        device = self._target_worker.model_runner.device
        none = torch.empty(0, dtype=torch.int64, device=device)
        if on_publish is not None:
            on_publish(none)
        return GenerationBatchResult(
            next_token_ids=none,
            accept_lens=none.int(),
            new_seq_lens=none,
            next_draft_input=DraftState.after(none, none),
            speculative_num_draft_tokens=self.speculative_num_draft_tokens,
        )

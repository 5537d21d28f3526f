"""A lane: all that a round of one shape needs, built once at start."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sglang_dflash.engine.buffers import RoundBuffers
from sglang_dflash.engine.commit.inject import ContextInjector
from sglang_dflash.engine.commit.paths import ChainCommit, TreeCommit
from sglang_dflash.engine.commit.state import StateCommit
from sglang_dflash.engine.draft.runner import AnchorOnly, DraftRunner
from sglang_dflash.engine.graph_tail import GraphTail, NoTail
from sglang_dflash.engine.lookup.steps import ContextStep, Lookup
from sglang_dflash.engine.proposal.build import Proposer
from sglang_dflash.engine.verify.choice import TargetChoice
from sglang_dflash.engine.verify.target import TargetPass
from sglang_dflash.engine.verify.trees import MaskedTree, PlainTree
from sglang_dflash.host.recurrent_state import keeps_recurrent_state
from sglang_dflash.types import Shape

# Most batches are smaller; the buffers grow when one is not.
_FIRST_CAPACITY = 32


@dataclass(frozen=True)
class Lane:
    """The steps of a round whose proposals have ``shape``. The block size is the draft's, the width the shape's."""

    shape: Shape
    draft: DraftRunner | AnchorOnly | ContextStep
    propose: Proposer
    verify: TargetPass
    tail: GraphTail | NoTail
    choose: TargetChoice
    commit: ChainCommit | TreeCommit | StateCommit
    buffers: RoundBuffers


def build_lane(
    target_worker,
    propose: Proposer,
    block_size: int,
    inject: ContextInjector,
    build_draft: Callable[[slice | None], DraftRunner],
    tree_form: PlainTree | MaskedTree | None,
    choose: TargetChoice,
    tail_in_graphs: bool,
    lookup: Lookup | None = None,
) -> Lane:
    """The lane of ``propose.shape``, with blocks of ``block_size`` tokens; called when pools exist and no graph does.

    build_draft: makes the draft's pass over the given columns of the round's window of slots (None: all).
    tree_form: how the target is told a tree; None for chains.
    choose: the target's choice at every node.
    lookup: where contexts are looked up.
    """
    shape, target = propose.shape, target_worker.model_runner
    block_size = block_size if shape.drafts else 1
    window = max(block_size, shape.width)
    block_columns, node_columns = (None if width == window else slice(0, width) for width in (block_size, shape.width))
    paths = TreeCommit(target) if shape.is_tree else ChainCommit()
    commit = StateCommit(paths, target_worker) if keeps_recurrent_state(target.model_config) else paths
    in_graphs = tail_in_graphs and not shape.is_tree
    draft = build_draft(block_columns) if shape.drafts else AnchorOnly()
    return Lane(
        shape=shape,
        draft=draft if lookup is None else lookup.beside(draft, shape),
        propose=propose,
        verify=TargetPass(target_worker, node_columns, tree_form),
        tail=GraphTail(target, shape.width, inject) if in_graphs else NoTail(inject),
        choose=choose,
        commit=commit,
        buffers=RoundBuffers(shape, block_size, torch.device(target.device), _FIRST_CAPACITY),
    )

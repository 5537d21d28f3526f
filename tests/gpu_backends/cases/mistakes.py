"""Mistakes planted in what our draft pass gives a backend: the comparison must see each."""

import pytest
from backends import CARDS
from checks import INTENDED
from rounds import kept, unlike
from sglang.srt.layers.radix_attention import AttentionType, RadixAttention


def longer(batch) -> None:
    """One token that is not there."""
    batch.seq_lens = batch.seq_lens + 1


def of_others(batch) -> None:
    """Every request reads another's row."""
    batch.req_pool_indices = batch.req_pool_indices.roll(1)


def without_block(batch) -> None:
    """The host counts the prefix only."""
    batch.seq_lens_cpu = batch.seq_lens_cpu - batch.spec_info.draft_token_num


def narrower(batch) -> None:
    """A width that is not the block's."""
    batch.spec_info.num_tokens_per_req -= 1


def check_seen(launch, card: str, monkeypatch, mistake, graph: bool = False) -> None:
    """With ``mistake`` in what our draft's backend plans from, the rounds no longer compare as equal."""
    with launch.on(CARDS[card], monkeypatch, graph):
        backend = launch.world.runners["ours"].attn_backend
        name = "init_forward_metadata_out_graph" if graph else "init_forward_metadata"
        plan = getattr(backend, name)

        def planted(batch, *args, **kwargs):
            spec, width = batch.spec_info, batch.spec_info.num_tokens_per_req
            mistake(batch)
            plan(batch, *args, **kwargs)
            spec.num_tokens_per_req = width

        setattr(backend, name, planted)
        assert _seen(launch), mistake.__name__


def check_direction_seen(launch, card: str, monkeypatch) -> None:
    """A layer of ours that looks back only is told from one that looks both ways."""
    with launch.on(CARDS[card], monkeypatch):
        layers = [
            module for module in launch.world.runners["ours"].model.modules() if isinstance(module, RadixAttention)
        ]
        monkeypatch.setattr(layers[-1], "attn_type", AttentionType.DECODER)
        assert _seen(launch)


def _seen(launch) -> bool:
    theirs = launch.round("builtin")
    try:
        ours = launch.round("ours")
    except (AssertionError, RuntimeError, IndexError):
        return True
    return not unlike(ours, theirs).keys() <= INTENDED.keys() or kept(ours.result) != kept(theirs.result)


def mistakes(*cases):
    """Parametrisation over (mistake, graph)."""
    names = [f"{mistake.__name__}{' graph' if graph else ''}" for mistake, graph in cases]
    return pytest.mark.parametrize(("mistake", "graph"), cases, ids=names)

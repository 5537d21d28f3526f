"""Puts the recurrent layers' operators in place of SGLang's, once a model that has such layers is loaded."""

import torch


def install(model: torch.nn.Module) -> None:
    """Nothing for models without recurrent layers; called before pools and backends exist."""
    from sglang_dflash.cpu.host import mamba2, recurrent_hooks

    gated_delta, state_space = recurrent_hooks.has_gated_delta_layers(model), mamba2.has_mamba2_layers(model)
    if gated_delta or state_space:
        from sglang_dflash.cpu.recurrent import states

        recurrent_hooks.replace_state_moves(
            states.scatter_after_verify, states.track_all_layers, states.track_one_layer
        )
    if gated_delta:
        _adopt_gated_delta()
    if state_space:
        from sglang_dflash.cpu.recurrent.mamba2 import Mamba2Attention

        mamba2.replace_backend(Mamba2Attention)


def _adopt_gated_delta() -> None:
    from sglang_dflash.cpu.host import recurrent_hooks
    from sglang_dflash.cpu.recurrent import gated_delta, projections

    recurrent_hooks.replace_gated_delta(
        gated_delta.GatedDeltaAttention, projections.rms_norm_gated, projections.grouped_rms_norm_gated
    )
    recurrent_hooks.replace_in_models(
        projections.split_interleaved_projections,
        projections.split_projections,
        projections.sigmoid_mul,
        projections.add_gated_expert,
    )

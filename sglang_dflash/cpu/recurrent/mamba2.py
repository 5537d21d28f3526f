"""Mamba-2 layers on the host: decode, prefill with the radix cache's snapshots, verify of a chain or a tree."""

import torch

from sglang_dflash.cpu.host.mamba2 import Mamba2AttnBackend
from sglang_dflash.cpu.host.recurrent import LayerStates
from sglang_dflash.cpu.recurrent.plan import Nodes, Prompts, RecurrentLayers
from sglang_dflash.kernels.causal_conv.naive import conv_nodes, conv_ragged, conv_step
from sglang_dflash.kernels.ssd.naive import Head, Tokens, ssd_nodes, ssd_prefill, ssd_step


class Mamba2Attention(RecurrentLayers, Mamba2AttnBackend):
    """The recurrent half of a Mamba-2 hybrid; SGLang's models call ``forward`` with their mixer."""

    def forward(
        self,
        mixer,
        hidden_states: torch.Tensor,
        output: torch.Tensor | None,
        layer_id: int,
        forward_batch,
        mup_vector: torch.Tensor | None = None,
        use_triton_causal_conv: bool = False,
    ) -> torch.Tensor:
        """hidden_states [T, hidden] -> [T, hidden], also written to ``output`` where one is given."""
        projected, _ = mixer.in_proj(hidden_states)
        if mup_vector is not None:
            projected = projected * mup_vector
        share = mixer.tp_size
        sizes = (mixer.intermediate_size // share, mixer.conv_dim // share, mixer.num_heads // share)
        gate, mixed, time = projected.split(sizes, -1)
        states = self.states_of(layer_id)
        plan = self._plan
        if plan is None:
            out = self._decode(mixer, states, mixed, time, layer_id, forward_batch)
        elif isinstance(plan, Nodes):
            out = self._verify(mixer, plan, states, mixed, time)
        else:
            out = self._prefill(mixer, plan, states, mixed, time)
        out, _ = mixer.out_proj(mixer.norm(out.flatten(1), gate))
        return out if output is None else output[: out.shape[0]].copy_(out)

    def _decode(self, mixer, states: LayerStates, mixed, time, layer_id: int, forward_batch) -> torch.Tensor:
        x = conv_step(mixed, states.conv, self._slots, *_conv_of(mixer))
        out = ssd_step(_tokens(mixer, x, time), _head(mixer), states.temporal, self._slots)
        self._track_mamba_state_decode(forward_batch, states.conv, states.temporal, self._slots, layer_id)
        return out

    def _prefill(self, mixer, plan: Prompts, states: LayerStates, mixed, time) -> torch.Tensor:
        plan.keep_windows(mixed, states)
        x = conv_ragged(mixed, plan.bounds, states.conv, self._slots, *_conv_of(mixer))
        out = ssd_prefill(_tokens(mixer, x, time), _head(mixer), plan.chunks, states.temporal, self._slots)
        plan.keep_final_states(states)
        return out

    def _verify(self, mixer, plan: Nodes, states: LayerStates, mixed, time) -> torch.Tensor:
        width, parents, rows, ancestors = plan
        bs = self._slots.numel()
        windows, after = states.node_windows[:bs, :width], states.node_states[:bs, :width]
        x = conv_nodes(mixed.reshape(bs, width, -1), rows, states.conv, self._slots, *_conv_of(mixer), windows)
        tokens = _tokens(mixer, x, time.reshape(bs, width, -1))
        out = ssd_nodes(tokens, _head(mixer), parents, ancestors, states.temporal, self._slots, after)
        return out.flatten(0, 1)


def _conv_of(mixer) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
    """weight [C, K], bias, silu of a layer's convolution."""
    return mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias, mixer.activation in ("silu", "swish")


def _head(mixer) -> Head:
    return Head(mixer.A.float(), mixer.D.float(), mixer.dt_bias.float())


def _tokens(mixer, x: torch.Tensor, time: torch.Tensor) -> Tokens:
    """Convolved x [..., C], time [..., H] of the projection."""
    share, n = mixer.tp_size, mixer.ssm_state_size
    directions = mixer.groups_ssm_state_size // share
    x, b, c = x.split((mixer.intermediate_size // share, directions, directions), -1)
    return Tokens(x.unflatten(-1, (-1, mixer.head_dim)), b.unflatten(-1, (-1, n)), c.unflatten(-1, (-1, n)), time)

"""Server arguments of hybrid models that the CPU platform fills in."""

from sglang.srt.arg_groups.model_override_base import model_config_of
from sglang.srt.configs import FalconH1Config, GraniteMoeHybridConfig, NemotronHConfig
from sglang.srt.configs.hybrid_arch import hybrid_gdn_config, mamba2_config, mambaish_config
from sglang.srt.environ import envs
from sglang.srt.runtime_context import get_parallel

from sglang_dflash.host.contract import Touch

_OOT = "SGLang asks an out-of-tree platform before it sizes state for a GPU"
TOUCHES = (
    Touch("sglang.srt.configs.hybrid_arch:mambaish_config", "size of a request's recurrent state", _OOT),
    *(
        Touch(f"sglang.srt.configs.hybrid_arch:{name}", "kinds of recurrent layers", "never: refuses the others")
        for name in ("hybrid_gdn_config", "mamba2_config")
    ),
    *(
        Touch(f"sglang.srt.configs:{name}", "kinds of Mamba-2 targets", "never: refuses the others")
        for name in ("FalconH1Config", "GraniteMoeHybridConfig", "NemotronHConfig")
    ),
    Touch("sglang.srt.runtime_context:get_parallel", "the ranks that share a state", _OOT),
    Touch(
        "sglang.srt.arg_groups.kv_cache_hook:handle_cache_compatibility",
        "wrapped: size of the state pool",
        _OOT,
        ("server_args",),
    ),
    Touch(
        "sglang.srt.arg_groups.mamba_hook:handle_mamba_backend",
        "wrapped: dtype of convolution states",
        _OOT,
        ("server_args",),
    ),
    Touch(
        "sglang.srt.environ:envs.SGLANG_MAMBA_CONV_DTYPE",
        "convolution states keep the model's dtype: SGLang would round a float32 model's to bfloat16",
        _OOT,
    ),
)


def state_bytes(server_args, ranks: int) -> int:
    """Bytes of one request's recurrent state over all layers, in one of ``ranks``; 0 for models without."""
    hybrid = mambaish_config(model_config_of(server_args))
    if hybrid is None:
        return 0
    with get_parallel().override(tp_size=ranks, attn_tp_size=ranks, enable_cp_tp_group_sharing=False):
        return int(hybrid.mamba2_cache_params.mamba_cache_per_req)


def has_operators(server_args) -> bool:
    """False for models whose recurrent layers are neither gated delta nets nor Mamba-2."""
    config = model_config_of(server_args)
    if mambaish_config(config) is None or hybrid_gdn_config(config) is not None:
        return True
    return isinstance(mamba2_config(config), FalconH1Config | GraniteMoeHybridConfig | NemotronHConfig)


def keep_conv_dtype(dtype: str) -> None:
    """Convolution states in ``dtype`` unless the user's environment says otherwise; for child processes too."""
    if not envs.SGLANG_MAMBA_CONV_DTYPE.is_set():
        envs.SGLANG_MAMBA_CONV_DTYPE.set(dtype)

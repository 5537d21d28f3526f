"""What the CPU platform does in a worker process: once before models load, and after each model."""

import logging

import psutil
import torch

from sglang_dflash.cpu import BACKEND, NAME

logger = logging.getLogger(__name__)


def before_model() -> None:
    """Register the attention backend and repair what does not run on a host (idempotent)."""
    from sglang_dflash.cpu import nucleus, operators
    from sglang_dflash.cpu.host import runtime
    from sglang_dflash.cpu.host.attention import ATTENTION_BACKENDS, register_attention_backend
    from sglang_dflash.cpu.host.sampler import draw_from_kept

    # SGLang compiles some helpers; on a host that costs seconds, needs a C++ compiler and gains nothing.
    torch.compiler.set_stance("force_eager")
    operators.install(NAME)
    runtime.tolerate_host_record_stream()
    runtime.gather_without_custom_op()
    runtime.softcap_without_triton()
    runtime.name_the_host_device()
    draw_from_kept(nucleus.kept_tokens)
    if BACKEND not in ATTENTION_BACKENDS:
        register_attention_backend(BACKEND)(create_backend)


def create_backend(runner):
    """The attention backend of one model runner; says in one line what the platform decided."""
    from sglang_dflash.cpu.attention import CpuAttention
    from sglang_dflash.cpu.host.attention import absorb_latent_attention

    backend = CpuAttention(runner)
    if getattr(runner.model_config.hf_text_config, "use_bidirectional_attention", None) == "vision":
        backend.expect_images()
    if runner.use_mla_backend:
        absorb_latent_attention(BACKEND)
    if not runner.is_draft_worker:
        memory = psutil.virtual_memory()
        logger.info(
            "CPU platform: attention %s, %s, %d KV tokens, %d thread(s), %.1f of %.1f GB free",
            BACKEND,
            str(runner.dtype).removeprefix("torch."),
            runner.max_total_num_tokens,
            torch.get_num_threads(),
            memory.available / 2**30,
            memory.total / 2**30,
        )
    return backend


def after_model(model) -> None:
    """Repairs that need a loaded model, packed weights, threads, and the lean pass."""
    from sglang_dflash.cpu import lean, operators, packing, stepclock, tuning
    from sglang_dflash.cpu.host import runtime
    from sglang_dflash.cpu.recurrent.install import install as install_recurrent_layers
    from sglang_dflash.engine.updates.derived import recompute_derived
    from sglang_dflash.kernels.dense import matrix_of
    from sglang_dflash.options import Options

    options = Options.from_env()
    runtime.keep_dtype_of_input_embeddings()
    if type(model).__name__.startswith("MiniMaxM2"):
        runtime.joint_norms_without_triton(operators.joint_square_sums, operators.joint_norm)
    for module in model.modules():
        # A fused norm and rope of the built-in draft is a Triton kernel; its plain path is torch.
        if getattr(module, "use_table_qk_norm_rope", False):
            module.use_table_qk_norm_rope = False
    large = packing.large_layers(model)
    if options.cpu_pack == "on":
        packing.pack(large, model)
        runtime.follow_updates(recompute_derived)
    tuning.tune([matrix_of(layer, rows) for layer, rows in large.items()], runtime.get_parallel().tp_size)
    lean.install(model)
    install_recurrent_layers(model)
    if options.timings and not runtime.speculating():
        stepclock.install(model, options.timings)

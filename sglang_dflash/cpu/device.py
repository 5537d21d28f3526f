"""The platform object: what SGLang asks about a host without an accelerator."""

import psutil
import torch

from sglang_dflash.cpu import BACKEND, NAME
from sglang_dflash.cpu.host.platform import PlatformCapabilities, PlatformEnum, SRTPlatform


class CpuPlatform(SRTPlatform):
    """Out-of-tree platform ``sglang_dflash_cpu``: torch on the host, no Triton, no graphs."""

    _enum = PlatformEnum.OOT
    device_name = NAME
    device_type = "cpu"
    capabilities = PlatformCapabilities()

    # device ------------------------------------------------------------------------------------

    def get_device(self, device_id: int = 0) -> str:
        return "cpu"

    def get_device_name(self, device_id: int = 0) -> str:
        return "cpu"

    def get_device_uuid(self, device_id: int = 0) -> str:
        return "cpu"

    def set_device(self, device) -> None:
        """There is one host: nothing to select."""

    def get_device_total_memory(self, device_id: int = 0) -> int:
        return psutil.virtual_memory().total

    def get_current_memory_usage(self, device=None) -> float:
        return float(psutil.Process().memory_info().rss)

    def get_available_memory(self, device_id: int = 0) -> tuple[int, int]:
        memory = psutil.virtual_memory()
        return memory.available, memory.total

    def get_torch_distributed_backend_str(self) -> str:
        return "gloo"

    # serving -----------------------------------------------------------------------------------

    def get_default_attention_backend(self) -> str:
        return BACKEND

    def get_dispatch_key_name(self) -> str:
        return self.device_name

    def get_compile_backend(self, mode: str | None = None) -> str:
        return "eager"

    def get_kv_pool_cls(self, *, kind: str) -> type | None:
        # Asked for every kind at once; a model that uses another kind is refused by the attention backend.
        if kind != "mha":
            return None
        from sglang_dflash.cpu.host.pool import CpuKVPool

        return CpuKVPool

    def init_backend(self) -> None:
        """Called while a worker imports its model runner: register what the workers need."""
        from sglang_dflash.cpu import worker_setup

        worker_setup.before_model()

    def post_load_model(self, model: torch.nn.Module) -> None:
        """Called for the target and for the draft once their weights are loaded."""
        from sglang_dflash.cpu import worker_setup

        worker_setup.after_model(model)

    def get_torch_profiler_activity_str(self) -> str:
        return "CPU"

    def get_torch_profiler_activity(self) -> torch.profiler.ProfilerActivity:
        return torch.profiler.ProfilerActivity.CPU

    # speculative decoding ----------------------------------------------------------------------

    def supports_speculative_algorithm(self, algorithm: str) -> bool:
        return algorithm == "DFLASH"

    def supports_speculative_draft_attention_backend(self, algorithm: str, backend: str) -> bool:
        return backend == BACKEND

    def get_default_speculative_draft_attention_backend(self, algorithm: str) -> str:
        return BACKEND

    def get_speculative_worker_cls(self, algorithm: str) -> type | None:
        # The hook on create_worker decides, on this platform as on every other.
        return None

    def get_speculative_cache_locs_fn(self):
        from sglang_dflash.cpu.slots import window_slots

        return window_slots

    def support_mamba_cache_extra_buffer(self) -> bool:
        return True

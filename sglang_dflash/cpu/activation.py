"""Decides whether the CPU platform claims this machine; imports nothing heavy."""

import glob
import os

from sglang_dflash.options import Options

# Device nodes of NVIDIA, AMD, Habana, Ascend and Intel accelerators.
DEVICE_NODES = (
    "/dev/nvidia[0-9]*",
    "/dev/nvidia-uvm",
    "/dev/dxg",
    "/dev/kfd",
    "/dev/accel/accel[0-9]*",
    "/dev/davinci[0-9]*",
    "/dev/dri/renderD*",
)


def asked_for() -> bool:
    """True where ``SGLANG_DFLASH_PLATFORM`` asks for the platform by name."""
    return Options.from_env().platform == "cpu"


def claims_machine() -> bool:
    """True where no accelerator is usable, or where ``SGLANG_DFLASH_PLATFORM=cpu`` asks.

    ``off`` disables the platform. DFlashError for any other value.
    """
    asked = Options.from_env().platform
    if asked == "cpu":
        return True
    if asked == "off" or os.environ.get("SGLANG_USE_CPU_ENGINE") == "1":
        return False
    return not _accelerator_usable()


def _accelerator_usable() -> bool:
    if not any(glob.glob(pattern) for pattern in DEVICE_NODES):
        return False
    # A device node alone proves nothing (a plain display adapter has one): ask torch.
    import torch

    return torch.accelerator.is_available()

"""What SGLang calls us by: entry points, called in every one of its processes, and what they install."""


def activate() -> str | None:
    """Group ``sglang.srt.platforms``: our CPU platform where no accelerator is usable, else None."""
    from sglang_dflash.cpu.activation import wanted

    return "sglang_dflash.cpu.device:CpuPlatform" if wanted() else None


def register() -> None:
    """Group ``sglang.srt.plugins``: install the worker, the draft model and the options."""
    from sglang_dflash.plugin.registration import install

    install()

"""Entry points that SGLang calls in every one of its processes."""


def activate() -> str | None:
    """Group ``sglang.srt.platforms``: our CPU platform where no accelerator is usable, else None."""
    from sglang_dflash.platform.activation import wanted

    return "sglang_dflash.platform.device:CpuPlatform" if wanted() else None


def register() -> None:
    """Group ``sglang.srt.plugins``: install the worker, the draft model and the options."""
    from sglang_dflash.host.registration import install

    install()

"""What SGLang calls us by: entry points, called in every one of its processes, and what they install."""


def activate() -> str | None:
    """Group ``sglang.srt.platforms``: our CPU platform where no accelerator is usable, else None."""
    from sglang_dflash.cpu.activation import asked_for, claims_machine
    from sglang_dflash.errors import DFlashError, end_process
    from sglang_dflash.host.contract import require_version

    try:
        require_version()
    except DFlashError as error:
        if asked_for():
            end_process(str(error))
        return None  # ``register`` says why
    return "sglang_dflash.cpu.device:CpuPlatform" if claims_machine() else None


def register() -> None:
    """Group ``sglang.srt.plugins``: install the worker, the draft model and the options."""
    from sglang_dflash.plugin.registration import install

    install()

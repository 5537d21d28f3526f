"""``sglang-dflash doctor``: what is installed, and where a server would run."""

from rich.console import Console

from sglang_dflash.bench.provenance import machine, versions
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import require_version
from sglang_dflash.pair import DRAFT_DIR, TARGET_DIR
from sglang_dflash.serve.spec import accelerator_present


def report() -> bool:
    """Print the state of the set-up; False where servers could not start."""
    console = Console(highlight=False)
    for name, version in versions().items():
        console.print(f"{name:<15}{version or 'not installed'}")
    about = machine()
    console.print(f"{'machine':<15}{about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB")
    for gpu in about["gpus"]:
        console.print(f"{'gpu':<15}{gpu}")
    problems = []
    try:
        require_version()
        console.print(f"{'servers run on':<15}{'the accelerator' if accelerator_present() else 'the CPU platform'}")
    except DFlashError as error:
        problems.append(str(error))
    for folder in (TARGET_DIR, DRAFT_DIR):
        if not (folder / "model.safetensors").exists():
            problems.append(f"pair: {folder} holds no weights (clone again, or run sglang-dflash train)")
    for problem in problems:
        console.print(f"error: {problem}", soft_wrap=True)
    if not problems:
        console.print("all is well")
    return not problems

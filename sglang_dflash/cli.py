"""``sglang-dflash``: one command for everything. Imports torch and SGLang only where a command needs them."""

import sys
from typing import Annotated

import typer

from sglang_dflash import __version__
from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.arguments import PASS_ON
from sglang_dflash.tools.bench.cli import app as bench_app
from sglang_dflash.tools.demo.cli import demo, generate
from sglang_dflash.tools.doctor.cli import check
from sglang_dflash.tools.extras import require_extra
from sglang_dflash.tools.fuzz.cli import fuzz
from sglang_dflash.tools.pair.named import EMBEDDED, SMOLLM2, find_pair
from sglang_dflash.tools.serve.cli import launch, models, serve
from sglang_dflash.tools.soak.cli import soak
from sglang_dflash.tools.train.cli import app as train_app

app = typer.Typer(
    help="DFlash speculative decoding on SGLang.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
app.add_typer(bench_app, name="bench")
app.add_typer(train_app, name="train", callback=lambda: require_extra("train"))
app.command()(demo)
app.command()(generate)
app.command(context_settings=PASS_ON)(serve)
app.command()(models)
app.command(context_settings=PASS_ON)(launch)
app.command()(check)
app.command()(soak)
app.command()(fuzz)


def main() -> None:
    """Run the command; a DFlashError is one line and exit status 2."""
    try:
        app()
    except DFlashError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@app.command("pair")
def make_pair(
    name: Annotated[str, typer.Argument(help=f"{EMBEDDED} or {SMOLLM2}.")],
    dtype: Annotated[str, typer.Option(help=f"float32 or bfloat16, for {SMOLLM2}.")] = "float32",
) -> None:
    """Make a pair ready for use, and print where target and draft lie; made once, offline after that."""
    found = find_pair(name, dtype=dtype)
    print(f"target {found.target}\ndraft {found.draft}")


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)

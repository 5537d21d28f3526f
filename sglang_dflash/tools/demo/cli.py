"""``sglang-dflash demo`` and ``generate``."""

from typing import Annotated

import typer

from sglang_dflash.tools.arguments import Draft, Exact, MaxTokens, PairName, Prompts, Target
from sglang_dflash.tools.pair.named import EMBEDDED, PACES, find_pair


def demo(
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    prompts: Prompts = None,
    questions: Annotated[int | None, typer.Option(help="How many are shown; default: the pair's.", min=1)] = None,
    measured: Annotated[int | None, typer.Option(help="How many are measured; default: the pair's.", min=1)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer; default: the pair's.", min=1)] = None,
) -> None:
    """Serve a pair and watch plain decoding and DFLASH give the same answers."""
    from sglang_dflash.tools.bench.prompt_sets import find_all_prompts
    from sglang_dflash.tools.demo.run import DemoOptions, run_demo

    chosen, pace = find_pair(pair, target, draft), PACES[pair]
    options = DemoOptions(
        target=chosen.target,
        draft=chosen.draft,
        prompts=find_all_prompts(prompts) if prompts else [chosen.prompts],
        questions=questions or pace.shown,
        measured=measured or pace.demo_prompts,
        max_tokens=max_tokens or pace.max_tokens,
        repeats=pace.demo_repeats,
    )
    if not run_demo(options):
        raise typer.Exit(1)


def generate(
    prompt: Annotated[str, typer.Argument(help="The question.")],
    url: Annotated[str, typer.Option(help="A running server; default: start the embedded pair.")] = "",
    max_tokens: MaxTokens = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    exact: Exact = False,
) -> None:
    """Answer one question, streamed."""
    from sglang_dflash.tools.demo.ask import answer_once

    chosen = None if url else find_pair(pair, target, draft)
    answer_once(prompt, url, {"max_tokens": max_tokens, "temperature": temperature}, chosen, exact)

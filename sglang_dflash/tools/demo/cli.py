"""``sglang-dflash demo`` and ``generate``."""

from typing import Annotated

import typer

from sglang_dflash.tools.arguments import Draft, Exact, MaxTokens, PairName, Prompts, Target
from sglang_dflash.tools.pair.named import EMBEDDED, find_pair


def demo(
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    prompts: Prompts = None,
    questions: Annotated[int, typer.Option(help="How many are shown.", min=1)] = 5,
    measured: Annotated[int, typer.Option(help="How many are measured.", min=1)] = 48,
    max_tokens: MaxTokens = 256,
) -> None:
    """Serve a pair and watch plain decoding and DFLASH give the same answers."""
    from sglang_dflash.tools.bench.prompt_sets import find_prompts
    from sglang_dflash.tools.demo.run import DemoOptions, run_demo

    chosen = find_pair(pair, target, draft)
    source = find_prompts(prompts) if prompts else chosen.prompts
    if not run_demo(DemoOptions(chosen.target, chosen.draft, source, questions, measured, max_tokens)):
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

"""What candidates from the context gain: chains and trees of the draft, without and with them, and them alone.

    .venv/bin/python benchmarks/lookup.py [--pair embedded|smollm2] [--tasks NAMES] [--systems NAMES] [--prompts N]

The CPU platform, one request in flight. Systems run in groups of three servers, of which the draft's chain is always
one; those of a group take turns at every prompt, and speeds are ratios to the chain's of the same group. A figure is
the median over repetitions. Every answer is compared with the chain's, which other tests compare with plain decoding's.

Tasks. mix: held-out questions of every kind but prose. prose: held-out stories. again: a question that the context has
answered before. copy: code to be repeated. human-eval, gsm8k: published questions.
"""

import argparse
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from launcher import ForkLauncher  # noqa: E402

from sglang_dflash.tools.bench.prompt_sets import find_all_prompts  # noqa: E402
from sglang_dflash.tools.bench.prompts import load_prompts, renderer  # noqa: E402
from sglang_dflash.tools.pair.named import find_pair  # noqa: E402
from sglang_dflash.tools.serve import ServerProcess, ServerSpec  # noqa: E402

WIDE = ("--speculative-dflash-block-size", "16", "--speculative-num-draft-tokens")
TREE = ("--speculative-eagle-topk", "8", *WIDE, "32")
# name: flags, SGLANG_DFLASH_LOOKUP
SYSTEMS = {
    "chain 16": ((*WIDE, "16"), "off"),
    "tree 32": (TREE, "off"),
    "tree 32 + lookup": (TREE, "on"),
    "lookup 16": ((*WIDE, "16"), "only"),
    "chain 16 + lookup": ((*WIDE, "16"), "on"),
    "lookup 32": ((*WIDE, "32"), "only"),
    "chain 32 + lookup": ((*WIDE, "32"), "on"),
}
BASE, GROUP = "chain 16", 2
AGAIN = ("times", "count", "add", "sort", "words", "convert")  # whose answers are long


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--pair", default="embedded")
    arguments.add_argument("--tasks", default="mix,prose,again", help="comma-separated")
    arguments.add_argument("--systems", default=",".join(SYSTEMS), help="comma-separated")
    arguments.add_argument("--prompts", type=int, default=1, help="of each kind")
    arguments.add_argument("--tokens", type=int, default=128, help="longest answer")
    arguments.add_argument("--repeats", type=int, default=3)
    chosen = arguments.parse_args()
    pair = find_pair(chosen.pair, "", "")
    tasks = {task: prompts_of(task, pair, chosen.prompts) for task in chosen.tasks.split(",")}
    others = [name for name in chosen.systems.split(",") if name != BASE]
    launcher = ForkLauncher()
    print("| task | system | accept length | of chain | speed, of chain | tokens/s |")
    print("|---|---|---|---|---|---|")
    with ExitStack() as stack:
        stack.callback(launcher.close)
        for start in range(0, len(others), GROUP):
            with ExitStack() as group:
                names = [BASE, *others[start : start + GROUP]]
                servers = {name: group.enter_context(server(name, pair, launcher)) for name in names}
                for task, prompts in tasks.items():
                    measure(task, servers, prompts, chosen.repeats, chosen.tokens)


def prompts_of(task: str, pair, count: int) -> list[list[int]]:
    """Token ids of a task's prompts."""
    if task in ("human-eval", "gsm8k"):
        return [list(p.token_ids) for p in load_prompts(pair.target, find_all_prompts(task), per_kind=count)]
    if task == "copy":
        prompts = load_prompts(pair.target, find_all_prompts("human-eval"), per_kind=count)
        render = renderer(pair.target)
        texts = [p.record["messages"][0]["content"] + p.record["answer"] for p in prompts]
        return [render([{"role": "user", "content": f"Repeat this code, word for word:\n\n{text}"}]) for text in texts]
    kinds = ("prose",) if task == "prose" else AGAIN if task == "again" else None
    prompts = load_prompts(pair.target, pair.prompts, kinds, per_kind=8 * count if task == "prose" else count)
    if task == "mix":
        return [list(p.token_ids) for p in prompts if p.kind != "prose"]
    if task == "prose":
        return [list(p.token_ids) for p in prompts]
    render = renderer(pair.target)
    return [render(answered_before(p.record)) for p in prompts]


def answered_before(record: dict) -> list[dict]:
    """The question, its answer, and the question again."""
    asked = record["messages"]
    return [*asked, {"role": "assistant", "content": record["answer"]}, asked[-1]]


def server(name: str, pair, launcher) -> ServerProcess:
    flags, lookup = SYSTEMS[name]
    flags = (*flags, "--max-total-tokens", "8192")
    spec = ServerSpec(pair.target, pair.draft, "dflash", exact=True).with_flags(*flags)
    return ServerProcess(spec.with_env(SGLANG_DFLASH_LOOKUP=lookup), ROOT / "bench-results", launcher=launcher.launch)


def measure(task: str, servers, prompts, repeats: int, tokens: int) -> None:
    """Print the rows of one task."""
    sampling = {"temperature": 0.0, "max_new_tokens": tokens}
    seconds = {name: [0.0] * (repeats + 1) for name in servers}
    answers = {name: [] for name in servers}
    for repeat in range(repeats + 1):  # the first is not counted
        for i, prompt in enumerate(prompts):
            names = list(servers)
            for name in names[i % len(names) :] + names[: i % len(names)]:
                answer = servers[name].client.generate(prompt, sampling)
                seconds[name][repeat] += answer.finished - answer.sent
                if not repeat:
                    answers[name].append(answer)
    lengths = {name: accept_length(own) for name, own in answers.items()}
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds[BASE][1:], times[1:], strict=True))
        differ = sum(a.token_ids != b.token_ids for a, b in zip(answers[name], answers[BASE], strict=True))
        note = f" ({differ} answers differ)" if differ else ""
        speed = sum(len(a.token_ids) for a in answers[name]) / statistics.median(times[1:])
        longer = lengths[name] / lengths[BASE]
        print(
            f"| {task} | {name}{note} | {lengths[name]:.2f} | {longer:.2f}x | {ratio:.2f}x | {speed:.0f} |", flush=True
        )


def accept_length(answers) -> float:
    """Tokens that rounds emitted, by round; a prefill emits the first."""
    return sum(len(a.token_ids) - 1 for a in answers) / sum(a.rounds for a in answers)


if __name__ == "__main__":
    main()

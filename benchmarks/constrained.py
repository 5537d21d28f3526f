"""What DFLASH gains where a JSON schema constrains the answer: plain, built-in, ours with drafts as they are, and ours.

    .venv/bin/python benchmarks/constrained.py [--repeats N] [--rows N] [--tasks NAMES] [--loose]

The embedded pair on the CPU platform, one request in flight; the systems take turns at every prompt. A figure is the
median over repetitions. Rows: held-out csv questions with the schema of their own answer. Calls: the same questions,
answered by a tool call, which the pair was never trained on. Every answer is compared with plain decoding's.
"""

import argparse
import json
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from launcher import ForkLauncher  # noqa: E402

from sglang_dflash.tools.bench.prompts import load_prompts  # noqa: E402
from sglang_dflash.tools.pair import DRAFT_DIR, HELDOUT_DIR, TARGET_DIR  # noqa: E402
from sglang_dflash.tools.serve import ServerProcess, ServerSpec  # noqa: E402

SCHEDULER = 1  # of a server's processes; the launcher starts it first
COMPACT = "--constrained-json-disable-any-whitespace"
# name: worker, environment
SYSTEMS = {
    "plain": ("plain", {}),
    "built-in": ("builtin", {}),
    "ours, drafts as they are": ("dflash", {"SGLANG_DFLASH_GRAMMAR_DRAFTS": "off"}),
    "ours": ("dflash", {}),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--rows", type=int, default=12, help="prompts of each task")
    arguments.add_argument("--loose", action="store_true", help=f"any whitespace, SGLang's default: without {COMPACT}")
    arguments.add_argument("--tasks", default="rows,calls", help="comma-separated")
    chosen = arguments.parse_args()
    prompts = load_prompts(str(TARGET_DIR), HELDOUT_DIR, ("csv",), chosen.rows)
    tasks = {
        "rows": [row_schema(p.record["key"]) for p in prompts],
        "calls": [call_schema(p.record["key"]) for p in prompts],
    }
    launcher = ForkLauncher()
    with ExitStack() as stack:
        stack.callback(launcher.close)
        servers = {name: stack.enter_context(server(name, chosen.loose, launcher)) for name in SYSTEMS}
        print("| task | system | tokens/s | of plain | processor ms a token | accept length |")
        print("|---|---|---|---|---|---|")
        for task in chosen.tasks.split(","):
            measure(task, servers, prompts, tasks[task], chosen.repeats)


def server(name: str, loose: bool, launcher) -> ServerProcess:
    worker, env = SYSTEMS[name]
    spec = ServerSpec(str(TARGET_DIR), None if worker == "plain" else str(DRAFT_DIR), worker, exact=True)
    spec = spec.with_env(**env) if loose else spec.with_flags(COMPACT).with_env(**env)
    return ServerProcess(spec, ROOT / "bench-results", launcher=launcher.launch)


def busy_seconds(server: ServerProcess) -> float:
    """Processor seconds of the scheduler so far."""
    times = server.processes()[SCHEDULER].cpu_times()
    return times.user + times.system


def row_schema(key) -> dict:
    """Of a row's own answer."""
    kinds = {name: {"type": "integer" if isinstance(value, int) else "string"} for name, value in key}
    return {"type": "object", "properties": kinds, "required": list(kinds), "additionalProperties": False}


def call_schema(key) -> dict:
    """As SGLang asks of a required tool call."""
    call = {"name": {"enum": ["write_to_the_register"]}, "parameters": row_schema(key)}
    call = {"type": "object", "properties": call, "required": list(call), "additionalProperties": False}
    return {"type": "array", "items": call, "minItems": 1, "maxItems": 1}


def measure(task: str, servers, prompts, schemas, repeats: int) -> None:
    """Print the rows of one task."""
    seconds = {name: [0.0] * (repeats + 1) for name in servers}
    worked = {name: [0.0] * (repeats + 1) for name in servers}
    answers = {name: [] for name in servers}
    for repeat in range(repeats + 1):  # the first is not counted: grammars are compiled in it
        for i, (prompt, schema) in enumerate(zip(prompts, schemas, strict=True)):
            sampling = {"temperature": 0.0, "max_new_tokens": 120, "json_schema": json.dumps(schema)}
            names = list(servers)
            for name in names[i % len(names) :] + names[: i % len(names)]:
                before = busy_seconds(servers[name])
                answer = servers[name].client.generate(prompt.token_ids, sampling)
                worked[name][repeat] += busy_seconds(servers[name]) - before
                seconds[name][repeat] += answer.finished - answer.sent
                if not repeat:
                    answers[name].append(answer)
    plain = statistics.median(seconds["plain"][1:])
    for name, times in seconds.items():
        took, rounds = statistics.median(times[1:]), sum(a.rounds for a in answers[name])
        tokens = sum(len(a.token_ids) for a in answers[name])
        accept = f"{(tokens - len(prompts)) / rounds:.2f}" if rounds else ""
        differ = sum(a.token_ids != b.token_ids for a, b in zip(answers[name], answers["plain"], strict=True))
        note = f" ({differ} answers differ)" if differ else ""
        busy = 1000 * statistics.median(worked[name][1:]) / tokens
        speed = f"{tokens / took:.0f} | {plain / took:.2f}x | {busy:.2f}"
        print(f"| {task} | {name}{note} | {speed} | {accept} |", flush=True)


if __name__ == "__main__":
    main()

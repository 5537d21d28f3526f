"""Trains a small target of some families and a DFlash draft for each: ``python tests/families/pairs/make.py NAME...``.

Runs may be cut off and started again; finished weights replace ``tests/families/pairs/NAME``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from family import BLOCK  # noqa: E402
from table import BY_NAME  # noqa: E402

KINDS = "roman,convert,py,count,refuse"
TARGET_STEPS, DRAFT_STEPS = 2000, 1500


def train(*arguments: str) -> None:
    """One command of the recipe, on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "sglang_dflash.tools.train", *arguments], check=True, env=environment)


def make(name: str, runs: Path) -> None:
    """Target, draft, measured accept lengths, and all of it into the family's folder."""
    family, run = BY_NAME[name], runs / name
    run.mkdir(parents=True, exist_ok=True)
    config = family.config().to_dict() | {"architectures": [family.model]}
    (run / "config.json").write_text(json.dumps(config, indent=1))
    train(
        "target",
        "--config",
        str(run / "config.json"),
        "--kinds",
        KINDS,
        "--steps",
        str(TARGET_STEPS),
        "--dtype",
        "bfloat16",
        "--out",
        str(run / "target"),
        "--export",
        str(run / "export"),
    )
    train(
        "draft",
        "--target",
        str(run / "export"),
        "--kinds",
        KINDS,
        "--steps",
        str(DRAFT_STEPS),
        "--taps",
        "3",
        "--block-size",
        str(BLOCK),
        "--layers",
        "1",
        "--dtype",
        "bfloat16",
        "--out",
        str(run / "draft"),
    )
    train(
        "eval",
        "--target",
        str(run / "export"),
        "--draft",
        str(run / "draft" / "draft"),
        "--kinds",
        KINDS,
        "--limit",
        "10",
        "--json",
        str(run / "evaluation.json"),
    )
    keep(run, HERE / name)


def keep(run: Path, out: Path) -> None:
    """Config and weights of both, and what was measured; the tokenizer is the embedded pair's."""
    trained = {}
    for part, source in (("target", run / "export"), ("draft", run / "draft" / "draft")):
        (out / part).mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            shutil.copyfile(source / file, out / part / file)
        record = json.loads((source / "provenance.json").read_text())
        trained[part] = {key: record[key] for key in ("steps", "tokens", "trained_minutes", "torch")}
    measured = json.loads((run / "evaluation.json").read_text())
    kinds = [{k: v for k, v in row.items() if k != "wrong"} for row in measured["kinds"]]
    summary = {k: v for k, v in measured["summary"].items() if k not in ("target", "draft")}
    result = {"summary": summary, "trained": trained, "kinds": kinds}
    (out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(BY_NAME))
    parser.add_argument("--runs", type=Path, default=Path("runs/families"))
    given = parser.parse_args()
    for each in given.names:
        make(each, given.runs)

"""Reads the rounds that our worker timed; the worker writes them, and a server without it writes none."""

import json
from pathlib import Path
from statistics import median


class StageLog:
    """The file named by ``SGLANG_DFLASH_TIMINGS``: JSON lines ``{"bs", "round", "stages": {name: ms}}``."""

    def __init__(self, path: Path):
        self.path = path

    def mark(self) -> int:
        """The file's length now, to read from later."""
        return self.path.stat().st_size if self.path.exists() else 0

    def since(self, mark: int) -> list[dict]:
        """The rounds written after ``mark``; a line still being written is left out."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(mark)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()]


def stage_medians(rounds: list[dict]) -> dict[str, float]:
    """Median milliseconds per round of every stage, and of what lies between the stages (``outside``)."""
    if not rounds:
        return {}
    names = list(dict.fromkeys(name for entry in rounds for name in entry["stages"]))
    medians = {name: median(entry["stages"].get(name, 0.0) for entry in rounds) for name in names}
    timed = [entry for entry in rounds if entry["round"] is not None]
    if timed:
        medians["round"] = median(entry["round"] for entry in timed)
        medians["outside"] = median(entry["round"] - sum(entry["stages"].values()) for entry in timed)
    return medians

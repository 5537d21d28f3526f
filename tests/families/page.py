"""docs/families.md and the README's list, from the table of families and the record of what their tests passed.

SGLANG_DFLASH_RECORD_FAMILIES=1 pytest tests/families     # writes passed.json for the families that ran
python tests/families/page.py                             # writes the page and the list
"""

import json
from pathlib import Path

from family import Family
from table import FAMILIES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORD, TEMPLATE = HERE / "passed.json", HERE / "page.md"
PAGE, README = ROOT / "docs" / "families.md", ROOT / "README.md"
BEGIN, END = "<!-- families: made by tests/families/page.py -->", "<!-- end of families -->"
# Parts of the tests, as test names and parameters tell them apart: column title by part.
PARTS = {
    "plain": "plain = transformers",
    "chain": "chains",
    "tree": "random trees",
    "image": "image prompts",
}


def record(outcomes: dict[str, dict[str, bool]]) -> None:
    """Put ``outcomes`` (part -> passed, by family) in the place of what is recorded for these parts."""
    known = passed()
    known |= {name: known.get(name, {}) | parts for name, parts in outcomes.items()}
    ordered = {family.name: known[family.name] for family in FAMILIES if family.name in known}
    RECORD.write_text(json.dumps(ordered, indent=1) + "\n")


def passed() -> dict[str, dict[str, bool]]:
    """Part -> passed, by family."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def served() -> list[Family]:
    """Families of which every part passed, in the table's order."""
    outcomes = passed()
    return [f for f in FAMILIES if all(outcomes.get(f.name, {}).get(part) for part in _parts(f))]


def _parts(family: Family) -> list[str]:
    return [part for part in PARTS if part != "image" or family.image_token is not None]


def page() -> str:
    """docs/families.md."""
    lines = ["| Family | What is special | " + " | ".join(PARTS.values()) + " | Published targets |"]
    lines.append("|---" * (len(PARTS) + 3) + "|")
    outcomes = passed()
    for family in served():
        marks = ["yes" if outcomes[family.name].get(part) else "" for part in PARTS]
        targets = ", ".join(family.targets)
        lines.append(f"| {family.title} | {family.traits} | " + " | ".join(marks) + f" | {targets} |")
    return TEMPLATE.read_text().replace("{table}", "\n".join(lines))


def readme_list() -> str:
    """The README's list, between its marks."""
    rows = [f"- {family.title}" + ": " * bool(family.targets) + ", ".join(family.targets) for family in served()]
    return "\n".join((BEGIN, *rows, END))


def with_list(readme: str) -> str:
    """``readme`` with the list of today."""
    before, rest = readme.split(BEGIN)
    return before + readme_list() + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page())
    README.write_text(with_list(README.read_text()))

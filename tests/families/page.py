"""docs/families.md and the README's list, from the table of families: ``python tests/families/page.py`` writes both.

What the page says of a family is what test_families.py runs for it: a family that fails a part fails the suite.
"""

from pathlib import Path

from family import Family
from table import FAMILIES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TEMPLATE = HERE / "page.md"
PAGE, README = ROOT / "docs" / "families.md", ROOT / "README.md"
BEGIN, END = "<!-- families: made by tests/families/page.py -->", "<!-- end of families -->"
# Parts of test_families.py: column title by part.
PARTS = {
    "plain": "plain = transformers",
    "chain": "chains",
    "tree": "random trees",
    "image": "image prompts",
}


def parts(family: Family) -> list[str]:
    """What is tested of a family."""
    return [part for part in PARTS if part != "image" or family.image_token is not None]


def page() -> str:
    """docs/families.md."""
    lines = ["| Family | What is special | " + " | ".join(PARTS.values()) + " | Published targets |"]
    lines.append("|---" * (len(PARTS) + 3) + "|")
    for family in FAMILIES:
        marks = ["yes" if part in parts(family) else "" for part in PARTS]
        targets = ", ".join(family.targets)
        lines.append(f"| {family.title} | {family.traits} | " + " | ".join(marks) + f" | {targets} |")
    return TEMPLATE.read_text().replace("{table}", "\n".join(lines))


def readme_list() -> str:
    """The README's list, between its marks."""
    rows = [f"- {family.title}" + ": " * bool(family.targets) + ", ".join(family.targets) for family in FAMILIES]
    return "\n".join((BEGIN, *rows, END))


def with_list(readme: str) -> str:
    """``readme`` with the list of today."""
    before, rest = readme.split(BEGIN)
    return before + readme_list() + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page())
    README.write_text(with_list(README.read_text()))

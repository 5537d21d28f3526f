"""docs/host.md, made from the rows of the adapter folders and from the code."""

from sglang_dflash.host.contract import SGLANG_VERSION, touches_by_module
from sglang_dflash.host.usage import how


def page() -> str:
    """docs/host.md: every row, by module; a test compares."""
    lines = [
        f"# What we touch of SGLang {SGLANG_VERSION}",
        "",
        "Every import of SGLang is in `plugin/`, `host/` and `cpu/host/`. Each of their modules lists what it",
        "touches, why, and what would let us drop it. How a name is touched, and that none is missing or out of",
        "use, is read from the code: imports, hooks, assignments to names of SGLang and torch, and environment",
        "variables that are set. A name with none of these is that of an object that SGLang hands us. A test resolves",
        "every name, and the fields, parameters and attributes we rely on, in the installed version. This page is made",
        "from code and lists: `python -m sglang_dflash.host.page > docs/host.md`.",
    ]
    for name, rows in touches_by_module().items():
        lines += ["", f"## {name.replace('.', '/')}.py", "", "| Name | How | Why | Until |", "|---|---|---|---|"]
        for row in rows:
            lines.append(f"| `{row.target.removeprefix('sglang.')}` | {how(row)} | {row.why} | {row.until} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")

"""What a fuzz run found, as tables."""

from rich.console import Console
from rich.table import Table

from sglang_dflash.tools.bench.report import plain_table, show
from sglang_dflash.tools.fuzz.judge import Verdict
from sglang_dflash.tools.fuzz.run import Result


def features_table(result: Result) -> Table:
    """Requests by what they asked for; a request stands in a row for each of its features."""
    table = plain_table()
    table.add_column("asked for")
    for name in ("requests", *(verdict.value for verdict in Verdict)):
        table.add_column(name, justify="right")
    for name, counts in sorted(result.by_feature.items()):
        table.add_row(name, str(counts.total()), *(str(counts[verdict] or "") for verdict in Verdict))
    return table


def print_result(console: Console, result: Result) -> None:
    """Tables, then each wrong answer with the requests that reproduce it, then one line."""
    show(console, "By what was asked for", features_table(result))
    if result.refusals:
        console.print("\nRefused", style="bold")
        for reason, count in result.refusals.most_common():
            console.print(f"  {count} x {reason}", soft_wrap=True)
    for wrong in result.wrong:
        console.print(f"\nwrong: {wrong.what}", soft_wrap=True, markup=False)
        if not wrong.again:
            console.print(f"  (right when sent again; {len(wrong.requests) - 1} others were in flight)")
        for request in wrong.requests if wrong.again else wrong.requests[:1]:
            console.print(f"  {request.written()}", soft_wrap=True, markup=False, highlight=False)
    for leak in result.leaks:
        console.print(f"leak: {leak}")
    counts = ", ".join(f"{result.verdicts[verdict]} {verdict.value}" for verdict in Verdict)
    console.print(f"fuzz: {result.requests} requests: {counts}; {'slots are lost' if result.leaks else 'no slot lost'}")

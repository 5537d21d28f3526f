"""Wired right, wired right with a weak draft, or wired wrong: what the figures of a run say."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from sglang_dflash.tools.doctor.live.measured import Measured

# Accept lengths differ by batch shapes and number formats; more than this is another computation.
TOLERANCE = 0.1
# Below it a draft is hardly worth its rounds, whatever its target.
WEAK = 2.0
# A change of wiring has to bring this much to be taken for the right one.
BETTER, MORE = 1.25, 0.5


@dataclass(frozen=True)
class Verdict:
    """A run's figures. ``reference`` is None where the target is too large to run here, with the reason."""

    served: Measured
    reference: Measured | None = None
    no_reference: str = ""
    better: tuple[str, Measured] | None = None  # another wiring, and what the reference gets with it
    agreement: float | None = None  # share of served tokens that are the target's greedy choice in the reference
    published: tuple[float, float] | None = None  # accept length, lowest and highest
    other_mode: tuple[str, Measured] | None = None  # served in the other thinking mode: on or off

    @property
    def served_as_reference(self) -> bool | None:
        """Whether the server accepts what the reference does; None where that is unknown."""
        if self.reference is None:
            return None
        ours, expected = self.served.accept_length, self.reference.accept_length
        return abs(ours - expected) <= TOLERANCE * max(ours, expected)

    @property
    def miswired(self) -> bool:
        """Whether another wiring drafts far better."""
        if self.better is None or self.reference is None:
            return False
        return _far_better(self.better[1], self.reference)

    @property
    def wrong_mode(self) -> bool:
        """Whether the other thinking mode drafts far better."""
        return self.other_mode is not None and _far_better(self.other_mode[1], self.served)

    @property
    def weak(self) -> bool:
        """Whether little is accepted: hardly more than one token, or far less than was published."""
        ours = self.served.accept_length
        return ours < WEAK or (self.published is not None and ours < 0.6 * self.published[0])

    @property
    def wired_right(self) -> bool:
        """False where server or config are wrong, and where nothing tells a weak draft from a wrong wiring."""
        if self.served_as_reference is None:
            return not self.weak
        return self.served_as_reference and not self.miswired

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        ours = f"accept length {self.served.accept_length:.2f}"
        if self.served_as_reference is False:
            expected = self.reference.accept_length
            return f"wired wrong: served with {ours}, the reference gets {expected:.2f} on the same answers"
        if self.miswired:
            words, other = self.better
            return f"wired wrong: {ours}, and {other.accept_length:.2f} with {words}"
        if self.served_as_reference is None:
            if self.weak:
                return f"weak or wired wrong, which only the reference tells ({self.no_reference}): {ours}"
            return f"works: {ours}; not compared with the reference ({self.no_reference})"
        if self.wrong_mode:
            mode, other = self.other_mode
            return f"wired right: {ours}, and {other.accept_length:.2f} with thinking {mode}"
        return f"wired right, draft weak: {ours}" if self.weak else f"wired right: {ours}"

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "summary": self.summary,
            "wired_right": self.wired_right,
            "weak": self.weak,
            "served": self.served.as_dict(),
            "reference": self.reference and self.reference.as_dict(),
            "no_reference": self.no_reference,
            "better_wiring": self.better and {"change": self.better[0], **self.better[1].as_dict()},
            "other_thinking_mode": self.other_mode and {"mode": self.other_mode[0], **self.other_mode[1].as_dict()},
            "agreement": self.agreement,
            "published_accept_length": self.published,
        }

    def show(self, console: Console) -> None:
        """Print the figures."""
        table = Table("accept length", "by position", header_style="bold", pad_edge=False, title_justify="left")
        rows = [("served", self.served), ("reference", self.reference)]
        if self.other_mode is not None:
            rows.append((f"served, thinking {self.other_mode[0]}", self.other_mode[1]))
        if self.miswired:
            rows.append((f"with {self.better[0]}".replace("[", "\\["), self.better[1]))
        for label, figures in rows:
            if figures is not None:
                positions = " ".join(f"{value:.2f}" for value in figures.by_position)
                table.add_row(f"{label} {figures.accept_length:.2f}", positions)
        console.print()
        console.print(table)
        if self.agreement is not None and self.agreement < 1:
            console.print(f"{self.agreement:.2%} of the served tokens are the reference target's greedy choice")
        console.print(self.summary.replace("[", "\\["), soft_wrap=True)


def _far_better(other: Measured, ours: Measured) -> bool:
    """More than chance and rounding bring."""
    return other.accept_length >= max(BETTER * ours.accept_length, ours.accept_length + MORE)

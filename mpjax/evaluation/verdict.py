"""Confirmed, refuted or undecided: how a claim fixed beforehand meets an interval."""

import dataclasses
import math
from collections.abc import Sequence

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison of a claim.

    Attributes:
        text: what is claimed, with its bound.
        verdict: "confirmed", "refuted" or "undecided".
        value: the estimate; None where there is none.
        ci95: its interval; None where there is none.
        note: what else to know, for instance why it is undecided.
        gate: whether nothing is decided before this part is confirmed.
    """

    text: str
    verdict: str
    value: float | None = None
    ci95: tuple[float, float] | None = None
    note: str = ""
    gate: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim: confirmed if all of its parts are, refuted if one is; undecided while a gate is not confirmed."""

    key: str
    text: str
    parts: tuple[Part, ...]

    @property
    def verdict(self) -> str:
        """Of the whole."""
        verdicts = {part.verdict for part in self.parts}
        if any(part.gate and part.verdict != CONFIRMED for part in self.parts):
            return UNDECIDED
        if REFUTED in verdicts:
            return REFUTED
        return CONFIRMED if verdicts == {CONFIRMED} else UNDECIDED


def at_least(text: str, estimate: Sequence[float], bound: float, refuting: Sequence[float] | None = None) -> Part:
    """`value >= bound`, from (value, low, high); `refuting` is a wider interval, where several parts share a claim."""
    value, low, high = estimate
    top = high if refuting is None else refuting[2]
    verdict = CONFIRMED if low >= bound else REFUTED if top < bound else UNDECIDED
    return Part(text=text, verdict=verdict, value=value, ci95=(low, high))


def at_most(text: str, estimate: Sequence[float], bound: float) -> Part:
    """`value <= bound`, from (value, low, high)."""
    value, low, high = estimate
    verdict = CONFIRMED if high <= bound else REFUTED if low > bound else UNDECIDED
    return Part(text=text, verdict=verdict, value=value, ci95=(low, high))


def within(text: str, estimate: Sequence[float], bound: float) -> Part:
    """`|value| < bound`, from (value, low, high): an equivalence, confirmed by an interval inside the bounds."""
    value, low, high = estimate
    inside, outside = -bound < low and high < bound, low >= bound or high <= -bound
    verdict = CONFIRMED if inside else REFUTED if outside else UNDECIDED
    return Part(text=text, verdict=verdict, value=value, ci95=(low, high))


def required(text: str, met: bool, note: str, gate: bool = False) -> Part:
    """A condition: confirmed or undecided, with `note` where it is not met; with `gate` nothing is decided without."""
    return Part(text=text, verdict=CONFIRMED if met else UNDECIDED, note="" if met else note, gate=gate)


def as_json(claim: Claim) -> dict:
    """A claim as plain JSON; an interval without end has None there."""

    def number(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    parts = [
        {
            **dataclasses.asdict(part),
            "value": number(part.value),
            "ci95": None if part.ci95 is None else [number(end) for end in part.ci95],
        }
        for part in claim.parts
    ]
    return {"key": claim.key, "text": claim.text, "verdict": claim.verdict, "parts": parts}


def as_markdown(claims: Sequence[Claim]) -> str:
    """The claims as a Markdown page."""
    lines = ["# Claims fixed beforehand", ""]
    for claim in claims:
        lines += [f"## {claim.key}: {claim.verdict}", "", claim.text, "", "| | verdict | value | 95 % | |"]
        lines += ["|---|---|---|---|---|"]
        for part in claim.parts:
            value = "" if part.value is None else f"{part.value:.3g}"
            interval = "" if part.ci95 is None else f"[{part.ci95[0]:.3g}, {part.ci95[1]:.3g}]"
            lines.append(f"| {part.text} | **{part.verdict}** | {value} | {interval} | {part.note} |")
        lines.append("")
    return "\n".join(lines)

"""The verdict's gains as a picture for the model card."""

from collections.abc import Mapping
from html import escape

from qmd_schema.verdicts import Interval

_WIDTH, _LABELS, _VALUES, _ROW, _TOP = 760, 250, 90, 28, 34
"""In pixels: the whole, the columns of names and of means, a row, and what is above the first."""


def gains_svg(gains: Mapping[str, Interval], minimum_effect: float) -> str:
    """A forest plot as SVG: each gain's mean with its interval, lines at 0 and at the minimum effect."""
    ends = [end for gain in gains.values() for end in (gain.lower, gain.upper)] + [0.0, minimum_effect]
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin

    def x(value: float) -> str:
        return f"{_LABELS + (value - low) / (high - low) * (_WIDTH - _LABELS - _VALUES):.1f}"

    bottom = _TOP + _ROW * len(gains)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 26}" width="{_WIDTH}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{bottom + 26}" fill="white"/>',
        '<text x="8" y="20" font-weight="bold">Gain in nDCG@10</text>',
        _rule(x(0.0), bottom, "#444", "0"),
        _rule(x(minimum_effect), bottom, "#b36b00", f"minimum effect {minimum_effect:g}", anchor="start"),
    ]
    for row, (name, gain) in enumerate(gains.items()):
        y = _TOP + _ROW * row + _ROW // 2
        parts += [
            f'<text x="8" y="{y + 4}">{escape(name)}</text>',
            f'<line x1="{x(gain.lower)}" x2="{x(gain.upper)}" y1="{y}" y2="{y}" stroke="#3b6ea5" stroke-width="3"/>',
            f'<circle cx="{x(gain.mean)}" cy="{y}" r="5" fill="#3b6ea5"/>',
            f'<text x="{_WIDTH - 8}" y="{y + 4}" text-anchor="end">{gain.mean:+.3f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _rule(x: str, bottom: int, colour: str, label: str, anchor: str = "end") -> str:
    return (
        f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}" stroke="{colour}" stroke-dasharray="4 3"/>'
        f'<text x="{x}" y="{bottom + 16}" text-anchor="{anchor}" fill="{colour}" font-size="11">{escape(label)}</text>'
    )

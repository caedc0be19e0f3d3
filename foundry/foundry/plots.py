"""Plots that commands write beside their tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Panel:
    """One histogram: a title and the values it counts."""

    title: str
    values: Sequence[float]


@dataclass(frozen=True)
class Curves:
    """Curves under one title: of each its name, and its values by step."""

    title: str
    values: Mapping[str, Mapping[int, float]]


def save_histograms(
    path: Path, title: str, panels: Sequence[Panel], bounds: tuple[float, float] | None = None, columns: int = 4
) -> None:
    """Writes a page of histograms as PNG; with `bounds`, all panels share that range of values."""
    figure, axes = _page(title, len(panels), columns)
    for axis, panel in zip(axes, panels, strict=True):
        axis.hist(panel.values, bins=20, range=bounds, color="#3b6ea5")
        axis.set_title(f"{panel.title} (n={len(panel.values)})", fontsize=9)
    _save(figure, path)


def save_curves(path: Path, title: str, panels: Sequence[Curves], columns: int = 3) -> None:
    """Writes a page of curves over training steps as PNG."""
    figure, axes = _page(title, len(panels), columns)
    for axis, panel in zip(axes, panels, strict=True):
        for name, values in panel.values.items():
            axis.plot(list(values), list(values.values()), marker=".", linewidth=1, label=name)
        axis.set_title(panel.title, fontsize=9)
        if len(panel.values) > 1:
            axis.legend(fontsize=7)
    _save(figure, path)


def _page(title: str, panels: int, columns: int) -> tuple[Any, list[Any]]:
    """A figure, and the axes of each of its panels."""
    from matplotlib.figure import Figure

    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows + 0.6), layout="constrained")
    figure.suptitle(title)
    axes = [figure.add_subplot(rows, columns, number + 1) for number in range(panels)]
    for axis in axes:
        axis.tick_params(labelsize=8)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

"""Plots that commands write beside their tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Panel:
    """One histogram: a title and the values it counts."""

    title: str
    values: Sequence[float]


def save_histograms(
    path: Path, title: str, panels: Sequence[Panel], bounds: tuple[float, float] | None = None, columns: int = 4
) -> None:
    """Writes a page of histograms as PNG; with `bounds`, all panels share that range of values."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * rows + 0.6), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, panel in zip(axes, panels, strict=False):
        axis.hist(panel.values, bins=20, range=bounds, color="#3b6ea5")
        axis.set_title(f"{panel.title} (n={len(panel.values)})", fontsize=9)
        axis.tick_params(labelsize=8)
    for axis in list(axes):
        axis.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

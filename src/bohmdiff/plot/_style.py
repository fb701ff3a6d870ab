"""One style for all pictures, with lines that differ in greyscale too."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from ..units import ATOMIC as ATOMIC
from ..units import Units as Units
from ..units import as_units as as_units

# Okabe and Ito's colours, dark to light, so that they differ in greyscale; dashes distinguish them too.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))
TRAJECTORY_COLOUR = "#D55E00"
DENSITY_COLOURS = "Greys"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    """Applies our matplotlib settings within the context."""
    with mpl.rc_context(_STYLE):
        yield


def legend_above(axes: Axes) -> None:
    """Places a legend above the axes, where nothing is drawn."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

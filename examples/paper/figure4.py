"""Figure 4: mean and width of the four modes of the Morse chain, from the trained score.

Lines are the flow of the score, markers the exact values; below, how far apart they are, with the
root-mean-square error of the paper's weights as a dotted line. Particles start on a Gauss-Hermite grid, so
that their number does not hide the error of the score.
"""

import numpy as np
import xarray
from matplotlib.figure import Figure

import _paper
import bohmdiff as bd
from _common import worst_rms

PAPER = {"mean": 2.2e-3, "std": 2.6e-3}


def main() -> None:
    options = _paper.parser(__doc__, weights=True).parse_args()
    ours, exact = _paper.data("moments.npz", compute, options), _paper.bundled(_paper.MODES)
    energy_error = ours["energy"] - exact.energy.values
    figures = {
        "mean_rms": worst_rms(ours["mean"] - exact["mean"].values),
        "std_rms": worst_rms(ours["std"] - exact["std"].values),
        "energy_error_mean": float(np.mean(energy_error)),
        "energy_error_worst": float(np.max(np.abs(energy_error))),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.2e}")
    _paper.save_figure(draw(ours, exact), options.out, "figure4.png")
    _paper.save_json(figures, options.json)


def compute(score) -> _paper.Arrays:
    """Moments and energy of the flow of a score."""
    ts = _paper.bundled(_paper.MODES).time.values
    solution = bd.solve(_paper.chain(_paper.MODES), bd.GivenScore(score, steps=32), ts=ts)
    return {
        "time": ts,
        "mean": np.asarray(solution.mean()),
        "std": np.asarray(solution.std()),
        "energy": np.asarray(solution.energy()),
    }


def draw(ours: _paper.Arrays, exact: xarray.Dataset) -> Figure:
    figure = bd.plot.moments(dataset(ours), exact, units=_paper.UNITS)
    figure.set_size_inches(8, 6.4)
    for axes, what in zip(figure.axes[2:], ("mean", "std"), strict=True):
        axes.axhline(PAPER[what], color="0.3", lw=1.2, ls=(0, (1, 3)))
        axes.text(3.14, PAPER[what], "paper, rms ", color="0.3", ha="right", va="bottom", size=9)
        axes.set_ylim(1e-6, 2e-2)
    return figure


def dataset(arrays: _paper.Arrays) -> xarray.Dataset:
    """Cached moments as a solution's `to_xarray()` gives them."""
    moments = {name: (("time", "coordinate"), arrays[name]) for name in ("mean", "std")}
    return xarray.Dataset(moments, {"time": arrays["time"], "coordinate": np.arange(_paper.MODES)})


if __name__ == "__main__":
    _paper.run(main)

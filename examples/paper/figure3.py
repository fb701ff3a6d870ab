"""Figure 3: the training on the Morse chain of four modes, epoch by epoch.

Above the loss of every epoch (grey) and the Fisher divergence on particles that stay the same (blue),
against what the paper reports of its own training (crosses, medians); below the error of the mean energy.
--train trains anew, by train_morse_chain.py.
"""

import json
from pathlib import Path

import numpy as np
import xarray
from matplotlib.figure import Figure

import _paper
import bohmdiff as bd
from bohmdiff.plot._style import legend_above, style

# Fisher loss at an epoch, and how wrong the mean energy is in the end.
PAPER = {100: 1.9, 1_000: 4.2e-2, 5_000: 5.8e-3, 10_000: 2.2e-3, 20_000: 1.2e-3, 45_000: 6.1e-4}
PAPER_ENERGY_ERROR = 3.8e-3


def main() -> None:
    parser = _paper.parser(__doc__, train=True)
    parser.add_argument(
        "--log", type=Path, default=_paper.LOG, metavar="FILE", help="log of another training"
    )
    options = parser.parse_args()
    history = read_log(_paper.train(options.out)[1] if options.train else options.log)
    exact = float(_paper.bundled(_paper.MODES).energy[0])
    figures = what_it_says(history, exact)
    for name, value in figures.items():
        print(f"{name}: {value:.4g}")
    _paper.save_figure(draw(history, exact), options.out, "figure3.png")
    _paper.save_json(figures, options.json)


def read_log(path: Path) -> xarray.Dataset:
    """The log of a training, as `solution.history` has it."""
    if not path.exists():
        raise ValueError(f"{path} is not there: pass the log.jsonl of a training as --log, or --train")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    names = ["loss", "fisher", "energy", "energy_drift", "masked_fraction"]
    return xarray.Dataset(
        {name: ("epoch", np.array([r.get(name, np.nan) for r in records], float)) for name in names},
        coords={"epoch": [record["epoch"] for record in records]},
    )


def what_it_says(history: xarray.Dataset, exact: float) -> dict[str, float]:
    validated = history.dropna("epoch", subset=["fisher"])
    fisher = validated.fisher.values
    return {
        "epochs": int(history.epoch[-1]),
        "fisher_first": float(fisher[0]),
        "fisher_last": float(fisher[-1]),
        "fisher_median_of_last_ten": float(np.median(fisher[-10:])),
        "energy_error_last": float(validated.energy[-1] - exact),
        "energy_drift_last": float(validated.energy_drift[-1]),
    }


def draw(history: xarray.Dataset, exact: float) -> Figure:
    figure = bd.plot.training(history, exact, units=_paper.UNITS)
    top, below = figure.axes
    top.set_xscale("log")
    label = "Fisher divergence, the paper's training"
    top.plot(list(PAPER), list(PAPER.values()), color="black", ls="", marker="x", label=label)
    label = "the paper's weights, in the end"
    below.axhline(PAPER_ENERGY_ERROR, color="black", lw=1, ls=(0, (1, 3)), label=label)
    with style():
        legend_above(top)
        legend_above(below)
    return figure


if __name__ == "__main__":
    _paper.run(main)

"""Draws the pictures of docs/benchmarks.md from the figures in benchmarks/results.

python benchmarks/growth.py --json benchmarks/results/growth.json
python benchmarks/training_epoch.py --json benchmarks/results/training_epoch.json
python benchmarks/training_recipes.py --json benchmarks/results/training_recipes.json
python benchmarks/training_recipes.py --modes 4 --only Adam --json benchmarks/results/training_recipes.json
python benchmarks/figures.py
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt

from bohmdiff.plot._style import COLOURS, style

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parents[1] / "docs" / "images" / "benchmarks"
BUNDLED_LOG = Path(__file__).parents[1] / "examples" / "paper" / "data" / "morse_chain_d4.jsonl"
KINDS = {"force": "particles", "tangents": "with tangents", "sequential": "sequential matching"}


def growth() -> None:
    series = json.loads((RESULTS / "growth.json").read_text())
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.8), sharey=True)
    for axis, varied in zip(axes, ("modes", "particles", "steps"), strict=True):
        for colour, (kind, label) in zip(COLOURS, KINDS.items(), strict=False):
            for one in series:
                if (one["varied"], one["kind"]) == (varied, kind):
                    runs = one["runs"]
                    label = f"{label}, power {one['exponent']:.1f}"
                    values, seconds = ([run[name] for run in runs] for name in (varied, "seconds"))
                    axis.loglog(values, seconds, "o-", color=colour, label=label, markersize=4)
        axis.set_xlabel(varied)
        axis.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1))
    axes[0].set_ylabel("seconds")
    figure.savefig(IMAGES / "growth.png")


def training_epoch() -> None:
    figures = json.loads((RESULTS / "training_epoch.json").read_text())
    times = {"nested\ndifferentiation": figures["straightforward"]["seconds_per_particle"]}
    labels = {
        "same steps": "Fisher, same\nsteps",
        "fewer steps": "Fisher, solver\nof order 4",
        "and variance": "log-density\nvariance, order 4",
    }
    times |= {label: figures["runs"][name]["seconds_per_particle"] for name, label in labels.items()}
    figure, axis = plt.subplots(figsize=(6, 3))
    bars = axis.bar(
        list(times), [1e3 * seconds for seconds in times.values()], color=["0.6", *[COLOURS[1]] * 3]
    )
    slowest = next(iter(times.values()))
    axis.bar_label(
        bars,
        [f"{1e3 * s:.3g} ms" + (f", ÷{slowest / s:.0f}" if s < slowest else "") for s in times.values()],
    )
    axis.set_yscale("log")
    axis.set_ylim(1, 2e3)
    axis.set_ylabel("ms for a particle")
    figure.savefig(IMAGES / "training_epoch.png")


def training_recipes() -> None:
    runs = json.loads((RESULTS / "training_recipes.json").read_text())
    # In four modes Gauss-Newton is the training of the weights that the examples bundle.
    bundled = [json.loads(line) for line in BUNDLED_LOG.read_text().splitlines()]
    runs.append({"modes": 4, "name": "Gauss-Newton", "log": [one for one in bundled if "fisher" in one]})
    numbers = sorted({run["modes"] for run in runs})
    names = list(dict.fromkeys(run["name"] for run in runs))
    figure, grid = plt.subplots(
        len(numbers), 2, figsize=(9, 3.4 * len(numbers)), sharex="col", sharey="row", squeeze=False
    )
    for axes, number in zip(grid, numbers, strict=True):
        for axis, along in zip(axes, ("epoch", "seconds"), strict=True):
            for run in runs:
                if run["modes"] == number:
                    colour = COLOURS[names.index(run["name"])]
                    there, fisher = ([one[name] for one in run["log"]] for name in (along, "fisher"))
                    axis.loglog(there, fisher, "o-", color=colour, label=run["name"], markersize=2)
        axes[0].set_ylabel(f"Fisher divergence, {number} modes")
    grid[-1, 0].set_xlabel("epochs")
    grid[-1, 1].set_xlabel("seconds, compilation included")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize="small")
    figure.savefig(IMAGES / "training_recipes.png")


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    with style():
        growth()
        training_epoch()
        training_recipes()

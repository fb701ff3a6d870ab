"""Loss and energy over the epochs of a training."""

import matplotlib.pyplot as plt
import numpy as np
import xarray
from matplotlib.figure import Figure

from .._check import as_float
from ._style import ATOMIC, COLOURS, DASHES, Units, as_units, legend_above, style


def training(
    history: xarray.Dataset | None, reference_energy: float | None = None, *, units: Units = ATOMIC
) -> Figure:
    """Draws the loss of every epoch and the Fisher divergence or residuals of the validations, and below the
    error of the energy.

    ```python
    method = bd.SelfConsistentScoreMatching(
        score, training=bd.Training(epochs=4), particles=64
    )
    trained = bd.solve(problem, method, key=key)
    bd.plot.training(
        trained.history, reference_energy=float(exact.energy()[0])
    ).savefig("training.png")
    ```

    **Arguments:**

    - `history`: the history of a solution by
        [`SelfConsistentScoreMatching`][bohmdiff.SelfConsistentScoreMatching],
        [`DeepStochasticMechanics`][bohmdiff.DeepStochasticMechanics] or
        [`PhysicsInformedNetwork`][bohmdiff.PhysicsInformedNetwork].
    - `reference_energy`: the exact mean energy; if given, the error against it is drawn as well as the drift.
    - `units`: units of the axes.

    **Raises:** `ValueError` if there is no history.
    """
    if history is None:
        raise ValueError(
            "plot.training draws the history of a training, but None was given: only solutions by "
            "SelfConsistentScoreMatching, DeepStochasticMechanics and PhysicsInformedNetwork have one."
        )
    needed = {"epoch", "loss", "energy", "energy_drift"}
    names = set(map(str, history.variables)) if isinstance(history, xarray.Dataset) else set()
    if needed - names or not names & {"fisher", "residual"}:
        raise ValueError(
            f"history must be the solution.history of a training, but {history!r:.200} was given."
        )
    units = as_units(units, history.attrs.get("hbar", 1.0))
    if reference_energy is not None:
        reference_energy = as_float(reference_energy, "reference_energy")
    validated = history.dropna("epoch", subset=["energy"])
    with style():
        figure, (top, below) = plt.subplots(2, 1, figsize=(8, 6.4), sharex=True)
        top.plot(history.epoch, history.loss, color="0.6", lw=1.0, label="loss")
        if "fisher" in names:
            fisher = units.convert(validated.fisher, length=-2)
            _validations(top, validated, fisher, 1, f"Fisher divergence, 1/({units.length})²")
        else:
            _validations(top, validated, validated.residual, 1, "mean square of the residuals")
        if reference_energy is not None:
            error = units.convert(np.abs(validated.energy - reference_energy), energy=1)
            _validations(below, validated, error, 2, "distance of the mean to the exact energy")
        drift = units.convert(validated.energy_drift, energy=1)
        _validations(below, validated, drift, 0, "largest change since start")
        for axes in (top, below):
            # A logarithmic axis needs a value that is not zero.
            if any(np.any(line.get_ydata() > 0) for line in axes.get_lines()):
                axes.set_yscale("log")
            legend_above(axes)
        top.set_ylabel("loss")
        below.set_ylabel(f"energy error, {units.energy}")
        below.set_xlabel("epoch")
    return figure


def _validations(axes, history: xarray.Dataset, values: xarray.DataArray, i: int, label: str) -> None:
    axes.plot(history.epoch, values, color=COLOURS[i], ls=DASHES[i], marker=".", label=label)

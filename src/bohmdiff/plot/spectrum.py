"""A spectrum, with its lines as sticks."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..solution import Spectrum
from ._style import ATOMIC, COLOURS, Units, as_units, legend_above, style

# What is drawn: where the spectrum is higher than this share of its height, and as wide a margin.
_HEIGHT = 1e-3
_MARGIN = 0.05


def spectrum(spectrum: Spectrum, *, units: Units = ATOMIC) -> Figure:
    r"""A spectrum over the energy $\hbar\omega$, with its lines as sticks.

    ```python
    found = bd.spectrum(exact, lambda x: x[0])
    units = bd.Units(energy="inverse_cm")
    bd.plot.spectrum(found, units=units).savefig("spectrum.png")
    ```

    **Arguments:**

    - `spectrum`: what [`spectrum`][bohmdiff.spectrum] returns.
    - `units`: of the energy, [`Units`][bohmdiff.Units]; atomic units if not given.

    **Raises:** `ValueError` for anything but a spectrum, or one of fewer than eight saved times, which has
    no lines.
    """
    if not isinstance(spectrum, Spectrum):
        raise ValueError(
            "spectrum must be a Spectrum, as bd.spectrum(solution, observable) returns, but "
            f"{type(spectrum).__name__} was given."
        )
    units, lines = as_units(units, spectrum.hbar), spectrum.lines()
    energy = np.asarray(units.convert(spectrum.energy, energy=1))
    intensity = np.asarray(spectrum.intensity)
    sticks, heights = np.asarray(units.convert(lines.energy, energy=1)), np.asarray(lines.intensity)
    drawn = energy[np.abs(intensity) >= _HEIGHT * np.max(np.abs(intensity))]
    drawn = np.append(drawn, sticks[heights >= _HEIGHT * np.max(heights, initial=0)])
    with style():
        figure, axes = plt.subplots(figsize=(8, 4))
        axes.plot(energy, intensity, color=COLOURS[0], lw=1.2, label="Fourier transform")
        axes.vlines(sticks, 0, heights, color=COLOURS[2], lw=2.0, label="lines")
        room = _MARGIN * (drawn.max() - drawn.min())
        axes.set_xlim(drawn.min() - room, drawn.max() + room)
        axes.set_xlabel(f"energy ħω, {units.energy}")
        axes.set_ylabel("population" if spectrum.of_levels else "amplitude")
        legend_above(axes)
    return figure

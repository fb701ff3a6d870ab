"""The Morse chain of the examples, the figures of the paper and the benchmarks, and its exact moments."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import xarray

import bohmdiff as bd

REFERENCE = Path(__file__).parent / "data" / "morse_chain.npz"
UNITS = bd.Units(
    time=bd.units.Label("1/ω₀"), length=bd.units.Label("√(ħ/mω₀)"), energy=bd.units.Label("ħω₀")
)


def chain(modes: int) -> bd.Problem:
    """The problem of the benchmark, with any number of modes."""
    hamiltonian = bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.3), mass=1.0, hbar=1.0)
    initial = bd.GaussianWavePacket(mean=jnp.zeros(modes).at[0].set(1.0), covariance=0.5)
    return bd.Problem(hamiltonian, initial, t1=jnp.pi)


def bundled(modes: int) -> xarray.Dataset:
    """Exact moments for up to four modes, by `benchmarks/main_job.py --exact` on 44 points per mode."""
    with np.load(REFERENCE) as data:
        return xarray.Dataset(
            {
                "mean": (("time", "coordinate"), data[f"mean_{modes}"]),
                "std": (("time", "coordinate"), data[f"std_{modes}"]),
                "energy": (("time",), data[f"energy_{modes}"]),
            },
            coords={"time": data["time"]},
            attrs={"method": "exact"},
        )


def print_table(ours: xarray.Dataset, exact: xarray.Dataset) -> None:
    """Means and widths of both at the last time."""
    print(f"{'at t = 3.14':<12}{'mean':>12}{'exact':>12}{'std':>12}{'exact':>12}")
    last = {"time": -1}
    for i in ours.coordinate.values:
        row = [float(of[what][last][i]) for what in ("mean", "std") for of in (ours, exact)]
        print(f"{f'mode {i + 1}':<12}" + "".join(f"{value:>12.6f}" for value in row))

"""The main job: a chain of coupled Morse oscillators to t = π, checked against the exact answer.

V = Σ_i D (1 − exp(−β x_i))² + λ Σ_i x_i x_{i+1} with D = 12.5, β = 0.2, λ = 0.3 and m = ħ = 1, from a
Gaussian displaced in the first mode. Energy travels down the chain while the anharmonic wells shear the
packet. With four modes this is the benchmark of "Quantum Dynamics via Score Matching on Bohmian
Trajectories".

The picture moments.png shows the mean and the width of every mode (lines) on the exact ones (open markers),
and below how far apart they are; energy.png shows that the mean energy stays.

The exact moments for up to four modes are bundled; --exact computes them anew by the split-operator method.
"""

import time

START = time.perf_counter()

from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import xarray  # noqa: E402

import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402

REFERENCE = Path(__file__).parent / "data" / "morse_chain.npz"
UNITS = bd.plot.Units(time="1/ω₀", length="√(ħ/mω₀)", energy="ħω₀")


def main() -> None:
    parser = _common.parser(__doc__, degree=4, steps=64)
    parser.add_argument("--dim", type=_common.positive, default=4, help="number of modes (4)")
    parser.add_argument(
        "--particles",
        type=_common.positive,
        help="number of Sobol points; a Gauss-Hermite grid if not given (1056 points for the default job)",
    )
    parser.add_argument("--exact", action="store_true", help="recompute the reference (at most 4 modes)")
    parser.add_argument("--seed", type=int, default=0, help="of the Sobol points (0)")
    options = parser.parse_args()
    if options.exact and options.dim > 4:
        parser.error(
            "--exact needs a grid, which has at most 4 modes: leave it out, or pass a smaller --dim"
        )

    problem = chain(options.dim)
    ts = np.append(np.arange(32) / 10, 3.14)
    method = bd.SequentialScoreMatching(options.degree, options.particles, options.steps)
    solution = bd.solve(problem, method, key=jax.random.key(options.seed), ts=ts, progress=True)
    ours = solution.to_xarray(units=UNITS)
    _common.save_data(ours, options.out, "solution.nc")

    not_ours = time.perf_counter()
    exact = None
    if options.exact:
        grid = bd.SplitOperator(points=44, lower=-5.5, upper=7.5)
        reference = bd.solve(problem, grid, ts=ts, progress=True)
        print(bd.compare(solution, reference))
        exact = reference.to_xarray()
    elif options.dim <= 4:
        exact = bundled(options.dim)
    not_ours = time.perf_counter() - not_ours

    errors = {"mean_rms": None, "std_rms": None}
    if exact is None:
        print("no exact reference for more than 4 modes: energy_error is the change since the start")
        errors["energy_error"] = float(abs(ours.energy - ours.energy[0]).max())
    else:
        errors = {
            "mean_rms": _common.worst_rms(ours["mean"] - exact["mean"].values),
            "std_rms": _common.worst_rms(ours["std"] - exact["std"].values),
            "energy_error": float(abs(ours.energy - exact.energy.values).max()),
        }
        print_table(ours, exact)
        print(
            "error of the worst mode, root-mean-square over time (a published network: 2.2e-3 and 2.6e-3):"
        )
        print(f"  mean {errors['mean_rms']:.1e}, standard deviation {errors['std_rms']:.1e}")
    print(f"largest energy error: {errors['energy_error']:.1e}")
    _common.save_figure(bd.plot.moments(solution, exact, units=UNITS), options.out, "moments.png")
    _common.save_figure(bd.plot.energy(solution, exact, units=UNITS), options.out, "energy.png")

    # All of it, imports and compilation included, but not the reference.
    wall = time.perf_counter() - START - not_ours
    _common.save_json(errors | _common.what_it_took(solution, wall), options.json)


def chain(modes: int) -> bd.Problem:
    """The benchmark's problem, with any number of modes."""
    hamiltonian = bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.3), mass=1.0, hbar=1.0)
    initial = bd.GaussianWavePacket(mean=jnp.zeros(modes).at[0].set(1.0), covariance=0.5)
    return bd.Problem(hamiltonian, initial, t1=jnp.pi)


def bundled(modes: int) -> xarray.Dataset:
    """Exact moments, computed by --exact on a grid of 44 points per mode."""
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
    print(f"{'at t = 3.14':<12}{'mean':>12}{'exact':>12}{'std':>12}{'exact':>12}")
    last = {"time": -1}
    for i in ours.coordinate.values:
        row = [float(of[what][last][i]) for what in ("mean", "std") for of in (ours, exact)]
        print(f"{f'mode {i + 1}':<12}" + "".join(f"{value:>12.6f}" for value in row))


if __name__ == "__main__":
    _common.run(main)

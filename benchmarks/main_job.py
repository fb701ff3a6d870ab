"""The main job: time and errors of sequential matching on a chain of Morse oscillators to t = π.

It is the problem of examples/morse_chain.py, with options. With four modes it is the benchmark of "Quantum
Dynamics via Score Matching on Bohmian Trajectories". The time includes imports and compilation, but not the
reference.

The picture moments.png shows the mean and the width of each mode (lines) over the exact ones (open markers), and
their differences below; energy.png shows the mean energy.

The exact moments for up to four modes are bundled; --exact recomputes them by the split-operator method.
"""

import time

START = time.perf_counter()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402

import bohmdiff as bd  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import _common  # noqa: E402
from _chain import UNITS, bundled, chain, print_table  # noqa: E402


def main() -> None:
    parser = _common.parser(__doc__, degree=4, steps=64)
    parser.add_argument("--dim", type=_common.positive, default=4, help="number of modes (4)")
    parser.add_argument(
        "--particles",
        type=_common.positive,
        help="number of Sobol points; a Gauss-Hermite grid if not given (1056 points for the default job)",
    )
    parser.add_argument("--exact", action="store_true", help="recompute the reference (at most 4 modes)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the Sobol points (0)")
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


if __name__ == "__main__":
    _common.run(main)

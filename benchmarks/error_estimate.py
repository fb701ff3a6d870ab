"""The reliability of the error estimate of `AutomaticDegree`: estimate over error, for exactly solved problems.

The exact solution comes from the split-operator method, in one and two dimensions. Estimate and error are the
largest over the saved times, of a mean or a standard deviation, in units of that standard deviation.
"""

import argparse
import json
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import bohmdiff as bd  # noqa: E402


class Quartic(bd.AbstractPotential):
    """A chain of wells with a cubic and a quartic term, of which neighbours are coupled."""

    cubic: jax.Array
    quartic: jax.Array
    coupling: jax.Array

    def __call__(self, t, x):
        well = 0.5 * x**2 + self.cubic * x**3 + self.quartic * x**4
        return jnp.sum(well) + self.coupling * jnp.sum(x[:-1] * x[1:])


def quartic(cubic, strength, coupling=0.0):
    return Quartic(*(jnp.asarray(value) for value in (cubic, strength, coupling)))


def morse(width, coupling=0.3):
    return bd.MorseChain(depth=12.5, width=width, coupling=coupling)


# Name, potential, mean and variance at the start, last time, and the box of the grid.
CASES = [
    ("Morse", morse(0.2), [1.0], 0.5, 3.14, 10.0),
    ("Morse, half the time", morse(0.2), [1.0], 0.5, 1.5, 10.0),
    ("Morse, narrow", morse(0.3), [0.5], 0.3, 2.0, 10.0),
    ("Morse, from farther", morse(0.2), [1.5], 0.5, 2.5, 12.0),
    ("quartic, weak", quartic(0.0, 0.02), [0.5], 0.5, 3.0, 8.0),
    ("quartic, strong", quartic(0.0, 0.1), [0.5], 0.4, 1.5, 7.0),
    ("cubic and quartic", quartic(0.05, 0.03), [0.3], 0.5, 3.0, 8.0),
    ("double well", bd.DoubleWell(barrier=1.0, minimum=2.0), [0.0], 0.25, 1.5, 8.0),
    ("double well, longer", bd.DoubleWell(barrier=1.0, minimum=2.0), [0.0], 0.25, 2.5, 8.0),
    ("Morse pair", morse(0.2), [1.0, 0.0], 0.5, 3.14, 8.0),
    ("Morse pair, half the time", morse(0.2), [1.0, 0.0], 0.5, 1.5, 8.0),
    ("Morse pair, strongly coupled", morse(0.2, 0.6), [0.5, -0.5], 0.5, 2.0, 8.0),
    ("quartic pair", quartic(0.0, 0.03, 0.3), [0.5, 0.0], 0.5, 2.5, 7.0),
    ("cubic and quartic pair", quartic(0.05, 0.05, 0.5), [0.0, 0.4], 0.4, 2.0, 7.0),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tolerances", type=float, nargs="*", default=[1e-2, 1e-3])
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    rows = []
    for name, potential, mean, variance, t1, half in CASES:
        if options.only not in name:
            continue
        problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket(mean, variance), t1=t1)
        ts = np.linspace(0.0, t1, 33)
        grid = bd.SplitOperator(points=512 if len(mean) == 1 else 128, lower=-half, upper=half)
        exact = bd.solve(problem, grid, ts=ts)
        for tolerance in options.tolerances:
            reached = True
            try:
                solution = bd.solve(problem, bd.AutomaticDegree(tolerance), ts=ts)
            except bd.ToleranceNotReachedError as error:
                reached, solution = False, error.solution
            if solution is None:
                print(f"{name}, tolerance {tolerance:g}: no solution")
                continue
            changes = jnp.stack([solution.mean() - exact.mean(), solution.std() - exact.std()])
            error = float(jnp.max(jnp.abs(changes) / exact.std()))
            row = {
                "name": name,
                "tolerance": tolerance,
                "reached": reached,
                "degree": solution.method.degree,
                "estimate": solution.error_estimate,
                "error": error,
            }
            rows.append(row)
            message = "degree {degree}, estimate {estimate:.1e}, error {error:.1e}".format(**row)
            verdict = "" if reached else ", not reached"
            ratio = row["estimate"] / error
            print(f"{name}, tolerance {tolerance:g}{verdict}: {message}, ratio {ratio:.1f}", flush=True)
    ratios = np.array([row["estimate"] / row["error"] for row in rows])
    print(f"estimate over error: median {np.median(ratios):.1f}, least {ratios.min():.1f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

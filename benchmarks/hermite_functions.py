"""HermiteFunctions by tolerance alone: errors, bounds and times, against a grid or a larger basis.

    python benchmarks/hermite_functions.py [name ...]

For each problem: the largest error of any mean or standard deviation in units of the latter, what the solution
says of it, the seconds of a first and of a second solve, and those of the reference.
"""

import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bohmdiff as bd

jax.config.update("jax_enable_x64", True)


class Case(NamedTuple):
    problem: bd.Problem
    tolerance: float
    reference: bd.AbstractMethod


def chain(d: int, t1: float) -> bd.Problem:
    """Chains of four Morse oscillators that do not feel each other."""

    class Chains(bd.AbstractSeparablePotential):
        def __call__(self, t, x):
            return sum(FOUR(t, x[4 * n : 4 * n + 4]) for n in range(d // 4))

        def separable_terms(self, dimension):
            return tuple(
                bd.PotentialTerm(tuple(4 * n + i for i in term.coordinates), term.potential)
                for n in range(d // 4)
                for term in FOUR.separable_terms(4)
            )

    mean = np.tile([1.0, 0.0, 0.0, 0.0], d // 4)
    return bd.Problem(bd.Hamiltonian(Chains()), bd.GaussianWavePacket(mean, 0.5), t1=t1)


def bosons(d: int) -> bd.Problem:
    trap = bd.InteractingBosons(frequency=1.0, repulsion=1.0, variance=0.1)
    return bd.Problem(bd.Hamiltonian(trap, hbar=0.1), bd.GaussianWavePacket(np.full(d, -0.5), 0.1), t1=1.0)


def one(potential, mean: float, variance: float, t1: float) -> bd.Problem:
    return bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([mean], variance), t1=t1)


FOUR = bd.MorseChain(12.5, 0.2, 0.3)
CASES = {
    "double well to 20": lambda: Case(
        one(bd.DoubleWell(), 0.0, 0.25, 20.0), 1e-6, bd.SplitOperator(256, -8.0, 8.0, steps=6000)
    ),
    "Morse to 100": lambda: Case(
        one(bd.MorseChain(12.5, 0.2), 1.0, 0.5, 100.0), 1e-6, bd.SplitOperator(256, -6.0, 14.0, steps=20000)
    ),
    "driven quartic": lambda: Case(
        one(lambda t, x: 0.5 * x[0] ** 2 + 0.1 * x[0] ** 4 - jnp.sin(2 * t) * x[0], 1.0, 0.5, 5.0),
        1e-5,
        bd.SplitOperator(128, -6.0, 6.0, steps=4000),
    ),
    "two bosons": lambda: Case(bosons(2), 1e-6, bd.SplitOperator(96, -3.5, 2.5, steps=400)),
    "three bosons": lambda: Case(bosons(3), 1e-5, bd.HermiteFunctions(degree=46)),
    "chain of four, 1e-3": lambda: Case(chain(4, 3.14), 1e-3, bd.HermiteFunctions(degree=34)),
    "chain of four, 1e-4": lambda: Case(chain(4, 3.14), 1e-4, bd.HermiteFunctions(degree=34)),
    "two chains of four": lambda: Case(chain(8, 3.14), 5e-3, bd.HermiteFunctions(degree=34)),
}


def solved(problem, method, ts):
    start = time.perf_counter()
    solution = bd.solve(problem, method, ts=ts)
    jax.block_until_ready(solution.mean())
    return solution, time.perf_counter() - start


def main() -> None:
    names = sys.argv[1:] or list(CASES)
    heads = ("error", "said", "degree", "first", "second", "reference")
    print("problem".ljust(22), *(head.rjust(9) for head in heads))
    for name in names:
        case = CASES[name]()
        ts = jnp.linspace(0.0, case.problem.t1, 33)
        method = bd.HermiteFunctions(tolerance=case.tolerance)
        _, first = solved(case.problem, method, ts)
        solution, second = solved(case.problem, method, ts)
        problem = case.problem
        if problem.dimension == 8:
            problem = chain(4, 3.14)  # each chain goes its own way
        exact, other = solved(problem, case.reference, ts)
        d = problem.dimension
        changes = [solution.mean()[:, :d] - exact.mean(), solution.std()[:, :d] - exact.std()]
        error = float(jnp.max(jnp.abs(jnp.stack(changes)) / exact.std()))
        said = float(solution.diagnostics["basis"].value)
        figures = (f"{error:.1e}", f"{said:.1e}", f"{solution.method.degree:.0f}")
        seconds = (f"{value:.1f}" for value in (first, second, other))
        print(name.ljust(22), *(figure.rjust(9) for figure in (*figures, *seconds)), flush=True)


if __name__ == "__main__":
    main()

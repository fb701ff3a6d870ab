"""Problems with known answers: how wrong each method is, and whether it says so.

    python benchmarks/battery.py [--methods NAME ...] [--only TEXT] [--json FILE]

The true error is the largest of any mean or standard deviation at a saved time, in units of the exact standard
deviation. A wrong solution has an error above 1e-2 and should warn; a harmless one has an error below 3e-3 and
should not. Limits of the diagnostics are chosen on the problems of even number, and judged on the others.
"""

# ruff: noqa: E501
import argparse
import json
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bohmdiff as bd

WRONG, HARMLESS = 1e-2, 3e-3


class Polynomial(bd.AbstractPotential):
    """The sum over coordinates of a polynomial, and a coupling of neighbours."""

    coefficients: jax.Array
    coupling: jax.Array

    def __call__(self, t, x):
        coupled = self.coupling * jnp.sum(x[1:] * x[:-1])
        return jnp.sum(jnp.polyval(self.coefficients[::-1], x)) + coupled


class Morse(bd.AbstractPotential):
    depth: jax.Array
    width: jax.Array

    def __call__(self, t, x):
        return self.depth * jnp.sum(jnp.expm1(-self.width * x) ** 2)


class Barrier(bd.AbstractPotential):
    """The barrier of Eckart."""

    height: jax.Array
    width: jax.Array

    def __call__(self, t, x):
        return self.height / jnp.cosh(x[0] / self.width) ** 2


class Driven(bd.AbstractPotential):
    """A Morse oscillator, or its harmonic limit, under a pulse."""

    depth: jax.Array
    width: jax.Array
    field: jax.Array
    frequency: jax.Array
    centre: jax.Array
    duration: jax.Array

    def __call__(self, t, x):
        envelope = jnp.exp(-0.5 * ((t - self.centre) / self.duration) ** 2)
        pulse = self.field * envelope * jnp.cos(self.frequency * (t - self.centre))
        return self.depth * jnp.sum(jnp.expm1(-self.width * x) ** 2) - pulse * x[0]


class HenonHeiles(bd.AbstractPotential):
    strength: jax.Array

    def __call__(self, t, x):
        return 0.5 * jnp.sum(x**2) + self.strength * (x[0] ** 2 * x[1] - x[1] ** 3 / 3)


@dataclass
class Case:
    """A problem, and a grid that holds its exact solution."""

    name: str
    potential: Any
    initial: Any
    t1: float
    grid: tuple[int, float, float]

    @property
    def problem(self) -> bd.Problem:
        return bd.Problem(bd.Hamiltonian(self.potential), self.initial, t1=self.t1)


def numbers(*values: float) -> list[jax.Array]:
    return [jnp.asarray(value) for value in values]


def polynomial(*coefficients: float, coupling: float = 0.0) -> Polynomial:
    padded = np.zeros(5)
    padded[: len(coefficients)] = coefficients
    return Polynomial(jnp.asarray(padded), jnp.asarray(coupling))


def packet(mean: Any, covariance: Any, momentum: Any = None, chirp: Any = None) -> bd.GaussianWavePacket:
    return bd.GaussianWavePacket(np.atleast_1d(mean), covariance, momentum, chirp)


def cases() -> list[Case]:
    found = []

    def add(name: str, potential: Any, initial: Any, t1: float, grid: tuple[int, float, float]) -> None:
        found.append(Case(f"{name}, t = {t1:.4g}", potential, initial, float(t1), grid))

    line = (512, -20.0, 20.0)
    for frequency, mean, covariance, momentum, chirp, t1 in [
        (1.0, 1.5, 0.3, 0.0, 0.0, 3.0), (1.0, 1.5, 0.3, 0.0, 0.0, 30.0), (1.0, 1.5, 0.3, 0.0, 0.0, 100.0),
        (0.5, -2.0, 1.5, 1.0, 0.0, 10.0), (2.0, 1.0, 0.25, 0.0, 0.3, 10.0), (2.0, 0.0, 1.0, 1.0, 0.0, 5.0),
        (1.5, 0.5, 0.2, 2.0, -0.5, 20.0), (3.0, 0.5, 0.1, 0.0, 0.0, 40.0), (0.3, 2.0, 1.0, 0.0, 0.0, 20.0),
    ]:  # fmt: skip
        name = f"oscillator {frequency}, covariance {covariance}"
        initial = packet(mean, covariance, [momentum], [[chirp]])
        add(name, polynomial(0, 0, 0.5 * frequency**2), initial, t1, line)
    for force, curvature, momentum, t1 in [
        (0.0, 0.0, 1.0, 3.0), (1.0, 0.0, 0.0, 2.0), (-0.5, 0.0, 2.0, 3.0), (0.0, -0.25, 0.5, 2.0), (0.2, -0.5, 0.0, 1.5)
    ]:  # fmt: skip
        initial = packet(0.0, 0.5, [momentum])
        add(
            f"slope {force}, curvature {curvature}",
            polynomial(0, force, curvature),
            initial,
            t1,
            (1024, -40.0, 40.0),
        )
    for quartic in (0.003, 0.01, 0.03, 0.1, 0.3):
        for t1 in (1.0, 3.0):
            add(
                f"quartic {quartic}",
                polynomial(0, 0, 0.5, 0, quartic),
                packet(0.8, 0.5),
                t1,
                (256, -10.0, 10.0),
            )
    for cubic in (0.01, 0.03, 0.05):
        add(f"cubic {cubic}", polynomial(0, 0, 0.5, cubic, 0.01), packet(0.5, 0.5), 2.0, (256, -10.0, 10.0))
    for depth, width, mean, t1 in [
        (12.5, 0.2, 1.0, 1.0), (12.5, 0.2, 1.0, 2.0), (12.5, 0.2, 1.0, 3.14), (12.5, 0.2, 1.0, 4.5),
        (12.5, 0.2, 1.0, 6.3), (12.5, 0.2, 1.0, 12.6), (12.5, 0.2, 1.0, 31.4), (50.0, 0.1, 1.0, 3.0),
        (50.0, 0.1, 1.0, 6.3), (50.0, 0.1, 2.0, 15.0), (200.0, 0.05, 1.0, 3.0), (200.0, 0.05, 1.0, 10.0),
        (8.0, 0.25, 0.5, 2.0), (8.0, 0.25, 2.0, 4.0), (8.0, 0.25, 2.0, 10.0), (20.0, 0.15, -1.0, 3.0),
    ]:  # fmt: skip
        add(f"Morse {depth}, {width}, from {mean}", Morse(*numbers(depth, width)), packet(mean, 0.5), t1,
            (512, -12.0, 40.0))  # fmt: skip
    for height, momentum, start, t1 in [
        (1.0, 0.8, -6.0, 5.0), (1.0, 1.0, -6.0, 5.0), (1.0, 1.414, -6.0, 5.0), (1.0, 2.0, -6.0, 5.0), (1.0, 2.5, -6.0, 5.0),
        (1.0, 1.0, -6.0, 2.0), (1.0, 1.0, -8.0, 3.0), (0.05, 2.0, -4.0, 3.0), (0.02, 1.5, -4.0, 4.0), (0.2, 2.0, -5.0, 4.0),
        (-0.1, 1.5, -4.0, 3.0), (-1.0, 1.0, -5.0, 4.0),
    ]:  # fmt: skip
        add(f"Eckart {height}, momentum {momentum}", Barrier(*numbers(height, 1.0)), packet(start, 1.0, [momentum]), t1,
            (1024, -60.0, 60.0))  # fmt: skip
    for quartic, mean, covariance, t1 in [
        (0.1, 0.0, 0.5, 1.0), (0.1, 0.0, 0.5, 2.0), (0.1, 0.0, 0.5, 5.0), (0.1, -1.58, 0.5, 1.0), (0.1, -1.58, 0.5, 10.0),
        (0.02, -3.5, 0.5, 3.0), (0.05, -2.2, 0.5, 4.0), (0.5, -0.7, 0.3, 1.0),
    ]:  # fmt: skip
        add(f"double well {quartic}, from {mean}", polynomial(0, 0, -0.5, 0, quartic), packet(mean, covariance), t1,
            (256, -12.0, 12.0))  # fmt: skip
    for depth, width, field, frequency, centre, duration, t1 in [
        (1250.0, 0.02, 0.5, 0.9, 5.0, 2.0, 10.0), (1250.0, 0.02, 1.0, 3.0, 3.0, 1.0, 6.0), (12.5, 0.2, 0.3, 0.9, 3.0, 1.0, 6.0),
        (12.5, 0.2, 0.1, 2.0, 1.5, 0.5, 3.0), (50.0, 0.1, 0.5, 0.9, 3.0, 1.0, 6.0), (50.0, 0.1, 0.2, 5.0, 1.5, 0.3, 3.0),
        (12.5, 0.2, 1.0, 0.9, 6.0, 2.0, 12.0), (200.0, 0.05, 0.4, 1.0, 3.0, 1.5, 6.0),
    ]:  # fmt: skip
        add(f"pulse {field} on Morse {depth}, {width}", Driven(*numbers(depth, width, field, frequency, centre, duration)),
            packet(0.0, 0.5), t1, (512, -12.0, 30.0))  # fmt: skip
    for weight, distance, t1 in [(0.5, 0.4, 1.0), (0.3, 0.6, 2.0), (0.5, 1.5, 1.0), (0.5, 2.5, 2.0)]:
        initial = bd.GaussianMixture([weight, 1 - weight], [[-distance], [distance]], 0.5)
        add(f"mixture {weight}, {distance}", polynomial(0, 0, 0.5), initial, t1, (256, -10.0, 10.0))
    plane = (64, -8.0, 8.0)
    for quartic, coupling, t1 in [
        (0.0, 0.3, 5.0),
        (0.01, 0.3, 2.0),
        (0.05, 0.2, 1.5),
        (0.2, 0.3, 2.0),
        (0.2, 0.3, 4.0),
    ]:
        add(f"two coupled quartic {quartic}", polynomial(0, 0, 0.5, 0, quartic, coupling=coupling),
            packet([0.8, -0.3], 0.5), t1, plane)  # fmt: skip
    for strength, t1 in [(0.03, 2.0), (0.08, 2.0), (0.11, 3.0)]:
        add(
            f"Hénon–Heiles {strength}",
            HenonHeiles(jnp.asarray(strength)),
            packet([0.8, 0.3], 0.5),
            t1,
            plane,
        )
    for t1 in (1.0, 3.14, 6.3):
        chain = bd.MorseChain(depth=12.5, width=0.2, coupling=0.3)
        add("two Morse oscillators", chain, packet([1.0, 0.0], 0.5), t1, (96, -8.0, 16.0))
    return found


METHODS = {
    "degree 2": lambda: bd.SequentialScoreMatching(degree=2),
    "degree 4": lambda: bd.SequentialScoreMatching(degree=4),
    "degree 6": lambda: bd.SequentialScoreMatching(degree=6),
    "automatic degree": lambda: bd.AutomaticDegree(tolerance=1e-2),
    "Gaussian": bd.GaussianDynamics,
    "grid": bd.SplitOperator,
}


def error_of(solution: Any, mean: np.ndarray, std: np.ndarray) -> tuple[float, float]:
    """Over all saved times, and over those that the solution says can be trusted."""
    errors = np.maximum(np.abs(solution.mean() - mean), np.abs(solution.std() - std)) / std
    errors = np.max(np.where(np.isnan(errors), np.inf, errors), axis=1)
    trusted = np.asarray(solution.ts) <= float(solution.diagnostics.valid_until)
    return float(np.max(errors)), float(np.max(errors[trusted], initial=0.0))


def run(case: Case, methods: list[str]) -> list[dict[str, Any]]:
    problem, rows = case.problem, []
    ts = jnp.linspace(0, case.t1, 21)
    exact = bd.solve(problem, bd.SplitOperator(*case.grid, tolerance=1e-4), ts=ts)
    mean, std = np.asarray(exact.mean()), np.asarray(exact.std())
    if not bool(exact.diagnostics.holds):
        raise SystemExit(f"The reference of {case.name} is not good enough: {exact}")
    for name in methods:
        if name == "Gaussian" and not isinstance(case.initial, bd.GaussianWavePacket):
            continue
        row: dict[str, Any] = {"problem": case.name, "method": name}
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                solution = bd.solve(problem, METHODS[name](), ts=ts, key=jax.random.key(0))
            row["told"] = bool(told)
        except bd.BohmdiffError as error:
            row |= {"told": True, "error": None, "raised": type(error).__name__}
            solution = getattr(error, "solution", None)
        if solution is not None:
            row["error"], row["trusted"] = error_of(solution, mean, std)
            row["valid_until"] = float(solution.diagnostics.valid_until)
            row["figures"] = {
                key: float(figure.value) for key, figure in solution.diagnostics.figures.items()
            }
            row["estimate"] = float(getattr(solution, "error_estimate", None) or np.nan)
        row["seconds"] = round(time.perf_counter() - start, 2)
        rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """A row for each method: how many are wrong, wrong and told, harmless, harmless and told."""
    lines = [
        "| method | solves | wrong | of them told | harmless | false alarms |",
        "|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        own = [row for row in rows if row["method"] == name and row.get("error") is not None]
        if not own:
            continue
        wrong = [row for row in own if row["error"] > WRONG]
        harmless = [row for row in own if row["error"] < HARMLESS]
        told, alarms = sum(row["told"] for row in wrong), sum(row["told"] for row in harmless)
        lines.append(f"| {name} | {len(own)} | {len(wrong)} | {told} | {len(harmless)} | {alarms} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--only", default="", help="only problems whose names contain this")
    parser.add_argument("--json", help="write all rows to this file")
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    for number, case in enumerate(cases()):
        if given.only not in case.name:
            continue
        for row in run(case, given.methods):
            rows.append(row | {"half": number % 2})
            error = row.get("error")
            shown = row.get("raised", "raised") if error is None else f"{error:8.1e}"
            mark = "told" if row["told"] else ""
            if error is not None and error > WRONG and not row["told"]:
                mark = "NOT TOLD"
            if error is not None and error < HARMLESS and row["told"]:
                mark = "FALSE ALARM"
            print(
                f"{case.name:45s} {row['method']:17s} {shown} {mark:12s} {row['seconds']:6.1f} s",
                flush=True,
            )
        if given.json:
            with open(given.json, "w") as file:
                json.dump(rows, file, indent=1)
    print()
    for half, title in enumerate(("limits chosen on these problems", "judged on these")):
        print(f"{title}\n\n{summary([row for row in rows if row['half'] == half])}\n", file=sys.stdout)


if __name__ == "__main__":
    main()

"""How many epochs, and how long, a network needs to bring the Fisher divergence down, by recipe.

Each recipe trains the same FiLM network (32 x 32) on the Morse chain by the Fisher divergence. Five of them take
32 leapfrog steps: Adam at 1e-3 on random particles from a harmonic baseline, as in the published training; the
same in growing windows of time; from the polynomial score of sequential matching instead; from there with Sobol
particles and a rate that decays from 1e-2; and with Gauss-Newton steps. The sixth is the default of
SelfConsistentScoreMatching, from the polynomial score. The divergence is that of the same 256 Sobol particles for
all. Seconds include compilation. Epochs of Gauss-Newton have 512 particles, the others 256.

    python benchmarks/training_recipes.py --modes 2 --json benchmarks/results/training_recipes.json
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import bohmdiff as bd

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import _chain
import train_morse_chain

jax.config.update("jax_enable_x64", True)
# Of the method, for all recipes but its own defaults.
LEAPFROG = {"objective": bd.FisherDivergence(outlier_scale=3.0), "solver": bd.VelocityVerlet(), "steps": 32}
GOALS = ("1e-2", "3e-3", "1e-3")


def adam(rate: float | Callable) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def harmonic(problem: bd.Problem) -> bd.NeuralScore:
    baseline = bd.HarmonicScore(problem)
    return bd.NeuralScore(problem, baseline=baseline, output_scale=0.03, key=jax.random.key(0))


def polynomial(problem: bd.Problem) -> bd.NeuralScore:
    setting = train_morse_chain.SETTINGS[problem.dimension]
    degrees = setting.degree, setting.late_degree
    return train_morse_chain.initial_score(problem, degrees, 32, jax.random.key(0))


class Recipe(NamedTuple):
    """The start of a training, the options of the method, the optimizer by the number of epochs, and that number;
    and the parts of the span of time that it takes one after the other."""

    start: Callable[[bd.Problem], bd.NeuralScore]
    options: dict[str, Any]
    optimizer: Callable[[int], optax.GradientTransformation | None]
    epochs: int
    windows: tuple[float, ...] = (1.0,)


def recipes(epochs: int, few: int) -> dict[str, Recipe]:
    random = LEAPFROG | {"particles": bd.RandomPoints(256)}
    sobol, more = (LEAPFROG | {"particles": train_morse_chain.points(number)} for number in (256, 512))

    def slow(number: int) -> optax.GradientTransformation:
        return adam(1e-3)

    def decaying(number: int) -> optax.GradientTransformation:
        return adam(optax.cosine_decay_schedule(1e-2, number, 0.005))

    return {
        "Adam 1e-3, harmonic start": Recipe(harmonic, random, slow, epochs),
        "the same in growing windows": Recipe(harmonic, random, slow, epochs, (0.4, 0.7, 1.0)),
        "Adam 1e-3, polynomial start": Recipe(polynomial, random, slow, epochs),
        "decaying rate, Sobol particles": Recipe(polynomial, sobol, decaying, epochs),
        "Gauss-Newton": Recipe(polynomial, more, train_morse_chain.gauss_newton, few),
        "the defaults": Recipe(polynomial, {}, lambda number: None, few // 2),
    }


def train(problem: bd.Problem, name: str, recipe: Recipe) -> dict:
    score, log, done, seconds = recipe.start(problem), [], 0, 0.0
    number = recipe.epochs // len(recipe.windows)
    for window in recipe.windows:
        training = bd.Training(recipe.optimizer(number), epochs=number, validate_every=max(number // 40, 2))
        method = bd.SelfConsistentScoreMatching(score, training=training, **recipe.options)
        # A part of the time has that part of the steps.
        method = replace(method, steps=round(window * method.steps))
        part = replace(problem, t1=problem.t0 + window * (problem.t1 - problem.t0))
        try:
            solution = bd.solve(part, method, key=jax.random.key(1), progress=True)
        except bd.TrainingDivergedError as error:
            print(f"{name}: {error}")
            break
        score, history = solution.fitted, solution.history.dropna("epoch", subset=["fisher"])
        if window == 1:
            log = [
                {"epoch": done + one.epoch, "seconds": seconds + one.seconds, "fisher": one.fisher}
                for one in history.to_dataframe().reset_index().itertuples()
            ]
        done, seconds = done + number, seconds + float(solution.history.seconds[-1])
    return {"name": name, "log": log, "reached": {goal: reached(log, float(goal)) for goal in GOALS}}


def reached(log: list[dict], goal: float) -> dict | None:
    """When the divergence was first below a goal."""
    return next((one for one in log if one["fisher"] <= goal), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--modes", type=int, default=2, choices=train_morse_chain.SETTINGS)
    parser.add_argument("--epochs", type=int, default=1000, help="epochs of first-order recipes")
    parser.add_argument("--few", type=int, default=60, help="epochs of Gauss-Newton")
    parser.add_argument("--only", help="recipes whose names contain this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to FILE")
    options = parser.parse_args()
    problem = _chain.chain(options.modes)
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    for name, recipe in recipes(options.epochs, options.few).items():
        if options.only and options.only not in name:
            continue
        run = {"modes": options.modes, "epochs": recipe.epochs, **train(problem, name, recipe)}
        known = [one for one in known if (one["modes"], one["name"]) != (options.modes, name)] + [run]
        if options.json:
            options.json.write_text(json.dumps(known, indent=1) + "\n")
        lowest = min((one["fisher"] for one in run["log"]), default=np.nan)
        print(f"{name}: lowest {lowest:.1e} in {recipe.epochs} epochs; first below: {run['reached']}")
    here = {run["name"]: run for run in known if run["modes"] == options.modes}
    ours = here.get("Gauss-Newton", {"reached": {}})["reached"].get("1e-3")
    for name, run in here.items():
        if ours and "Adam 1e-3" in name:
            there = run["reached"]["1e-3"]
            times = (there["epoch"] if there else run["epochs"]) / ours["epoch"]
            print(f"{name}: {'' if there else 'more than '}{times:.0f} times the epochs to 1e-3")


if __name__ == "__main__":
    main()

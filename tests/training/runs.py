"""Short trainings of the score of a coherent state, cheap to compile, for the tests of trainings."""

import hashlib
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import bohmdiff as bd

KEY = jax.random.key(0)
TS = [0.0, 1.0]
VALIDATION = {"fisher", "fisher_masked_fraction", "fisher_minimum_determinant", "energy", "energy_drift"}


class Width(eqx.Module):
    """The scalar of a Gaussian whose centre swings; the coherent state has precision 2 and amplitude 1."""

    precision: jax.Array
    amplitude: jax.Array

    def __call__(self, t, x):
        return -0.5 * self.precision * jnp.sum((x - self.amplitude * jnp.cos(t)) ** 2)


def well(t, x):
    return 0.5 * jnp.sum(x**2)


def other_well(t, x):
    return 0.5 * jnp.sum(x**2) + 0.1 * jnp.sum(x**4)


def problem(potential=well, t1=1.0, mean=1.0):
    return bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([mean], 0.5), t1=t1)


class Distance(bd.AbstractObjective):
    """A user's own, cheap to compile: how far the score is from the exact one where particles start.

    With `stalled` its value is always one, while its gradient is what it was."""

    second_tangents = "none"
    through_flow = False
    min_determinant: float = 0.0
    stalled: bool = False

    def at(self, problem, score, t, ensemble):
        x = ensemble.start
        s = jax.vmap(score, in_axes=(None, 0))(t, x)
        value = ensemble.weights @ jnp.sum((s + 2 * (x - jnp.cos(t))) ** 2, axis=1)
        return value - jax.lax.stop_gradient(value) + 1 if self.stalled else value


# One, because what is compiled for an optimizer is kept for that very one.
ADAM = optax.adam(3e-2)
START = [1.2, 0.7]
SCORE = bd.GradientScore(Width(*map(jnp.asarray, START)))

OF_TRAINING = {"optimizer", "epochs", "directory", "resume", "keep", "max_skipped"}
OF_TRAINING |= {"validate_every", "checkpoint_every"}


def divided(options):
    """A training, and the options of its method."""
    of_training = {name: value for name, value in options.items() if name in OF_TRAINING}
    others = {name: value for name, value in options.items() if name not in OF_TRAINING}
    return bd.Training(**of_training), others


def method(score=SCORE, **options):
    """Options of the method and of its training."""
    defaults = {
        "objective": Distance(),
        "optimizer": ADAM,
        "epochs": 6,
        "particles": 16,
        "steps": 8,
        "solver": bd.VelocityVerlet(),
        "validation_particles": 16,
        "validate_every": 50,
        "checkpoint_every": 50,
    }
    training, options = divided(defaults | options)
    return bd.SelfConsistentScoreMatching(score, training=training, **options)


PROBLEM = problem()


def train(key=KEY, progress=False, problem=PROBLEM, **options):
    return bd.solve(problem, method(**options), key=key, ts=TS, progress=progress)


def parameters(solution):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(solution.fitted, eqx.is_array))]


def outcome(solution):
    """Letters that stand for all bits of the parameters."""
    return hashlib.sha256(b"".join(array.tobytes() for array in parameters(solution))).hexdigest()


def read_log(folder, but=("seconds",)):
    def refuse(token):
        raise ValueError(f"{token} is not JSON")

    lines = (Path(folder) / "log.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    return [{name: value for name, value in record.items() if name not in but} for record in records]


def saved_epochs(folder):
    return sorted(
        int(path.name) for path in (Path(folder) / "checkpoints").iterdir() if path.name.isdigit()
    )

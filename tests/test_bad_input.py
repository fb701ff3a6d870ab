"""Whatever is passed by mistake: an error of ours that says so, or a right answer. Never an error from the inside
of a library that we use, never NaN.

Every public constructor and function has an entry here, a call that is right; the tests put something
else in the place of one of its arguments.
"""

import inspect
import math
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bohmdiff as bd
import bohmdiff.testing
from tests.unchecked import unchecked_types

OURS = Path(bd.__file__).parent
KEY = jax.random.key(0)
X = jnp.array([0.3, -0.2])


class NotANumber:
    """A potential, and a score, that fail in a way that shows only when they are called."""

    def __call__(self, t, x):
        return jnp.nan * x[0]

    def __repr__(self):
        return "NotANumber()"


class WrongShape:
    def __call__(self, t, x):
        return jnp.zeros((3, 3))

    def __repr__(self):
        return "WrongShape()"


class Broken:
    def __call__(self, *anything):
        raise RuntimeError("broken on purpose")

    def __repr__(self):
        return "Broken()"


BAD = [
    None, True, False, "text", b"bytes", 0, -1, 1, 2, 3, 7, 0.5, -0.5, 1.5, 1e300, -1e300, 1e-300,
    2**70, -(2**70), math.nan, math.inf, -math.inf, 1j, [], [[]], (), {}, {"a": 1}, [1.0], [0.3,
    0.4], [1.0, 2.0, 3.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], ["a", "b"], [None, 1.0],
    [[1.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0],
    [0.0, 0.0]], [[1.0, 0.0]], np.zeros((2, 2, 2)), np.zeros(0), np.zeros((0, 2)), np.ones((3, 2)),
    np.ones((2, 3)), np.array([1, 2]), np.array([True, False]), np.array([1.0, 2.0], np.float32),
    np.array(["a"]), np.array([1j, 2.0]), np.float64(0.5), np.int64(2), object(), object, len,
    lambda: None, NotANumber(), WrongShape(), Broken(), KEY, jax.random.split(KEY),
    bd.GaussianWavePacket([0.0], 0.5), bd.VelocityVerlet(), bd.VelocityVerlet,
    bd.GaussianDynamics(), bd.GaussianDynamics, bd.SobolPoints(4), bd.SobolPoints, bd.DoubleWell(),
    bd.FisherDivergence(), bd.FisherDivergence, optax.adam(1e-3),
]  # fmt: skip


class Call(NamedTuple):
    """A call that is right, what is done with its result, and whether every other value is another compilation,
    which is dear."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    use: Callable[[Any], Any] = lambda result: result
    dear: bool = False


@cache
def problem() -> bd.Problem:
    return bd.Problem(
        bd.Hamiltonian(bd.Quadratic(1.0), mass=[1.0, 2.0]), bd.GaussianWavePacket([0.5, 0.0], 0.5), t1=0.5
    )


@cache
def line() -> bd.Problem:
    return bd.Problem(bd.Hamiltonian(bd.Quadratic(1.0)), bd.GaussianWavePacket([0.5], 0.5), t1=0.5)


@cache
def solution() -> bd.Solution:
    return bd.solve(problem(), bd.GaussianDynamics(), ts=[0.0, 0.5])


@cache
def on_a_line() -> bd.Solution:
    return bd.solve(line(), bd.SplitOperator(points=32, lower=-5.0, upper=5.0, steps=4), ts=[0.0, 0.5])


@cache
def rung() -> bd.Solution:
    grid = bd.SplitOperator(points=32, lower=-5.0, upper=5.0, steps=32)
    return bd.solve(line(), grid, ts=jnp.linspace(0.0, 0.5, 33))


@cache
def flow_solution() -> bd.Solution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the score is not that of the problem
        return bd.solve(
            problem(), bd.GivenScore(small_score(), bd.GaussHermitePoints(4), steps=4), ts=[0.0, 0.5]
        )


@cache
def sequential_solution() -> bd.Solution:
    return bd.solve(problem(), bd.SequentialScoreMatching(2, steps=4), ts=[0.0, 0.5])


def gaussian(t, x):
    return -2.0 * x


def in_a_flow(score):
    """Whether particles move under it."""
    flow = bd.propagate(problem(), score, X[None], ts=[0.5], solver=bd.BlanesMoan4(), steps=8)
    return flow.position


def in_training(**options):
    """A training of one epoch with these options."""
    given = {
        "training": bd.Training(optax.adam(1e-3), epochs=1),
        "particles": 4,
        "steps": 2,
        "validation_particles": 4,
        "solution_particles": 4,
        "objective": bd.LogDensityVariance(),
    }
    method = bd.SelfConsistentScoreMatching(small_score(), **(given | options))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bd.solve(problem(), method, key=KEY, ts=[0.5]).mean()


def small_score():
    return bd.GradientScore(eqx.Partial(_of_width, jnp.array(2.0)))


def _of_width(width, t, x):
    return -0.5 * width * jnp.sum(x**2)


def value(potential):
    return potential(0.1, X)


def small_network(kind):
    return bd.NeuralVelocity(problem(), kind, width=2, depth=1, key=KEY)


def as_initial_state(state):
    x, weights = state.particles(bd.RandomPoints(4), KEY)
    return x, weights, jax.vmap(state.log_density)(x), jax.vmap(state.score)(x), jax.vmap(state.phase)(x)


def as_design(design):
    return design(2, KEY)


def solved(method):
    solution = bd.solve(problem(), method, key=KEY, ts=[0.25, 0.5])
    return solution.mean(), solution.std(), solution.energy()


def objective_of(objective):
    return in_training(objective=objective)


def shown(animation):
    animation._draw_was_started = True  # it would warn that nobody looked at it


def drawn(figure):
    figure.canvas.draw()


def at_half(pulse):
    return pulse(0.5)


PULSE = {
    "amplitude": 0.1,
    "frequency": 1.0,
    "centre": 0.0,
    "duration": 2.0,
    "phase": 0.5,
    "polarisation": [0.0, 0.0, 1.0],
}
PACKET = {"mean": [0.5, 0.0], "covariance": 0.5}
CALLS = {
    "AutomaticDegree": Call(
        bd.AutomaticDegree,
        {"tolerance": 0.5, "largest": 4, "method": bd.SequentialScoreMatching(2, steps=4)},
        solved,
        dear=True,
    ),
    "BlanesMoan4": Call(bd.BlanesMoan4, {}),
    "BlanesMoan6": Call(bd.BlanesMoan6, {}),
    "VelocityVerlet": Call(bd.VelocityVerlet, {}),
    "Yoshida4": Call(bd.Yoshida4, {}),
    "TotalDegree": Call(bd.TotalDegree, {}),
    "HyperbolicCross": Call(bd.HyperbolicCross, {}),
    "BlendedScore": Call(
        bd.BlendedScore,
        {"early": small_score(), "late": small_score(), "start": 0.1, "end": 0.2},
        in_a_flow,
        dear=True,
    ),
    "CausticPenalty": Call(bd.CausticPenalty, {"threshold": 0.4}),
    "DirectionalDivergence": Call(bd.DirectionalDivergence, {"min_determinant": 0.1}),
    "EnergyDrift": Call(bd.EnergyDrift, {"min_determinant": 0.1, "max_target": 10.0}),
    "FisherDivergence": Call(
        bd.FisherDivergence, {"min_determinant": 0.1, "max_target": 10.0, "outlier_scale": 3.0}
    ),
    "ImplicitScoreMatching": Call(bd.ImplicitScoreMatching, {"min_determinant": 0.1}),
    "LogDensityVariance": Call(bd.LogDensityVariance, {"min_determinant": 0.1, "outlier_scale": 3.0}),
    "ObjectiveSum": Call(bd.ObjectiveSum, {"terms": ((1.0, bd.FisherDivergence()),)}),
    "DoubleWell": Call(bd.DoubleWell, {"barrier": 1.0, "minimum": 2.0}, value),
    "Eckart": Call(bd.Eckart, {"height": 1.0, "width": 0.5, "coordinate": 0}, value),
    "HenonHeiles": Call(bd.HenonHeiles, {"coupling": 0.1, "frequency": 1.0}, value),
    "InteractingBosons": Call(
        bd.InteractingBosons, {"frequency": 1.0, "repulsion": 1.0, "variance": 0.1, "mass": 1.0}, value
    ),
    "MorseChain": Call(bd.MorseChain, {"depth": 12.5, "width": 0.2, "coupling": 0.3}, value),
    "Quadratic": Call(bd.Quadratic, {"matrix": 1.0, "centre": [0.1, 0.2], "linear": [0.1, 0.2]}, value),
    "TabulatedPotential": Call(
        bd.TabulatedPotential,
        {"axes": [np.linspace(-1.0, 1.0, 4)] * 2, "values": np.ones((4, 4)), "outside": "linear"},
        value,
    ),
    "GaussianPulse": Call(bd.GaussianPulse, PULSE, at_half),
    "SineSquaredPulse": Call(bd.SineSquaredPulse, PULSE, at_half),
    "Laser": Call(
        bd.Laser, {"field": bd.GaussianPulse(0.1, 1.0, 0.0, 2.0), "dipole": lambda x: x[0]}, value
    ),
    "NormalModes": Call(
        bd.NormalModes.from_force_field,
        {
            "frequencies": [1.0, 2.0],
            "cubic": {(0, 0, 1): 0.1},
            "quartic": {(0, 0, 1, 1): 0.1},
            "energy": 0.01,
            "dipole_gradient": np.ones((3, 2)),
            "reach": 3.0,
        },
        lambda modes: (modes.hamiltonian.potential(0.1, X), modes.dipole(X)),
    ),
    "PotentialSum": Call(
        lambda first, second: bd.PotentialSum(first, second),
        {"first": bd.DoubleWell(), "second": bd.DoubleWell()},
    ),
    "ScaledPotential": Call(bd.ScaledPotential, {"potential": bd.DoubleWell(), "factor": 2.0}),
    "Hamiltonian": Call(
        bd.Hamiltonian, {"potential": bd.Quadratic(1.0), "mass": 1.0, "hbar": 1.0}, lambda h: solved_with(h)
    ),
    "Problem": Call(
        bd.Problem,
        {
            "hamiltonian": bd.Hamiltonian(bd.Quadratic(1.0)),
            "initial": bd.GaussianWavePacket([0.5, 0.0], 0.5),
            "t1": 0.5,
            "t0": 0.0,
        },
        lambda p: bd.solve(p, bd.GaussianDynamics(steps=8)).mean(),
    ),
    "GaussianWavePacket": Call(
        bd.GaussianWavePacket,
        PACKET | {"momentum": [0.1, 0.2], "chirp": [[0.1, 0.0], [0.0, 0.1]]},
        as_initial_state,
    ),
    "GaussianMixture": Call(
        bd.GaussianMixture,
        {
            "weights": [0.7, 0.3],
            "means": [[-1.0, 0.0], [1.0, 0.5]],
            "covariances": [0.5, 0.8],
            "momentum": [0.1, 0.2],
            "phase": None,
        },
        as_initial_state,
        dear=True,
    ),
    "LogDensity": Call(
        bd.LogDensity,
        {
            "log_density": lambda x: -jnp.sum(x**2),
            "mean": [0.0, 0.0],
            "covariance": 0.5,
            "momentum": [0.1, 0.2],
            "phase": None,
        },
        as_initial_state,
        dear=True,
    ),
    "GaussHermitePoints": Call(bd.GaussHermitePoints, {"points_per_axis": 4, "discard": 1e-6}, as_design),
    "RandomPoints": Call(bd.RandomPoints, {"number": 4}, as_design),
    "SobolPoints": Call(bd.SobolPoints, {"number": 4}, as_design),
    "StandardizedPoints": Call(bd.StandardizedPoints, {"design": bd.SobolPoints(4)}, as_design),
    "TruncatedPoints": Call(bd.TruncatedPoints, {"design": bd.SobolPoints(4), "radius": 3.0}, as_design),
    "WidenedPoints": Call(
        bd.WidenedPoints, {"design": bd.SobolPoints(4), "factor": 1.4, "power": 0.9}, as_design
    ),
    "FrozenScore": Call(bd.FrozenScore, {"source": small_score()}, in_a_flow, dear=True),
    "GradientScore": Call(
        bd.GradientScore, {"scalar_field": lambda t, x: -jnp.sum(x**2)}, in_a_flow, dear=True
    ),
    "HarmonicScore": Call(bd.HarmonicScore, {"problem": problem()}, in_a_flow, dear=True),
    "NeuralScore": Call(
        bd.NeuralScore,
        {
            "problem": problem(),
            "baseline": small_score(),
            "fade_in": 2,
            "exact_start": False,
            "width": 2,
            "depth": 1,
            "conditioning": "film",
            "activation": jnp.tanh,
            "frequencies": 2,
            "output_scale": 0.1,
            "network": None,
            "key": KEY,
        },
        in_a_flow,
        dear=True,
    ),
    "ScoreSum": Call(
        lambda first, second: bd.ScoreSum(first, second),
        {"first": small_score(), "second": small_score()},
        in_a_flow,
        dear=True,
    ),
    "TimeConditionedMLP": Call(
        bd.TimeConditionedMLP,
        {
            "dimension": 2,
            "features": 3,
            "width": 2,
            "depth": 1,
            "conditioning": "film",
            "activation": jnp.tanh,
            "key": KEY,
        },
    ),
    "Interactions": Call(
        bd.Interactions,
        {"order": 2, "reach": 1},
        lambda i: solved(bd.SequentialScoreMatching(2, steps=4, basis=i)),
        dear=True,
    ),
    "SymplecticTableau": Call(bd.SymplecticTableau, {"kicks": (0.5, 0.5), "drifts": (1.0,), "order": 2}),
    "GaussianDynamics": Call(
        bd.GaussianDynamics, {"steps": 8, "solver": bd.BlanesMoan4()}, solved, dear=True
    ),
    "GivenScore": Call(
        bd.GivenScore,
        {
            "score": gaussian,
            "particles": bd.GaussHermitePoints(4),
            "steps": 4,
            "solver": bd.VelocityVerlet(),
        },
        solved,
        dear=True,
    ),
    "SequentialScoreMatching": Call(
        bd.SequentialScoreMatching,
        {
            "degree": 2,
            "particles": bd.GaussHermitePoints(4),
            "steps": 4,
            "solver": bd.VelocityVerlet(),
            "window": 6.0,
            "terms": bd.TotalDegree(),
        },
        solved,
        dear=True,
    ),
    "SplitOperator": Call(
        bd.SplitOperator,
        {
            "points": 16,
            "lower": -5.0,
            "upper": 5.0,
            "steps": 4,
            "order": 4,
            "memory": None,
            "snapshot_memory": 2**20,
        },
        solved,
    ),
    "ComplexAbsorber": Call(
        lambda width: bd.SplitOperator(64, -9.0, 9.0, steps=4, absorber=bd.ComplexAbsorber(width)),
        {"width": 3.0},
        solved,
        dear=True,
    ),
    "HermiteFunctions": Call(
        bd.HermiteFunctions,
        {
            "degree": 6,
            "tolerance": 0.5,
            "target": "moments",
            "weights": [1.0, 1.0],
            "centre": [0.0, 0.0],
            "scale": [1.0, 1.0],
            "steps": 4,
            "memory": 1e8,
        },
        solved,
        dear=True,
    ),
    "PotentialTerm": Call(
        lambda coordinates: bd.PotentialTerm(coordinates, lambda t, y: jnp.sum(y**2)),
        {"coordinates": (0, 1)},
        value,
    ),
    "eigenstates": Call(
        bd.eigenstates,
        {
            "hamiltonian": bd.Hamiltonian(bd.DoubleWell()),
            "method": bd.HermiteFunctions(degree=6, tolerance=10.0),
            "count": 2,
            "dimension": 1,
            "near": [0.5],
            "key": KEY,
            "progress": False,
        },
        lambda states: states.energy,
        dear=True,
    ),
    "ground_state": Call(
        bd.ground_state,
        {
            "hamiltonian": bd.Hamiltonian(bd.DoubleWell()),
            "method": bd.HermiteFunctions(degree=6, tolerance=10.0),
            "dimension": 1,
            "near": [0.5],
            "key": KEY,
            "progress": False,
        },
        lambda state: state.energy,
        dear=True,
    ),
    "flux": Call(
        bd.flux, {"solution": on_a_line(), "position": 0.5, "coordinate": 0}, lambda f: f.passed, dear=True
    ),
    "spectrum": Call(
        bd.spectrum,
        {"solution": rung(), "observable": lambda x: x[0]},
        lambda found: found.intensity,
        dear=True,
    ),
    "plot.spectrum": Call(
        bd.plot.spectrum, {"spectrum": bd.spectrum(rung()), "units": bd.plot.Units()}, dear=True
    ),
    "SelfConsistentScoreMatching": Call(
        lambda **options: bd.SelfConsistentScoreMatching(**options),
        {
            "score": small_score(),
            "objective": bd.FisherDivergence(),
            "training": bd.Training(epochs=1),
            "particles": 4,
            "steps": 2,
            "solver": bd.VelocityVerlet(),
            "times": 2,
            "validation_particles": 4,
            "solution_particles": 4,
        },
    ),
    "Training": Call(
        lambda **options: bd.Training(**options),
        {
            "optimizer": optax.adam(1e-3),
            "epochs": 1,
            "directory": None,
            "resume": False,
            "validate_every": 1,
            "checkpoint_every": 1,
            "keep": 1,
            "max_skipped": 2,
        },
    ),
    "scale_by_gauss_newton": Call(
        bd.scale_by_gauss_newton, {"damping": 1e-5, "decay": 0.9, "projections": 2}
    ),
    "acceleration": Call(
        bd.acceleration,
        {"hamiltonian": bd.Hamiltonian(bd.Quadratic(1.0)), "score": gaussian, "t": 0.0, "x": X},
    ),
    "quantum_potential": Call(
        bd.quantum_potential,
        {"hamiltonian": bd.Hamiltonian(bd.Quadratic(1.0)), "score": gaussian, "t": 0.0, "x": X},
    ),
    "Velocities": Call(
        bd.Velocities,
        {"problem": problem(), "score": gaussian, "velocity": gaussian},
        lambda v: bd.nelson_process(v, 4, key=KEY, ts=[0.5], steps=2),
        dear=True,
    ),
    "DeepStochasticMechanics": Call(
        lambda **options: bd.DeepStochasticMechanics(**options),
        {
            "u": small_network("osmotic"),
            "v": small_network("current"),
            "training": bd.Training(epochs=1),
            "particles": 4,
            "steps": 2,
            "resample_every": 1,
            "initial_weight": 1.0,
            "outlier_scale": math.inf,
            "validation_particles": 4,
        },
    ),
    "PhysicsInformedNetwork": Call(
        lambda **options: bd.PhysicsInformedNetwork(**options),
        {
            "psi": bd.NeuralWaveFunction(problem(), width=2, depth=1, key=KEY),
            "training": bd.Training(epochs=1),
            "particles": 4,
            "box": None,
            "steps": 2,
            "initial_weight": 1.0,
            "boundary_weight": 1.0,
            "validation_particles": 4,
        },
    ),
    "NeuralWaveFunction": Call(
        bd.NeuralWaveFunction,
        {
            "problem": problem(),
            "logarithmic": True,
            "exact_start": True,
            "width": 2,
            "depth": 1,
            "key": KEY,
        },
        lambda psi: psi(0.1, X),
        dear=True,
    ),
    "NeuralVelocity": Call(
        bd.NeuralVelocity,
        {
            "problem": problem(),
            "kind": "osmotic",
            "gradient": True,
            "exact_start": True,
            "width": 2,
            "depth": 1,
            "key": KEY,
        },
        lambda w: w(0.1, X),
        dear=True,
    ),
    "velocity_networks": Call(
        bd.velocity_networks,
        {
            "problem": problem(),
            "gradient": True,
            "exact_start": True,
            "width": 2,
            "depth": 1,
            "key": KEY,
        },
        lambda pair: pair[0](0.1, X),
        dear=True,
    ),
    "velocity_residuals": Call(
        bd.velocity_residuals,
        {
            "hamiltonian": bd.Hamiltonian(bd.Quadratic(1.0)),
            "osmotic": gaussian,
            "current": gaussian,
            "t": 0.0,
            "x": X,
        },
    ),
    "nelson_process": Call(
        bd.nelson_process,
        {
            "source": solution(),
            "start": 4,
            "key": KEY,
            "ts": [0.0, 0.5],
            "noise": 1.0,
            "backward": False,
            "steps": 2,
            "solver": diffrax.ShARK(),
        },
        lambda paths: paths,
        dear=True,
    ),
    "compare": Call(
        bd.compare,
        {"solution": solution(), "reference": solution()},
        lambda c: (c.mean_rms, c.std_rms, c.energy_rms),
    ),
    "fisher_divergence": Call(
        bd.fisher_divergence,
        {
            "problem": problem(),
            "score": gaussian,
            "x0": [[0.3, -0.2]],
            "steps": 2,
            "solver": bd.VelocityVerlet(),
            "weights": [1.0],
            "min_determinant": 0.1,
            "max_target": 100.0,
        },
        lambda r: r.value,
    ),
    "propagate": Call(
        bd.propagate,
        {
            "problem": problem(),
            "score": gaussian,
            "x0": [[0.3, -0.2]],
            "ts": [0.0, 0.5],
            "solver": bd.VelocityVerlet(),
            "steps": 2,
            "tangents": True,
        },
        lambda f: (f.position, f.log_density),
    ),
    "solve": Call(
        bd.solve,
        {
            "problem": problem(),
            "method": bd.GaussianDynamics(steps=8),
            "key": KEY,
            "ts": [0.0, 0.5],
            "progress": False,
        },
        lambda s: (s.mean(), s.energy()),
    ),
    "Units": Call(bd.Units, {"time": "fs", "length": "Å", "energy": "eV"}),
    "plot.Units": Call(bd.plot.Units, {"time": "fs", "length": "Å", "energy": "eV"}),
    "plot.density": Call(
        bd.plot.density,
        {
            "solution": on_a_line(),
            "trajectories": [[0.0, 0.1]],
            "ts": [0.0, 0.5],
            "reference": [[0.0, 0.1]],
            "lower": -2.0,
            "upper": 2.0,
            "label": "mine",
            "units": bd.plot.Units(),
        },
        drawn,
        dear=True,
    ),
    "plot.energy": Call(
        bd.plot.energy,
        {"solution": solution(), "reference": solution(), "units": bd.plot.Units()},
        drawn,
        dear=True,
    ),
    "plot.moments": Call(
        bd.plot.moments,
        {"solution": solution(), "reference": solution(), "units": bd.plot.Units()},
        drawn,
        dear=True,
    ),
    "plot.movie": Call(
        bd.plot.movie,
        {
            "solution": solution(),
            "trajectories": np.zeros((3, 2, 2)),
            "exact": solution(),
            "coordinates": [0, 1],
            "every": 1,
            "fps": 20,
            "lower": -2.0,
            "upper": 2.0,
            "label": "mine",
            "units": bd.plot.Units(),
        },
        shown,
        dear=True,
    ),
    "plot.training": Call(
        bd.plot.training, {"history": None, "reference_energy": 1.0, "units": bd.plot.Units()}, drawn
    ),
}


SOLUTIONS = {
    "GaussianSolution": solution,
    "GridSolution": on_a_line,
    "FlowSolution": flow_solution,
    "EnsembleSolution": sequential_solution,
}
for _name, _made in SOLUTIONS.items():
    _x = jnp.array([0.3] if _name == "GridSolution" else [0.3, -0.2])
    for _what in ("score", "log_density", "wave_function"):
        if _what == "wave_function" and _name in ("FlowSolution", "EnsembleSolution"):
            continue
        CALLS[f"{_name}.{_what}"] = Call(getattr(_made(), _what), {"t": 0.25, "x": _x}, dear=True)
    CALLS[f"{_name}.sample"] = Call(_made().sample, {"key": KEY, "n": 2}, dear=True)
    CALLS[f"{_name}.to_xarray"] = Call(
        _made().to_xarray, {"units": bd.plot.Units()}, lambda data: data["mean"].values
    )


def solved_with(hamiltonian):
    p = bd.Problem(hamiltonian, bd.GaussianWavePacket([0.5, 0.0], 0.5), t1=0.5)
    return bd.solve(p, bd.GaussianDynamics(steps=8), ts=[0.5]).mean()


EXPECTED = (ValueError, bd.DegenerateFitError, bd.ToleranceNotReachedError, bd.UnavailableError)


def complaint(call: Call, name: str, bad: Any) -> str | None:
    """What is wrong with how a call takes something bad, if anything is."""
    try:
        with unchecked_types(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call.use(call.function(**(call.arguments | {name: bad})))
    except EXPECTED as error:
        where = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if OURS not in where.parents:
            return f"{type(error).__name__} from {where}: {error}"
        return None if str(error) else "an error without a message"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        plt.close("all")
    for leaf in jax.tree.leaves(result):
        if eqx.is_inexact_array_like(leaf) and np.any(np.isnan(np.asarray(leaf))):
            return f"NaN in {leaf!r}"
    return None


numbers = st.floats() | st.integers(-(2**70), 2**70)
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
anything = (
    st.sampled_from(BAD)
    | numbers
    | st.lists(numbers, max_size=3)
    | hnp.arrays(float, shapes, elements=st.floats())
)


FEW = [pytest.param(name, 6, marks=pytest.mark.slow) for name, call in CALLS.items() if not call.dear]
MANY = [pytest.param(name, 15 if call.dear else 30, marks=pytest.mark.long) for name, call in CALLS.items()]


@pytest.mark.parametrize(("name", "examples"), FEW + MANY)
def test_the_call_is_right_and_anything_else_is_refused_or_right(name, examples):
    call = CALLS[name]
    matplotlib.use("Agg")
    if name != "plot.training":  # it takes the history of a training, which others test
        call.use(call.function(**call.arguments))
    if not call.arguments:
        return

    @settings(max_examples=examples)
    @given(argument=st.sampled_from(sorted(call.arguments)), bad=anything)
    def check(argument, bad):
        assert complaint(call, argument, bad) is None

    check()


# Made by the library and not by users, or with a test of its own in tests/testing.
OTHERS = {
    "AbstractSymplecticSolver", "Comparison", "EnsembleSolution", "FlowSolution", "FlowState", "GaussianScore",
    "GaussianSolution", "GridSolution", "HermiteExpansion", "HermiteScore", "HermiteVelocity", "LocalScore",
    "Diagnostics", "Figure", "FunctionScore", "ObjectiveReport", "Particles", "Pullback", "Trajectory",
    "VelocitySolution", "WaveFunctionSolution", "load", "Flux", "HermiteSolution", "HermiteState", "Lines",
    "Spectrum", "StationaryStates",
}  # fmt: skip


def test_every_public_name_is_called():
    public = {"": bd, "plot.": bd.plot}
    names = {
        prefix + name
        for prefix, room in public.items()
        for name, thing in vars(room).items()
        if (inspect.isclass(thing) or inspect.isfunction(thing))
        and not name.startswith("_")
        and not inspect.isabstract(thing)
        and not (inspect.isclass(thing) and issubclass(thing, Exception))
        and thing.__module__.startswith("bohmdiff")
    }
    assert names - OTHERS - set(CALLS) == set()

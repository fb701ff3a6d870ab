"""Every part of the library obeys the laws: a new one without an entry here fails."""

import inspect
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd
from bohmdiff.testing import check_method, check_potential, check_score, check_solver

KEY = jax.random.key(0)
PACKET = bd.GaussianWavePacket([0.5, 0.0], 0.5)
CHAIN = bd.Problem(bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.3)), PACKET, t1=1.0)


KNOTS = np.linspace(-3.0, 3.0, 13)  # through which a cubic goes exactly


def driven(t, x):
    return jnp.sum(x**4) / 20 - jnp.cos(3 * t) * x[0]


def parts_of(base):
    """The final classes among the public names that are such parts."""
    classes = {name: cls for name, cls in vars(bd).items() if inspect.isclass(cls)}
    return {cls for name, cls in classes.items() if issubclass(cls, base) and "Abstract" not in name}


POTENTIALS = {
    bd.Quadratic: bd.Quadratic(
        matrix=[[1.0, 0.2], [0.2, -0.5]], linear=lambda t: jnp.array([0.1, 0.0]) * t
    ),
    bd.MorseChain: bd.MorseChain(depth=12.5, width=0.2, coupling=0.3),
    bd.DoubleWell: bd.DoubleWell(),
    bd.HenonHeiles: bd.HenonHeiles(0.1),
    bd.Eckart: bd.Eckart(1.0, 0.5),
    bd.InteractingBosons: bd.InteractingBosons(),
    bd.TabulatedPotential: bd.TabulatedPotential([KNOTS, KNOTS], KNOTS[:, None] ** 2 + 0.1 * KNOTS**3),
    bd.Laser: bd.Laser(bd.GaussianPulse(0.7, 2.0, 0.4, 1.0), lambda x: x[0] - 0.3 * x[0] * x[1]),
    bd.PotentialSum: bd.DoubleWell() + driven,
    bd.ScaledPotential: 2.0 * bd.HenonHeiles(0.1),
}


@cache
def fitted():
    return bd.solve(CHAIN, bd.SequentialScoreMatching(degree=3, steps=8)).fitted


def network(**options):
    return bd.NeuralScore(CHAIN, width=4, depth=2, output_scale=0.5, key=KEY, **options)


SCORES = {
    bd.FunctionScore: lambda: bd.FunctionScore(lambda t, x: -(x**3) * (1 + t)),
    bd.GradientScore: lambda: bd.GradientScore(lambda t, x: -jnp.sum(x**4) * (1 + t)),
    bd.NeuralScore: lambda: network(baseline=fitted(), exact_start=True),
    bd.ScoreSum: lambda: fitted() + network(),
    bd.BlendedScore: lambda: bd.BlendedScore(bd.HarmonicScore(CHAIN), fitted(), start=0.2, end=0.7),
    bd.FrozenScore: lambda: bd.FrozenScore(fitted()),
    bd.HarmonicScore: lambda: bd.HarmonicScore(CHAIN),
    bd.GaussianScore: lambda: bd.solve(CHAIN, bd.GaussianDynamics(steps=8)).fitted,
    bd.HermiteScore: fitted,
}
SOLVERS = {solver: solver() for solver in (bd.VelocityVerlet, bd.Yoshida4, bd.BlanesMoan4, bd.BlanesMoan6)}


def trained(problem):
    import optax

    baseline = bd.solve(problem, bd.GaussianDynamics(steps=32))
    score = bd.NeuralScore(problem, baseline=baseline, width=2, depth=1, output_scale=1e-4, key=KEY)
    training = bd.Training(optax.adam(1e-6), epochs=1)
    options = dict(training=training, particles=16, validation_particles=16, steps=16)
    return bd.SelfConsistentScoreMatching(score, bd.LogDensityVariance(), **options)


LEARNING = bd.Training(epochs=60, validate_every=60)


def learned(problem):
    u, v = bd.velocity_networks(problem, width=6, depth=1, key=KEY)
    return bd.DeepStochasticMechanics(u, v, training=LEARNING, particles=128)


def informed(problem):
    psi = bd.NeuralWaveFunction(problem, width=6, depth=1, key=KEY)
    return bd.PhysicsInformedNetwork(psi, training=LEARNING, particles=256)


METHODS = {
    bd.SequentialScoreMatching: bd.SequentialScoreMatching(degree=2),
    bd.AutomaticDegree: bd.AutomaticDegree(),
    bd.SplitOperator: bd.SplitOperator(points=128, lower=-9.0, upper=9.0, steps=400),
    bd.GaussianDynamics: bd.GaussianDynamics(),
    bd.HermiteFunctions: bd.HermiteFunctions(tolerance=1e-6, target="state"),
    bd.GivenScore: lambda problem: bd.GivenScore(bd.solve(problem, bd.GaussianDynamics()).fitted),
    bd.SelfConsistentScoreMatching: trained,
    bd.DeepStochasticMechanics: learned,
    bd.PhysicsInformedNetwork: informed,
}


@pytest.mark.parametrize(
    ("base", "entries"),
    [
        (bd.AbstractPotential, POTENTIALS),
        (bd.AbstractScore, SCORES),
        (bd.AbstractSymplecticSolver, SOLVERS),
        (bd.AbstractMethod, METHODS),
    ],
    ids=["potentials", "scores", "solvers", "methods"],
)
def test_every_part_has_its_entry(base, entries):
    found = parts_of(base)
    assert found == set(entries), f"without laws: {found - set(entries)}; gone: {set(entries) - found}"


SLOW = {
    bd.GaussianDynamics,
    bd.GaussianScore,
    bd.VelocityVerlet,
    bd.HermiteScore,
    bd.NeuralScore,
    bd.ScoreSum,
    bd.SplitOperator,
    bd.GivenScore,
    bd.BlanesMoan4,
    bd.SequentialScoreMatching,
}
LONG = {
    bd.BlendedScore,
    bd.FrozenScore,
    bd.Yoshida4,
    bd.BlanesMoan6,
    bd.SelfConsistentScoreMatching,
    bd.DeepStochasticMechanics,
    bd.PhysicsInformedNetwork,
    bd.AutomaticDegree,
}


def each(entries):
    marks = dict.fromkeys(SLOW, pytest.mark.slow) | dict.fromkeys(LONG, pytest.mark.long)
    return pytest.mark.parametrize(
        "cls", [pytest.param(cls, id=cls.__name__, marks=marks.get(cls, [])) for cls in entries]
    )


@each(POTENTIALS)
def test_potentials(cls):
    time_dependent = cls in (bd.Laser, bd.Quadratic, bd.PotentialSum)
    assert type(POTENTIALS[cls]) is cls
    check_potential(POTENTIALS[cls], 2, time_dependent=time_dependent)


@each(SCORES)
@pytest.mark.filterwarnings("ignore:The solution by GaussianDynamics may be wrong")
def test_scores(cls):
    score = SCORES[cls]()
    assert type(score) is cls
    # Polynomials end beyond their window, and splines between their nodes are smooth.
    check_score(score, 2, times=(0.1, 0.9), box=1.5)


@each(SOLVERS)
def test_solvers(cls):
    check_solver(SOLVERS[cls])


@each(METHODS)
def test_methods(cls):
    check_method(METHODS[cls])

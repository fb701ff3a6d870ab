"""Each law catches what breaks it, says where, and gives code that shows it."""

import re
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bohmdiff as bd
from bohmdiff.network import LocalScore, ladder
from bohmdiff.testing import (
    DrivenGaussian,
    LawError,
    check_method,
    check_potential,
    check_score,
    check_solver,
    driven_gaussians,
    gaussian_wave_packets,
    positive_definite_matrices,
    potentials,
    scores,
)

COEFFICIENTS = jnp.array([1.0, 2.0], jnp.float64)


@jax.custom_jvp
def wrong_rule(x):
    return jnp.sum(x**2)


wrong_rule.defjvp(lambda primals, tangents: (wrong_rule(*primals), jnp.sum(primals[0] * tangents[0])))


@pytest.mark.parametrize(
    ("potential", "match"),
    [
        (lambda t, x: x, r"must return a real array of shape \(\)"),
        (lambda t, x: jnp.log(x[0] + 0.5), "the potential is not finite"),
        (lambda t, x: float(t) * jnp.sum(x**2), "could not be evaluated"),
        (lambda t, x: jnp.sum(jax.lax.stop_gradient(x) ** 2), "the gradient is not that of the potential"),
        (lambda t, x: wrong_rule(x), "the gradient is not that of the potential"),
        (lambda t, x: jnp.sum(jnp.abs(x) ** 2.5), "the second derivative is not that of the potential"),
        (lambda t, x: jnp.sum(jnp.where(x > 0, x**2, x**2 + 1e-3)), "is not that of the potential"),
        (lambda t, x: COEFFICIENTS @ x**2, "the result is not in single precision"),
        (
            lambda t, x: jnp.sum(x**2) * (1.0 if isinstance(t, float) else 2.0),
            "differs from a direct call",
        ),
    ],
    ids=["shape", "nan", "traced time", "stopped", "rule", "kink", "jump", "precision", "type of time"],
)
def test_potentials(potential, match):
    with pytest.raises(LawError, match=match):
        check_potential(potential, 2)


def test_a_jump_is_only_seen_where_one_looks():
    check_potential(lambda t, x: jnp.sum(jnp.where(x > 50, x, 0.0) + x**2), 2)


def test_time_as_declared():
    check_potential(lambda t, x: t * x[0], 1, time_dependent=True)
    check_potential(lambda t, x: x[0], 1, time_dependent=False)
    with pytest.raises(LawError, match="declared to depend on time, but the same"):
        check_potential(lambda t, x: x[0], 1, time_dependent=True)
    with pytest.raises(LawError, match="declared not to depend on time, but it does"):
        check_potential(lambda t, x: t * x[0], 1, time_dependent=False)


def test_what_is_printed_can_be_run():
    def potential(t, x):
        return jnp.log(x[0] + 1.5)

    with pytest.raises(LawError) as caught:
        check_potential(potential, 1)
    code = str(caught.value).split("To reproduce it:\n")[1].strip()
    assert code == "potential(1.0, jnp.array([-2.0]))"
    assert not np.isfinite(eval(code))


class Wrong(bd.AbstractGradientScore, bd.AbstractWithDerivatives, bd.AbstractWithPullback):
    """Right, but for one of the things that it declares."""

    broken: str = eqx.field(static=True)

    def __call__(self, t, x):
        return -(x**3)

    def log_density(self, t, x):
        return -jnp.sum(x**4) / (5 if self.broken == "log_density" else 4)

    def derivatives(self, t, x, inverse_mass, order):
        def local(y):
            return LocalScore(
                -(y**3), jnp.diag(-3 * y**2), (5 if self.broken == "derivatives" else -6) * inverse_mass * y
            )

        return ladder(local, x, order)

    def pullback(self, t, x, inverse_mass):
        factor = -5.0 if self.broken == "pullback" else -6.0
        return bd.Pullback(
            self(t, x),
            -3 * inverse_mass @ x**2,
            lambda u: inverse_mass * (factor * x - 3 * x**2 * u),
        )


@pytest.mark.parametrize("broken", ["log_density", "derivatives", "pullback"])
def test_what_a_score_declares(broken):
    with pytest.raises(LawError, match=broken):
        check_score(Wrong(broken), 2)


def test_a_score_that_is_right():
    check_score(Wrong("nothing"), 2)


def test_parts_of_a_sum_are_checked():
    total = Wrong("nothing") + bd.GradientScore(lambda t, x: -(x @ x))
    check_score(total, 2)
    with pytest.raises(LawError, match="log_density"):
        check_score(total + Wrong("log_density"), 2)
    # A sum with a vector field has no log density, so there is nothing to check.
    check_score(total + (lambda t, x: -x), 2, needs="force")


class Undeclared(bd.AbstractScore):
    """What it does not declare is no part of the score."""

    def __call__(self, t, x):
        return -x

    def log_density(self, t, x):
        return jnp.sum(x)


def test_what_a_score_does_not_declare_is_left_alone():
    check_score(Undeclared(), 2)


@pytest.mark.parametrize(
    ("score", "match"),
    [
        (lambda t, x: jnp.sum(x), r"must return a real array of shape \(2,\)"),
        (lambda t, x: jnp.array([-x[1], x[0]]), "not a gradient"),
        (lambda t, x: -x * jnp.sqrt(x @ x), "the first derivative is not finite"),
        (lambda t, x: -x.astype(float), "in single precision"),
    ],
    ids=["shape", "curl", "smooth", "precision"],
)
def test_scores(score, match):
    with pytest.raises(LawError, match=match):
        check_score(score, 2)


def test_a_score_may_be_declared_no_gradient_and_need_less():
    check_score(lambda t, x: jnp.array([-x[1], x[0]]), 2, gradient=False)
    check_score(lambda t, x: -x - jnp.where(x > 0, x**3, 0.0), 2, needs="force")
    with pytest.raises(LawError, match="the third derivative"):
        check_score(lambda t, x: -x - jnp.where(x > 0, x**3, 0.0), 2, needs="tangents")
    with pytest.raises(ValueError, match="needs must be one of"):
        check_score(lambda t, x: -x, 2, needs="everything")


class Lying(bd.AbstractSymplecticSolver):
    """Says that it is of order 4."""

    tableau: ClassVar = bd.SymplecticTableau(kicks=(0.5, 0.5), drifts=(1.0,), order=4)


class Damped(bd.AbstractSymplecticSolver):
    """Loses a little momentum in every step, too little for its order to suffer."""

    tableau: ClassVar = bd.SymplecticTableau(kicks=(0.5, 0.5), drifts=(1.0,), order=2)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        (q, p), *others = super().step(terms, t0, t1, y0, args, solver_state, made_jump)
        return ((q, p * (1 - (t1 - t0) ** 4)), *others)


@pytest.mark.parametrize(
    ("solver", "match"),
    [(Lying(), "not of order 4"), (Damped(), "not symplectic")],
    ids=["order", "damped"],
)
def test_solvers(solver, match):
    with pytest.raises(LawError, match=match):
        check_solver(solver)
    with pytest.raises(ValueError, match="order must be one of"):
        check_solver(solver, order=3)


class Altered(bd.AbstractMethod):
    """The exact solution, altered."""

    change: str

    def run(self, problem, ts, *, key, progress):
        if self.change == "nan" and not np.isfinite(
            problem.hamiltonian.potential(0.0, problem.initial.mean)
        ):
            problem = CASE.problem()
        if self.change == "late":
            ts = jnp.clip(ts, problem.t0, problem.t1)
        exact = bd.GaussianDynamics(steps=200).run(problem, ts, key=key, progress=progress)
        return AlteredSolution(problem, self, ts, exact, exact.diagnostics, self.change)


class AlteredSolution(bd.Solution):
    """The exact solution, with one thing changed."""

    problem: bd.Problem
    method: eqx.Module
    ts: jax.Array
    exact: bd.GaussianSolution
    diagnostics: bd.Diagnostics
    change: str = eqx.field(static=True)

    def mean(self):
        return self.exact.mean() + (0.01 if self.change == "mean" else 0.0)

    def covariance(self):
        noise = np.random.default_rng().uniform(0, 1e-5) if self.change == "key" else 0.0
        return self.exact.covariance() + noise

    def energy(self):
        drift = 2e-3 * (self.ts - self.ts[0]) if self.change == "energy" else 0.0
        return self.exact.energy() + drift

    def score_at(self, t, x):
        return self.exact.score_at(t, x) * (1.2 if self.change == "score" else 1.0)

    def velocity_at(self, t, x):
        return self.exact.velocity_at(t, x)

    def log_density_at(self, t, x):
        return self.exact.log_density_at(t, x) + (0.1 if self.change == "density" else 0.0)

    def wave_function_at(self, t, x):
        return self.exact.wave_function_at(t, x) * (1.1 if self.change == "wave" else 1.0)

    def move(self, x0):
        return self.exact.move(x0)

    def average(self, f):
        return self.exact.average(f)

    def measure(self, inside):
        return self.exact.measure(inside)

    def draw(self, key, n):
        return self.exact.draw(key, n)

    def project(self, psi):
        return self.exact.project(psi)


CASE = DrivenGaussian(
    mass=[1.0],
    hbar=1.0,
    stiffness=[[1.0]],
    centre=[0.0],
    drive=[0.0],
    frequency=6.0,
    mean=[0.5],
    covariance=[[0.3]],
    momentum=[0.0],
    chirp=[[0.0]],
)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param("mean", "the position of a Gaussian is wrong by", marks=pytest.mark.slow),
        pytest.param("energy", "the energy of a Gaussian is wrong by", marks=pytest.mark.slow),
        pytest.param("score", "the score of a Gaussian is wrong", marks=pytest.mark.slow),
        pytest.param("density", "the log density of a Gaussian is wrong", marks=pytest.mark.slow),
        ("wave", "the wave function of a Gaussian is wrong"),
        ("key", "the same key gave two different solutions"),
        ("nan", "potentials that return NaN must be refused"),
    ],
)
def test_methods(change, match):
    with pytest.raises(LawError, match=match) as caught:
        check_method(Altered(change), cases=[CASE])
    if change == "mean":
        code = re.search(r"case = .*?\n  \)", str(caught.value), re.DOTALL)[0]
        names = {"bohmdiff": bd}
        exec(code.replace("\n  ", "\n"), names)
        assert float(names["case"].mean[0]) == 0.5


def test_a_method_that_is_right():
    check_method(Altered("nothing"), cases=[CASE])


# The checks of types in our tests draw lots which item of a list they look at.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@settings(max_examples=10)
@given(st.data())
@pytest.mark.parametrize("d", [1, 3])
def test_what_is_drawn_makes_problems(d, data):
    potential = data.draw(potentials(d))
    problem = bd.Problem(bd.Hamiltonian(potential), data.draw(gaussian_wave_packets(d)), t1=1.0)
    assert problem.dimension == d
    assert jnp.isfinite(potential(0.3, problem.initial.mean))
    assert np.linalg.eigvalsh(data.draw(positive_definite_matrices(d, smallest=0.2))).min() > 0.199
    score = data.draw(scores(d))
    assert score(0.3, jnp.zeros(d)).shape == (d,)


@pytest.mark.slow
def test_a_counterexample_prints_as_code():
    @settings(max_examples=20, database=None)
    @given(case=driven_gaussians(1))
    def broken(case):
        assert case.hbar < 1

    with pytest.raises(AssertionError) as caught:
        broken()
    code = re.search(r"DrivenGaussian\(.*?\n    \)", "\n".join(caught.value.__notes__), re.DOTALL)[0]
    case = eval(code, {"DrivenGaussian": DrivenGaussian})
    assert case.hbar >= 1

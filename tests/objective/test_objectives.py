"""Objectives and their gradients against the oracle, on exact Gaussians, and what composes and what not."""

import inspect
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from tests.objective.oracle import HBAR, MASS, SCORE, T1, Score, oracle, potential, setting, trapezoid
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.objective import evaluate
from bohmdiff.testing import driven_gaussians

STEPS = 4
WEIGHTS = jnp.array([0.5, 0.2, 0.3])
SOLVER = bd.VelocityVerlet()
KEY = jax.random.key(0)
few = settings(max_examples=5)


class Sum(bd.ObjectiveSum):
    """One whose limits may be arrays."""

    @property
    def min_determinant(self):
        return self.terms[0][1].min_determinant


def four(fisher=0.0, directional=0.0, variance=0.0, energy=0.0, min_determinant=0.1, max_target=100.0):
    """A sum of four, of which the factors and limits are arrays: one compilation serves all tests.

    As the Fisher divergence asks for all directions, there is nothing random in it."""
    total = (
        fisher * bd.FisherDivergence(min_determinant, max_target)
        + directional * bd.DirectionalDivergence(min_determinant)
        + variance * bd.LogDensityVariance(min_determinant)
        + energy * bd.EnergyDrift(min_determinant, max_target)
    )
    return jax.tree.map(jnp.asarray, Sum(total.terms))


@eqx.filter_jit
def report_and_gradient(problem, score, objective, x0, weights, solver=SOLVER, steps=STEPS, **options):
    def value(score):
        report = evaluate(problem, score, objective, x0, weights, solver, steps, **options)
        return report.value, report

    (_, report), gradient = eqx.filter_value_and_grad(value, has_aux=True)(score)
    return report, gradient


class Expected(NamedTuple):
    """Of one objective: the values at all steps, and the mean over them."""

    per_time: jax.Array
    value: jax.Array


def expected_objectives(score, x0, weights, min_determinant, max_target):
    """What the objectives should be, from plain numbers of the oracle."""
    flow = oracle(score, x0, potential, T1, STEPS)
    share = jnp.where(flow.determinant() >= min_determinant, weights[:, None], 0)
    share = share / jnp.sum(share, axis=0)

    def mean(values):
        each = jnp.sum(share * values, axis=0)
        return Expected(each, trapezoid(each))

    def at_each(function, position):
        return jax.vmap(jax.vmap(function), in_axes=(None, 0))(flow.ts, position)

    ours = at_each(score, flow.position)
    clipped = jnp.clip(flow.own_score, -max_target, max_target)
    along = jnp.einsum("mkji,mkj->mki", flow.deformation, ours - flow.own_score)
    error = at_each(score.log_density, flow.position) - flow.own_log_density
    change = at_each(jax.jacfwd(score), flow.position)
    power = 0.25 * HBAR**2 * jnp.sum((ours - clipped) * change / MASS[: x0.shape[1]], axis=2)
    fixed = jax.lax.stop_gradient(flow.position)

    def implicit(t, x):
        return 0.5 * jnp.sum(score(t, x) ** 2) + jnp.trace(jax.jacfwd(lambda y: score(t, y))(x))

    return flow, {
        "fisher": mean(jnp.sum((ours - clipped) ** 2, axis=2)),
        "directional": mean(jnp.sum(along**2, axis=2)),
        "variance": mean((error - mean(error).per_time) ** 2),
        "energy": Expected(mean(power).per_time ** 2, trapezoid(mean(power).per_time ** 2)),
        "implicit": mean(at_each(implicit, fixed)),
    }


@eqx.filter_jit
def expected_with_gradients(parameters, *args):
    """Forward, where the library goes back."""

    def both(parameters):
        flow, out = expected_objectives(Score(parameters), *args)
        return {name: one.value for name, one in out.items()}, (flow, out)

    gradients, (flow, out) = jax.jacfwd(both, has_aux=True)(parameters)
    return flow, out, gradients


UNLIMITED = {"min_determinant": 0.0, "max_target": 1e9}


def expected(x0, weights, min_determinant, max_target):
    limits = jnp.asarray(min_determinant), jnp.asarray(max_target)
    return expected_with_gradients(SCORE.parameters, x0, weights, *limits)


def active_limits(x0, weights):
    """Limits by which some of the particles are masked, and some components of the target clipped."""
    flow, _, _ = expected(x0, weights, **UNLIMITED)
    last = np.sort(flow.determinant()[:, -1])
    smallest = float(0.5 * (last[0] + last[1]))
    kept = np.asarray(flow.determinant() >= smallest)
    assert not np.all(kept)
    assert np.all(np.any(kept, axis=0))
    sizes = np.sort(np.abs(flow.own_score)[kept], axis=None)
    # Between two values: at a limit itself there is no derivative.
    largest = float(np.mean(sizes[sizes.size // 2 :][:2]))
    assert 0 < np.sum(sizes > largest) < sizes.size
    return {"min_determinant": smallest, "max_target": largest}, trapezoid(weights @ ~kept)


def check(result, factors, expected):
    (report, gradient), (_, values, gradients) = result, expected

    def total(parts):
        return sum(factor * np.asarray(parts[name]) for name, factor in factors.items())

    close = {"rtol": 1e-9}
    np.testing.assert_allclose(report.per_time, total({n: v.per_time for n, v in values.items()}), **close)
    np.testing.assert_allclose(report.value, total({n: v.value for n, v in values.items()}), **close)
    slope = total(gradients)
    size = np.max(np.abs(slope))
    assert size > 1e-4
    np.testing.assert_allclose(gradient.parameters, slope, rtol=1e-9, atol=1e-9 * size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "number"),
    [
        (1, 3),
        pytest.param(2, 3, marks=pytest.mark.long),
        pytest.param(3, 2, marks=pytest.mark.long),
    ],
)
def test_objectives_their_sum_and_their_gradients(d, number):
    problem, x0 = setting(d)
    x0, weights = x0[:number], WEIGHTS[:number] / jnp.sum(WEIGHTS[:number])
    active, masked = active_limits(x0, weights)
    values = []
    for limits, fraction in [(UNLIMITED, 0.0), (active, masked)]:
        for factors in (
            {"fisher": 1.0},
            {"directional": 1.0},
            {"variance": 1.0},
            {"energy": 100.0},
            {"fisher": 1.0, "directional": 0.0, "variance": 0.1, "energy": 10.0},
        ):
            result = report_and_gradient(problem, SCORE, four(**factors, **limits), x0, weights)
            check(result, factors, expected(x0, weights, **limits))
            np.testing.assert_allclose(result[0].masked_fraction, fraction, rtol=1e-12)
            values.append(float(result[0].value))
    # The limits make a difference.
    assert all(abs(one / other - 1) > 1e-3 for one, other in zip(values[:5], values[5:], strict=True))


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "name"), [(bd.LogDensityVariance, "variance"), (bd.ImplicitScoreMatching, "implicit")]
)
def test_objectives_without_second_tangents(make, name):
    problem, x0 = setting(2)
    active, masked = active_limits(x0, WEIGHTS)
    objective = make(active["min_determinant"])
    result = report_and_gradient(problem, SCORE, objective, x0, WEIGHTS)
    check(result, {name: 1.0}, expected(x0, WEIGHTS, **active))
    np.testing.assert_allclose(result[0].masked_fraction, masked, rtol=1e-12)
    # A random subset of the times: unbiased, and all of them are all.
    full, _ = result
    everything = evaluate(problem, SCORE, objective, x0, WEIGHTS, SOLVER, STEPS, times=STEPS + 1, key=KEY)
    np.testing.assert_allclose(everything.per_time, full.per_time, rtol=1e-12)
    np.testing.assert_allclose(everything.value, full.value, rtol=1e-12)
    subsets = over_keys(problem, objective, x0, 1000, times=2)
    check_unbiased(subsets.value, full.value, 0.1)
    chosen = np.asarray(subsets.per_time) != 0
    np.testing.assert_array_equal(np.sum(chosen, axis=1), 2)
    assert np.all(np.any(chosen, axis=0))
    np.testing.assert_allclose(subsets.per_time, np.where(chosen, np.asarray(full.per_time), 0), rtol=1e-9)
    # What is masked is told of all times.
    np.testing.assert_allclose(subsets.masked_fraction, masked, rtol=1e-12)
    np.testing.assert_allclose(subsets.minimum_determinant, full.minimum_determinant, rtol=1e-12)


def over_keys(problem, objective, x0, number, **options):
    def one(key):
        return evaluate(problem, SCORE, objective, x0, WEIGHTS, SOLVER, STEPS, key=key, **options)

    return eqx.filter_jit(jax.vmap(one))(jax.random.split(KEY, number))


def check_unbiased(estimates, exact, largest_error):
    """Within four standard errors, which are small enough to say something."""
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert 0 < error < largest_error * abs(float(exact))
    assert abs(np.mean(estimates) - exact) < 4 * error


@pytest.mark.long
def test_directional_divergence_is_unbiased():
    problem, x0 = setting(2)
    estimates = over_keys(problem, bd.DirectionalDivergence(), x0, 2000).value
    exact, _ = report_and_gradient(problem, SCORE, four(directional=1.0), x0, WEIGHTS)
    check_unbiased(estimates, exact.value, 0.05)


@pytest.mark.slow
def test_particles_do_not_see_each_other():
    problem, x0 = setting(2)

    def per_time(x0):
        return report_and_gradient(problem, SCORE, four(fisher=1.0), x0, WEIGHTS)[0].per_time

    alone = jnp.stack([per_time(jnp.broadcast_to(x, x0.shape)) for x in x0])
    np.testing.assert_allclose(per_time(x0), WEIGHTS @ alone, rtol=1e-11)


@pytest.mark.long
def test_nothing_depends_on_compilation():
    problem, x0 = setting(1)
    whole, _ = report_and_gradient(problem, SCORE, four(fisher=1.0), x0, WEIGHTS)
    op_by_op = evaluate.__wrapped__(problem, SCORE, bd.FisherDivergence(), x0, WEIGHTS, SOLVER, STEPS)
    np.testing.assert_allclose(op_by_op.per_time, whole.per_time, rtol=1e-11)
    np.testing.assert_allclose(op_by_op.value, whole.value, rtol=1e-11)


class Scaled(bd.AbstractGradientScore):
    """A multiple of an exact score: a Gaussian that is too narrow."""

    factor: jax.Array
    exact: eqx.Module

    def __call__(self, t, x):
        return self.factor * self.exact(t, x)

    def log_density(self, t, x):
        return self.factor * self.exact.log_density(t, x)


def nodes(problem):
    # Exact for everything that is quadratic, as all is for Gaussians.
    return problem.initial.particles(bd.GaussHermitePoints(2, discard=0.0))


@few
@given(case=driven_gaussians(2))
def test_objectives_vanish_on_exact_gaussians_only(case):
    problem = case.problem()
    # At the nodes of a product rule |ξ|² would be the same for all, and the variance blind.
    x0, weights = problem.initial.particles(bd.SobolPoints(4), KEY)
    for name in ("fisher", "directional", "variance", "energy"):

        def value(factor, objective):
            score = Scaled(jnp.asarray(factor), case)
            return float(evaluate(problem, score, objective, x0, weights, bd.BlanesMoan4(), 32).value)

        objective = four(**{name: 1.0})
        assert 0 <= value(1.0, objective) < 1e-10
        # A wrong score that happens to keep the energy is no contradiction.
        assert name == "energy" or value(1.3, objective) > 1e-3


@pytest.mark.slow
@few
@given(case=driven_gaussians(2))
def test_implicit_score_matching_is_stationary_at_exact_gaussians(case):
    problem = case.problem()
    x0, weights = nodes(problem)

    def both(factor):
        score = Scaled(jnp.asarray(factor), case)
        return report_and_gradient(
            problem, score, bd.ImplicitScoreMatching(), x0, weights, bd.BlanesMoan4(), 32
        )

    report, gradient = both(1.0)
    information = np.array([np.trace(np.linalg.inv(case.covariance_at(t))) for t in np.asarray(report.ts)])
    np.testing.assert_allclose(report.per_time, -0.5 * information, rtol=1e-5)
    scale = float(trapezoid(information))
    np.testing.assert_allclose(report.value, -0.5 * scale, rtol=1e-5)
    np.testing.assert_allclose(gradient.factor, 0.0, atol=1e-5 * scale)
    # At t0, where the particles are the same, 1.3 is E|s|² (½ · 1.3² − 1.3).
    wrong, slope = both(1.3)
    np.testing.assert_allclose(wrong.per_time[0], (0.845 - 1.3) * information[0], rtol=1e-9)
    assert abs(float(slope.factor)) > 1e-2 * scale


@pytest.mark.parametrize(
    ("objective", "times", "match"),
    [
        (bd.DirectionalDivergence(), None, "DirectionalDivergence draws random directions and needs a key"),
        (bd.FisherDivergence(), 2, "A random subset of times needs a key"),
    ],
)
def test_random_choices_need_a_key(objective, times, match):
    problem, x0 = setting(2)
    with pytest.raises(ValueError, match=match):
        evaluate(problem, SCORE, objective, x0, WEIGHTS, SOLVER, STEPS, times=times)


def test_sums_flatten_and_carry_what_their_terms_need():
    fisher, along, variance = bd.FisherDivergence(), bd.DirectionalDivergence(), bd.LogDensityVariance()
    nested = 0.5 * (fisher + 0.1 * variance) + along
    assert nested.terms == ((0.5, fisher), (0.05, variance), (1.0, along))
    assert (nested.second_tangents, nested.through_flow, nested.needs_gradient) == ("all", True, True)
    assert (along + variance).second_tangents == "random"
    assert (2.0 * variance).second_tangents == "none"
    assert not (fisher + along).needs_gradient
    assert not (0.5 * bd.ImplicitScoreMatching()).through_flow
    assert (bd.CausticPenalty(0.3) + bd.FisherDivergence(0.2)).min_determinant == 0.2
    assert (bd.FisherDivergence(0.2) + bd.LogDensityVariance(0.2)).min_determinant == 0.2


def cauchy(error, scale):
    return scale**2 * np.log1p((error / scale) ** 2)


@pytest.mark.long
def test_outliers_count_logarithmically():
    problem, x0 = setting(2)
    flow, _, _ = expected(x0, WEIGHTS, **UNLIMITED)

    def per_time(objective):
        return np.asarray(evaluate(problem, SCORE, objective, x0, WEIGHTS, SOLVER, STEPS).per_time)

    ours = jax.vmap(jax.vmap(SCORE), in_axes=(None, 0))(flow.ts, flow.position)
    distance = np.linalg.norm(ours - flow.own_score, axis=2)
    scale = float(np.median(distance[distance > 0]))
    fisher = bd.FisherDivergence(0.0, 1e9, outlier_scale=scale)
    np.testing.assert_allclose(per_time(fisher), WEIGHTS @ cauchy(distance, scale), rtol=1e-9)

    log_density = jax.vmap(jax.vmap(SCORE.log_density), in_axes=(None, 0))(flow.ts, flow.position)
    error = np.asarray(log_density - flow.own_log_density)
    error = error - np.asarray(WEIGHTS) @ error
    scale = float(np.median(np.abs(error[:, 1:])))
    trust = np.asarray(WEIGHTS)[:, None] / (1 + (error / scale) ** 2)
    error = error - np.sum(trust * error, axis=0) / np.sum(trust, axis=0)
    variance = bd.LogDensityVariance(0.0, outlier_scale=scale)
    np.testing.assert_allclose(per_time(variance), WEIGHTS @ cauchy(error, scale), rtol=1e-9, atol=1e-25)
    # From far above, it is the variance itself.
    np.testing.assert_allclose(
        per_time(bd.LogDensityVariance(0.0, outlier_scale=1e4)),
        per_time(bd.LogDensityVariance(0.0)),
        rtol=1e-6,
    )


@pytest.mark.long
def test_caustic_penalty_sees_what_is_masked():
    problem, x0 = setting(2)
    flow, _, _ = expected(x0, WEIGHTS, **UNLIMITED)
    determinant = np.linalg.det(flow.deformation)
    threshold = float(np.median(determinant[:, -1]))
    lacking = np.maximum(0, 1 - determinant / threshold)
    assert 0 < np.sum(lacking[:, -1] > 0) < 3
    alone, gradient = report_and_gradient(problem, SCORE, bd.CausticPenalty(threshold), x0, WEIGHTS)
    np.testing.assert_allclose(alone.per_time, np.mean(lacking**2, axis=0), rtol=1e-9)
    assert alone.masked_fraction == 0
    # One without weight, such as those that fill up the devices, does not count.
    two, _ = report_and_gradient(
        problem, SCORE, bd.CausticPenalty(threshold), x0, jnp.array([0.7, 0.3, 0.0])
    )
    np.testing.assert_allclose(two.per_time, np.mean(lacking[:2] ** 2, axis=0), rtol=1e-9)
    # In a sum the others mask, and it does not.
    total = 0.0 * bd.LogDensityVariance(threshold) + 2.0 * bd.CausticPenalty(threshold)
    both, doubled = report_and_gradient(problem, SCORE, total, x0, WEIGHTS)
    assert both.masked_fraction > 0
    np.testing.assert_allclose(both.per_time, 2 * np.mean(lacking**2, axis=0), rtol=1e-9)
    assert np.max(np.abs(gradient.parameters)) > 0
    np.testing.assert_allclose(doubled.parameters, 2 * gradient.parameters, rtol=1e-9)
    clear, nothing = report_and_gradient(problem, SCORE, bd.CausticPenalty(1e-9), x0, WEIGHTS)
    assert clear.value == 0
    assert np.all(np.asarray(nothing.parameters) == 0)


def test_sums_that_make_no_sense():
    with pytest.raises(ValueError, match=r"same min_determinant, but \[0.1, 0.2\] were given"):
        bd.FisherDivergence() + bd.LogDensityVariance(0.2)
    with pytest.raises(ValueError, match="ImplicitScoreMatching holds the trajectories fixed"):
        bd.FisherDivergence() + bd.ImplicitScoreMatching()


@pytest.mark.parametrize(
    "make", [bd.FisherDivergence, bd.DirectionalDivergence, bd.LogDensityVariance, bd.ImplicitScoreMatching]
)
@pytest.mark.parametrize("bad", [-0.1, np.nan])
def test_bad_limits(make, bad):
    with unchecked_types(), pytest.raises(ValueError, match="min_determinant must not be negative"):
        make(min_determinant=bad)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (bd.FisherDivergence, "outlier_scale"),
        (bd.LogDensityVariance, "outlier_scale"),
        (bd.CausticPenalty, "threshold"),
    ],
)
def test_bad_scales(make, name, bad):
    with unchecked_types(), pytest.raises(ValueError, match=f"{name} must be positive, but {bad!r} was"):
        make(**{name: bad})
    with unchecked_types(), pytest.raises(ValueError, match=f"{name} must be a number, but 'wide' was"):
        make(**{name: "wide"})


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_bad_largest_target(bad):
    with unchecked_types(), pytest.raises(ValueError, match="max_target must be positive"):
        bd.FisherDivergence(max_target=bad)


def runaway(t, x):
    return -0.5 * jnp.sum(x**6)


ALL_FIVE = (
    bd.FisherDivergence(),
    bd.DirectionalDivergence(),
    bd.LogDensityVariance(),
    bd.ImplicitScoreMatching(),
    bd.EnergyDrift(),
)


class NotFinite(bd.AbstractObjective):
    """Which of the five are not finite, as the digits of a number."""

    second_tangents = "all"
    min_determinant: float = 0.1

    def at(self, problem, score, t, ensemble):
        values = [objective.at(problem, score, t, ensemble) for objective in ALL_FIVE]
        return sum(jnp.where(jnp.isfinite(one), 0.0, 10.0**k) for k, one in enumerate(values))


def test_a_lost_particle_is_never_masked():
    """Two particles stay near the top of the hill, and one runs away to infinity within a few steps."""
    problem, _ = setting(1, runaway)

    def lost(farthest):
        x0, weights = jnp.array([[0.1], [0.2], [farthest]]), jnp.array([0.5, 0.4999, 0.0001])
        return evaluate(problem, SCORE, NotFinite(), x0, weights, SOLVER, 6)

    assert float(lost(0.3).value) == 0
    report = lost(50.0)
    assert report.per_time[0] == 0
    assert report.per_time[-1] == 11111
    assert not np.isfinite(report.minimum_determinant)


@pytest.mark.long
def test_energy_drift_is_the_rate_of_the_mean_energy():
    """Of a Gaussian that is wrong and changes: the nodes stay a quadrature of the flow's density."""
    hamiltonian = bd.Hamiltonian(bd.Quadratic([[1.3, 0.4], [0.4, 0.8]]), jnp.array([0.7, 2.0]), hbar=0.8)
    problem = bd.Problem(hamiltonian, bd.GaussianWavePacket([0.5, -0.3], 0.4, [0.2, 0.6]), t1=1.0)
    x0, weights = problem.initial.particles(bd.GaussHermitePoints(3, discard=0.0))

    def score(t, x):
        return -(1.8 + jnp.sin(2 * t)) * (x - 0.1 * t)

    run = {"steps": 32, "solver": bd.BlanesMoan4()}
    report = evaluate(problem, score, bd.EnergyDrift(), x0, weights, run["solver"], run["steps"])
    flow = bd.propagate(problem, score, x0, ts=report.ts, tangents=False, **run)
    energy = weights @ flow.energy
    # Central differences, of an error that falls with the square of the step.
    rate = (energy[2:] - energy[:-2]) / (2 / 32)
    np.testing.assert_allclose(report.per_time[1:-1], rate**2, atol=2e-3 * float(jnp.max(rate**2)))
    assert float(jnp.max(jnp.abs(rate))) > 0.05


def test_a_vector_field_has_no_variance_of_its_log_density():
    problem, x0 = setting(2)
    with pytest.raises(ValueError, match=r"log_density.* pass GradientScore\(scalar\)"):
        evaluate(problem, lambda t, x: -x, bd.LogDensityVariance(), x0, WEIGHTS, SOLVER, STEPS)


def test_defaults_are_those_of_the_diagnostic():
    parameters = inspect.signature(bd.fisher_divergence).parameters
    for objective in (bd.FisherDivergence(), bd.EnergyDrift()):
        assert objective.min_determinant == parameters["min_determinant"].default == 0.1
        assert objective.max_target == parameters["max_target"].default == 100.0
    assert math.isinf(bd.FisherDivergence().outlier_scale)

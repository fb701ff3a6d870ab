"""The exactness theorem, step by step, on Gaussians in quadratic potentials."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bohmdiff as bd
from bohmdiff.flow import bohmian_terms, initial_halves, integrate, pushed_score
from bohmdiff.testing import driven_gaussians

DIMENSIONS = pytest.mark.parametrize(
    "d", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)]
)
few = settings(max_examples=5)
SOLVER, STEPS = bd.BlanesMoan4(), 64


def particles(problem, number=5):
    return problem.initial.particles(bd.SobolPoints(number), jax.random.key(1))[0]


@eqx.filter_jit
def exact_on_paths(case, ts, positions):
    """Closed forms at the places where the particles are: (M, K, ...)."""

    def at(t, x):
        return case.velocity(t, x), case.log_density(t, x), case.energy(t, x)

    return jax.vmap(jax.vmap(at), in_axes=(None, 0))(ts, positions)


@DIMENSIONS
@few
@given(st.data())
def test_exact_score_gives_the_exact_flow(d, data):
    case = data.draw(driven_gaussians(d))
    problem = case.problem()
    x0 = particles(problem)
    flow = bd.propagate(problem, case, x0, ts=jnp.array([0.5, 1.0]), solver=SOLVER, steps=STEPS)
    velocity, log_density, energy = exact_on_paths(case, flow.ts, flow.position)
    close = {"rtol": 2e-7, "atol": 2e-7}
    np.testing.assert_allclose(flow.velocity, velocity, **close)
    np.testing.assert_allclose(flow.log_density, log_density, **close)
    np.testing.assert_allclose(flow.energy, energy, **close)
    exact = case.integrals(1.0)
    centre, _ = case.centre_at(1.0)
    np.testing.assert_allclose(
        flow.position[:, 1], centre + (x0 - case.mean) @ exact.deformation.T, **close
    )
    np.testing.assert_allclose(
        flow.deformation[:, 1], np.broadcast_to(exact.deformation, (len(x0), d, d)), **close
    )
    exact_phase = jax.vmap(lambda x: case.phase(1.0, x, exact.phase_at_centre))(flow.position[:, 1])
    np.testing.assert_allclose(flow.phase[:, 1], exact_phase, **close)
    # The flow stays irrotational, m ∇v = m G F⁻¹ symmetric, and has no caustic.
    rate, deformation = (jnp.swapaxes(a, -1, -2) for a in (flow.deformation_rate, flow.deformation))
    momentum_gradient = jnp.linalg.solve(deformation, rate) * case.mass
    np.testing.assert_allclose(momentum_gradient, jnp.swapaxes(momentum_gradient, -1, -2), atol=1e-6)
    assert float(jnp.min(jnp.linalg.det(flow.deformation))) > 0


def check_order(case, solver, steps):
    problem = case.problem()
    coarse, fine = (
        float(bd.fisher_divergence(problem, case, particles(problem), steps=n, solver=solver).value)
        for n in (steps, 2 * steps)
    )
    # A factor of four of room: the leading error is not the whole error. Below 1e-22 there is round-off.
    assert fine <= 4 * coarse / 4**solver.tableau.order + 1e-22
    assert coarse < 1


@pytest.mark.slow
@DIMENSIONS
@settings(max_examples=4)
@given(st.data())
def test_fisher_divergence_falls_with_twice_the_order(d, data):
    check_order(data.draw(driven_gaussians(d)), bd.BlanesMoan4(), 8)


@pytest.mark.parametrize(
    ("solver", "steps"),
    [
        pytest.param(bd.VelocityVerlet(), 32, marks=pytest.mark.slow),
        pytest.param(bd.Yoshida4(), 24, marks=pytest.mark.long),
        pytest.param(bd.BlanesMoan6(), 4, marks=pytest.mark.long),
    ],
)
@settings(max_examples=4)
@given(driven_gaussians(1))
def test_fisher_divergence_falls_for_every_solver(solver, steps, case):
    check_order(case, solver, steps)


@settings(max_examples=4)
@given(driven_gaussians(2))
def test_pushed_score_is_the_exact_one(case):
    own, exact = _pushed_and_exact(case.problem(), case, particles(case.problem()))
    np.testing.assert_allclose(own, exact, rtol=1e-6, atol=1e-6)


@eqx.filter_jit
def _pushed_and_exact(problem, case, x0):
    everywhere = jnp.eye(x0.shape[1])
    solution = integrate(
        problem,
        bohmian_terms(problem, case, everywhere),
        initial_halves(problem, x0, directions=everywhere),
        diffrax.SaveAt(t1=True),
        SOLVER,
        STEPS,
    )
    position = jax.tree.map(lambda leaf: leaf[0], solution.ys[0])
    own = jax.vmap(lambda x, f, h: pushed_score(problem, x, f, h))(x0, position.tangent, position.second)
    return own, jax.vmap(lambda x: case(case.t1, x))(position.motion)


@pytest.mark.slow
@settings(max_examples=4)
@given(driven_gaussians(2))
def test_a_wrong_score_is_seen(case):
    problem = case.problem()
    shift = jnp.array([0.1, -0.2])
    report = bd.fisher_divergence(
        problem, Shifted(case, shift), particles(problem), steps=16, solver=SOLVER
    )
    # At t0 the flow's own score is exactly that of the initial state.
    np.testing.assert_allclose(report.per_time[0], float(shift @ shift), rtol=1e-6)
    assert float(report.value) > 0.01 * float(shift @ shift)


class Shifted(eqx.Module):
    score: eqx.Module
    shift: jax.Array

    def __call__(self, t, x):
        return self.score(t, x) + self.shift

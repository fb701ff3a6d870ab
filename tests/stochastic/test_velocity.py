"""Velocities of solutions: exact ones, and polynomials fitted to those of particles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import bohmdiff as bd
import bohmdiff.testing
from tests.unchecked import unchecked_types

X = jnp.array([[0.3, -0.4], [1.1, 0.2], [-0.6, 0.9]])


def chain(t1=1.5):
    return bd.Problem(
        bd.Hamiltonian(bd.MorseChain(12.5, 0.2, 0.3), mass=[1.0, 1.4]),
        bd.GaussianWavePacket([1.0, 0.0], 0.5, momentum=[0.2, -0.3]),
        t1=t1,
    )


def at(field, t):
    return np.asarray(jax.vmap(lambda x: field(t, x))(X))


@pytest.mark.long
@settings(max_examples=6)
@given(bohmdiff.testing.driven_gaussians(2))
def test_of_gaussians(case):
    """The phase of a Gaussian is quadratic, whatever the score was given as."""
    problem = case.problem()
    score = bd.GivenScore(case, bd.GaussHermitePoints(4), steps=32)
    velocity = bd.current_velocity(bd.solve(problem, score), degree=3)
    scale = np.max(np.abs(at(case.velocity, 0.0))) + 1
    assert np.max(velocity.misfit) < 1e-6 * scale
    for t in (0.0, 0.41, 1.0):
        np.testing.assert_allclose(at(velocity, t), at(case.velocity, t), atol=1e-4 * scale)
    osmotic = bd.Velocities(problem, case, case.velocity).osmotic
    half = 0.5 * np.asarray(case.hbar / case.mass)
    np.testing.assert_allclose(at(osmotic, 0.4), half * at(case, 0.4), rtol=1e-12)


def test_of_an_exact_solution_it_is_its_own():
    problem = bd.Problem(bd.Hamiltonian(bd.Quadratic(1.0)), bd.GaussianWavePacket([1.0], 0.5), t1=1.0)
    for method in (bd.GaussianDynamics(), bd.SplitOperator(points=32, lower=-5.0, upper=6.0)):
        solution = bd.solve(problem, method)
        assert bd.current_velocity(solution) == solution.velocity


@pytest.fixture(scope="module")
def sequential():
    return bd.solve(chain(), bd.SequentialScoreMatching(degree=6, steps=32))


@pytest.mark.long
def test_of_a_wave_function(sequential):
    """Against ψ on a grid, over the density: a sixth degree adds little to the errors of the flow itself."""
    exact = bd.solve(chain(), bd.SplitOperator(points=48, lower=-7.0, upper=8.0))
    x0, _ = sequential.problem.initial.particles(bd.SobolPoints(256), jax.random.key(0))
    solver = bd.BlanesMoan4()
    flow = bd.propagate(sequential.problem, sequential.fitted, x0, solver=solver, steps=32, tangents=False)
    velocities = [bd.current_velocity(sequential, degree=degree) for degree in (2, 4, 6)]
    for k, bound in ((0, 0), (50, 0.01), (100, 0.03)):
        t, x = float(sequential.ts[k]), flow.position[:, k]
        reference = jax.vmap(lambda y, t=t: exact.velocity(t, y))(x)

        def rms(v, x=x, reference=reference):
            return float(jnp.sqrt(jnp.mean((v - reference) ** 2) / jnp.mean(reference**2)))

        errors = [rms(jax.vmap(lambda y, t=t, v=v: v(t, y))(x)) for v in velocities]
        if k == 0:
            assert max(errors) < 1e-9
        else:
            assert errors[2] < errors[1] < errors[0]
            assert errors[2] < min(bound, 1.3 * rms(flow.velocity[:, k]))


@pytest.mark.long
def test_moments_change_at_the_rates_of_the_flow(sequential):
    """The fit of degree four keeps the rates of all moments up to the fourth, not those of particles alone."""
    velocity = bd.current_velocity(sequential, degree=4, particles=bd.GaussHermitePoints(6))
    design = bd.GaussHermitePoints(6)
    x0, weights = sequential.problem.initial.particles(design)
    end = sequential.problem.t1
    flow = bd.propagate(
        sequential.problem,
        sequential.fitted,
        x0,
        ts=[end],
        solver=sequential.solver,
        steps=sequential.steps,
        tangents=False,
    )
    x, own = flow.position[:, 0], flow.velocity[:, 0]
    fitted = jax.vmap(lambda y: velocity(end, y))(x)
    assert np.max(np.abs(fitted - own)) > 1e-3

    def polynomial(y):
        return jnp.array([y[0], y[0] ** 2, y[0] * y[1], y[1] ** 3, y[0] ** 2 * y[1] ** 2, y[0] ** 4])

    slopes = jax.vmap(jax.jacfwd(polynomial))(x)
    rates = [np.asarray(weights @ jnp.einsum("mij,mj->mi", slopes, v)) for v in (own, fitted)]
    np.testing.assert_allclose(*rates, atol=1e-8 * np.max(np.abs(rates[0])))
    misfit = np.sqrt(weights @ ((fitted - own) ** 2 @ np.array([1.0, 1.4])) / 2.4)
    np.testing.assert_allclose(velocity.misfit[-1], misfit, rtol=1e-6)


@pytest.mark.long
def test_degrees_that_are_chosen(sequential):
    assert bd.current_velocity(sequential).path.evaluate(0.0).degree == 6
    pairs = bd.SequentialScoreMatching(3, basis=bd.Interactions(1))
    separable = bd.current_velocity(bd.solve(chain(), pairs), basis=bd.Interactions(1))
    expansion = separable.path.evaluate(0.5)
    assert expansion.degree == 3
    assert expansion.coefficients.size == 6


def test_bad_input(sequential):
    with unchecked_types():
        with pytest.raises(ValueError, match="solution must be a solution"):
            bd.current_velocity(1.0)
        with pytest.raises(ValueError, match="degree must be at least 2, which fits a Gaussian, but 1"):
            bd.current_velocity(sequential, degree=1)
        with pytest.raises(ValueError, match="terms must be a rule"):
            bd.current_velocity(sequential, basis=3)
        with pytest.raises(ValueError, match="5 particles cannot determine the 6 polynomials of degree 2"):
            bd.current_velocity(sequential, degree=2, particles=5, key=jax.random.key(0))
        with pytest.raises(ValueError, match="key must be one random key"):
            bd.current_velocity(sequential, degree=2, particles=64, key=1)
        with pytest.raises(ValueError, match=r"current must be a callable current\(t, x\)"):
            bd.Velocities(chain(), sequential.score, 1.0)
        with pytest.raises(ValueError, match="problem must be a Problem"):
            bd.Velocities(None, sequential.score, sequential.score)

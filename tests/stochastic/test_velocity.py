"""Velocities of solutions that move particles: the gradient of a polynomial phase fitted to their momenta."""

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
    solution = bd.solve(problem, bd.GivenScore(case, bd.GaussHermitePoints(4), steps=32), ts=[1.0])
    scale = np.max(np.abs(at(case.velocity, 0.0))) + 1
    assert np.max(solution.current.misfit) < 1e-6 * scale
    for t in (0.0, 0.41, 1.0):
        np.testing.assert_allclose(at(solution.velocity, t), at(case.velocity, t), atol=1e-4 * scale)
    osmotic = bd.Velocities(problem, case, case.velocity).osmotic
    half = 0.5 * np.asarray(case.hbar / case.mass)
    np.testing.assert_allclose(at(osmotic, 0.4), half * at(case, 0.4), rtol=1e-12)


@pytest.fixture(scope="module")
def sequential():
    return bd.solve(chain(), bd.SequentialScoreMatching(degree=4, steps=32))


@pytest.mark.slow
def test_of_a_wave_function(sequential):
    """Against ψ on a grid, over the density: the fit adds little to the errors of the flow itself."""
    exact = bd.solve(chain(), bd.SplitOperator(points=48, lower=-7.0, upper=8.0))
    x0, _ = sequential.problem.initial.particles(bd.SobolPoints(256), jax.random.key(0))
    solver = bd.BlanesMoan4()
    flow = bd.propagate(sequential.problem, sequential.fitted, x0, solver=solver, steps=32, tangents=False)
    for k, bound in ((0, 1e-9), (50, 0.03), (100, 0.1)):
        t, x = float(sequential.ts[k]), flow.position[:, k]
        reference = jax.vmap(lambda y, t=t: exact.velocity(t, y))(x)

        def rms(v, x=x, reference=reference):
            return float(jnp.sqrt(jnp.mean((v - reference) ** 2) / jnp.mean(reference**2)))

        error = rms(jax.vmap(lambda y, t=t: sequential.velocity(t, y))(x))
        assert error < bound
        if k:
            assert error < 1.5 * rms(flow.velocity[:, k])


@pytest.mark.slow
def test_moments_change_at_the_rates_of_the_flow(sequential):
    """The fit of degree four keeps the rates of all moments up to the fourth, not those of particles alone."""
    _, weights = sequential.problem.initial.particles(bd.GaussHermitePoints(6))
    method = bd.GivenScore(sequential.fitted, bd.GaussHermitePoints(6), steps=32)
    solution = bd.solve(sequential.problem, method, ts=[1.5])
    x, own = solution.flow.position[:, 0], solution.flow.velocity[:, 0]
    fitted = jax.vmap(lambda y: solution.velocity(1.5, y))(x)
    assert np.max(np.abs(fitted - own)) > 1e-5

    def polynomial(y):
        return jnp.array([y[0], y[0] ** 2, y[0] * y[1], y[1] ** 3, y[0] ** 2 * y[1] ** 2, y[0] ** 4])

    slopes = jax.vmap(jax.jacfwd(polynomial))(x)
    rates = [np.asarray(weights @ jnp.einsum("mij,mj->mi", slopes, v)) for v in (own, fitted)]
    np.testing.assert_allclose(*rates, atol=1e-8 * np.max(np.abs(rates[0])))
    misfit = np.sqrt(weights @ ((fitted - own) ** 2 @ np.array([1.0, 1.4])) / 2.4)
    np.testing.assert_allclose(solution.current.misfit[-1], misfit, rtol=1e-6)


def test_bad_input():
    def score(t, x):
        return -x

    with unchecked_types():
        with pytest.raises(ValueError, match=r"velocity must be a callable velocity\(t, x\)"):
            bd.Velocities(chain(), score, 1.0)
        with pytest.raises(ValueError, match="problem must be a Problem"):
            bd.Velocities(None, score, score)

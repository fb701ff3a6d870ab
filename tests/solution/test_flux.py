"""Flux of a free packet, of which the normal distribution tells how much has passed."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import bohmdiff as bd

TS = jnp.linspace(0.0, 4.0, 81)


def free(mean, momentum, ts=TS):
    d = len(mean)
    mass = jnp.array([2.0, 1.0, 1.5, 1.0, 1.0])[:d]
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(jnp.zeros((d, d))), mass),
        bd.GaussianWavePacket(jnp.array(mean), 0.5, momentum=jnp.array(momentum)),
        t1=4.0,
    )
    return bd.solve(problem, bd.GaussianDynamics(steps=100), ts=ts)


@pytest.mark.parametrize(
    ("mean", "momentum", "coordinate"),
    [
        ([-2.0], [3.0], 0),
        pytest.param([0.4, -2.0], [0.3, 1.5], 1, marks=pytest.mark.slow),
        pytest.param([0.4, 2.0, -0.3], [0.3, -1.5, 0.1], 1, marks=pytest.mark.slow),
    ],
)
def test_what_has_passed(mean, momentum, coordinate):
    solution = free(mean, momentum)
    found = bd.flux(solution, 0.3, coordinate=coordinate)
    behind = norm.sf(0.3, solution.mean()[:, coordinate], solution.std()[:, coordinate])
    np.testing.assert_allclose(found.passed, behind - behind[0], atol=1e-5)
    np.testing.assert_allclose(found.rate[1:-1], np.gradient(behind, TS)[1:-1], atol=5e-3)
    assert found.rate.shape == found.passed.shape == found.ts.shape == TS.shape


def test_times_that_are_too_far_apart_are_told():
    with pytest.warns(UserWarning, match="saved times are too far apart"):
        bd.flux(free([-2.0], [3.0], ts=TS[::10]), 0.3)


def test_times_need_not_be_equal():
    solution = free([-2.0], [3.0], ts=4 * jnp.linspace(0, 1, 101) ** 1.5)
    behind = norm.sf(0.3, solution.mean()[:, 0], solution.std()[:, 0])
    np.testing.assert_allclose(bd.flux(solution, 0.3).passed, behind - behind[0], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0],), "position must be one number"),
        (("a",), "position must be a real number"),
        ((0.0, 1), "0 to 0"),
        ((0.0, True), "0 to 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        bd.flux(free([-2.0], [3.0]), *arguments)


@pytest.mark.slow
def test_too_many_coordinates_and_too_few_times():
    with pytest.raises(ValueError, match="up to 4 coordinates"):
        bd.flux(free([0.0] * 5, [0.0] * 5), 0.0)
    with pytest.raises(ValueError, match="at least two saved times"):
        bd.flux(free([-2.0], [3.0], ts=[4.0]), 0.0)

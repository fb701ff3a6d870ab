"""The degree that is chosen: enough, with an estimate that is no smaller than the error."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from tests.unchecked import unchecked_types

import bohmdiff as bd

TS = jnp.linspace(0.0, 1.5, 7)


class Well(eqx.Module):
    anharmonic: Array

    def __call__(self, t, x):
        return jnp.sum(0.5 * x**2 + self.anharmonic * (x**3 + x**4))


def problem(anharmonic=0.05, t1=1.5):
    """Of one shape, so that each degree compiles once."""
    return bd.Problem(
        bd.Hamiltonian(Well(jnp.asarray(anharmonic))), bd.GaussianWavePacket([0.5], 0.4), t1=t1
    )


def relative_error(solution, exact):
    changes = jnp.stack([solution.mean() - exact.mean(), solution.std() - exact.std()])
    return float(jnp.max(jnp.abs(changes) / exact.std()))


@pytest.fixture(scope="module")
def chosen():
    return bd.solve(problem(), bd.AutomaticDegree(2e-3), ts=TS)


@pytest.mark.long
def test_estimate_is_below_the_tolerance_and_above_the_error(chosen):
    exact = bd.solve(problem(), bd.SplitOperator(points=256, lower=-7.0, upper=7.0), ts=TS)
    assert relative_error(chosen, exact) < chosen.error_estimate < 2e-3
    # Degree 4 by itself is not enough, so that there was something to choose.
    assert chosen.method.degree == 6
    four = bd.solve(problem(), bd.SequentialScoreMatching(4), ts=TS)
    assert relative_error(four, exact) > 2 * relative_error(chosen, exact)


@pytest.mark.long
def test_gaussians_need_no_more_than_the_second_degree_compared():
    trap = bd.Problem(bd.Hamiltonian(bd.Quadratic(1.0)), problem().initial, t1=1.5)
    exact = bd.solve(trap, bd.GaussianDynamics(), ts=TS)
    solution = bd.solve(problem(0.0), bd.AutomaticDegree(1e-4), ts=TS)
    assert solution.method.degree == 4
    assert relative_error(solution, exact) < solution.error_estimate < 1e-4


@pytest.mark.slow
def test_tolerance_that_is_not_reached_loses_nothing():
    method = bd.AutomaticDegree(1e-9, largest=4)
    match = "1e-09 was not reached: degree 4 has the lowest estimate.*and 4 is the largest degree allowed"
    with pytest.raises(bd.ToleranceNotReachedError, match=match) as raised:
        bd.solve(problem(), method, ts=TS)
    solution = raised.value.solution
    assert solution is not None
    assert solution.error_estimate > 1e-9
    assert np.all(np.isfinite(solution.std()))


@pytest.mark.slow
def test_degrees_that_fail_end_the_search():
    """Steps much too long."""
    with pytest.raises(
        bd.ToleranceNotReachedError, match=r"degree \d failed: The score fit became singular"
    ):
        bd.solve(problem(t1=400.0), bd.AutomaticDegree(), ts=TS)


@pytest.mark.long
def test_degrees_for_which_there_are_too_few_particles_end_the_search():
    """Of degree 4 in one dimension there are five polynomials, of degree 6 seven."""
    method = bd.AutomaticDegree(1e-9, method=bd.SequentialScoreMatching(particles=bd.GaussHermitePoints(6)))
    with pytest.raises(bd.ToleranceNotReachedError, match="degree 6 failed: 6 particles cannot") as raised:
        bd.solve(problem(), method, ts=TS)
    assert raised.value.solution is not None
    assert raised.value.solution.method.degree == 4


def test_not_under_transformations():
    with pytest.raises(ValueError, match="but jit, grad or vmap traces them"):
        jax.jit(lambda a: bd.solve(problem(a), bd.AutomaticDegree(), ts=TS).std())(0.05)


@pytest.mark.long
def test_options_of_the_method_are_used():
    points = bd.GaussHermitePoints(30)
    given = bd.SequentialScoreMatching(2, points, steps=20)
    four = bd.solve(problem(), bd.AutomaticDegree(0.1, method=given), ts=TS)
    assert (four.method.degree, four.method.particles, four.steps) == (4, points, 20)
    with pytest.raises(bd.ToleranceNotReachedError) as raised:
        bd.solve(problem(), bd.AutomaticDegree(1e-9, largest=6, method=given), ts=TS)
    six = raised.value.solution
    # Steps that are given are for degree 4: degree 6 takes half as many again.
    assert six is not None
    assert (six.method.degree, six.method.particles, six.steps) == (6, points, 30)


@pytest.mark.long
def test_steps_that_are_not_given_follow_the_tolerance_of_the_method(chosen):
    """And nothing else: at degree 6 those of degree 4 are enough here."""
    figure = chosen.diagnostics["time step"]
    assert figure.holds
    assert figure.limit == bd.SequentialScoreMatching().tolerance
    assert chosen.steps == bd.solve(problem(), bd.SequentialScoreMatching(6), ts=TS).steps


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tolerance": 0.0}, "tolerance must be positive, but 0.0"),
        ({"tolerance": "small"}, "tolerance must be a number, but 'small'"),
        ({"largest": 3}, "largest must be at least 4.*at most 12, but 3"),
        ({"largest": 14}, "largest must be at least 4.*at most 12, but 14"),
        ({"largest": 4.5}, "largest must be an integer of at least 1, but 4.5"),
        ({"method": 4}, "method must be a SequentialScoreMatching, but 4"),
    ],
)
def test_bad_options(options, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.AutomaticDegree(**options)

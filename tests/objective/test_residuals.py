"""Residuals: their squares are the objective, and the rows have the Gram matrix of the oracle's Jacobian."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.objective.oracle import SCORE, T1, Score, oracle, potential, setting

import bohmdiff as bd
from bohmdiff.objective import evaluate, residual_rows, squared_residuals

STEPS = 4
WEIGHTS = jnp.array([0.5, 0.2, 0.3])
SOLVER = bd.VelocityVerlet()
KEY = jax.random.key(0)
OUTLIERS, THRESHOLD = 0.2, 0.9
FIXED = jax.tree.map(lambda leaf: None, SCORE)


class Squares(bd.AbstractObjective):
    """The sum of the squared residuals of another."""

    second_tangents = "all"
    min_determinant: float
    objective: Any

    def at(self, problem, score, t, ensemble):
        return jnp.sum(squared_residuals(self.objective, problem, score, t, ensemble) ** 2)


@eqx.filter_jit
def value_and_gradient(objective):
    problem, x0 = setting(1)

    def value(score):
        return evaluate(problem, score, objective, x0, WEIGHTS, SOLVER, STEPS, key=KEY).value

    return eqx.filter_value_and_grad(value)(SCORE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(bd.FisherDivergence(0.65), marks=pytest.mark.long),
        pytest.param(
            bd.DirectionalDivergence(0.65) + 2.0 * bd.FisherDivergence(0.65), marks=pytest.mark.long
        ),
        0.7 * bd.FisherDivergence(0.0) + 3.0 * bd.CausticPenalty(THRESHOLD),
    ],
)
def test_their_squares_are_the_objective(objective):
    value, gradient = value_and_gradient(objective)
    ours, slope = value_and_gradient(Squares(objective.min_determinant, objective))
    assert value > 1e-3
    np.testing.assert_allclose(ours, value, rtol=1e-12)
    np.testing.assert_allclose(slope.parameters, gradient.parameters, rtol=1e-12)


@pytest.mark.long
def test_outliers_pull_as_in_the_objective():
    objective = bd.FisherDivergence(outlier_scale=OUTLIERS)
    _, gradient = value_and_gradient(objective)
    _, slope = value_and_gradient(Squares(0.1, objective))
    np.testing.assert_allclose(slope.parameters, gradient.parameters, rtol=1e-12)
    _, plain = value_and_gradient(bd.FisherDivergence())
    assert not np.allclose(plain.parameters, gradient.parameters, rtol=0.1)


@pytest.mark.long
def test_rows_have_the_gram_matrix_of_the_jacobian():
    problem, x0 = setting(2)
    objective = 2.0 * bd.FisherDivergence(outlier_scale=OUTLIERS) + bd.CausticPenalty(THRESHOLD)
    rows = residual_rows(
        problem,
        SCORE,
        FIXED,
        objective,
        x0,
        WEIGHTS,
        SOLVER,
        STEPS,
        projections=4096,
        key=KEY,
    ).parameters
    assert rows.shape == (3 * 4096, 2)

    def residuals(parameters):
        flow = oracle(Score(parameters), x0, potential, T1, STEPS)
        error = flow.difference(Score(parameters))
        trust = jax.lax.stop_gradient(1 / (1 + jnp.sum(error**2, axis=2) / OUTLIERS**2))
        share = jnp.array([0.5, 1, 1, 1, 0.5]) / STEPS
        fisher = jnp.sqrt(2 * WEIGHTS[:, None] * share * trust)[..., None] * error
        missing = jax.nn.relu(1 - jnp.linalg.det(flow.deformation) / THRESHOLD)
        return jnp.concatenate([fisher, (jnp.sqrt(share / 3) * missing)[..., None]], axis=2)

    jacobian = jax.jacfwd(residuals)(SCORE.parameters)
    gram = jnp.einsum("mkcp,mkcq->pq", jacobian, jacobian)
    np.testing.assert_allclose(rows.T @ rows, gram, atol=0.03 * float(jnp.max(gram)))
    assert np.linalg.matrix_rank(gram, tol=0.03 * float(jnp.max(gram))) == 2


@pytest.mark.long
def test_particles_without_weight_and_masked_ones_say_nothing():
    problem, x0 = setting(1)
    for weights, objective in (
        (jnp.array([1.0, 0.0, 0.0]), bd.FisherDivergence()),
        (WEIGHTS, bd.FisherDivergence(min_determinant=1e3)),
    ):
        rows = residual_rows(
            problem, SCORE, FIXED, objective, x0, weights, SOLVER, STEPS, projections=1, key=KEY
        ).parameters
        lost = np.asarray(weights == 0) | (objective.min_determinant > 1)
        assert np.all(rows[lost] == 0)
        assert np.all(np.any(rows[~lost] != 0, axis=1))


def test_an_objective_without_residuals_is_refused():
    problem, x0 = setting(1)
    for objective in (bd.LogDensityVariance(), bd.EnergyDrift() + 0.0 * bd.FisherDivergence()):
        with pytest.raises(ValueError, match="need an objective that is a sum of squares"):
            residual_rows(
                problem, SCORE, FIXED, objective, x0, WEIGHTS, SOLVER, STEPS, projections=1, key=KEY
            )

"""Gauss-Newton steps: exact on what is linear, far fewer on what is not, and refused where they can't be."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.training.runs import outcome, parameters, train

import bohmdiff as bd

JACOBIAN = jax.random.normal(jax.random.key(0), (40, 7))
TARGET = jax.random.normal(jax.random.key(1), (40,))
START = {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}


def flat(tree):
    return jnp.concatenate([tree["a"], tree["b"].reshape(-1)])


def rows_of(jacobian):
    def rows(projections):
        assert projections == 3
        return {"a": jacobian[:, :3], "b": jacobian[:, 3:].reshape(-1, 2, 2)}

    return rows


def gradient(tree):
    return jax.grad(lambda p: jnp.sum((JACOBIAN @ flat(p) - TARGET) ** 2))(tree)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_one_step_solves_a_linear_problem(decay):
    best = np.linalg.lstsq(np.asarray(JACOBIAN), np.asarray(TARGET))[0]
    optimizer = optax.chain(bd.scale_by_gauss_newton(1e-14, decay, 3), optax.scale_by_learning_rate(1.0))
    state = optimizer.init(START)
    place = START
    for _ in range(2):  # the running mean has forgotten nothing yet, and stays where it is
        changes, state = optimizer.update(gradient(place), state, place, residual_rows=rows_of(JACOBIAN))
        place = optax.apply_updates(place, changes)
        np.testing.assert_allclose(flat(place), best, rtol=1e-9)
        place = jax.tree.map(lambda leaf: leaf + 1.0, place)


def test_the_mean_of_the_matrix_runs_over_epochs():
    optimizer = bd.scale_by_gauss_newton(1e-14, 0.75, 3)
    state = optimizer.init(START)
    scales = [1.0, 3.0]
    for scale in scales:
        rows = rows_of(np.sqrt(scale) * JACOBIAN)
        step, state = optimizer.update(START, state, START, residual_rows=rows)
    weighted = (0.75 * 0.25 * scales[0] + 0.25 * scales[1]) / (1 - 0.75**2)
    expected = np.linalg.solve(weighted * np.asarray(JACOBIAN.T @ JACOBIAN), 0.5 * flat(START))
    np.testing.assert_allclose(flat(step), expected, rtol=1e-9)


def test_single_precision_stays_single():
    single = jax.tree.map(lambda leaf: leaf.astype("float32"), START)
    optimizer = bd.scale_by_gauss_newton(1e-3, projections=3)
    rows = rows_of(JACOBIAN.astype("float32"))
    step, state = optimizer.update(single, optimizer.init(single), single, residual_rows=rows)
    assert {leaf.dtype for leaf in jax.tree.leaves((step, state.matrix))} == {np.dtype("float32")}
    gram = np.asarray(JACOBIAN.T @ JACOBIAN)
    expected = np.linalg.solve(gram + 1e-3 * np.eye(7), 0.5 * flat(START))
    np.testing.assert_allclose(flat(step), expected, rtol=1e-4)


def test_damping_shortens_steps():
    lengths = []
    for damping in (1e-6, 10.0, 1e4):
        optimizer = bd.scale_by_gauss_newton(damping, projections=3)
        step, _ = optimizer.update(START, optimizer.init(START), START, residual_rows=rows_of(JACOBIAN))
        lengths.append(float(jnp.linalg.norm(flat(step))))
    assert lengths[0] > 1.1 * lengths[1] > 10 * lengths[2]
    np.testing.assert_allclose(1e4 * lengths[2], 0.5 * jnp.linalg.norm(flat(START)), rtol=0.02)


def gauss_newton():
    return optax.chain(bd.scale_by_gauss_newton(1e-8), optax.scale_by_learning_rate(1.0))


@pytest.mark.long
def test_a_handful_of_epochs_reach_the_exact_score():
    optimizer = gauss_newton()
    options = {"objective": bd.FisherDivergence(), "particles": 32, "validate_every": 100}
    ours = train(optimizer=optimizer, epochs=6, **options)
    precision, amplitude = parameters(ours)
    assert abs(precision - 2) < 2e-3
    assert abs(amplitude - 1) < 2e-3
    fisher = ours.history["fisher"].dropna("epoch").values
    assert fisher[-1] < 1e-4 * fisher[0]
    assert outcome(train(optimizer=optimizer, epochs=6, **options)) == outcome(ours)


@pytest.mark.long
def test_a_run_goes_on_with_its_matrix(tmp_path):
    optimizer = gauss_newton()
    options = {"optimizer": optimizer, "objective": bd.FisherDivergence(), "particles": 32}
    whole = train(epochs=4, **options)
    train(epochs=2, directory=tmp_path, **options)
    resumed = train(epochs=4, directory=tmp_path, resume=True, **options)
    assert outcome(resumed) == outcome(whole)


def test_what_can_not_be_is_refused():
    for options, said in (
        ({"damping": 0.0}, "damping must be positive"),
        ({"damping": float("nan")}, "damping must be positive"),
        ({"decay": 1.0}, "decay must be at least 0 and below 1"),
        ({"projections": 0}, "projections must be"),
    ):
        with pytest.raises(ValueError, match=said):
            bd.scale_by_gauss_newton(**options)
    optimizer = bd.scale_by_gauss_newton()
    with pytest.raises(ValueError, match="needs residual_rows"):
        optimizer.update(START, optimizer.init(START), START)
    with pytest.raises(ValueError, match="sum of squares over single particles"):
        train(objective=bd.LogDensityVariance(), optimizer=gauss_newton(), epochs=1)

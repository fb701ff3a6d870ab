"""Self-consistent score matching: that it finds the exact score, and says what it cannot do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.training.runs import KEY, PROBLEM, SCORE, START, TS, method, parameters, train, well
from tests.unchecked import unchecked_types

import bohmdiff as bd


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        bd.FisherDivergence(),
        pytest.param(bd.DirectionalDivergence(), marks=pytest.mark.long),
        pytest.param(bd.LogDensityVariance(), marks=pytest.mark.long),
    ],
)
def test_a_wrong_score_becomes_the_exact_one(objective):
    solution = train(objective=objective, epochs=120, validate_every=200)
    precision, amplitude = parameters(solution)
    assert abs(precision - 2) < 0.02
    assert abs(amplitude - 1) < 0.01
    fisher = solution.history["fisher"].dropna("epoch").values
    assert fisher[0] > 0.5
    assert fisher[-1] < 1e-3
    np.testing.assert_allclose(solution.std(), np.sqrt(0.5), atol=0.01)
    np.testing.assert_allclose(solution.mean()[:, 0], np.cos(TS), atol=0.01)


@pytest.mark.long
def test_implicit_score_matching_and_a_subset_of_times():
    solution = train(objective=bd.ImplicitScoreMatching(), epochs=120, times=4, validate_every=200)
    fisher = solution.history["fisher"].dropna("epoch").values
    assert fisher[-1] < 0.1 * fisher[0]
    # The same score at the same times would have a smoother loss: here it depends on the times drawn.
    assert np.std(solution.history["loss"].values[-20:]) > 1e-3


@pytest.mark.slow
def test_a_score_whose_flow_is_lost_in_the_end_is_kept(monkeypatch):
    def lost(*arguments, **options):
        raise bd.ParticlesLostError("Particles became non-finite.")

    monkeypatch.setattr(bd.GivenScore, "run", lost)
    with pytest.raises(
        bd.TrainingDivergedError, match=r"after epoch 1, .*non-finite.*is the `fitted`"
    ) as caught:
        train(epochs=1)
    assert parameters(caught.value) != START


class Swirl(eqx.Module):
    """No gradient unless `curl` is zero."""

    precision: jax.Array
    curl: jax.Array

    def __call__(self, t, x):
        return -self.precision * x + self.curl * jnp.stack([-x[1], x[0]])


@pytest.mark.long
def test_a_vector_field_warns_and_trains_in_single_precision(recwarn):
    centre = jnp.zeros(2, jnp.float32)
    plane = bd.Problem(bd.Hamiltonian(well), bd.GaussianWavePacket(centre, 0.5), t1=1.0)
    swirl = Swirl(jnp.asarray(1.2), jnp.asarray(0.3))
    with pytest.raises(ValueError, match="Swirl is a vector field without log_density"):
        train(problem=plane, score=swirl, objective=bd.LogDensityVariance())
    assert not recwarn.list
    with pytest.warns(UserWarning, match="not a gradient: its Jacobian differs .* by 4.9e-01") as warned:
        solution = train(problem=plane, score=swirl, objective=bd.ImplicitScoreMatching(), epochs=100)
    assert [warning.filename for warning in warned] == [__file__]
    assert {array.dtype for array in parameters(solution)} == {np.dtype(np.float32)}
    assert solution.std().dtype == np.float32
    precision, curl = parameters(solution)
    assert abs(precision - 2) < 0.1
    assert abs(curl) < 0.05


@pytest.mark.parametrize(
    "score",
    [bd.FrozenScore(SCORE), bd.GradientScore(well), lambda t, x: -x],
    ids=["frozen", "plain", "lambda"],
)
def test_a_score_without_parameters_is_refused(score):
    with pytest.raises(ValueError, match=r"no parameters to train.*GivenScore"):
        method(score)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"score": 3.0}, r"score must be a callable s\(t, x\) .* but 3.0"),
        ({"objective": bd.FisherDivergence}, "objective must be an objective such as .* but <class"),
        ({"particles": 0}, "particles must be an integer of at least 1, but 0"),
        ({"steps": 0}, "steps must be an integer of at least 1, but 0"),
        ({"solver": "verlet"}, "solver must be a solver such as .* but 'verlet'"),
        ({"times": 10}, r"times must be at most steps \+ 1 = 9, but 10"),
        ({"times": 0}, "times must be an integer of at least 1, but 0"),
        ({"validation_particles": 0}, "validation_particles must be an integer of at least 1, but 0"),
        ({"solution_particles": 0}, "solution_particles must be an integer of at least 1, but 0"),
        ({"optimizer": None, "objective": bd.LogDensityVariance()}, "default optimizer .* sum of squares"),
    ],
)
def test_bad_options_are_named(options, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        method(**options)


def test_training_is_one_object():
    with pytest.raises(TypeError, match="training"):
        bd.SelfConsistentScoreMatching(SCORE)
    for training in (30, optax.adam(1e-3), bd.Training):
        with unchecked_types(), pytest.raises(ValueError, match=r"such as Training\(epochs=30\), but"):
            bd.SelfConsistentScoreMatching(SCORE, training=training)


@pytest.mark.slow
def test_the_solution_has_the_particles_that_it_was_told_to_have():
    trained = train(epochs=1, solution_particles=bd.SobolPoints(32))
    with pytest.warns(UserWarning, match="initial score"):  # after one epoch
        again = bd.solve(PROBLEM, bd.GivenScore(trained.fitted, bd.SobolPoints(32)), key=KEY, ts=TS)
    assert trained.particles.weights.size == again.particles.weights.size == 32
    # By another scramble.
    np.testing.assert_allclose(trained.std(), again.std(), rtol=0.1)


def test_the_default_optimizer_is_for_few_parameters():
    wide = bd.NeuralScore(PROBLEM, width=128, key=KEY)
    with pytest.raises(ValueError, match=r"parameters to train.*at most 10,000.*Training\(optax.adam"):
        train(score=wide, objective=bd.FisherDivergence(), optimizer=None)

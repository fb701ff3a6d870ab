"""Nelson's process and its family: the density of the flow, whatever the noise and the direction of time."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bohmdiff as bd
import bohmdiff.testing
from tests.unchecked import unchecked_types

KEY = jax.random.key(3)
TIMES = np.array([0.0, 0.3, 1.0])
DRAWS = 4096
SIGMAS = 5  # of statistical error: all that hypothesis tries together exceed it by chance once in 10⁴ runs


@pytest.mark.slow
@settings(max_examples=25)
@given(
    bohmdiff.testing.driven_gaussians(2),
    st.floats(0, 2.5),
    st.booleans(),
    st.integers(0, 100),
)
def test_marginals_are_those_of_the_flow(case, noise, backward, seed):
    paths = bd.nelson_process(
        bd.Velocities(case.problem(), case, case.velocity),
        DRAWS,
        key=jax.random.key(seed),
        ts=TIMES,
        noise=noise,
        backward=backward,
        steps=64,
    )
    assert paths.shape == (DRAWS, 3, 2)
    for k, t in enumerate(TIMES):
        centre = np.asarray(case.centre_at(t)[0])
        covariance = np.asarray(case.covariance_at(t))
        centred = np.asarray(paths[:, k]) - centre
        variance = np.diag(covariance)
        mean = np.mean(centred, axis=0) / np.sqrt(variance / DRAWS)
        assert np.max(np.abs(mean)) < SIGMAS
        error = centred.T @ centred / DRAWS - covariance
        spread = np.sqrt((np.outer(variance, variance) + covariance**2) / DRAWS)
        assert np.max(np.abs(error / spread)) < SIGMAS


def ground_state(t1=1.0, mass=1.6, hbar=0.7, frequency=1.3):
    """The velocity is zero, and Nelson's process is that of Ornstein and Uhlenbeck with rate ω."""
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(mass * frequency**2), mass, hbar),
        bd.GaussianWavePacket([0.0], hbar / (2 * mass * frequency)),
        t1=t1,
    )
    return bd.solve(problem, bd.GaussianDynamics())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backward", "noise"), [pytest.param(False, 1.0, marks=pytest.mark.long), (True, 0.5)]
)
def test_the_ground_state_forgets_at_its_frequency(noise, backward):
    paths = bd.nelson_process(
        ground_state(), 20_000, key=KEY, ts=[0.0, 0.5, 1.0], noise=noise, backward=backward, steps=32
    )
    x = np.asarray(paths[:, :, 0]) / np.std(paths)
    first, last = (x[:, 2], x[:, 0]) if backward else (x[:, 0], x[:, 2])
    for other, elapsed in ((x[:, 1], 0.5), (last, 1.0)):
        expected = np.exp(-noise * 1.3 * elapsed)
        assert abs(np.mean(first * other) - expected) < SIGMAS * np.sqrt(2 / 20_000)


@pytest.mark.long
def test_from_given_positions_and_without_noise_it_is_the_flow():
    """Positions that are given are where the process starts: at t1 if it runs backward."""
    case = ground_state_moved()
    x0 = jnp.array([[0.3, -0.4], [1.1, 0.2]])
    flow = bd.propagate(case.problem(), case, x0, ts=TIMES, solver=bd.BlanesMoan6(), steps=64)
    velocities = bd.Velocities(case.problem(), case, case.velocity)

    options = {"key": KEY, "ts": TIMES, "noise": 0, "steps": 40}
    forward = bd.nelson_process(velocities, x0, **options)
    np.testing.assert_array_equal(forward[:, 0], x0)
    np.testing.assert_allclose(forward, flow.position, atol=1e-3)
    back = bd.nelson_process(velocities, flow.position[:, -1], backward=True, **options)
    np.testing.assert_array_equal(back[:, -1], flow.position[:, -1])
    np.testing.assert_allclose(back, flow.position, atol=1e-3)


def ground_state_moved():
    return bohmdiff.testing.DrivenGaussian(
        mass=[1.0, 2.0], hbar=0.7, stiffness=[[1.0, 0.2], [0.2, -0.5]], centre=[0.0, 0.1], drive=[0.3, 0.0],
        frequency=6.0, mean=[1.0, 0.0], covariance=[[0.5, 0.1], [0.1, 0.4]], momentum=[0.0, 1.0],
        chirp=[[0.1, 0.0], [0.0, -0.2]],
    )  # fmt: skip


@pytest.mark.long
def test_of_a_solution_whose_velocity_is_fitted():
    """In an anharmonic well, moments as the particles of the solution have them."""
    problem = bd.Problem(
        bd.Hamiltonian(bd.MorseChain(12.5, 0.2)), bd.GaussianWavePacket([1.0], 0.5), t1=1.5
    )
    solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4), ts=[0.0, 0.7, 1.5])
    n = 20_000
    mean, std = np.asarray(solution.mean()), np.asarray(solution.std())
    for backward in (False, True):
        paths = bd.nelson_process(solution, n, key=KEY, ts=solution.ts, steps=48, backward=backward)
        np.testing.assert_allclose(paths.mean(axis=0), mean, atol=SIGMAS * np.max(std) / n**0.5)
        np.testing.assert_allclose(paths.std(axis=0), std, rtol=SIGMAS * 1.2 / (2 * n) ** 0.5)


@pytest.mark.slow
def test_same_key_same_paths_and_other_solvers():
    solution = ground_state()

    def paths(key=KEY, **options):
        return np.asarray(bd.nelson_process(solution, 2000, key=key, ts=[0.5, 1.0], **options))

    one = paths(steps=16)
    np.testing.assert_array_equal(one, paths(steps=16))
    assert np.max(np.abs(one - paths(jax.random.key(4), steps=16))) > 0.1
    euler = paths(steps=256, solver=diffrax.Euler())
    np.testing.assert_allclose(euler.std(axis=0), one.std(axis=0), rtol=0.1)


@pytest.mark.long
def test_saved_times_need_not_be_even():
    solution = ground_state(t1=2.0)
    ts = np.array([0.013, 0.9, 0.9001, 1.7])
    paths = bd.nelson_process(solution, 20_000, key=KEY, ts=ts, steps=24)
    x = np.asarray(paths[:, :, 0]) / np.asarray(solution.std())[0, 0]
    correlation = x.T @ x / 20_000
    expected = np.exp(-1.3 * np.abs(ts[:, None] - ts))
    np.testing.assert_allclose(correlation, expected, atol=SIGMAS * np.sqrt(2 / 20_000))
    alone = bd.nelson_process(solution, 100, key=KEY, steps=24)
    assert alone.shape == (100, 101, 1)


@pytest.mark.slow
def test_single_precision():
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(1.0)),
        bd.GaussianWavePacket(np.zeros(2, np.float32), np.float32(0.5)),
        t1=1.0,
    )
    paths = bd.nelson_process(bd.solve(problem, bd.GaussianDynamics()), 64, key=KEY, steps=8)
    assert paths.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"noise": -0.1}, "noise must not be negative, but -0.1 .* 1 Nelson's process"),
        ({"noise": np.nan}, "noise must not be negative, but nan"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"start": 0}, "start must be an integer of at least 1"),
        ({"start": np.zeros((3, 2))}, r"positions of shape \(M, 1\), but shape \(3, 2\)"),
        ({"solver": bd.VelocityVerlet}, "solver must be one of Diffrax"),
        ({"ts": [0.0, 3.0]}, r"ts must lie in \[t0, t1\]"),
        ({"backward": "yes"}, "backward must be True or False"),
        ({"key": 0}, "key must be one random key"),
        ({"source": 1.0}, "source must be a solution, .* or Velocities, but float was given"),
    ],
)
def test_bad_options(options, match):
    given = {"source": ground_state(), "start": 8, "key": KEY, "steps": 4} | options
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.nelson_process(given.pop("source"), given.pop("start"), **given)


@pytest.mark.slow
def test_what_no_process_can_follow():
    problem = ground_state().problem
    runaway = bd.Velocities(problem, lambda t, x: -x, lambda t, x: 1e3 * x**3)
    with pytest.raises(bd.ParticlesLostError, match=r"non-finite \(8 of 8"):
        bd.nelson_process(runaway, 8, key=KEY)
    solution = ground_state()
    with pytest.raises(ValueError, match=r"must be known, .* traced"):
        jax.jit(lambda t: bd.nelson_process(solution, 8, key=KEY, ts=t))(jnp.array([0.5]))

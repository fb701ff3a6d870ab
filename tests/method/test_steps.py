"""How many time steps a method takes, and when it says that a solution is wrong."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bohmdiff as bd


class Kick(bd.AbstractPotential):
    """A harmonic well and a Gaussian pulse of unit momentum."""

    centre: jax.Array
    duration: jax.Array

    def __call__(self, t, x):
        pulse = jnp.exp(-0.5 * ((t - self.centre) / self.duration) ** 2)
        return 0.5 * x[0] ** 2 - pulse * x[0] / (self.duration * jnp.sqrt(2 * jnp.pi))


class Morse(bd.AbstractPotential):
    depth: jax.Array
    width: jax.Array

    def __call__(self, t, x):
        return self.depth * jnp.sum(jnp.expm1(-self.width * x) ** 2)


def oscillator(frequency, t1):
    hamiltonian = bd.Hamiltonian(bd.Quadratic(jnp.asarray(frequency) ** 2))
    return bd.Problem(hamiltonian, bd.GaussianWavePacket([1.5], 0.3), t1=t1)


def worst_error(solution, frequency):
    """Of mean and standard deviation, in units of the latter."""
    phase = frequency * np.asarray(solution.ts)
    mean = 1.5 * np.cos(phase)
    std = np.sqrt(0.3 * np.cos(phase) ** 2 + 0.25 / 0.3 * np.sin(phase) ** 2 / frequency**2)
    errors = np.abs(solution.mean()[:, 0] - mean), np.abs(solution.std()[:, 0] - std)
    return np.max(np.stack(errors) / std)


# A few periods to more than twenty, by one compiled program.
@settings(max_examples=6)
@given(st.floats(0.5, 3.0), st.floats(10.0, 50.0))
def test_long_runs_take_the_steps_that_they_need(frequency, t1):
    solution = bd.solve(oscillator(frequency, t1), bd.SequentialScoreMatching(degree=2))
    assert worst_error(solution, frequency) < 2e-3
    assert bool(solution.diagnostics.holds)
    assert solution.method.steps == solution.steps


@pytest.mark.parametrize(
    ("few", "many"),
    [
        (bd.SequentialScoreMatching(degree=2, steps=40), bd.SequentialScoreMatching(degree=2, steps=400)),
        (bd.GaussianDynamics(steps=20), bd.GaussianDynamics(steps=400)),
    ],
    ids=lambda method: f"{type(method).__name__}-{method.steps}",
)
def test_given_steps_are_kept_and_checked(few, many):
    problem = oscillator(1.0, 60.0)
    with pytest.warns(UserWarning, match="time step is .*Pass more steps"):
        wrong = bd.solve(problem, few)
    assert wrong.method == few
    assert worst_error(wrong, 1.0) > 1e-2
    right = bd.solve(problem, many)
    assert bool(right.diagnostics.holds)
    assert worst_error(right, 1.0) < 2e-3


def test_steps_beyond_stability_are_told_once_and_by_this_library():
    """Moments of 1e130 are compared with larger ones, which overflow."""
    with pytest.warns(UserWarning, match="time step is inf") as told:
        bd.solve(oscillator(1.0, 1000.0), bd.GaussianDynamics(steps=4), ts=[1000.0])
    assert len(told) == 1


def test_one_step_is_checked_too():
    with pytest.warns(UserWarning, match="time step is"):
        bd.solve(oscillator(1.0, 2.0), bd.SequentialScoreMatching(degree=2, steps=1))


@pytest.mark.parametrize("method", [bd.SequentialScoreMatching(degree=2), bd.GaussianDynamics()])
def test_the_choice_does_not_depend_on_the_saved_times(method):
    problem = oscillator(2.0, 30.0)
    last = bd.solve(problem, method, ts=[30.0])
    many = bd.solve(problem, method, ts=np.linspace(0, 30, 61))
    assert last.method == many.method
    np.testing.assert_allclose(last.std()[-1], many.std()[-1], rtol=1e-12)


def test_another_number_of_steps_compiles_nothing():
    traces = 0

    def potential(t, x):
        nonlocal traces
        traces += 1
        return 0.5 * jnp.sum(x**2)

    problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([1.0], 0.5), t1=1.0)
    for method in (bd.SequentialScoreMatching, bd.GaussianDynamics):
        bd.solve(problem, method(steps=40))
        before = traces
        for steps in (41, 64, 500):
            bd.solve(problem, method(steps=steps))
        assert traces == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [bd.SequentialScoreMatching(degree=2), bd.GaussianDynamics()],
)
def test_under_a_transformation_the_number_must_be_given(method):
    def last(frequency, method):
        return bd.solve(oscillator(frequency, 3.0), method, ts=[3.0]).mean()[0, 0]

    with pytest.raises(ValueError, match=r"under jit, grad or vmap. Pass a number: \w+\(..., steps="):
        jax.jit(last, static_argnums=1)(1.0, method)
    chosen = bd.solve(oscillator(1.0, 3.0), method).method
    slope = jax.grad(last)(1.0, chosen)
    np.testing.assert_allclose(slope, -1.5 * 3 * np.sin(3.0), rtol=1e-3)


# The period of this packet is that of small vibrations, about 2π: after it the density has valleys.
@pytest.mark.parametrize(
    ("t1", "right"), [(2.0, True), (6.3, False), pytest.param(25.0, False, marks=pytest.mark.slow)]
)
def test_interference_is_told(t1, right):
    potential = Morse(jnp.asarray(12.5), jnp.asarray(0.2))
    problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([1.0], 0.5), t1=t1)
    if right:
        solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    else:
        with pytest.warns(UserWarning, match="density mismatch is"):
            solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    exact = bd.solve(problem, bd.SplitOperator(points=256, lower=-6.0, upper=14.0, steps=400))
    error = jnp.max(jnp.abs(solution.std() - exact.std()) / exact.std())
    assert bool(error < 3e-3) == right
    assert bool(solution.diagnostics["density mismatch"].holds) == right


# A pulse comes anywhere between two steps, and lasts from a fifth of a step to several of them.
@pytest.mark.slow
@settings(max_examples=4)
@given(st.floats(2.0, 8.0), st.floats(0.02, 0.8), st.sampled_from([2, 4]), st.booleans())
def test_a_pulse_between_the_steps_is_told(centre, duration, order, often):
    potential = Kick(jnp.asarray(centre), jnp.asarray(duration))
    problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([0.0], 0.5), t1=10.0)
    ts = jnp.linspace(0, 10, 101) if often else [10.0]
    # By Ehrenfest's theorem; the pulse is over.
    exact = np.exp(-0.5 * duration**2) * np.sin(10 - centre)

    def error(solution):
        return abs(float(solution.mean()[-1, 0]) - exact) / float(solution.std()[-1, 0])

    def grid(steps):
        return bd.SplitOperator(points=64, lower=-8.0, upper=8.0, order=order, steps=steps)

    assert error(bd.solve(problem, grid(None), ts=ts)) < 1e-3
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        solution = bd.solve(problem, grid(60), ts=ts)
    assert told or error(solution) < 1e-2
    if duration > 0.4 and order == 4:
        assert not told


class Barrier(bd.AbstractPotential):
    """A Gaussian barrier of a given area."""

    centre: jax.Array
    width: jax.Array

    def __call__(self, t, x):
        return jnp.exp(-0.5 * ((x[0] - self.centre) / self.width) ** 2) / self.width


# The packet is at the barrier long before the only saved time.
@pytest.mark.slow
@pytest.mark.parametrize(("centre", "width"), [(0.125, 0.03), (-0.1, 0.05)])
def test_a_barrier_between_the_points_is_told(centre, width):
    potential = Barrier(jnp.asarray(centre), jnp.asarray(width))
    problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([-2.0], 0.5, [3.0]), t1=2.0)
    with pytest.warns(UserWarning, match="potential between points is .* at t = 0"):
        bd.solve(problem, bd.SplitOperator(points=64, lower=-16.0, upper=16.0), ts=[2.0])
    chosen = bd.solve(problem, bd.SplitOperator(), ts=[2.0])
    exact = bd.solve(problem, bd.SplitOperator(points=2048, lower=-16.0, upper=16.0, steps=4000), ts=[2.0])
    np.testing.assert_allclose(chosen.mean(), exact.mean(), atol=5e-3 * exact.std()[0, 0])
    np.testing.assert_allclose(chosen.std(), exact.std(), rtol=5e-3)


@pytest.mark.parametrize(
    ("problem", "mean", "std"),
    [
        (oscillator(1.3, 40.0), 1.5 * np.cos(52.0), None),
        (bd.Problem(bd.Hamiltonian(lambda t, x: 0 * x[0]), bd.GaussianWavePacket([0.0], 0.2, [2.0]), t1=4.0),
         8.0, np.sqrt(0.2 + 0.25 * 16 / 0.2)),
    ],
    ids=["bound", "free"],
)  # fmt: skip
def test_a_grid_that_nobody_gave(problem, mean, std):
    solution = bd.solve(problem, bd.SplitOperator(), ts=[problem.t1])
    exact = std or np.sqrt(0.3 * np.cos(52.0) ** 2 + 0.25 / 0.3 * np.sin(52.0) ** 2 / 1.3**2)
    np.testing.assert_allclose(solution.mean()[0, 0], mean, atol=2e-3 * exact)
    np.testing.assert_allclose(solution.std()[0, 0], exact, rtol=2e-3)
    # The method of a solution has all numbers, and a scan takes them.
    again = bd.solve(problem, solution.method, ts=[problem.t1])
    np.testing.assert_array_equal(again.mean(), solution.mean())


def test_a_grid_is_chosen_from_concrete_numbers():
    def last(frequency, method):
        return bd.solve(oscillator(frequency, 3.0), method, ts=[3.0]).mean()[0, 0]

    for method, message in [
        (bd.SplitOperator(), "chooses its grid from concrete numbers"),
        (bd.SplitOperator(64, -8.0, 8.0), r"Pass a number: SplitOperator\(\.\.\., steps="),
    ]:
        with pytest.raises(ValueError, match=message):
            jax.grad(last)(1.0, method)


def test_a_drive_without_a_step():
    potential = Kick(jnp.asarray(5.0), jnp.asarray(0.5))
    problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([0.3], 0.5), t1=10.0)
    start = bd.solve(problem, bd.SplitOperator(points=64, lower=-8.0, upper=8.0), ts=[0.0])
    np.testing.assert_allclose(start.mean(), [[0.3]], atol=1e-12)
    assert "drive" not in start.diagnostics


class Eckart(bd.AbstractPotential):
    height: jax.Array
    width: jax.Array

    def __call__(self, t, x):
        return self.height / jnp.cosh(x[0] / self.width) ** 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width", "momentum", "t1", "right"),
    [
        (2.0, 0.3, 3.0, 3.5, False),
        (1.0, 0.5, 3.0, 3.5, False),
        (-1.0, 0.5, 1.0, 6.0, False),
        (0.1, 0.3, 2.0, 4.0, True),
    ],
)
def test_a_wave_reflected_above_a_barrier_is_told(height, width, momentum, t1, right):
    """The fitted density misses the wave, and so does the density that the flow carries."""
    potential = Eckart(jnp.asarray(height), jnp.asarray(width))
    start = bd.GaussianWavePacket([-6.0], 1.0, [momentum])
    problem, ts = bd.Problem(bd.Hamiltonian(potential), start, t1=t1), [t1]
    exact = bd.solve(problem, bd.SplitOperator(1024, -60.0, 60.0), ts=ts)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        solution = bd.solve(problem, bd.SequentialScoreMatching(), ts=ts)
    changes = solution.mean() - exact.mean(), solution.std() - exact.std()
    error = np.max(np.abs(np.stack(changes)) / exact.std())
    assert (error < 3e-3) == right
    assert (error > 1e-2) != right
    assert solution.diagnostics["density mismatch"].holds
    assert ("velocity mismatch" in solution.diagnostics.failed()) != right
    assert len(told) == (not right)

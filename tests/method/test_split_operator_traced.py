"""SplitOperator under jit, vmap, grad and jvp."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd

GRID = bd.SplitOperator(points=128, lower=-6.0, upper=6.0, steps=20)


class Quartic(bd.AbstractPotential):
    coupling: jax.Array

    def __call__(self, t, x):
        return 0.5 * jnp.sum(x**2) + self.coupling * jnp.sum(x**4)


class Driven(bd.AbstractPotential):
    strength: jax.Array

    def __call__(self, t, x):
        return 0.5 * jnp.sum(x**2) + self.strength * jnp.sin(3 * t) * x[0]


def solved(values, ts=(0.4, 1.0), method=GRID, potential=Quartic):
    """A problem each number of which may be traced."""
    numbers = {
        "coupling": 0.1,
        "mass": 1.0,
        "hbar": 1.0,
        "start": 0.5,
        "momentum": 0.4,
        "t0": 0.0,
        "t1": 1.0,
    }
    numbers |= values
    problem = bd.Problem(
        bd.Hamiltonian(potential(jnp.asarray(numbers["coupling"])), numbers["mass"], numbers["hbar"]),
        bd.GaussianWavePacket(jnp.stack([jnp.asarray(numbers["start"])]), 0.5, [numbers["momentum"]]),
        t1=numbers["t1"],
        t0=numbers["t0"],
    )
    return bd.solve(problem, method, ts=ts)


def numbers_of(solution):
    """Some that depend on everything: moments, and fields between the saved times."""
    x = jnp.array([0.3])
    return jnp.stack(
        [
            solution.mean()[-1, 0],
            solution.covariance()[0, 0, 0],
            solution.energy()[-1],
            solution.log_density(0.55, x),
            solution.velocity(0.1, x)[0],
        ]
    )


@pytest.fixture(scope="module")
def derivatives():
    """By forward and reverse mode, and by finite differences, of everything with respect to everything."""
    point = {"coupling": 0.1, "mass": 1.1, "hbar": 0.9, "start": 0.5, "momentum": 0.4}

    def function(values):
        return numbers_of(solved(values))

    def difference(name, step=1e-4):
        upper, lower = (function(point | {name: point[name] + sign * step}) for sign in (1, -1))
        return (upper - lower) / (2 * step)

    forward, reverse = jax.jit(jax.jacfwd(function))(point), jax.jit(jax.jacrev(function))(point)
    return forward, reverse, {name: difference(name) for name in point}


@pytest.mark.parametrize("name", ["coupling", "mass", "hbar", "start", "momentum"])
def test_gradients_are_those_of_finite_differences(derivatives, name):
    forward, reverse, expected = (jacobian[name] for jacobian in derivatives)
    np.testing.assert_allclose(forward, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-11)


def test_gradients_in_the_times():
    """d<x>/dt1 at the end is the mean velocity there; moving t0 as well is nothing in a static potential."""

    def last(shift, t1):
        return solved({"t0": shift, "t1": t1 + shift}, ts=jnp.stack([t1 + shift])).mean()[-1, 0]

    step = 1e-4
    expected = (last(0.0, 1.0 + step) - last(0.0, 1.0 - step)) / (2 * step)
    for transformed in (jax.grad, jax.jacfwd):
        found = jax.jit(transformed(last, argnums=(0, 1)))(0.0, 1.0)
        np.testing.assert_allclose(found, [0, expected], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("potential", [Quartic, Driven])
def test_vmap_is_a_loop(potential):
    couplings = jnp.array([0.05, 0.1, 0.3])

    def one(coupling):
        return numbers_of(solved({"coupling": coupling}, potential=potential))

    expected = [one(coupling) for coupling in couplings.tolist()]
    np.testing.assert_allclose(jax.vmap(one)(couplings), expected, rtol=1e-9, atol=1e-11)


def test_vmap_over_the_end_of_the_span():
    ends = jnp.array([0.7, 1.0, 1.3])

    def one(t1):
        solution = solved({"t1": t1}, ts=None)
        return jnp.stack([solution.mean()[-1, 0], solution.energy()[50]])

    expected = [one(t1) for t1 in ends.tolist()]
    np.testing.assert_allclose(jax.vmap(one)(ends), expected, rtol=1e-6)


def test_a_function_that_closes_over_what_is_traced():
    initial = bd.GaussianWavePacket([1.0], 0.5)

    def last(k):
        problem = bd.Problem(bd.Hamiltonian(lambda t, x: k * x[0] ** 2), initial, t1=1.0)
        return bd.solve(problem, GRID, ts=[1.0]).mean()[-1, 0]

    ks = jnp.array([0.5, 0.6])
    np.testing.assert_allclose(jax.vmap(last)(ks), [last(0.5), last(0.6)], rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(last)(ks), np.cos(np.sqrt(2 * ks)), atol=1e-6)
    # <x> = cos √(2k) t.
    np.testing.assert_allclose(jax.grad(last)(0.5), -np.sin(1.0), atol=1e-6)


def test_two_solves_are_traced_once():
    traces = []

    @jax.jit
    def last(solution):
        traces.append(None)
        return solution.mean()[-1, 0] + solution.score(0.55, jnp.array([0.3]))[0]

    first, second = solved({}), solved({})
    assert jax.tree.structure(first) == jax.tree.structure(second)
    np.testing.assert_allclose(last(first), last(second), rtol=0)
    last(solved({"coupling": 0.2, "mass": 2.0}))
    assert len(traces) == 1


def test_many_couplings_compile_once():
    traces = []

    @jax.jit
    def last(coupling):
        traces.append(None)
        return solved({"coupling": coupling}).mean()[-1, 0]

    for coupling in (0.1, 0.2, 0.3):
        np.testing.assert_allclose(last(coupling), solved({"coupling": coupling}).mean()[-1, 0], rtol=1e-10)
    assert len(traces) == 1


def test_another_potential_does_not_compile_the_steps_again():
    from bohmdiff.method.split_operator import _propagator

    def solve(k):
        problem = bd.Problem(
            bd.Hamiltonian(lambda t, x: k * x[0] ** 2), bd.GaussianWavePacket([1.0], 0.5), t1=1.0
        )
        return bd.solve(problem, GRID, ts=[0.5, 1.0])

    solve(0.5)
    before = _propagator._advance._cached._cache_size()
    solve(0.6)
    assert _propagator._advance._cached._cache_size() == before


def test_memory_of_the_gradient():
    """√n checkpoints: four times the steps take twice the memory."""

    def temporary(steps):
        method = bd.SplitOperator(points=512, lower=-6.0, upper=6.0, steps=steps)
        gradient = jax.grad(lambda q: solved({"coupling": q}, ts=(1.0,), method=method).mean()[-1, 0])
        return jax.jit(gradient).lower(0.1).compile().memory_analysis().temp_size_in_bytes

    few, many = temporary(64), temporary(256)
    assert many < 2.5 * few
    # All of ψ, 16 bytes each, would be far more.
    assert many < 256 * 512 * 16


def test_no_callback_in_the_program():
    def function(coupling, t):
        solution = solved({"coupling": coupling})
        x0 = jnp.array([[0.3]])
        return solution.score(t, x0[0]), solution.trajectories(x0), solution.diagnostics.holds

    text = jax.jit(function).lower(0.1, 0.5).as_text()
    assert "callback" not in text


@pytest.mark.parametrize(
    ("values", "method", "failed"),
    [
        ({"start": 4.5}, {}, "initial norm"),
        ({"momentum": 90.0}, {}, "initial momentum"),
        ({"coupling": np.inf}, {}, "not finite"),
        ({"mass": 0.05, "momentum": 1.0}, {}, "box edge"),
        ({"coupling": 3.0, "start": 1.5}, {"points": 20}, "momentum edge"),
        ({"coupling": 2.0, "start": 1.5}, {"steps": 2}, "energy drift"),
    ],
)
def test_figures_tell_what_went_wrong(values, method, failed):
    options = {"points": 128, "lower": -6.0, "upper": 6.0, "steps": 20, **method}

    @jax.jit
    def run(values):
        solution = solved(values, ts=(1.0,), method=bd.SplitOperator(**options))
        return solution.mean(), solution.diagnostics

    mean, diagnostics = run(values)
    assert not diagnostics[failed].holds
    bad_input = failed in ("initial norm", "initial momentum", "not finite")
    assert bool(jnp.all(jnp.isnan(mean))) == bad_input
    good = run({})[1] if not method else None
    assert good is None or good.holds


def test_bad_values_are_nan_one_by_one():
    starts = jnp.array([0.5, 5.5, 0.6])
    means = jax.vmap(lambda start: solved({"start": start}, ts=(1.0,)).mean()[-1, 0])(starts)
    np.testing.assert_array_equal(jnp.isnan(means), [False, True, False])


def test_paths_probabilities_and_draws_of_a_traced_solution():
    def function(coupling):
        solution = solved({"coupling": coupling}, ts=(0.0, 0.5, 1.0))
        return (
            solution.trajectories([[0.1], [0.9]]),
            solution.probability(lambda x: x[0] > 0.2),
            solution.expectation(lambda x: x**4),
            solution.autocorrelation(),
        )

    for found, expected in zip(jax.jit(function)(0.1), function(0.1), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    draws = jax.jit(lambda q: solved({"coupling": q}).sample(jax.random.key(0), 4000))(0.1)
    np.testing.assert_allclose(draws.mean(0), solved({}).mean(), atol=6e-2)


def test_gradient_of_a_path():
    def path(coupling):
        return solved({"coupling": coupling}, ts=(0.5, 1.0)).trajectories([[0.9]])[0, :, 0]

    expected = (path(0.1001) - path(0.0999)) / 2e-4
    np.testing.assert_allclose(jax.jit(jax.jacfwd(path))(0.1), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.jacrev(path))(0.1), expected, rtol=1e-5)


def test_single_precision():
    problem_type = jnp.float32

    def last(coupling):
        problem = bd.Problem(
            bd.Hamiltonian(Quartic(coupling)),
            bd.GaussianWavePacket(jnp.asarray([0.5], problem_type), jnp.asarray(0.5, problem_type)),
            t1=1.0,
        )
        return bd.solve(problem, GRID, ts=[1.0]).mean()[-1, 0]

    value, slope = jax.jit(jax.value_and_grad(last))(jnp.asarray(0.1, problem_type))
    assert {value.dtype, slope.dtype} == {jnp.dtype("float32")}
    expected = solved({"momentum": 0.0}, ts=(1.0,)).mean()[-1, 0]
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_time_dependent_potentials_agree_with_the_known_path():
    np.testing.assert_allclose(
        jax.jit(lambda q: numbers_of(solved({"coupling": q}, potential=Driven)))(0.7),
        numbers_of(solved({"coupling": 0.7}, potential=Driven)),
        rtol=1e-9,
    )
    # Ehrenfest: x'' = −x − 0.7 sin 3t, x(0) = 0.5, x'(0) = 0.4.
    exact = 0.5 * np.cos(1) + (0.4 - 0.2625) * np.sin(1) + 0.0875 * np.sin(3)
    np.testing.assert_allclose(solved({"coupling": 0.7}, potential=Driven).mean()[-1, 0], exact, atol=1e-5)

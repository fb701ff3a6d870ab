"""ψ in a basis of Hermite functions, against closed forms, grids and independent matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bohmdiff as bd
import bohmdiff.testing
from bohmdiff.method.hermite_functions._index import Quanta, count, listed

DOUBLE_WELL = bd.Problem(bd.Hamiltonian(bd.DoubleWell()), bd.GaussianWavePacket([0.0], 0.25), t1=6.0)


def errors(solution, exact):
    """The largest of means and standard deviations, in units of the latter."""
    changes = np.stack([solution.mean() - exact.mean(), solution.std() - exact.std()])
    return float(np.max(np.abs(changes) / np.asarray(exact.std())))


def distance(solution, exact):
    r"""$\|\psi - \psi_\text{exact}\|$ at the saved times."""
    return np.sqrt(np.maximum(2 - 2 * np.asarray(exact.overlap(solution)).real, 0))


class Coupled(bd.AbstractPotential):
    """The same function, as a sum of terms and as a whole."""

    strength: jax.Array

    def __call__(self, t, x):
        return 0.5 * jnp.sum(x**2) + self.strength * jnp.sum(x[:-1] ** 2 * x[1:] ** 2)


class Separated(bd.AbstractSeparablePotential):
    strength: jax.Array

    def __call__(self, t, x):
        return Coupled(self.strength)(t, x)

    def separable_terms(self, dimension):
        product = lambda t, y, strength=self.strength: strength * y[0] ** 2 * y[1] ** 2  # noqa: E731
        return (
            *(bd.PotentialTerm((i,), lambda t, y: 0.5 * y[0] ** 2) for i in range(dimension)),
            *(bd.PotentialTerm((i, i + 1), product) for i in range(dimension - 1)),
        )


@given(st.integers(1, 4), st.floats(0, 6), st.lists(st.floats(0.5, 3), min_size=4, max_size=4))
def test_index_sets(d, degree, weights):
    weights = tuple(weights[:d])
    numbers = listed(Quanta(degree, weights))
    assert len(numbers) == len({tuple(n) for n in numbers.tolist()}) == count(Quanta(degree, weights))
    assert np.all(numbers @ np.array(weights) <= degree + 1e-6)
    # No larger set is allowed.
    for i in range(d):
        one_more = numbers + np.eye(d, dtype=int)[i]
        allowed = one_more[one_more @ np.array(weights) <= degree - 1e-6]
        assert {tuple(n) for n in allowed.tolist()} <= {tuple(n) for n in numbers.tolist()}


def test_through_near_nodes_by_tolerance_alone():
    solution = bd.solve(DOUBLE_WELL, bd.HermiteFunctions(tolerance=1e-5))
    exact = bd.solve(DOUBLE_WELL, bd.SplitOperator(192, -7.0, 7.0, steps=1200), ts=solution.ts)
    assert errors(solution, exact) < 1e-5
    assert solution.diagnostics.holds
    off = distance(solution, exact)
    assert np.all(off <= solution.error_bound + 1e-6)
    assert off[-1] > 1e-3 * solution.error_bound[-1]
    np.testing.assert_allclose(solution.norm(), 1, atol=1e-9)
    np.testing.assert_allclose(solution.energy(), solution.energy()[0], atol=1e-10)
    # Paths on a line keep the probability on their left.
    levels = jnp.array([0.1, 0.5, 0.8])
    paths = exact.quantile_trajectories(levels)
    np.testing.assert_allclose(solution.trajectories(paths[:, :1])[:, :, 0], paths, atol=5e-3)


def test_target_state_bounds_the_error():
    method = bd.HermiteFunctions(tolerance=1e-4, target="state")
    solution = bd.solve(DOUBLE_WELL, method, ts=[3.0, 6.0])
    exact = bd.solve(DOUBLE_WELL, bd.SplitOperator(192, -7.0, 7.0, steps=2400), ts=[3.0, 6.0])
    assert np.all(solution.error_bound <= 1e-4)
    assert np.all(distance(solution, exact) <= 1e-4)


def test_too_small_a_degree_is_told():
    with pytest.warns(UserWarning, match="basis is .*Pass a larger degree.*can be trusted"):
        solution = bd.solve(DOUBLE_WELL, bd.HermiteFunctions(degree=8))
    exact = bd.solve(DOUBLE_WELL, bd.SplitOperator(192, -7.0, 7.0, steps=1200), ts=solution.ts)
    assert errors(solution, exact) > 1e-2
    trusted = solution.ts <= solution.diagnostics.valid_until
    off = np.max(np.abs(solution.std() - exact.std()) / exact.std(), axis=1)
    assert np.all(off[trusted] < 1e-2)


@pytest.mark.parametrize("d", [2, 3])
def test_a_sum_of_terms_is_the_whole(d):
    strength = jnp.asarray(0.1)
    initial = bd.GaussianWavePacket(np.linspace(0.8, -0.4, d), 0.5)
    method = bd.HermiteFunctions(degree=9, centre=np.zeros(d), scale=np.ones(d), tolerance=1.0)
    one, other = (
        bd.solve(bd.Problem(bd.Hamiltonian(potential), initial, t1=2.0), method, ts=[1.0, 2.0])
        for potential in (Coupled(strength), Separated(strength))
    )
    np.testing.assert_allclose(one.coefficients, other.coefficients, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [1, pytest.param(2, marks=pytest.mark.long)])
def test_gaussians(dimension):
    method = bd.HermiteFunctions(tolerance=1e-6, target="state")
    bohmdiff.testing.check_method(method, dimension, tolerance=1e-4)


@pytest.mark.slow
def test_masses_hbar_and_a_correlated_packet():
    """Two coupled oscillators, whose normal modes are known."""
    case = bohmdiff.testing.DrivenGaussian(
        mass=[1.0, 25.0], hbar=0.5, stiffness=[[1.0, 0.3], [0.3, 9.0]], centre=[0.0, 0.1], drive=[0.0, 0.0],
        frequency=1.0, mean=[0.7, -0.2], covariance=[[0.3, 0.02], [0.02, 0.05]], momentum=[0.4, 0.1],
        chirp=[[0.2, 0.1], [0.1, -0.4]], t1=4.0,
    )  # fmt: skip
    solution = bd.solve(case.problem(), bd.HermiteFunctions(tolerance=1e-4))
    exact = case.moments(solution.ts)
    assert np.max(np.abs(solution.mean() - exact.mean) / exact.std) < 1e-4
    assert np.max(np.abs(solution.std() / exact.std - 1)) < 1e-4


def test_a_drive_of_any_saved_times():
    potential = lambda t, x: 0.5 * x[0] ** 2 + 0.1 * x[0] ** 4 - jnp.sin(3 * t) * x[0]  # noqa: E731
    problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([0.5], 0.4), t1=3.0)
    solution = bd.solve(problem, bd.HermiteFunctions(tolerance=1e-4), ts=[3.0])
    exact = bd.solve(problem, bd.SplitOperator(96, -6.0, 6.0, steps=800), ts=[3.0])
    assert errors(solution, exact) < 1e-4
    assert solution.method.steps is not None
    fast = bd.Hamiltonian(lambda t, x: 0.5 * x[0] ** 2 - 20 * jnp.sin(25 * t) * x[0])
    with pytest.warns(UserWarning, match="time step is"):
        bd.solve(
            bd.Problem(fast, problem.initial, t1=3.0), bd.HermiteFunctions(degree=30, steps=18), ts=[3.0]
        )


def test_a_hidden_barrier_is_told():
    barrier = lambda t, x: 0.5 * x[0] ** 2 + 8 * jnp.exp(-0.5 * ((x[0] - 0.13) / 0.01) ** 2)  # noqa: E731
    problem = bd.Problem(bd.Hamiltonian(barrier), bd.GaussianWavePacket([1.0], 0.5), t1=2.0)
    with pytest.warns(UserWarning, match="quadrature is"):
        bd.solve(problem, bd.HermiteFunctions(degree=20))


@pytest.mark.slow
def test_the_chain_against_the_reference():
    with np.load("tests/data/morse_chain_d4.npz") as reference:
        problem = bd.Problem(
            bd.Hamiltonian(bd.MorseChain(12.5, 0.2, 0.3)),
            bd.GaussianWavePacket([1.0, 0.0, 0.0, 0.0], 0.5),
            t1=3.14,
        )
        solution = bd.solve(problem, bd.HermiteFunctions(tolerance=1e-3), ts=reference["t"])
        # The reference itself is off by 6e-6.
        assert np.max(np.abs(solution.mean() - reference["mean"])) < 2e-4
        assert np.max(np.abs(solution.std() - reference["std"])) < 2e-4
        np.testing.assert_allclose(solution.energy(), 2.32361722820578, atol=1e-7)


def test_gradients_under_jit():
    def stiff(k, method):
        problem = bd.Problem(
            bd.Hamiltonian(lambda t, x: 0.5 * k * x[0] ** 2 + 0.05 * x[0] ** 4),
            bd.GaussianWavePacket([0.5], 0.4),
            t1=1.0,
        )
        return bd.solve(problem, method, ts=[1.0]).std()[0, 0]

    with pytest.raises(ValueError, match="chooses its degree from concrete numbers"):
        jax.jit(lambda k: stiff(k, bd.HermiteFunctions()))(1.0)
    with pytest.raises(ValueError, match="chooses its steps from concrete numbers"):
        jax.jit(lambda k: stiff(k, bd.HermiteFunctions(degree=16)))(1.0)
    method = bd.HermiteFunctions(degree=16, centre=[0.0], scale=[0.95], steps=1, tolerance=1e-2)
    gradient = jax.jit(jax.grad(lambda k: stiff(k, method)))(1.0)
    finite = (stiff(1.001, method) - stiff(0.999, method)) / 0.002
    assert abs(gradient - finite) < 1e-6
    slope = jax.jvp(lambda k: stiff(k, method), (1.0,), (1.0,))[1]
    assert abs(slope - finite) < 1e-6


def test_going_on_from_a_state():
    whole = bd.solve(DOUBLE_WELL, bd.HermiteFunctions(tolerance=1e-6), ts=[2.0, 3.0])
    later = bd.Problem(DOUBLE_WELL.hamiltonian, whole.state(2.0), t1=1.0)
    with pytest.raises(ValueError, match="needs an initial state without nodes"):
        bd.solve(later, bd.SequentialScoreMatching())
    for method in (bd.HermiteFunctions(tolerance=1e-5), bd.SplitOperator(128, -6.5, 6.5)):
        again = bd.solve(later, method, ts=[1.0])
        np.testing.assert_allclose(again.std()[0], whole.std()[1], rtol=2e-4)


def test_single_precision():
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: 0.5 * x[0] ** 2 + 0.1 * x[0] ** 4),
        bd.GaussianWavePacket(np.array([0.5], np.float32), np.float32(0.4)),
        t1=2.0,
    )
    solution = bd.solve(problem, bd.HermiteFunctions(degree=20))
    assert solution.mean().dtype == solution.energy().dtype == jnp.float32
    double = bd.Problem(problem.hamiltonian, bd.GaussianWavePacket(np.array([0.5]), 0.4), t1=2.0)
    exact = bd.solve(double, bd.HermiteFunctions(degree=20))
    np.testing.assert_allclose(solution.std(), exact.std(), rtol=2e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degree": -1}, "degree must lie between"),
        ({"target": "phase"}, "target must be one of"),
        ({"weights": [1.0, 0.0]}, "weights must be positive"),
        ({"centre": [0.0]}, "centre and scale must both"),
        ({"centre": [0.0], "scale": [-1.0]}, "scale must be positive"),
        ({"memory": 0}, "memory must be a positive"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        bd.HermiteFunctions(**options)


def test_what_does_not_fit():
    many = bd.Problem(
        bd.Hamiltonian(lambda t, x: jnp.sum(x**2)), bd.GaussianWavePacket(np.zeros(6), 0.5), t1=1.0
    )
    with pytest.raises(ValueError, match="AbstractSeparablePotential"):
        bd.solve(many, bd.HermiteFunctions(degree=4))
    with pytest.raises(ValueError, match="memory holds"):
        bd.solve(DOUBLE_WELL, bd.HermiteFunctions(degree=100, memory=1e4))
    with pytest.raises(ValueError, match=r"weights must have shape \(1,\)"):
        bd.solve(DOUBLE_WELL, bd.HermiteFunctions(degree=8, weights=[1.0, 1.0]))

"""Stationary states, against closed forms and independent diagonalisations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd


def test_a_morse_oscillator():
    depth, width, mass, hbar = 12.5, 0.3, 2.0, 0.7
    hamiltonian = bd.Hamiltonian(bd.MorseChain(depth, width), mass=mass, hbar=hbar)
    states = bd.eigenstates(hamiltonian, bd.HermiteFunctions(tolerance=1e-6), count=5, dimension=1)
    frequency = width * np.sqrt(2 * depth / mass)
    quanta = hbar * frequency * (np.arange(5) + 0.5)
    exact = quanta - quanta**2 / (4 * depth)
    np.testing.assert_allclose(states.energy, exact, atol=1e-6)
    assert np.all(np.abs(states.energy - exact) <= states.energy_error + 1e-10)
    # Each solves the equation: the local energy is the same everywhere.
    x = jnp.array([0.3])
    for energy, state in zip(states.energy[:3], states, strict=False):
        psi = lambda y, state=state: state.wave_function(y).real  # noqa: E731
        laplacian = jax.hessian(psi)(x)[0, 0]
        local = -(hbar**2) / (2 * mass) * laplacian / psi(x) + hamiltonian.potential(0.0, x)
        assert abs(local - energy) < 1e-3


def test_henon_heiles_by_an_independent_matrix():
    """In a product of oscillator functions, with powers of the matrix of x."""
    n, coupling = 40, 0.111803
    x = np.diag(np.sqrt(np.arange(1, n) / 2), 1)
    x, one = x + x.T, np.eye(n)
    first, second = np.kron(x, one), np.kron(one, x)
    oscillator = np.diag(np.arange(n) + 0.5)
    matrix = np.kron(oscillator, one) + np.kron(one, oscillator)
    matrix = matrix + coupling * (first @ first @ second - second @ second @ second / 3)
    lowest = np.add.outer(np.arange(n), np.arange(n)).ravel() < 28
    exact = np.linalg.eigvalsh(matrix[np.ix_(lowest, lowest)])[:10]
    states = bd.eigenstates(
        bd.Hamiltonian(bd.HenonHeiles(coupling)),
        bd.HermiteFunctions(degree=24, tolerance=1e-3),
        count=10,
        dimension=2,
    )
    np.testing.assert_allclose(states.energy, exact, atol=2e-9)
    assert abs(float(states.energy[0]) - 0.9985948) < 1e-7


@pytest.mark.slow
def test_the_ground_state_is_an_initial_state_of_any_method():
    hamiltonian = bd.Hamiltonian(bd.MorseChain(12.5, 0.2))
    ground = bd.ground_state(hamiltonian, bd.HermiteFunctions(tolerance=1e-6), dimension=1)
    problem = bd.Problem(hamiltonian, ground, t1=2.0)
    for method in (bd.SequentialScoreMatching(degree=4), bd.HermiteFunctions()):
        solution = bd.solve(problem, method, ts=[0.0, 2.0])
        np.testing.assert_allclose(solution.mean()[1], ground.mean(), atol=2e-3)
        np.testing.assert_allclose(solution.std()[1], ground.std(), rtol=2e-3)
        np.testing.assert_allclose(solution.energy(), ground.energy, atol=2e-3)


def test_too_small_a_degree_is_told():
    with pytest.warns(UserWarning, match="energies of .* may be wrong"):
        bd.eigenstates(bd.Hamiltonian(bd.DoubleWell()), bd.HermiteFunctions(degree=8), count=6, dimension=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0, "dimension": 1}, "count must be an integer"),
        ({"count": 1}, "Pass dimension="),
        ({"count": 1, "dimension": 2, "near": [0.0]}, "numbers of coordinates differ"),
        (
            {"count": 1, "dimension": 1, "method": bd.SplitOperator(64, -1.0, 1.0)},
            "must find stationary states",
        ),
        ({"count": 10, "dimension": 1, "method": bd.HermiteFunctions(degree=5)}, "too few for 10 states"),
    ],
)
def test_bad_input(options, message):
    method = options.pop("method", bd.HermiteFunctions(degree=8))
    with pytest.raises(ValueError, match=message):
        bd.eigenstates(bd.Hamiltonian(bd.DoubleWell()), method, **options)
    driven = bd.Hamiltonian(lambda t, x: x[0] ** 2 * (1 + t))
    with pytest.raises(ValueError, match="depends on time has no stationary"):
        bd.ground_state(driven, bd.HermiteFunctions(degree=8), dimension=1)

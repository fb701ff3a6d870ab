import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.unchecked import unchecked_types

import bohmdiff as bd


def free(t, x):
    return jnp.zeros(())


def test_masses_and_kinetic_energy():
    one = bd.Hamiltonian(free, mass=2.0)
    np.testing.assert_array_equal(one.masses(3), [2.0, 2.0, 2.0])
    assert one.kinetic_energy(jnp.array([1.0, 2.0, 0.0])) == 5.0
    each = bd.Hamiltonian(free, mass=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(each.masses(3), [1.0, 2.0, 3.0])
    assert each.kinetic_energy(jnp.array([1.0, 2.0, -1.0])) == 0.5 * (1 + 8 + 3)
    assert bd.Hamiltonian(free).hbar == 1.0


def test_any_callable_is_a_potential():
    class Wall:
        def __call__(self, t, x):
            return jnp.sum(x**4)

    for potential in (free, Wall(), bd.DoubleWell(), bd.DoubleWell() + free):
        assert bd.Hamiltonian(potential).potential(0.0, jnp.ones(2)).shape == ()


def test_parameters_are_differentiable():
    def energy(mass, hbar):
        hamiltonian = bd.Hamiltonian(free, mass, hbar)
        return hamiltonian.kinetic_energy(jnp.array([1.0, 3.0])) * hamiltonian.hbar

    by_mass, by_hbar = jax.grad(energy, argnums=(0, 1))(jnp.array([2.0, 1.0]), 0.5)
    np.testing.assert_allclose(by_mass, [0.25, 2.25])
    np.testing.assert_allclose(by_hbar, 5.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mass": 0.0}, "mass must be positive, but 0. was given"),
        ({"mass": [1.0, -1.0]}, r"mass must be positive, but \[ 1., -1.\] was given"),
        ({"mass": [[1.0]]}, r"mass must be a scalar .* shape \(1, 1\)"),
        ({"mass": []}, r"mass must be a scalar .* shape \(0,\)"),
        ({"mass": np.nan}, "mass must be finite"),
        ({"mass": "heavy"}, "mass must be a real number .* 'heavy'"),
        ({"mass": 1j}, "mass must be a real number"),
        ({"hbar": 0.0}, "hbar must be positive, but 0. was given"),
        ({"hbar": -1.0}, "hbar must be positive"),
        ({"hbar": [1.0, 1.0]}, r"hbar must be a scalar, but shape \(2,\)"),
        ({"hbar": np.inf}, "hbar must be finite"),
        ({"potential": 3.0}, r"potential must be a callable V\(t, x\) -> scalar, but 3.0"),
    ],
)
def test_errors(arguments, message):
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.Hamiltonian(**{"potential": free, **arguments})


def test_a_bad_mass_under_jit_is_nan():
    energy = jax.jit(lambda m: bd.Hamiltonian(free, m).kinetic_energy(jnp.ones(2)))
    assert energy(2.0) == 2.0
    assert jnp.isnan(energy(-1.0))


def trap(frequency):
    return lambda t, x: 0.5 * frequency**2 * jnp.sum(x**2)


def test_functions_are_modules_with_their_numbers_as_leaves():
    one, other = bd.Hamiltonian(trap(1.0)), bd.Hamiltonian(trap(2.0))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((one, other)))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert jax.tree.structure(one) != jax.tree.structure(bd.Hamiltonian(free))
    energy = jax.jit(lambda h, x: h.potential(0.0, x))
    np.testing.assert_allclose([energy(h, jnp.ones(2)) for h in (one, other)], [1.0, 4.0])
    assert "trap" in repr(one)
    assert one.potential(t=0.0, x=jnp.ones(2)) == 1.0


def test_numbers_that_must_be_known_work_under_jit():
    def step(height):
        return lambda t, x: jnp.sum(x) * math.sqrt(height) if height > 1 else jnp.sum(x.reshape(-1, 2))

    for mass in (1.0, jnp.ones(2)):
        for height in (0.5, 4.0):
            hamiltonian = bd.Hamiltonian(step(height), mass)
            energy = jax.jit(lambda h: h.potential(0.0, jnp.ones(2)))(hamiltonian)
            np.testing.assert_allclose(energy, 2.0 if height < 1 else 4.0)


def test_adding_potentials():
    hamiltonian = bd.Hamiltonian(bd.DoubleWell(), mass=[1.0, 2.0], hbar=0.5)
    x = jnp.array([0.3, -0.2])
    for field in (trap(2.0), bd.Quadratic(4.0), bd.Quadratic(2.0) + bd.Quadratic(2.0)):
        both = hamiltonian + field
        np.testing.assert_allclose(both.potential(0.0, x), bd.DoubleWell()(0.0, x) + field(0.0, x))
        np.testing.assert_array_equal(both.mass, hamiltonian.mass)
        assert both.hbar == 0.5
    assert len((hamiltonian + trap(1.0) + trap(2.0)).potential.terms) == 3
    np.testing.assert_allclose((bd.Hamiltonian(trap(1.0)) + trap(1.0)).potential(0.0, x), x @ x)
    for other in (1.0, hamiltonian, "laser"):
        with pytest.raises(TypeError, match="unsupported operand"):
            hamiltonian + other


def test_parts_of_potentials_are_modules_too():
    shift = 0.2
    parts = [
        bd.PotentialSum(free, trap(1.0)),
        bd.ScaledPotential(trap(1.0), 2.0),
        bd.DoubleWell() - trap(1.0),
        bd.Quadratic(
            lambda t: shift * jnp.cos(t), linear=lambda t: 1.0 + shift * t, centre=lambda t: shift
        ),
    ]
    for potential in parts:
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(potential))
        values = [
            f(potential, jnp.ones(2)) for f in (jax.jit(lambda p, x: p(0.5, x)), lambda p, x: p(0.5, x))
        ]
        np.testing.assert_allclose(*values)
    by_shift = jax.grad(lambda p: p(0.5, jnp.ones(2)))(parts[-1])
    assert len(jax.tree.leaves(by_shift)) == 3

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


def test_a_bad_mass_under_jit_is_an_error_at_run_time():
    with pytest.raises(RuntimeError, match="mass must be positive"):
        jax.jit(lambda m: bd.Hamiltonian(free, m).kinetic_energy(jnp.ones(2)))(-1.0).block_until_ready()

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

import bohmdiff as bd
from bohmdiff._check import cast_floats
from tests.unchecked import unchecked_types

PACKET = bd.GaussianWavePacket(mean=[1.0, 0.0], covariance=0.5)


FOREIGN = (
    r"Functions of math, NumPy, SciPy and torch .* with jax.numpy, .*tabulate it with bd.TabulatedPotential"
)


def harmonic(t, x):
    return 0.5 * jnp.sum(x**2)


def like_torch(x):
    raise TypeError(f"sin(): argument 'input' (position 1) must be Tensor, not {type(x).__name__}")


def test_what_a_problem_knows():
    problem = bd.Problem(bd.Hamiltonian(harmonic, mass=[1.0, 2.0]), PACKET, t1=jnp.pi, t0=-1)
    assert problem.dimension == 2
    assert problem.dtype == jnp.float64
    assert problem.t0 == -1.0
    assert problem.t1 == jnp.pi


def test_the_initial_state_decides_the_precision():
    packet = bd.GaussianWavePacket(jnp.zeros(2, jnp.float32), 0.5)
    problem = bd.Problem(bd.Hamiltonian(bd.DoubleWell()), packet, t1=1.0)
    assert problem.dtype == jnp.float32


def test_the_end_is_differentiable():
    def end(t1):
        return bd.Problem(bd.Hamiltonian(harmonic), PACKET, t1=t1).t1 ** 2

    assert jax.grad(end)(3.0) == 6.0
    assert jnp.isnan(eqx.filter_jit(end)(-3.0))


def test_a_complex_parameter_stays_complex():
    z = 1.0 + 2.0j
    hamiltonian = bd.Hamiltonian(lambda t, x: jnp.real(z * jnp.exp(1j * x[0])))
    for dtype, kind in ((jnp.float32, jnp.complex64), (jnp.float64, jnp.complex128)):
        problem = bd.Problem(hamiltonian, bd.GaussianWavePacket(jnp.array([0.3], dtype), 0.5), t1=1.0)
        cast = cast_floats(problem, dtype)
        assert [leaf.dtype for leaf in jax.tree.leaves(cast.hamiltonian.potential)] == [kind]
        x = jnp.array([0.3], dtype)
        energy = jax.jit(lambda p, x: p.hamiltonian.potential(p.t0, x))(cast, x)
        assert energy.dtype == dtype
        np.testing.assert_allclose(energy, np.cos(0.3) - 2 * np.sin(0.3), rtol=1e-6)


SWAPPED = {
    "function": lambda x, t: 0.5 * jnp.sum(x**2),
    "term": bd.Quadratic(1.0) + (lambda x, t: jnp.sum(x**4)),
    "scaled term": bd.Quadratic(1.0) - bd.ScaledPotential(lambda x, t: jnp.sum(x**4), 0.5),
}


@pytest.mark.parametrize("name", SWAPPED)
def test_a_potential_of_the_time_alone_is_told(name):
    with pytest.warns(UserWarning, match=r"depends on t but not on x.*V\(t, x\), .*swap") as warned:
        bd.Problem(bd.Hamiltonian(SWAPPED[name]), PACKET, t1=1.0)
    assert [(one.filename, type(one.message)) for one in warned] == [(__file__, UserWarning)]


@pytest.mark.parametrize(
    "potential",
    [lambda t, x: jnp.zeros(()), lambda t, x: 0.0 * x[0] + jnp.sin(t), lambda t, x: -jnp.sin(t) * x[0]],
    ids=["free", "free, with a phase", "a uniform field"],
)
def test_free_particles_and_uniform_fields_are_not(potential):
    bd.Problem(bd.Hamiltonian(bd.Quadratic(1.0) + potential), PACKET, t1=1.0)
    bd.Problem(bd.Hamiltonian(potential), PACKET, t1=1.0)


def oscillator(length, mass, time, dtype=jnp.float32):
    """The same problem in any units: of an oscillator with ħ, mass and frequency of one."""
    energy = mass * length**2 / time**2
    return bd.Problem(
        bd.Hamiltonian(bd.Quadratic(energy / length**2), mass, energy * time),
        bd.GaussianWavePacket(jnp.array([length], dtype), 0.5 * length**2),
        t1=time,
    )


# Those of an electron in metres, kilograms and seconds; and units in which one product alone is out of range.
@pytest.mark.parametrize(
    ("units", "message"),
    [
        ((1e-10, 9.1e-31, 1e-16), r"ħ² = 8.28e-69 .* float32 .* 1.2e-38 .*bd.units.*jax_enable_x64"),
        ((1.0, 1e10, 1e25), r"ħ²/m = 1e-40"),
        ((1e-10, 1e-17, 1e-22), r"ħ dt = 1e-40"),
        ((1.0, 1e30, 1e5), r"ħ² = 1e\+50"),
    ],
)
def test_units_out_of_the_range_of_the_precision(units, message):
    with pytest.raises(ValueError, match=message):
        oscillator(*units)
    oscillator(*units, dtype=jnp.float64)


# Nuclei in atomic units, and an electron in eV with ångströms and femtoseconds, and with metres and seconds.
@pytest.mark.parametrize("units", [(0.1, 1e5, 1e4), (1.0, 0.057, 1.0), (1e-10, 5.7e-12, 1e-15)])
def test_units_in_the_range_of_the_precision(units):
    assert oscillator(*units).dtype == jnp.float32


def test_going_back_in_time_as_the_message_says():
    """The state at t0 - s, with its phase reversed, moves by the potential at t0 - s."""
    potential = bd.Quadratic(1.0, linear=lambda t: 0.5 * t)
    forward = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([1.0], 0.5, momentum=[0.3]), 2.0)
    there = bd.solve(forward, bd.GaussianDynamics(steps=64))
    # For a quadratic potential the centre moves as a classical particle.
    momentum = there.velocity(2.0, there.mean()[-1])
    reverse = bd.Quadratic(1.0, linear=lambda t: 0.5 * (2.0 - t))
    state = bd.GaussianWavePacket(there.mean()[-1], there.std()[-1] ** 2, momentum=-momentum)
    back = bd.solve(bd.Problem(bd.Hamiltonian(reverse), state, t1=2.0), bd.GaussianDynamics(steps=64))
    np.testing.assert_allclose(back.mean()[-1], [1.0], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t1": 0.0}, "t1 must be later than t0, but t0 = 0. and t1 = 0. were given"),
        (
            {"t1": 1.0, "t0": 2.0},
            r"solve forward with the phase .* reversed .* and with the potential V\(t0 - t, x\)",
        ),
        ({"t1": np.nan}, "t1 must be finite"),
        ({"t1": [1.0, 2.0]}, r"t0 and t1 must be scalars, but shapes \(\), \(2,\)"),
        ({"t1": "soon"}, "t1 must be a real number"),
        ({"hamiltonian": harmonic}, "Hamiltonian, but function was given. Wrap"),
        ({"initial": [1.0, 0.0]}, "initial state such as GaussianWavePacket, but list"),
        ({"hamiltonian": bd.Hamiltonian(harmonic, mass=[1.0, 1.0, 1.0])}, r"2 coordinates.*shape \(3,\)"),
        ({"hamiltonian": bd.Hamiltonian(harmonic, mass=[1.0])}, r"2 coordinates.*shape \(1,\)"),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: x**2)}, r"shape \(\).*but it returned shape \(2,\)"),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: jnp.sum(x) * 1j)}, "returned .* complex128"),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: x[0] > 0)}, "returned .* bool"),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: None)}, "returned NoneType"),
        (
            {"hamiltonian": bd.Hamiltonian(lambda t, x: 0.0)},
            r"returned float\. Return jnp\.asarray\(0\.0\)\.",
        ),
        (
            {"hamiltonian": bd.Hamiltonian(lambda x, t: x[0])},
            r"IndexError.*with x first, swap its arguments",
        ),
        (
            {"hamiltonian": bd.Hamiltonian(lambda x, t: jnp.sum(x**2) * t)},
            "returned shape.*with x first, swap",
        ),
        ({"hamiltonian": bd.Hamiltonian(lambda x: x[0])}, "could not be evaluated as potential.*TypeError"),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: x @ jnp.ones(3))}, "could not be evaluated"),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: math.sin(x[0]))}, FOREIGN),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: scipy.special.erf(x[0]))}, FOREIGN),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: x[0] if x[0] > 0 else 0 * x[0])}, FOREIGN),
        ({"hamiltonian": bd.Hamiltonian(lambda t, x: like_torch(x[0]))}, FOREIGN),
    ],
)
def test_errors(arguments, message):
    given = {"hamiltonian": bd.Hamiltonian(harmonic), "initial": PACKET, "t1": 1.0, **arguments}
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.Problem(**given)

"""Warnings of kinks and steps: for every potential that has some, and for no smooth one."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.ndimage import map_coordinates

import bohmdiff as bd
from bohmdiff.hamiltonian._smoothness import check_smoothness, warn_of_kinks

AXIS = np.linspace(-9.0, 9.0, 73)
PARABOLA = 0.5 * AXIS**2
FINE = np.linspace(-9.0, 9.0, 5001)
QUARTIC = 0.5 * AXIS[:, None] ** 2 + 0.05 * AXIS**4


def from_grid(order):
    return lambda t, x: map_coordinates(
        jnp.asarray(QUARTIC), list((x - AXIS[0]) / (AXIS[1] - AXIS[0])), order=order, mode="nearest"
    )


def cubic_with_jumps_of_the_second_derivative(t, x):
    """Catmull and Rom's spline through a cosine."""
    table, place = jnp.cos(2 * AXIS), (x[0] - AXIS[0]) / (AXIS[1] - AXIS[0])
    k = jnp.clip(jnp.floor(place).astype(int), 1, AXIS.size - 3)
    p0, p1, p2, p3 = (table[k + i] for i in (-1, 0, 1, 2))
    u = place - k
    return p1 + 0.5 * u * (p2 - p0 + u * (2 * p0 - 5 * p1 + 4 * p2 - p3 + u * (3 * (p1 - p2) + p3 - p0)))


SMOOTH = {
    "free": (lambda t, x: 0.0 * x[0], 1),
    "field": (lambda t, x: -76.4 + 3.0 * x[0], 1),
    "offset": (lambda t, x: 1e5 + 0.5 * x @ x, 2),
    "quadratic": (bd.Quadratic([1.0, 1e4]), 2),
    "morse": (bd.MorseChain(12.5, 0.2, 0.3), 4),
    "morse, tight": (bd.MorseChain(100.0, 3.0), 1),
    "double well": (bd.DoubleWell(5.0, 1.0), 3),
    "eckart": (bd.Eckart(1.0, 0.5), 1),
    "eckart, narrow": (bd.Eckart(10.0, 0.002), 1),
    "hénon-heiles": (bd.HenonHeiles(0.111803), 6),
    "bosons": (bd.InteractingBosons(1.0, 1.0, 0.1), 3),
    "bosons, short-ranged": (bd.InteractingBosons(1.0, 5.0, 0.001), 3),
    "polynomial": (lambda t, x: jnp.sum(x**6 - 3 * x**4 + x**2), 2),
    "gaussian": (lambda t, x: jnp.exp(-50 * x @ x), 2),
    "coulomb, soft": (lambda t, x: -1 / jnp.sqrt(x @ x + 0.01), 3),
    "coulomb, less soft": (lambda t, x: -1 / jnp.sqrt(x @ x + 1e-4), 1),
    "lennard-jones": (lambda t, x: 4 * (1 / (x[0] + 3.0) ** 12 - 1 / (x[0] + 3.0) ** 6), 1),
    "waves": (lambda t, x: jnp.sin(40 * x[0]), 1),
    "smooth step": (lambda t, x: jnp.tanh(x[0] / 0.01), 1),
    "second derivative that jumps": (lambda t, x: jnp.where(x[0] > 0, x[0] ** 2, 0.0), 1),
    "cubic spline of class C1": (cubic_with_jumps_of_the_second_derivative, 1),
    "table": (bd.TabulatedPotential(AXIS, np.cos(3 * AXIS)), 1),
    "table that the packet leaves": (bd.TabulatedPotential(AXIS[30:45], PARABOLA[30:45]), 1),
}
KINKS = {
    "jnp.interp": (lambda t, x: jnp.interp(x[0], AXIS, PARABOLA), 1),
    "jnp.interp, many points": (lambda t, x: jnp.interp(x[0], FINE, 0.5 * FINE**2), 1),
    "jnp.interp, six coordinates": (lambda t, x: jnp.sum(jnp.interp(x, AXIS, PARABOLA)), 6),
    "map_coordinates": (from_grid(1), 2),
    "modulus": (lambda t, x: jnp.abs(x[0]), 1),
    "a little modulus": (lambda t, x: 0.5 * x @ x + 0.2 * jnp.abs(x[1]), 3),
    "root": (lambda t, x: jnp.sqrt(x[0] ** 2), 1),
    "minimum": (lambda t, x: jnp.minimum(0.5 * x @ x, 1.0), 1),
}
STEPS = {
    "step": (lambda t, x: jnp.where(x[0] > 0.1, 1.0, 0.0), 1),
    "a little step": (lambda t, x: 0.5 * x @ x + jnp.where(x[0] > 0.1, 0.5, 0.0), 2),
    "round": (lambda t, x: jnp.round(10 * x @ x) / 10, 2),
    "nearest point": (from_grid(0), 2),
    "gradient that is left out": (lambda t, x: jax.lax.stop_gradient(x @ x), 1),
}


def said(case, dtype=jnp.float64, order=2):
    potential, d = case
    mean = jnp.full(d, 0.5 if d == 1 else 0.2, dtype)
    return check_smoothness(potential, 0.0, mean, jnp.full(d, 0.7071, dtype), order)


both = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


@both
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_potentials_are_not_warned_of(name, dtype):
    assert said(SMOOTH[name], dtype) is None


@both
@pytest.mark.parametrize("name", KINKS)
def test_kinks_are_found_by_second_derivatives_only(name, dtype):
    assert said(KINKS[name], dtype).startswith("The potential has a kink near x = ")
    assert said(KINKS[name], dtype, order=1) is None


@both
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("order", [1, 2])
def test_steps_are_found_by_forces(name, order, dtype):
    assert said(STEPS[name], dtype, order).startswith("The potential jumps near x = ")


def test_the_message_names_the_place_and_the_share():
    message = said(KINKS["a little modulus"])
    place, share = re.match(
        r"The potential has a kink near x = \[(.*)\], or .* wrong: (\d+)% of", message
    ).groups()
    assert abs(float(place.split(",")[1])) < 2e-3
    # Of a force that goes from about -2.3 to 2.3 there are 0.4 in the kink.
    assert int(share) == round(100 * 0.4 / (6 * 0.7071 + 0.4 + 0.05 * 2.3))
    message = said(STEPS["a little step"])
    assert float(re.search(r"x = \[(.*?),", message)[1]) == pytest.approx(0.1, abs=2e-3)


def hamiltonian_and_packet(case):
    potential, d = case
    return bd.Hamiltonian(potential), 0.0, jnp.full(d, 0.5), jnp.full(d, 0.7)


def test_one_warning_at_the_line_of_the_user():
    with pytest.warns(UserWarning, match="has a kink") as caught:
        warn_of_kinks(*hamiltonian_and_packet(KINKS["jnp.interp"]), order=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_kinks(*hamiltonian_and_packet(SMOOTH["morse"]), order=2)


def test_known_values_are_looked_at_inside_a_traced_function_too():
    arguments = hamiltonian_and_packet(KINKS["modulus"])

    @jax.jit
    def solves(a):
        warn_of_kinks(*arguments, order=2)
        return 2 * a

    with pytest.warns(UserWarning, match="has a kink"):
        assert solves(1.5) == 3.0


def test_traced_values_are_not_looked_at():
    _, t, mean, width = hamiltonian_and_packet(KINKS["modulus"])

    class Modulus(bd.AbstractPotential):
        height: jax.Array

        def __call__(self, t, x):
            return self.height * jnp.abs(x[0])

    @jax.jit
    def of_a_height(height):
        warn_of_kinks(bd.Hamiltonian(Modulus(height)), t, mean, width, order=2)
        # The value is seen only when the function is called.
        assert check_smoothness(lambda t, x: height * jnp.abs(x[0]), t, mean, width) is None
        return height

    of_a_mean = jax.jit(
        lambda mean: warn_of_kinks(bd.Hamiltonian(lambda t, x: jnp.abs(x[0])), t, mean, width, 2)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_a_height(jnp.array(1.0))
        of_a_mean(mean)


def test_a_potential_is_traced_once():
    traces = 0

    class Counted(bd.AbstractPotential):
        stiffness: jax.Array

        def __call__(self, t, x):
            nonlocal traces
            traces += 1
            return 0.5 * self.stiffness * x @ x

    for stiffness in (1.0, 2.0, 3.0):
        check_smoothness(Counted(jnp.array(stiffness)), stiffness, jnp.zeros(2) + stiffness, jnp.ones(2))
    assert traces == 1


def test_functions_that_only_reverse_differentiation_knows():
    @jax.custom_vjp
    def square(x):
        return x @ x

    square.defvjp(lambda x: (x @ x, x), lambda x, c: (2 * c * x,))
    assert check_smoothness(lambda t, x: square(x), 0.0, jnp.zeros(2), jnp.ones(2)) is None
    wrong = jax.custom_vjp(lambda x: x @ x)
    wrong.defvjp(lambda x: (x @ x, x), lambda x, c: (3 * c * x,))
    assert "gradient is wrong" in check_smoothness(lambda t, x: wrong(x), 0.0, jnp.zeros(2), jnp.ones(2))

"""Potentials against formulas written a second time in NumPy, their derivatives, algebra and errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff._check import cast_floats

K = np.array([[1.0, 0.3, 0.0], [0.3, -0.5, 0.2], [0.0, 0.2, 2.0]])
C = np.array([0.5, -0.2, 0.1])
B = np.array([0.1, 0.0, -0.4])


def np_quadratic(t, x):
    y = x - C * np.cos(t)
    return 0.5 * y @ (K * (1 + t)) @ y + np.sin(t) * B @ x


def np_morse(t, x):
    wells = sum(12.5 * (1 - np.exp(-0.2 * xi)) ** 2 for xi in x)
    return wells + 0.3 * sum(x[i] * x[i + 1] for i in range(len(x) - 1))


def np_double_well(t, x):
    return sum(1.5 * (xi**2 / 2.5**2 - 1) ** 2 for xi in x)


def np_henon_heiles(t, x):
    w = np.array([1.0, 1.1, 0.9])
    cubic = sum(x[i] ** 2 * x[i + 1] - x[i + 1] ** 3 / 3 for i in range(len(x) - 1))
    return 0.5 * np.sum(w**2 * x**2) + 0.111803 * cubic


def np_eckart(t, x):
    return 1.3 / np.cosh(x[1] / 0.7) ** 2


def np_bosons(t, x):
    trap = 0.5 * 1.2 * 0.9**2 * np.sum(x**2)
    pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i < j]
    normal = [np.exp(-((x[i] - x[j]) ** 2) / (2 * 0.1)) / np.sqrt(2 * np.pi * 0.1) for i, j in pairs]
    return trap + 1.4 / 2 * sum(normal)


CASES = {
    "quadratic": (
        bd.Quadratic(
            matrix=lambda t: (1 + t) * jnp.asarray(K),
            centre=lambda t: jnp.cos(t) * jnp.asarray(C),
            linear=lambda t: jnp.sin(t) * jnp.asarray(B),
        ),
        np_quadratic,
    ),
    "morse": (bd.MorseChain(depth=12.5, width=0.2, coupling=0.3), np_morse),
    "double well": (bd.DoubleWell(barrier=1.5, minimum=2.5), np_double_well),
    "henon-heiles": (bd.HenonHeiles(coupling=0.111803, frequency=[1.0, 1.1, 0.9]), np_henon_heiles),
    "eckart": (bd.Eckart(height=1.3, width=0.7, coordinate=1), np_eckart),
    "bosons": (bd.InteractingBosons(0.9, repulsion=1.4, variance=0.1, mass=1.2), np_bosons),
}
COMPILED = {name: eqx.filter_jit(eqx.filter_value_and_grad(lambda x, V, t: V(t, x))) for name in CASES}
every_potential = pytest.mark.parametrize("name", CASES)
particles = arrays(np.float64, (3,), elements=st.floats(-3.0, 3.0))
times = st.floats(0.0, 2.0)


@every_potential
@given(x=particles, t=times)
@settings(max_examples=25)
def test_value_and_gradient(name, x, t):
    potential, reference = CASES[name]
    value, gradient = COMPILED[name](jnp.asarray(x), potential, jnp.asarray(t))
    np.testing.assert_allclose(value, reference(t, x), rtol=1e-11, atol=1e-11)
    h = 1e-4
    differences = [(reference(t, x + h * e) - reference(t, x - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-5)


@every_potential
def test_parameters_are_differentiable(name):
    potential, _ = CASES[name]
    x = jnp.array([0.4, -0.7, 0.9])
    if name == "quadratic":
        potential = bd.Quadratic(matrix=K, centre=C, linear=B)
    parameters, rest = eqx.partition(potential, eqx.is_inexact_array)
    value = eqx.filter_jit(lambda parameters: eqx.combine(parameters, rest)(0.3, x))
    leaves, tree = jax.tree.flatten(parameters)
    gradient = jax.tree.leaves(jax.grad(value)(parameters))
    assert len(leaves) == len(gradient) >= 2
    rng = np.random.default_rng(0)
    for k, leaf in enumerate(leaves):
        direction = rng.normal(size=leaf.shape)
        h = 1e-5
        up, down = list(leaves), list(leaves)
        up[k], down[k] = leaf + h * direction, leaf - h * direction
        difference = (value(tree.unflatten(up)) - value(tree.unflatten(down))) / (2 * h)
        np.testing.assert_allclose(jnp.sum(gradient[k] * direction), difference, rtol=1e-6, atol=1e-9)
        assert jnp.any(gradient[k] != 0)


def test_parameters_are_differentiable_through_the_constructor():
    x = jnp.array([1.0, -0.5])

    def energy(depth):
        return bd.MorseChain(depth, 0.2, 0.3)(0.0, x)

    expected = jnp.sum((1 - jnp.exp(-0.2 * x)) ** 2)
    np.testing.assert_allclose(jax.grad(energy)(12.5), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(energy))(12.5), expected, rtol=1e-12)


def test_a_bad_parameter_under_jit_is_nan():
    energy = eqx.filter_jit(lambda depth: bd.MorseChain(depth, 0.2, 0.3)(0.0, jnp.ones(2)))
    assert jnp.isfinite(energy(jnp.array(1.0)))
    assert jnp.isnan(energy(jnp.array(-1.0)))


@every_potential
def test_vmap_is_a_loop(name):
    potential, _ = CASES[name]
    xs = jax.random.normal(jax.random.key(0), (5, 3))
    batched = jax.vmap(potential, in_axes=(None, 0))(0.3, xs)
    np.testing.assert_allclose(batched, [potential(0.3, x) for x in xs], rtol=1e-12)


@every_potential
def test_float32(name):
    potential = cast_floats(CASES[name][0], jnp.float32)
    if name == "quadratic":
        # Such functions return double precision here, whatever the precision of the problem.
        potential = bd.Quadratic(lambda t: K, lambda t: C, lambda t: B)
    t, x = jnp.float32(0.3), jnp.array([0.4, -0.7, 0.9], jnp.float32)
    value, gradient = jax.value_and_grad(potential, argnums=1)(t, x)
    assert value.dtype == gradient.dtype == jnp.float32
    doubled = 2.0 * potential / 3 - potential
    assert cast_floats(doubled, jnp.float32)(t, x).dtype == jnp.float32


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    "potential", [bd.Eckart(1.3, 0.7), bd.InteractingBosons(0.0, 1.0, 0.1)], ids=["eckart", "bosons"]
)
def test_short_ranged_terms_vanish_smoothly_far_out(potential, dtype):
    potential = cast_floats(potential, dtype)

    def along(r):
        return potential(jnp.zeros((), dtype), jnp.stack([r, -r]))

    derivatives = [along]
    for _ in range(5):
        derivatives.append(jax.grad(derivatives[-1]))
    ladder = jax.jit(jax.vmap(lambda r: jnp.stack([f(r) for f in derivatives])))
    far = ladder(jnp.array([-1e15, -3e4, -1e3, -200.0, 200.0, 1e3, 3e4, 1e15], dtype))
    np.testing.assert_allclose(far, np.zeros_like(far), atol=1e-200)
    tail = ladder(jnp.array([-3.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 3.0], dtype))
    assert jnp.all(jnp.isfinite(tail))
    assert jnp.all(tail[2:5, 2] < -1.0)  # curved at the top, also at zero itself


def test_the_tail_of_the_barrier_keeps_its_relative_precision():
    potential = bd.Eckart(1.0, 1.0)
    value, slope = jax.value_and_grad(lambda r: potential(0.0, r[None]))(jnp.array(30.0))
    np.testing.assert_allclose(value, 4 * np.exp(-60.0), rtol=1e-12)
    np.testing.assert_allclose(slope, -8 * np.exp(-60.0), rtol=1e-12)


def test_pair_energy_of_two_bosons_at_the_same_place():
    potential = bd.InteractingBosons(frequency=1.0, repulsion=1.0, variance=0.1)
    np.testing.assert_allclose(potential(0.0, jnp.zeros(2)), 0.5 / np.sqrt(2 * np.pi * 0.1), rtol=1e-14)
    np.testing.assert_allclose(
        potential(0.0, jnp.zeros(5)), 10 * potential(0.0, jnp.zeros(2)), rtol=1e-14
    )  # ten pairs, each once
    assert potential(0.0, jnp.array([2.0])) == 2.0  # one boson has no pair


def test_well_bottom_has_the_documented_frequency():
    hessian = jax.hessian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.3), argnums=1)(0.0, jnp.zeros(4))
    expected = np.eye(4) + 0.3 * (np.eye(4, k=1) + np.eye(4, k=-1))
    np.testing.assert_allclose(hessian, expected, atol=1e-12)


def test_parameters_for_each_coordinate():
    x = jnp.array([0.3, -0.8])
    for make in (
        lambda a: bd.MorseChain(depth=a, width=0.3, coupling=0.0),
        lambda a: bd.MorseChain(depth=2.0, width=a, coupling=0.0),
        lambda a: bd.DoubleWell(barrier=a),
        lambda a: bd.DoubleWell(minimum=a),
        lambda a: bd.Quadratic(a),
        lambda a: bd.Quadratic(1.0, centre=a),
        lambda a: bd.Quadratic(1.0, linear=a),
    ):
        both = make([0.5, 2.0])(0.0, x)
        one_by_one = make(0.5)(0.0, x[:1]) + make(2.0)(0.0, x[1:])
        np.testing.assert_allclose(both, one_by_one, rtol=1e-13)
    diagonal = bd.Quadratic([0.5, 2.0])(0.0, x)
    np.testing.assert_allclose(diagonal, bd.Quadratic(np.diag([0.5, 2.0]))(0.0, x), rtol=1e-14)


def test_only_the_symmetric_part_of_a_matrix_function_counts():
    x = jnp.array([0.3, -0.8])
    skew = bd.Quadratic(lambda t: jnp.array([[1.0, 0.5 + t], [0.5 - t, 2.0]]))
    plain = bd.Quadratic([[1.0, 0.5], [0.5, 2.0]])
    got = jax.value_and_grad(skew, argnums=1)(0.4, x)
    want = jax.value_and_grad(plain, argnums=1)(0.4, x)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-14)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-14)


V, W = bd.MorseChain(12.5, 0.2, 0.3), bd.DoubleWell()


def field(t, x):
    return t * x[0]


@pytest.mark.parametrize(
    ("combined", "weights"),
    [
        (V + W, (1, 1, 0)),
        (V + field, (1, 0, 1)),
        (field + V, (1, 0, 1)),
        (sum([V, W, field]), (1, 1, 1)),
        (sum([V, W]) + sum([W, field], start=V), (2, 2, 1)),
        (V - W, (1, -1, 0)),
        (V - field, (1, 0, -1)),
        (field - V, (-1, 0, 1)),
        (2.0 * V, (2, 0, 0)),
        (V * 2, (2, 0, 0)),
        (np.float64(2.0) * V, (2, 0, 0)),
        (jnp.array(2.0) * V + W * np.array(0.5), (2, 0.5, 0)),
        (-V, (-1, 0, 0)),
        (V / 4, (0.25, 0, 0)),
        (-(2 * (V + field) - W) / 2, (-1, 0.5, -1)),
        (0 * V + bd.PotentialSum(field), (0, 0, 1)),
    ],
)
def test_algebra(combined, weights):
    t, x = jnp.array(0.7), jnp.array([0.4, -0.7, 0.9])
    assert isinstance(combined, bd.AbstractPotential)
    expected = weights[0] * V(t, x) + weights[1] * W(t, x) + weights[2] * field(t, x)
    np.testing.assert_allclose(combined(t, x), expected, rtol=1e-13)


def test_sums_stay_flat():
    assert len((V + W + field + (V + W)).terms) == 5


def test_factor_is_differentiable():
    x = jnp.array([0.4, -0.7])
    slope = jax.grad(lambda a: (a * V + W / a)(0.0, x))(2.0)
    np.testing.assert_allclose(slope, V(0.0, x) - W(0.0, x) / 4, rtol=1e-12)


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: V + 1.0,
        lambda: 1.0 + V,
        lambda: V - 1.0,
        lambda: 1.0 - V,
        lambda: V * W,
        lambda: V / W,
        lambda: 1.0 / V,
    ],
)
def test_algebra_that_is_none(nonsense):
    with unchecked_types(), pytest.raises(TypeError, match="unsupported operand"):
        nonsense()


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bd.Quadratic([[1.0, 0.2], [0.3, 1.0]]), r"symmetric, but \[\[1. , 0.2\], \[0.3, 1. \]\]"),
        (lambda: bd.Quadratic(np.ones((2, 3))), r"\(d, d\), but shape \(2, 3\)"),
        (lambda: bd.Quadratic(np.ones((2, 2, 2))), r"shape \(2, 2, 2\)"),
        (lambda: bd.Quadratic([1.0, NAN]), "matrix must be finite"),
        (lambda: bd.Quadratic("stiff"), "matrix must be a real number"),
        (lambda: bd.Quadratic(1j), "matrix must be a real number"),
        (lambda: bd.Quadratic(np.eye(2), centre=np.eye(2)), r"centre must be a number .* \(2, 2\)"),
        (lambda: bd.Quadratic(np.eye(2), linear=np.ones(3)), r"agree .* matrix \(2, 2\), linear \(3,\)"),
        (lambda: bd.Quadratic([]), r"shape \(0,\)"),
        (lambda: bd.MorseChain(-1.0, 0.2, 0.3), "depth must be positive, but -1. was given"),
        (lambda: bd.MorseChain(1.0, [0.2, 0.0], 0.3), r"width must be positive, but \[0.2, 0. \]"),
        (lambda: bd.MorseChain(1.0, 0.2, [0.3, 0.3]), "coupling must be a single number"),
        (lambda: bd.DoubleWell(barrier=0.0), "barrier must be positive"),
        (lambda: bd.DoubleWell(minimum=-2.0), "minimum must be positive"),
        (lambda: bd.HenonHeiles(np.inf), "coupling must be finite"),
        (lambda: bd.HenonHeiles(0.1, np.eye(2)), r"frequency must be a number or .* shape \(2, 2\)"),
        (lambda: bd.Eckart(1.0, 0.0), "width must be positive"),
        (lambda: bd.Eckart([1.0, 2.0], 1.0), r"height must be a single number, but shape \(2,\)"),
        (lambda: bd.Eckart(1.0, 1.0, coordinate=-1), "coordinate must be the index .* but -1"),
        (lambda: bd.Eckart(1.0, 1.0, coordinate=0.5), "coordinate must be the index .* but 0.5"),
        (lambda: bd.InteractingBosons(variance=0.0), "variance must be positive"),
        (lambda: bd.InteractingBosons(mass=-1.0), "mass must be positive"),
        (lambda: bd.InteractingBosons(frequency=-1.0), "frequency must not be negative"),
        (lambda: bd.PotentialSum(), "at least one term"),
        (lambda: bd.PotentialSum(V, 3.0), "must be a potential .* but 3.0"),
        (lambda: bd.ScaledPotential(3.0, 2.0), "Only a potential"),
        (lambda: "two" * V, "factor of a potential must be a real number"),
        (lambda: V * jnp.ones(3), r"factor of a potential must be a single number, but shape \(3,\)"),
        (lambda: V / 0.0, "must be finite"),
    ],
)
def test_errors_at_construction(make, message):
    with unchecked_types(), pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("potential", "d", "message"),
    [
        (bd.Quadratic(np.eye(2)), 3, r"matrix has shape \(2, 2\).*3 coordinates"),
        (bd.Quadratic(lambda t: jnp.ones((3, 2))), 3, r"matrix has shape \(3, 2\)"),
        (bd.Quadratic(1.0, centre=lambda t: jnp.ones(2)), 3, r"centre has shape \(2,\)"),
        (bd.Quadratic(1.0, linear=[1.0, 2.0]), 3, r"linear has shape \(2,\)"),
        (bd.MorseChain([1.0, 2.0], 0.2, 0.3), 3, r"depth has shape \(2,\)"),
        (bd.MorseChain(1.0, [0.2, 0.3], 0.3), 1, r"width has shape \(2,\)"),
        (bd.DoubleWell(minimum=[1.0, 2.0]), 3, r"minimum has shape \(2,\)"),
        (bd.HenonHeiles(0.1), 1, "at least two coordinates, but 1"),
        (bd.HenonHeiles(0.1, [1.0, 1.0]), 3, r"frequency has shape \(2,\)"),
        (bd.Eckart(1.0, 1.0, coordinate=2), 2, "along coordinate 2, but x has only 2 coordinates"),
    ],
)
def test_errors_for_a_particle_that_does_not_fit(potential, d, message):
    with pytest.raises(ValueError, match=message):
        potential(0.0, jnp.ones(d))
    # A problem says so before any work starts.
    with pytest.raises(ValueError, match=message):
        bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket(np.zeros(d), 1.0), t1=1.0)

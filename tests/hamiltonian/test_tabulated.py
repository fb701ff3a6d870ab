"""Tables against the functions that they were made from, SciPy's splines and finite differences."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from scipy.interpolate import CubicSpline
from tests.test_docs import blocks
from tests.unchecked import unchecked_types

import bohmdiff as bd
import bohmdiff.testing
from bohmdiff._check import cast_floats

# Not equally spaced, and of different lengths, so that no two coordinates can be confused.
AXES = [
    np.array([-2.0, -1.3, -0.9, -0.1, 0.4, 1.1, 1.5, 2.0]),
    np.linspace(-1.5, 1.8, 6),
    np.array([-1.0, -0.4, 0.3, 1.2]),
    np.array([-1.2, -0.7, 0.1, 0.6, 1.0]),
]
RNG = np.random.default_rng(0)


def on_grid(function, axes):
    return function(*np.meshgrid(*axes, indexing="ij"))


def at(potential, points):
    return jax.jit(jax.vmap(lambda x: potential(0.0, x)))(points)


def random_table(d, outside="nan"):
    """A potential through random numbers, and those."""
    values = RNG.normal(size=tuple(axis.size for axis in AXES[:d]))
    return bd.TabulatedPotential(AXES[:d], values, outside=outside), values


def one_axis_after_the_other(values, x):
    for axis, y in zip(AXES, x, strict=False):
        values = CubicSpline(axis, values)(y)
    return values


def inside(d, n=50):
    low, high = zip(*((axis[0], axis[-1]) for axis in AXES[:d]), strict=True)
    return jnp.asarray(RNG.uniform(low, high, (n, d)))


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_the_table_is_kept_and_between_its_points_the_spline_is_that_of_scipy(d):
    potential, values = random_table(d)
    points = np.stack(np.meshgrid(*AXES[:d], indexing="ij"), axis=-1).reshape(-1, d)
    at_points = at(potential, jnp.asarray(points))
    np.testing.assert_allclose(at_points, values.ravel(), atol=1e-12)
    np.testing.assert_allclose(potential.values, values, atol=1e-12)
    x = inside(d)
    reference = [one_axis_after_the_other(values, y) for y in x]
    np.testing.assert_allclose(at(potential, x), reference, atol=1e-11)
    assert potential.coefficients.shape == values.shape


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_a_cubic_polynomial_is_reproduced_with_all_its_derivatives(d):
    c = RNG.normal(size=(d, 4))

    def polynomial(*x):
        factors = [c[k, 0] + y * (c[k, 1] + y * (c[k, 2] + y * c[k, 3])) for k, y in enumerate(x)]
        product = factors[0]
        for factor in factors[1:]:
            product = product * factor
        return product

    potential = bd.TabulatedPotential(AXES[:d], on_grid(polynomial, AXES[:d]))
    x = inside(d)
    ours, exact = lambda x: potential(0.0, x), lambda x: polynomial(*x)
    for derivative in (lambda f: f, jax.grad, jax.hessian, lambda f: jax.jacfwd(jax.hessian(f))):
        wanted = jax.jit(jax.vmap(derivative(exact)))(x)
        scale = jnp.max(jnp.abs(wanted))
        np.testing.assert_allclose(jax.jit(jax.vmap(derivative(ours)))(x), wanted, atol=1e-11 * scale)
        if d == 4 and wanted.ndim == 3:  # third derivatives of four coordinates compile for long
            return


def test_every_law_of_potentials_holds():
    axes = [np.linspace(-3.0, 3.0, 9), np.linspace(-2.5, 2.5, 7)]
    values = on_grid(lambda x, y: 0.5 * x**2 + 0.3 * x * y**2 - 0.2 * x**3 + 0.1 * y**3, axes)
    bohmdiff.testing.check_potential(bd.TabulatedPotential(axes, values), 2, time_dependent=False)


@pytest.mark.parametrize("d", [1, 2])
def test_the_error_falls_with_the_fourth_power_of_the_spacing(d):
    x = jnp.asarray(np.random.default_rng(1).uniform(-2.0, 2.0, (400, d)))

    def wave(*y):
        return np.sin(sum((k + 1) * one for k, one in enumerate(y)) + 0.3)

    errors = []
    for n in (17, 33, 65):
        axes = [np.linspace(-2.0, 2.0, n)] * d
        potential = bd.TabulatedPotential(axes, on_grid(wave, axes))
        errors.append(np.max(np.abs(at(potential, x) - wave(*x.T))))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 3.6) & (orders < 4.8)), orders


def test_second_derivatives_are_continuous_and_third_ones_jump():
    potential, _ = random_table(2)
    hessian = jax.jit(jax.vmap(jax.hessian(lambda x: potential(0.0, x))))
    third = jax.jit(jax.vmap(jax.jacfwd(jax.hessian(lambda x: potential(0.0, x)))))
    for k in range(2):
        knots = AXES[k][1:-1]
        x = np.full((knots.size, 2), 0.123)
        x[:, k] = knots
        step = 1e-10 * np.eye(2)[k]
        below, above = jnp.asarray(x - step), jnp.asarray(x + step)
        np.testing.assert_allclose(hessian(below), hessian(above), atol=1e-7)
        assert np.all(np.isfinite(third(above)))
        jumps = np.abs(third(above) - third(below))[:, k, k, k]
        # Not at the second and the last but one point: not-a-knot.
        assert np.all(jumps[1:-1] > 0.1)
        np.testing.assert_allclose(jumps[[0, -1]], 0, atol=1e-7)


@pytest.mark.parametrize("d", [1, 3])
def test_gradients_by_the_values(d):
    _, values = random_table(d)
    x = inside(d, 5)

    @jax.jit
    def loss(values):
        potential = bd.TabulatedPotential(AXES[:d], values)
        return jnp.sum(jnp.sin(jax.vmap(jax.grad(lambda y: potential(0.0, y)))(x)))

    direction = RNG.normal(size=values.shape)
    h = 1e-5
    difference = (loss(values + h * direction) - loss(values - h * direction)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(jax.grad(loss)(values) * direction), difference, rtol=1e-7)


def test_traced_values_give_the_same_spline():
    potential, values = random_table(3)
    traced = eqx.filter_jit(lambda values: bd.TabulatedPotential(AXES[:3], values))(jnp.asarray(values))
    np.testing.assert_allclose(traced.coefficients, potential.coefficients, rtol=1e-10, atol=1e-12)
    assert jax.tree.structure(traced) == jax.tree.structure(potential)
    assert eqx.tree_equal(potential, bd.TabulatedPotential(AXES[:3], values))


def test_vmap_is_a_loop_also_over_tables():
    potential, values = random_table(2)
    x = inside(2, 4)
    batched = at(potential, x)
    np.testing.assert_allclose(batched, [potential(0.0, y) for y in x], rtol=1e-12)
    tables = jnp.stack([values, 2 * values])
    both = jax.vmap(lambda v: bd.TabulatedPotential(AXES[:2], v)(0.0, x[0]))(tables)
    np.testing.assert_allclose(both, [batched[0], 2 * batched[0]], rtol=1e-10)


def test_a_long_axis():
    axis = np.linspace(-5.0, 5.0, 3000)
    potential = bd.TabulatedPotential(axis, np.cos(axis))
    x = jnp.linspace(-5.0, 5.0, 101)[:, None]
    np.testing.assert_allclose(at(potential, x), np.cos(x[:, 0]), atol=1e-12)


def test_float32():
    axes = [np.linspace(-5.0, 5.0, 41)] * 2
    values = on_grid(lambda x, y: 0.5 * x**2 + 0.1 * x * y**2, axes)
    for potential in (
        cast_floats(bd.TabulatedPotential(axes, values), jnp.float32),
        bd.TabulatedPotential(axes, values.astype(np.float32)),
    ):
        x = jnp.array([1.3, -0.4], jnp.float32)
        value, gradient = jax.jit(jax.value_and_grad(potential, argnums=1))(jnp.float32(0.0), x)
        assert value.dtype == gradient.dtype == jnp.float32
        np.testing.assert_allclose(value, 0.5 * 1.3**2 + 0.1 * 1.3 * 0.4**2, rtol=1e-6)
        np.testing.assert_allclose(gradient, [1.3 + 0.1 * 0.4**2, -0.2 * 1.3 * 0.4], rtol=1e-5)
        edge = jnp.array([5.0, -5.0], jnp.float32)
        np.testing.assert_allclose(potential(0.0, edge), 25.0, rtol=1e-6)


BEYOND = [[2.3, 0.1], [-2.7, 0.1], [0.1, 1.9], [2.3, -1.6]]
LOW, HIGH = np.array([-2.0, -1.5]), np.array([2.0, 1.8])


@functools.cache
def value_force_and_curvature(outside):
    potential, _ = random_table(2, outside)
    f = functools.partial(potential, 0.0)
    return jax.jit(lambda x: (f(x), jax.grad(f)(x), jax.hessian(f)(x)))


def test_outside_everything_is_nan_unless_something_else_is_chosen():
    potential, _ = random_table(2)
    third = jax.jit(jax.vmap(jax.jacfwd(jax.hessian(functools.partial(potential, 0.0)))))
    assert np.all(np.isnan(third(jnp.array(BEYOND))))
    for x in BEYOND:
        for values in value_force_and_curvature("nan")(jnp.array(x)):
            assert np.all(np.isnan(values))


@pytest.mark.parametrize("outside", ["nan", "linear", "clip"])
@pytest.mark.parametrize("corner", [LOW, HIGH], ids=["low", "high"])
def test_the_edge_belongs_to_the_table(corner, outside):
    at_point = value_force_and_curvature(outside)
    for ours, near in zip(
        at_point(jnp.array(corner)), at_point(jnp.array(corner * (1 - 1e-10))), strict=True
    ):
        np.testing.assert_allclose(ours, near, atol=1e-7)
        assert np.all(np.abs(ours) > 1e-3)


@pytest.mark.parametrize("x", BEYOND)
def test_outside_linear_continues_value_and_slope(x):
    at_point = value_force_and_curvature("linear")
    edge = np.clip(x, LOW, HIGH)
    past = x - edge
    value, slope, curvature = at_point(jnp.array(edge))
    beyond, _, flat = at_point(jnp.array(x))
    # The tensor product: in a corner also the mixed derivative.
    np.testing.assert_allclose(
        beyond, value + slope @ past + curvature[0, 1] * past[0] * past[1], rtol=1e-9
    )
    np.testing.assert_allclose(jnp.diag(flat)[past != 0], 0, atol=1e-9)


@pytest.mark.parametrize("x", BEYOND)
def test_outside_clip_continues_the_value_without_a_force(x):
    at_point = value_force_and_curvature("clip")
    edge = np.clip(x, LOW, HIGH)
    value, slope, _ = at_point(jnp.array(edge))
    beyond, force, _ = at_point(jnp.array(x))
    np.testing.assert_allclose(beyond, value, rtol=1e-10)
    np.testing.assert_array_equal(force[x != edge], 0)
    np.testing.assert_allclose(force[x == edge], slope[x == edge], rtol=1e-9)


@pytest.mark.parametrize(("coordinate", "edge"), [(0, -2.0), (0, 2.0), (1, -1.5), (1, 1.8)])
def test_the_force_is_continuous_at_the_edge_of_a_table_that_continues_linearly(coordinate, edge):
    x = np.array([2.4, 2.4])  # outside along the other one
    x[coordinate] = edge
    step = 1e-10 * np.eye(2)[coordinate]
    _, above, _ = value_force_and_curvature("linear")(jnp.array(x + step))
    _, below, _ = value_force_and_curvature("linear")(jnp.array(x - step))
    np.testing.assert_allclose(above, below, atol=1e-7)


def test_from_text(tmp_path):
    x, y = np.array([-1.0, 0.0, 0.5, 2.0, 3.0]), np.array([0.0, 1.0, 2.5, 3.0])
    values = RNG.normal(size=(5, 4))
    rows = np.stack([*np.meshgrid(x, y, indexing="ij"), values], axis=-1).reshape(-1, 3)
    path = tmp_path / "table.txt"
    np.savetxt(path, RNG.permutation(rows), header="x y V", fmt="%.17g")
    read = bd.TabulatedPotential.from_text(path, outside="linear")
    assert eqx.tree_equal(read, bd.TabulatedPotential([x, y], values, outside="linear"))
    scaled = bd.TabulatedPotential.from_text(str(path), length=2.0, energy=3.0)
    assert eqx.tree_equal(scaled, bd.TabulatedPotential([2 * x, 2 * y], 3 * values))
    np.savetxt(path, rows, delimiter=",")
    np.testing.assert_allclose(
        bd.TabulatedPotential.from_text(path, delimiter=",").values, values, atol=1e-12
    )
    curve = np.stack([x, x**3], axis=1)
    np.savetxt(path, curve)
    np.testing.assert_allclose(bd.TabulatedPotential.from_text(path)(0.0, jnp.array([1.7])), 1.7**3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n1 x\n", "must have rows x1 .* of numbers"),
        ("0 1\n1 2 3\n", "must have rows x1 .* of numbers"),
        ("1\n2\n3\n4\n", "must have columns x1 ... xd V, but has 1"),
        ("0 1\n1 nan\n2 3\n3 4\n", "must have finite numbers, but row 2 is"),
        ("0 0 1\n0 1 2\n1 0 3\n", r"2 × 2 points once each, but \(1, 1\) is there 0 times"),
        ("0 1\n1 2\n1 2\n2 3\n3 4\n", r"4 points once each, but \(1\) is there 2 times"),
        ("0 1\n1 2\n2 3\n", "at least 4 points"),
        ("# nothing\n", "must have columns x1 ... xd V"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt:UserWarning")
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "table.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        bd.TabulatedPotential.from_text(path)


def test_from_xarray():
    x, y = np.array([-1.0, 0.0, 0.5, 2.0, 3.0]), np.array([0.0, 1.0, 2.5, 3.0])
    values = RNG.normal(size=(5, 4))
    expected = bd.TabulatedPotential([x, y], values, outside="clip")
    data = xarray.DataArray(values, coords={"r": x, "R": y})
    backwards = data.isel(r=slice(None, None, -1))
    for one in (data, backwards):
        assert eqx.tree_equal(bd.TabulatedPotential.from_xarray(one, outside="clip"), expected)
    with pytest.raises(ValueError, match="dimension of data must have a coordinate, but R has none"):
        bd.TabulatedPotential.from_xarray(xarray.DataArray(values, dims=("r", "R"), coords={"r": x}))
    with (
        unchecked_types(),
        pytest.raises(ValueError, match=r"must be an xarray\.DataArray, but ndarray was given"),
    ):
        bd.TabulatedPotential.from_xarray(values)


LINE = np.linspace(0.0, 1.0, 5)


@pytest.mark.parametrize(
    ("axes", "values", "options", "message"),
    [
        ([LINE[:3]], np.zeros(3), {}, r"at least 4 points, but axis 0 has shape \(3,\)"),
        ([LINE, LINE[::-1]], np.zeros((5, 5)), {}, "must increase, but on axis 1 1 is followed by 0.75"),
        ([[0.0, 1.0, 1.0, 2.0]], np.zeros(4), {}, "on axis 0 1 is followed by 1"),
        ([LINE, LINE], np.zeros((5, 4)), {}, r"of shape \(5, 5\) for these axes, but shape \(5, 4\)"),
        (LINE, np.zeros((5, 1)), {}, r"of shape \(5,\) for these axes, but shape \(5, 1\)"),
        ([LINE] * 5, np.zeros((5,) * 5), {}, "one to 4 arrays, but 5 were given"),
        ([], np.zeros(()), {}, "one to 4 arrays, but 0 were given"),
        ([LINE], [0.0, 1.0, np.nan, 2.0, 3.0], {}, "values must be finite"),
        ([[0.0, 1.0, np.inf, 2.0]], np.zeros(4), {}, "must be finite, but those of axis 0 are not"),
        ([np.zeros((2, 4))], np.zeros(4), {}, r"axis 0 has shape \(2, 4\)"),
        (3.0, np.zeros(4), {}, "axes must be a sequence of arrays"),
        (["a", "b"], np.zeros(4), {}, "axes must be a sequence of arrays"),
        ([LINE], np.array(["a"] * 5), {}, "values must be a real number"),
        ([LINE], np.zeros(5), {"outside": "cubic"}, "outside must be 'nan', 'linear' or 'clip'"),
    ],
)
def test_bad_input(axes, values, options, message):
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.TabulatedPotential(axes, values, **options)


def test_points_that_are_one_in_single_precision_are_refused():
    axis = 1e4 + np.arange(5) * 1e-5
    assert bd.TabulatedPotential(axis, np.zeros(5)).axes[0].size == 5
    with pytest.raises(ValueError, match="must increase"):
        bd.TabulatedPotential(axis, np.zeros(5, np.float32))


def test_other_numbers_of_coordinates_and_traced_axes_are_refused():
    potential, values = random_table(1)
    with pytest.raises(ValueError, match=r"The table has 1 coordinates, so x must have shape \(1,\)"):
        potential(0.0, jnp.zeros(2))
    with pytest.raises(ValueError, match="axes must be concrete"):
        jax.jit(lambda axis: bd.TabulatedPotential([axis], values).coefficients)(jnp.asarray(AXES[0]))


def test_bad_traced_values_become_nan():
    table = jax.jit(lambda v: bd.TabulatedPotential(LINE, v)(0.0, jnp.array([0.4])))
    assert np.isnan(table(jnp.array([0.0, 1.0, jnp.nan, 2.0, 3.0])))
    assert np.isfinite(table(jnp.arange(5.0)))


def test_a_table_adds_and_scales():
    potential = bd.TabulatedPotential(LINE, LINE**2)
    total = 2.0 * potential + (lambda t, x: t * x[0])
    np.testing.assert_allclose(total(3.0, jnp.array([0.3])), 2 * 0.09 + 0.9, rtol=1e-12)


@pytest.mark.parametrize("what", ["from_text", "from_xarray"])
def test_examples_run(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ((_, code),) = blocks(getattr(bd.TabulatedPotential, what).__doc__.replace("\n        ", "\n"))
    names = {"bd": bd, "np": np, "xarray": xarray}
    exec(compile(code, what, "exec"), names)
    assert isinstance(names["potential"], bd.TabulatedPotential)


@pytest.mark.slow
def test_the_grid_and_the_particles_agree_about_a_table():
    axis = np.linspace(-5.0, 5.0, 41)
    values = on_grid(lambda x, y: 0.5 * (x**2 + y**2) + 0.05 * (x**4 + y**4) + 0.2 * x * y, [axis, axis])
    potential = bd.TabulatedPotential([axis, axis], values, outside="linear")
    problem = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([0.8, 0.0], 0.5), t1=2.0)
    ts = jnp.array([0.0, 1.0, 2.0])
    grid = bd.solve(problem, bd.SplitOperator(points=48, lower=-5.0, upper=5.0), ts=ts)
    particles = bd.solve(problem, bd.SequentialScoreMatching(degree=4), ts=ts)
    np.testing.assert_allclose(particles.mean(), grid.mean(), atol=1e-3)
    np.testing.assert_allclose(particles.std(), grid.std(), atol=1e-3)
    np.testing.assert_allclose(grid.energy(), grid.energy()[0], atol=1e-6)

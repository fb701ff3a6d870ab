"""Absorbing boundaries: scattering at an Eckart barrier, whose transmission has a closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.unchecked import unchecked_types

import bohmdiff as bd

HEIGHT, WIDTH, MOMENTUM, VARIANCE = 6.0, 0.5, 3.4, 2.0
ABSORBER = bd.ComplexAbsorber(width=8.0)


def scattering(start=-12.0, momentum=MOMENTUM, t1=12.0, height=HEIGHT, dtype=float):
    def array(value):
        return jnp.asarray(value, dtype)

    barrier = bd.Eckart(height=array(height), width=array(WIDTH))
    initial = bd.GaussianWavePacket(array([start]), array(VARIANCE), momentum=array([momentum]))
    return bd.Problem(bd.Hamiltonian(barrier, array(1.0), array(1.0)), initial, t1=t1)


def method(**options):
    given = {"points": 360, "lower": -28.0, "upper": 22.0, "steps": 240, "absorber": ABSORBER}
    return bd.SplitOperator(**given | options)


def exact_transmission(momentum=MOMENTUM):
    """∫ |a(k)|² T(k) dk."""
    k = np.linspace(0.01, 8, 4001)
    deviation = 0.5 / np.sqrt(VARIANCE)
    weight = np.exp(-0.5 * ((k - momentum) / deviation) ** 2) / (np.sqrt(2 * np.pi) * deviation)
    through = np.sinh(np.pi * k * WIDTH) ** 2
    barrier = np.cosh(0.5 * np.pi * np.sqrt(8 * HEIGHT * WIDTH**2 - 1)) ** 2
    return np.trapezoid(weight * through / (through + barrier), k)


@pytest.fixture(scope="module")
def scattered():
    return bd.solve(scattering(), method(), ts=jnp.linspace(0, 12.0, 121))


def test_transmission_through_an_eckart_barrier(scattered):
    transmission, reflection = bd.flux(scattered, 6.0), bd.flux(scattered, -6.0)
    exact = exact_transmission()
    assert abs(transmission.passed[-1] - exact) < 2e-4
    # All of ψ first comes in.
    assert abs(reflection.passed[-1] - exact) < 2e-4
    assert scattered.diagnostics.holds


def test_what_is_lost_is_what_has_passed(scattered):
    norm = scattered.norm()
    assert abs(norm[0] - 1) < 1e-9
    assert float(norm[-1]) < 0.5
    assert bool(jnp.all(jnp.diff(norm) < 1e-12))
    left, right = (bd.flux(scattered, x).passed for x in (-19.0, 13.0))
    inside = scattered.probability(lambda x: (x[0] > -19) & (x[0] < 13))
    np.testing.assert_allclose(inside + right - left, 1, atol=1e-4)
    # Probabilities and densities count what is left, moments are normalised.
    np.testing.assert_allclose(scattered.probability(lambda x: x[0] > -100), norm, atol=1e-9)
    grid = scattered.grid()[0]
    density = scattered.density_on_grid(12.0)
    np.testing.assert_allclose(jnp.sum(density) * (grid[1] - grid[0]), norm[-1])
    np.testing.assert_allclose(jnp.sum(density * grid) / jnp.sum(density), scattered.mean()[-1, 0])
    np.testing.assert_allclose(scattered.expectation(lambda x: x[0]), scattered.mean()[:, 0])


@pytest.mark.slow
def test_what_is_left_is_that_of_a_wider_box(scattered):
    """In the middle of the box nothing tells that there are absorbers, and nothing comes back."""
    wide = bd.solve(
        scattering(), method(lower=-72.0, upper=72.0, points=1024, absorber=None), ts=[6.0, 12.0]
    )
    middle = jnp.linspace(-10, 10, 41)[:, None]
    for t in (6.0, 12.0):
        free, left = (
            jax.vmap(lambda x, psi=psi, t=t: psi(t, x))(middle)
            for psi in (wide.wave_function, scattered.wave_function)
        )
        np.testing.assert_allclose(left, free, atol=5e-4)


@pytest.mark.slow
def test_reflection_is_estimated():
    """Of waves whose length is that of the layer, 8e-3, as the paper says."""
    slow = bd.Problem(
        bd.Hamiltonian(lambda t, x: 0.0 * x[0]),
        bd.GaussianWavePacket([0.0], 400.0, momentum=[2 * np.pi / 8]),
        t1=420.0,
    )
    with pytest.warns(UserWarning, match="The absorber reflects about this probability"):
        solution = bd.solve(
            slow,
            bd.SplitOperator(256, -140.0, 140.0, steps=400, absorber=ABSORBER),
            ts=jnp.linspace(0, 420.0, 85),
        )
    figure = solution.diagnostics["absorber"]
    # All of it was absorbed, or went back: it is on its way to the left.
    assert abs(solution.norm()[-1] - 8e-3) < 2e-3
    assert 4e-3 < float(figure.value) < 3e-2
    assert float(solution.mean()[-1, 0]) < 100


@pytest.mark.slow
def test_snapshots_and_paths(scattered):
    few = bd.solve(scattering(), method(snapshot_memory=0), ts=jnp.linspace(0, 12.0, 13))
    x = jnp.array([5.0])
    np.testing.assert_allclose(few.wave_function(9.0, x), scattered.wave_function(9.0, x), atol=1e-6)
    x0 = jnp.array([[-12.0], [-10.5], [-10.0]])
    paths = scattered.trajectories(x0)[:, :66, 0]
    wide = bd.solve(
        scattering(), method(lower=-72.0, upper=72.0, points=1024, absorber=None), ts=scattered.ts
    )
    np.testing.assert_allclose(paths, wide.trajectories(x0)[:, :66, 0], atol=1e-3)
    with pytest.raises(bd.UnavailableError, match="absorber"):
        scattered.quantile_trajectories([0.5])


@pytest.mark.slow
def test_an_absorber_along_one_of_two_coordinates():
    potential = bd.Eckart(height=HEIGHT, width=WIDTH) + bd.Quadratic([0.0, 4.0])
    initial = bd.GaussianWavePacket([-12.0, 0.0], [VARIANCE, 0.25], momentum=[MOMENTUM, 0.0])
    problem = bd.Problem(bd.Hamiltonian(potential), initial, t1=10.0)
    grid = bd.SplitOperator(
        points=(320, 20),
        lower=(-28.0, -3.0),
        upper=(20.0, 3.0),
        steps=200,
        absorber=bd.ComplexAbsorber(width=(8.0, 0.0)),
    )
    solution = bd.solve(problem, grid, ts=jnp.linspace(0, 10.0, 101))
    assert abs(bd.flux(solution, 6.0).passed[-1] - exact_transmission()) < 1e-3
    # Along the other coordinate it stays in its ground state.
    np.testing.assert_allclose(solution.std()[:, 1], 0.5, atol=1e-3)
    assert float(solution.norm()[-1]) < 0.6


@pytest.mark.slow
def test_steps_are_chosen_and_points_too():
    solution = bd.solve(scattering(), method(steps=None, points=None), ts=[0.0, 12.0])
    exact = bd.solve(scattering(), method(steps=2000, points=512), ts=[0.0, 12.0])
    np.testing.assert_allclose(solution.norm(), exact.norm(), atol=1e-3)
    assert solution.method.steps <= 512
    assert solution.diagnostics.holds


def test_all_of_it_may_be_gone():
    solution = bd.solve(
        scattering(start=0.0, momentum=6.0, height=0.0),
        method(lower=-16.0, upper=16.0, steps=None),
        ts=[0.0, 6.0],
    )
    assert float(solution.norm()[-1]) < 1e-5
    assert bool(jnp.all(jnp.isfinite(solution.mean())))
    assert solution.method.steps <= 512


@pytest.mark.slow
def test_transformations():
    ts = jnp.linspace(0, 12.0, 61)

    def transmitted(height):
        solution = bd.solve(scattering(height=height, dtype=None), method(steps=120, points=240), ts=ts)
        return bd.flux(solution, 6.0).passed[-1]

    height = jnp.asarray(HEIGHT)
    value, slope = jax.jit(jax.value_and_grad(transmitted))(height)
    np.testing.assert_allclose(value, transmitted(height), rtol=1e-9)
    step = 1e-4
    finite = (transmitted(height + step) - transmitted(height - step)) / (2 * step)
    np.testing.assert_allclose(slope, finite, rtol=1e-5)


@pytest.mark.slow
def test_single_precision():
    solution = bd.solve(scattering(dtype=np.float32), method(), ts=jnp.linspace(0, 12.0, 121))
    found = bd.flux(solution, 6.0)
    assert found.passed.dtype == jnp.float32
    assert abs(found.passed[-1] - exact_transmission()) < 5e-4
    assert solution.diagnostics.holds


def test_a_saved_solution(scattered, tmp_path):
    scattered.save(tmp_path / "scattered.nc")
    again = bd.load(tmp_path / "scattered.nc")
    assert eqx.tree_equal(again, scattered)
    np.testing.assert_array_equal(bd.flux(again, 6.0).passed, bd.flux(scattered, 6.0).passed)


@pytest.mark.parametrize("width", [0.0, -1.0, [0.0, 0.0], [1.0, -1.0], jnp.inf, "a", [[1.0]]])
def test_bad_widths(width):
    with pytest.raises(ValueError, match="width must be"):
        bd.ComplexAbsorber(width=width)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"absorber": 8.0}, "absorber must be a ComplexAbsorber"),
        ({"lower": None, "upper": None}, "needs lower and upper"),
        ({"absorber": bd.ComplexAbsorber(width=25.0)}, "Widen lower and upper, or use a narrower"),
        ({"absorber": bd.ComplexAbsorber(width=[8.0, 8.0])}, r"shape \(1,\)"),
        ({"absorber": bd.ComplexAbsorber(width=14.0)}, "in the layers of the absorber"),
    ],
)
def test_bad_input(options, message):
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.solve(scattering(), method(**options), ts=[0.0, 1.0])

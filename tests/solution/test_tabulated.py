"""ψ on a grid at times between those that are known, and processes that follow it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd
from bohmdiff.method.split_operator import tabulated

KEY = jax.random.key(0)


def driven(t, x):
    return 0.5 * jnp.sum(x**2) + 0.1 * jnp.sum(x**4) + jnp.sin(3 * t) * x[0]


def on_grid(dimension=1, until=2.0, dtype=np.float64, **options):
    problem = bd.Problem(
        bd.Hamiltonian(driven, mass=np.linspace(1.0, 2.0, dimension)),
        bd.GaussianWavePacket(
            np.linspace(0.7, -0.3, dimension).astype(dtype), 0.4, momentum=[0.5] * dimension
        ),
        t0=0.5,
        t1=until,
    )
    method = bd.SplitOperator(points=64, lower=-5.0, upper=5.0, steps=600, **options)
    return bd.solve(problem, method, ts=np.linspace(0.5, until, 7))


@pytest.fixture(scope="module")
def line():
    return on_grid(snapshot_memory=2000.0)  # few are kept


@pytest.mark.parametrize("dimension", [1, 2])
def test_it_is_the_solution_itself_at_any_time(dimension):
    exact = on_grid(dimension)
    psi = exact.tabulated()
    x, _ = exact.problem.initial.particles(bd.SobolPoints(32), KEY)
    for t in (0.5, 0.517, 1.3, 1.99, 2.0):
        for name in ("score", "velocity"):
            found = jax.jit(jax.vmap(getattr(psi, name), in_axes=(None, 0)))(t, x)
            own = jax.vmap(lambda y, t=t, name=name: getattr(exact, name)(t, y))(x)
            np.testing.assert_allclose(found, own, rtol=2e-5, atol=2e-6)


def test_single_precision():
    exact = on_grid(dtype=np.float32)
    psi = exact.tabulated()
    x = jnp.array([0.2], jnp.float32)
    for t in (0.6, 1.7):
        for name in ("score", "velocity"):
            found = getattr(psi, name)(t, x)
            assert found.dtype == jnp.float32
            np.testing.assert_allclose(found, getattr(exact, name)(t, x), atol=5e-3)


def test_a_longer_time_takes_more_times(line):
    assert len(line.tabulated().tables) > len(on_grid(until=0.6).tabulated().tables)


def test_outside_the_box_nothing_is_seen(line):
    psi = line.tabulated()
    assert psi.score(1.0, jnp.array([7.0])) == psi.velocity(1.0, jnp.array([7.0])) == 0


def test_bohmian_trajectories_are_quantiles(line):
    levels = np.linspace(0.02, 0.98, 13)
    exact = line.quantile_trajectories(levels)
    flow = bd.nelson_process(line, exact[:, :1], key=KEY, ts=line.ts, noise=0)
    np.testing.assert_allclose(flow[..., 0], exact, atol=2e-5)
    back = bd.nelson_process(line, exact[:, -1:], key=KEY, ts=line.ts, noise=0, backward=True)
    np.testing.assert_allclose(back[..., 0], exact, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backward", [False, True])
def test_nelsons_process_has_the_density_of_the_grid(line, backward):
    """Means and widths of 4000 paths within five of their standard errors."""
    paths = bd.nelson_process(line, 4000, key=KEY, ts=line.ts, backward=backward)
    error = line.std() / np.sqrt(4000)
    assert np.all(np.abs(paths.mean(axis=0) - line.mean()) < 5 * error)
    assert np.all(np.abs(paths.std(axis=0) - line.std()) < 5 * error)


@pytest.mark.slow
def test_particles_move_under_its_score():
    """The force needs third derivatives of the interpolant, at times that a solver chooses."""
    exact = on_grid(2)
    x0, weights = exact.problem.initial.particles(bd.SobolPoints(256), KEY)
    flow = bd.propagate(
        exact.problem,
        exact.tabulated().score,
        x0,
        ts=exact.ts,
        solver=bd.BlanesMoan4(),
        steps=24,
        tangents=False,
    )
    assert jnp.all(jnp.abs(jnp.einsum("m,mkd->kd", weights, flow.position) - exact.mean()) < 5e-3)


def test_what_cannot_be_tabulated(line, monkeypatch):
    with pytest.raises(ValueError, match="traced solution can't be propagated"):
        eqx.filter_jit(lambda exact: exact.tabulated().tables)(line)
    monkeypatch.setattr(tabulated, "_MOST_INTERVALS", 16)
    with pytest.raises(
        ValueError, match=r"with 17 times, .* GiB, it is still wrong by .* at most 17 times"
    ):
        line.tabulated()


def test_inside_jit_it_is_found_before(line):
    x = jnp.array([0.4])
    inside = jax.jit(lambda t: line.tabulated().score(t, x))(1.2)
    np.testing.assert_allclose(inside, line.score(1.2, x), rtol=1e-6)


def test_bad_places(line):
    psi = line.tabulated()
    with pytest.raises(ValueError, match=r"t must lie in \[t0, t1\] = \[0.5, 2.\], but 2.1 was given"):
        psi.score(2.1, jnp.array([0.0]))
    with pytest.raises(ValueError, match=r"x one point of shape \(1,\), but shapes \(\) and \(2,\)"):
        psi.velocity(1.0, jnp.zeros(2))

"""GridSolution: fields at any time, trajectories, probabilities, draws and overlaps, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import norm

import bohmdiff as bd
from bohmdiff.method.split_operator._fourier import FourierGrid
from bohmdiff.method.split_operator._line import Distribution
from bohmdiff.method.split_operator._mixture import Mixture
from bohmdiff.testing import DrivenGaussian

KEY = jax.random.key(0)
FIELDS = ("score", "velocity", "log_density", "wave_function")


def driven(t, x):
    return 0.5 * jnp.sum(x**2) + 0.1 * jnp.sum(x**4) + jnp.sin(3 * t) * x[0]


def on_grid(dimension=1, until=1.1, dtype=np.float64, points=48, ts=None, **options):
    problem = bd.Problem(
        bd.Hamiltonian(driven, mass=np.linspace(1.0, 2.0, dimension)),
        bd.GaussianWavePacket(
            np.linspace(0.7, -0.3, dimension).astype(dtype), 0.4, momentum=[0.5] * dimension
        ),
        t0=0.5,
        t1=until,
    )
    method = bd.SplitOperator(points=points, lower=-5.0, upper=5.0, steps=60, **options)
    return bd.solve(problem, method, ts=np.linspace(0.5, until, 5) if ts is None else ts)


@pytest.fixture(scope="module")
def line():
    return on_grid()


@pytest.fixture(scope="module")
def few():
    """The same with ψ at two times only."""
    return on_grid(snapshot_memory=2 * 16 * 48)


@pytest.fixture(scope="module")
def plane():
    case = DrivenGaussian(
        mass=[1.0, 2.0], hbar=0.7, stiffness=[[1.0, 0.2], [0.2, -0.5]], centre=[0.0, 0.1], drive=[0.3, 0.0],
        frequency=6.0, mean=[1.0, 0.0], covariance=[[0.5, 0.1], [0.1, 0.4]], momentum=[0.0, 1.0],
        chirp=[[0.1, 0.0], [0.0, -0.2]],
    )  # fmt: skip
    method = bd.SplitOperator(points=64, lower=-7.0, upper=8.0, steps=50)
    return case, bd.solve(case.problem(), method, ts=[0.0, 0.6, 1.0])


def at_places(solution, name, t, x):
    fields = {"score": solution.score, "velocity": solution.velocity, "log_density": solution.log_density,
              "wave_function": solution.wave_function}  # fmt: skip
    return jax.vmap(lambda y: fields[name](t, y))(x)


# Snapshots, times between them, and the ends of the span.
@pytest.mark.parametrize("name", FIELDS)
def test_a_traced_time_is_a_known_one(few, name):
    x = jnp.linspace(-0.5, 1.2, 4)[:, None]
    traced = jax.jit(lambda t: at_places(few, name, t, x))
    for t in (0.5, 0.517, 0.65, 0.8, 1.03, 1.1):
        np.testing.assert_allclose(traced(t), at_places(few, name, t, x), rtol=1e-9, atol=1e-11)


def test_a_traced_solution_and_many_times_at_once(few, line):
    x, ts = jnp.array([0.3]), jnp.array([0.5, 0.58, 0.8, 1.04])
    expected = [line.score(t, x) for t in ts.tolist()]
    # The bound allows for the steps of each solution, whose lengths differ between the same times.
    many = jax.jit(jax.vmap(lambda s, t: s.score(t, x), in_axes=(None, 0)))
    np.testing.assert_allclose(many(few, ts), expected, rtol=1e-6)
    np.testing.assert_allclose(many(line, ts), expected, rtol=1e-6)


def test_outside_of_the_span(line):
    x = jnp.zeros(1)
    for t in (0.4, 1.2):
        with pytest.raises(ValueError, match=r"t must lie in \[t0, t1\] = \[0.5, 1.1\]"):
            line.score(t, x)
        with pytest.raises(ValueError, match=r"t must lie in \[t0, t1\]"):
            line.density_on_grid(t)
        assert jnp.isnan(jax.jit(lambda t: line.score(t, x))(t))
        assert jnp.all(jnp.isnan(jax.jit(lambda t: line.density_on_grid(t))(t)))


def test_the_derivative_in_time_is_that_of_schroedingers_equation(few):
    """At a snapshot and between: d ln ρ / dt = −div v − v · ∇ ln ρ."""
    x = jnp.array([0.4])
    for t in (0.5, 0.65, 0.8):
        velocity, slope = few.velocity(t, x), jax.jacfwd(lambda y, t=t: few.velocity(t, y))(x)
        expected = -jnp.trace(slope) - velocity @ few.score(t, x)
        for derivative in (jax.jacfwd, jax.jacrev):
            found = derivative(lambda t: few.log_density(t, x))(t)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-6)


def test_psi_is_propagated_once_for_many_points(few):
    """The jaxpr of many points has as many transforms as that of one."""

    def transforms(points):
        x = jnp.zeros((points, 1))
        return str(jax.make_jaxpr(lambda t: at_places(few, "score", t, x))(0.6)).count("48] = fft[")

    assert transforms(7) == transforms(1) > 0
    known = str(jax.make_jaxpr(lambda x: few.score(0.6, x))(jnp.zeros(1)))
    assert "fft" not in known


def test_thinned_snapshots_change_nothing(few, line):
    assert few.snapshots.shape[0] == 2
    assert line.snapshots.shape[0] == 5
    for t in (0.5, 0.65, 0.72, 1.1):
        np.testing.assert_allclose(few.wave_function_on_grid(t), line.wave_function_on_grid(t), atol=1e-8)
    np.testing.assert_allclose(*(s.sample(KEY, 5) for s in (few, line)), atol=1e-6)
    np.testing.assert_allclose(*(s.autocorrelation() for s in (few, line)), atol=1e-8)
    np.testing.assert_allclose(few.overlap(line), 1, atol=1e-8)


def test_t0_is_kept_where_it_is_not_saved():
    late = on_grid(ts=[0.8, 1.1])
    np.testing.assert_array_equal(late.snapshot_times, [0.5, 0.8, 1.1])
    np.testing.assert_allclose(late.wave_function_on_grid(0.5), on_grid().wave_function_on_grid(0.5))
    assert late.mean().shape == (2, 1)
    np.testing.assert_allclose(late.expectation(lambda x: x), late.mean(), rtol=1e-10)


def test_drifts_count_from_t0():
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: 0.5 * x[0] ** 2), bd.GaussianWavePacket([2.0], 0.5), t1=90.0
    )
    grid = bd.SplitOperator(points=64, lower=-8.0, upper=8.0, steps=60)
    with pytest.warns(UserWarning, match=r"energy drift is .* at t = .*Use more steps"):
        solution = bd.solve(problem, grid, ts=[90.0])
    np.testing.assert_allclose(solution.energy_drift, 0.02562, rtol=1e-3)
    assert not solution.diagnostics["energy drift"].holds


@pytest.mark.parametrize("n", [6, 7])
def test_distribution_function_is_that_of_the_interpolant(n):
    grid = FourierGrid((n,), (-1.0,), (2.0,))
    rng = np.random.default_rng(4)
    psi = jnp.asarray(rng.normal(size=n) + 1j * rng.normal(size=n))
    nodes, weights = np.polynomial.legendre.leggauss(60)

    def mass(end):
        x = -1 + 0.5 * (nodes + 1) * (end + 1)
        values = np.abs(grid.evaluate(grid.table(psi), jnp.asarray(x[:, None]))[0]) ** 2
        return 0.5 * (end + 1) * np.sum(weights * values)

    distribution, levels = Distribution(grid, psi), np.array([0.1, 0.45, 0.8])
    found = distribution.inverse(jnp.asarray(levels), 1 - jnp.asarray(levels))
    np.testing.assert_allclose([mass(x) / mass(2.0) for x in found], levels, atol=1e-12)
    shares = distribution.shares(found)
    np.testing.assert_allclose(shares, [levels, 1 - levels], atol=1e-12)


def test_paths_on_a_line_far_into_the_tails():
    problem = bd.Problem(bd.Hamiltonian(lambda t, x: 0.0 * x[0]), bd.GaussianWavePacket([0.2], 0.4), t1=1.5)
    solution = bd.solve(problem, bd.SplitOperator(127, -14, 14), ts=[0.0, 0.7, 1.5])
    spread = np.sqrt(1 + (np.array([0.0, 0.7, 1.5]) / 0.8) ** 2)
    x0 = 0.2 + np.sqrt(0.4) * np.array([[-6.0], [-1.0], [0.3], [2.0], [6.0]])
    np.testing.assert_allclose(solution.trajectories(x0)[..., 0], 0.2 + spread * (x0 - 0.2), atol=1e-9)
    levels = np.array([0.02, 0.3, 0.5, 0.9])
    exact = (0.2 + np.sqrt(0.4) * spread[:, None] * norm.ppf(levels)).T
    np.testing.assert_allclose(solution.quantile_trajectories(levels), exact, atol=1e-9)
    with pytest.raises(ValueError, match="x0 must lie in the box"):
        solution.trajectories([[15.0]])
    assert jnp.all(jnp.isnan(jax.jit(lambda x: solution.trajectories(x))(jnp.array([[15.0]]))))


@pytest.mark.slow
def test_paths_on_a_line_through_nodes():
    """Two packets meet: ρ almost vanishes between the fringes, and the paths never cross."""
    initial = bd.GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], 0.1)
    problem = bd.Problem(bd.Hamiltonian(lambda t, x: 0.0 * x[0]), initial, t1=1.0)
    solution = bd.solve(problem, bd.SplitOperator(256, -16, 16), ts=[0.0, 0.5, 1.0])
    x0 = jnp.linspace(-2.9, 2.9, 30)[:, None]
    paths = solution.trajectories(x0)[..., 0]
    assert np.all(np.diff(np.asarray(paths), axis=0) > 0)
    # The share on the left stays, by an integral that knows nothing of the method.
    x, spacing = np.linspace(-16, 16, 32_001, retstep=True)
    for k, t in enumerate((0.0, 0.5, 1.0)):
        density = np.exp(at_places(solution, "log_density", t, jnp.asarray(x[:, None])))
        cumulative = np.concatenate([[0], np.cumsum(0.5 * spacing * (density[1:] + density[:-1]))])
        left = np.interp(np.asarray(paths[:, k]), x, cumulative)
        if k == 0:
            start = left
        np.testing.assert_allclose(left, start, atol=2e-6)
    low = float(np.exp(solution.log_density(1.0, paths[15, 2:] * 0 + 0.785)))
    assert low < 0.02


def test_paths_in_a_plane(plane):
    case, solution = plane
    x0 = np.asarray(case.mean) + np.random.default_rng(0).normal(size=(20, 2)) * 0.6
    velocity = jax.jit(jax.vmap(case.velocity, in_axes=(None, 0)))
    exact = solve_ivp(
        lambda t, y: np.asarray(velocity(t, y.reshape(-1, 2))).ravel(), (0, 1), x0.ravel(), rtol=1e-9,
        atol=1e-10, t_eval=np.asarray(solution.ts),
    ).y.reshape(20, 2, 3).transpose(0, 2, 1)  # fmt: skip
    np.testing.assert_allclose(solution.trajectories(x0), exact, atol=2e-5)


def test_the_hint_for_more_dimensions_runs(plane):
    _, solution = plane
    with pytest.raises(ValueError, match=r"one dimension only.*solution\.trajectories\(x0\)"):
        solution.quantile_trajectories([0.5])


@pytest.mark.parametrize("points", [26, 44])
def test_probability_of_half_spaces_on_a_line(points):
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: 0.5 * x[0] ** 2), bd.GaussianWavePacket([1.0], 0.5), t1=1.0
    )
    solution = bd.solve(problem, bd.SplitOperator(points, -5.5, 7.5), ts=[0.0, 1.0])
    for place in np.linspace(-0.63, 2.51, 7):
        p, error = solution.probability(lambda x, place=place: x[0] > place, with_error=True)
        exact = norm.sf((place - np.cos([0.0, 1.0])) / np.sqrt(0.5))
        np.testing.assert_allclose(p, exact, atol=5e-4)
        assert jnp.all(error < 5e-4)
    np.testing.assert_allclose(solution.probability(lambda x: x[0] > -90), 1, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "bound"), [((20, 44), 2e-3), ((24, 20, 18), 3e-3)])
def test_probability_of_half_spaces_in_more_dimensions(sizes, bound):
    d = len(sizes)
    mean, sigma = np.array([0.6, 0.0, -0.2])[:d], np.array([0.7, 0.6, 0.8])[:d]
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: 0.0 * x[0]), bd.GaussianWavePacket(mean, sigma**2), t1=0.1
    )
    grid = bd.SplitOperator(sizes, -5.0, 5.5, steps=2)
    solution = bd.solve(problem, grid, ts=[0.1])
    covariance = np.asarray(solution.covariance()[0])
    for normal in (*np.eye(d), np.ones(d)):
        width = np.sqrt(normal @ covariance @ normal)
        for place in (-1.1, 0.07, 0.8):
            half = jnp.asarray(normal)
            p, error = solution.probability(
                lambda x, half=half, place=place: x @ half > place, with_error=True
            )
            np.testing.assert_allclose(p, norm.sf((place - normal @ mean) / width), atol=bound)
            assert error < bound


def test_probability_says_how_wrong_a_coarse_grid_is():
    # A width of 0.8 spacings, in a grid that is too large to be refined.
    grid = FourierGrid((64,) * 4, (-32.0,) * 4, (32.0,) * 4)
    line = FourierGrid((64,), (-32.0,), (32.0,))
    psi = line.map(lambda x: jnp.exp(-(x[0] ** 2) / (4 * 0.8**2)) + 0j, float)
    coarse = jnp.maximum(
        jnp.fft.ifft(jnp.fft.fft(jnp.abs(psi) ** 2) / np.sinc(np.fft.fftfreq(64)) ** 4).real, 0
    )
    assert grid.size > 2**23 > line.size
    assert float(Mixture(line, psi).missed) < 1e-5
    assert float(coarse.sum() / (jnp.abs(psi) ** 2).sum() - 1) > 0.01


def test_expectation_is_a_sum_over_the_grid(plane):
    case, solution = plane
    fourth = solution.expectation(lambda x: {"x": x**2, "xy": jnp.outer(x, x)})
    second = np.stack([case.covariance_at(t) + np.outer(*2 * [case.centre_at(t)[0]]) for t in solution.ts])
    np.testing.assert_allclose(fourth["xy"], second, atol=1e-6)
    np.testing.assert_allclose(fourth["x"], np.diagonal(second, axis1=1, axis2=2), atol=1e-6)
    np.testing.assert_allclose(
        solution.covariance(), [case.covariance_at(t) for t in solution.ts], atol=1e-6
    )
    timed = solution.expectation(lambda t, x: t + x[0], with_time=True)
    np.testing.assert_allclose(timed, solution.ts + solution.mean()[:, 0], atol=1e-12)


def test_expectation_in_chunks_is_the_same(monkeypatch):
    grid = FourierGrid((9, 11), (0.0, 0.0), (1.0, 1.0))
    density = jnp.asarray(np.random.default_rng(0).random((9, 11)))
    whole = grid.mean(lambda x: jnp.exp(x), density)
    monkeypatch.setattr("bohmdiff.method.split_operator._fourier._CHUNK_OF_GRID", 16)
    np.testing.assert_allclose(grid.mean(lambda x: jnp.exp(x), density), whole, rtol=1e-13)


def test_overlap_and_autocorrelation(plane):
    _, solution = plane
    other = bd.solve(
        solution.problem, bd.SplitOperator((50, 72), lower=-6.5, upper=7.0, steps=50), ts=solution.ts
    )
    np.testing.assert_allclose(solution.overlap(other), 1, atol=1e-7)
    psi0 = solution.wave_function_on_grid(0.0)
    cell = solution.fourier.cell
    expected = [jnp.vdot(psi0, solution.wave_function_on_grid(t)) * cell for t in solution.ts.tolist()]
    np.testing.assert_allclose(solution.autocorrelation(), expected, atol=1e-12)
    gaussian = bd.solve(solution.problem, bd.GaussianDynamics(steps=200), ts=solution.ts)
    np.testing.assert_allclose(solution.overlap(gaussian), 1, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The solution by SplitOperator may be wrong. momentum edge")
def test_samples_have_no_bias_of_the_spacing():
    # 30 points: the multilinear interpolant alone would add h²/6 = 0.036 to a variance of 0.4.
    problem = bd.Problem(bd.Hamiltonian(driven), bd.GaussianWavePacket([0.5], 0.4, [0.3]), t1=1.5)
    solution = bd.solve(problem, bd.SplitOperator(30, -7, 7), ts=[0.0, 1.5])
    draws = solution.sample(KEY, 200_000)
    assert draws.shape == (200_000, 2, 1)
    traced = jax.jit(lambda key: solution.sample(key, 200_000))(KEY)
    for found in (draws, traced):
        np.testing.assert_allclose(found.mean(0), solution.mean(), atol=6e-3)
        np.testing.assert_allclose(found.std(0), solution.std(), atol=5e-3)
    again = solution.sample(KEY, 200_000)
    np.testing.assert_array_equal(draws, again)


def test_samples_in_two_dimensions(plane):
    _, solution = plane
    for draws in (solution.sample(KEY, 20_000), jax.jit(lambda key: solution.sample(key, 20_000))(KEY)):
        np.testing.assert_allclose(draws.mean(0), solution.mean(), atol=3e-2)
        last = np.cov(np.asarray(draws[:, -1]).T)
        np.testing.assert_allclose(last, solution.covariance()[-1], atol=3e-2)


@pytest.mark.slow
def test_bohmian_paths_of_nelsons_process_are_quantiles(line):
    exact = line.quantile_trajectories(np.linspace(0.02, 0.98, 13))
    flow = bd.nelson_process(line, exact[:, :1], key=KEY, ts=line.ts, noise=0)
    np.testing.assert_allclose(flow[..., 0], exact, atol=2e-5)


@pytest.mark.slow
def test_particles_move_under_its_score(plane):
    """The force needs third derivatives of the interpolant, at times that a solver chooses."""
    _, solution = plane
    x0, weights = solution.problem.initial.particles(bd.SobolPoints(256), KEY)
    flow = bd.propagate(
        solution.problem, solution.score, x0, ts=solution.ts, solver=bd.BlanesMoan4(), steps=24,
        tangents=False,
    )  # fmt: skip
    assert jnp.all(jnp.abs(jnp.einsum("m,mkd->kd", weights, flow.position) - solution.mean()) < 5e-3)


@pytest.mark.slow
def test_single_precision():
    solution = on_grid(dtype=np.float32)
    x = jnp.array([[0.2], [0.9]], jnp.float32)
    double = on_grid()
    for t in (0.6, 1.1):
        traced = jax.jit(lambda t: at_places(solution, "score", t, x))(jnp.float32(t))
        assert traced.dtype == jnp.float32
        np.testing.assert_allclose(traced, at_places(double, "score", t, x), atol=1e-3)
    paths = solution.trajectories(x)
    assert {paths.dtype, solution.probability(lambda x: x[0] > 0).dtype} == {jnp.dtype("float32")}
    np.testing.assert_allclose(paths, double.trajectories(x), atol=1e-4)
    far = jnp.array([[0.7 - 4 * np.sqrt(0.4)]], jnp.float32)
    np.testing.assert_allclose(solution.trajectories(far), double.trajectories(far), atol=2e-3)


def test_refuses_places_and_levels(line):
    with pytest.raises(ValueError, match=r"one point of shape \(1,\).*jax.vmap"):
        line.score(0.6, jnp.zeros((3, 1)))
    with pytest.raises(ValueError, match="n must be an integer"):
        line.sample(KEY, 0)
    with pytest.raises(ValueError, match=r"strictly between 0 and 1, but \[0. , 0.5\]"):
        line.quantile_trajectories([0.0, 0.5])
    with pytest.raises(ValueError, match=r"levels must have shape \(n,\)"):
        line.quantile_trajectories(0.5)
    assert jnp.all(jnp.isnan(jax.jit(lambda p: line.quantile_trajectories(p))(jnp.array([0.0, 0.5]))))

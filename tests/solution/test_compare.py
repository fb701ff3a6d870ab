"""Comparison and export, on Gaussians, whose divergence has a closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd

TS = jnp.array([0.0, 0.5, 1.0])
MASS, HBAR = jnp.array([1.0, 2.0]), 0.7


def gaussian(mean=(0.5, -0.2), covariance=(0.4, 0.3), ts=TS, method=None):
    d = len(mean)
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(jnp.eye(d)), MASS[:d], HBAR),
        bd.GaussianWavePacket(list(mean), jnp.array(covariance)),
        t1=1.0,
    )
    return bd.solve(problem, method or bd.GaussianDynamics(steps=20), ts=ts)


@pytest.fixture(scope="module")
def solution():
    return gaussian()


@pytest.fixture(scope="module")
def reference():
    return gaussian((0.6, -0.1), (0.45, 0.28))


@pytest.fixture(scope="module")
def table(solution, reference):
    return bd.compare(solution, reference)


def test_errors(solution, reference, table):
    for what in ("mean", "std"):
        error = np.abs(np.asarray(getattr(solution, what)()) - np.asarray(getattr(reference, what)()))
        np.testing.assert_allclose(getattr(table, f"{what}_rms"), np.sqrt(np.mean(error**2, axis=0)))
        np.testing.assert_allclose(getattr(table, f"{what}_max"), np.max(error, axis=0))
        assert getattr(table, f"{what}_rms").shape == (2,)
    error = np.abs(np.asarray(solution.energy()) - np.asarray(reference.energy()))
    np.testing.assert_allclose(table.energy_rms, np.sqrt(np.mean(error**2)))
    np.testing.assert_allclose(table.energy_max, np.max(error))
    assert table.solution == table.reference == "GaussianDynamics"


def test_divergence_of_two_gaussians(solution, reference, table):
    """KL of the solution from the reference: E over the reference."""
    ours, theirs = (np.asarray(s.covariance()[-1]) for s in (solution, reference))
    shift = np.asarray(solution.mean()[-1] - reference.mean()[-1])
    precision = np.linalg.inv(ours)
    exact = 0.5 * (
        np.trace(precision @ theirs)
        + shift @ precision @ shift
        - 2
        + np.linalg.slogdet(ours)[1]
        - np.linalg.slogdet(theirs)[1]
    )
    np.testing.assert_allclose(table.divergence, exact, rtol=2e-2)
    assert exact > 0.01


def test_divergence_is_not_symmetric(solution):
    wide = gaussian(covariance=(1.5, 1.2))
    there, back = bd.compare(solution, wide).divergence, bd.compare(wide, solution).divergence
    assert abs(float(there - back)) > 0.1 * float(back)


def test_same_solution_has_no_error(solution):
    table = bd.compare(solution, solution)
    arrays = [leaf for leaf in jax.tree.leaves(table) if not isinstance(leaf, str)]
    assert len(arrays) == 8
    assert table.normalisation == 1
    assert all(np.max(np.abs(leaf)) == 0 for leaf in arrays if leaf is not table.normalisation)


def test_printed(table):
    lines = str(table).splitlines()
    assert lines[0] == "GaussianDynamics against GaussianDynamics"
    assert lines[1].split() == ["error", "in", "rms", "over", "time", "largest"]
    rows = [line.rsplit(maxsplit=2) for line in lines[2:7]]
    names = [row[0].strip() for row in rows]
    assert names == ["mean of x1", "mean of x2", "std of x1", "std of x2", "energy"]
    expected = [*table.mean_rms, *table.std_rms, table.energy_rms]
    largest = [*table.mean_max, *table.std_max, table.energy_max]
    np.testing.assert_allclose([float(row[1]) for row in rows], np.array(expected), rtol=0.06)
    np.testing.assert_allclose([float(row[2]) for row in rows], np.array(largest), rtol=0.06)
    assert lines[7].endswith(f"Kullback-Leibler divergence: {float(table.divergence):.1e} nats")
    assert lines[8] == f"integral of that density: {float(table.normalisation):.4g}"
    assert lines[9:] == [f"may be wrong: {one}" for one in table.failed]


# The particles of a fit normalise its density, so that it integrates to about one, where there are particles.
@pytest.mark.slow
def test_densities_are_normalised():
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: 0.5 * x[0] ** 2 + 0.3 * x[0] ** 4),
        bd.GaussianWavePacket([0.8], 0.5),
        t1=1.0,
    )
    with pytest.warns(UserWarning, match="density mismatch is .*Times up to 0.* can be trusted"):
        fitted = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    exact = bd.solve(problem, bd.SplitOperator(points=128, lower=-8.0, upper=8.0))
    table, end = bd.compare(fitted, exact), 3.5 * exact.std()[-1, 0]
    x = exact.mean()[-1] + jnp.linspace(-end, end, 2001)[:, None]
    integral = jnp.trapezoid(jnp.exp(jax.vmap(lambda y: fitted.log_density(1.0, y))(x)), x[:, 0])
    assert abs(integral - 1) > 2e-3
    np.testing.assert_allclose(table.normalisation, integral, rtol=1e-2)
    assert table.divergence > 0
    assert "may be wrong: SequentialScoreMatching, density mismatch" in str(table)


class WithoutDensity(bd.AbstractParticleSolution):
    """Moments alone."""

    problem: bd.Problem
    method: bd.AbstractMethod
    ts: jax.Array
    particles: bd.Particles
    diagnostics: bd.Diagnostics

    def energy(self):
        return jnp.zeros(self.ts.size)

    def move(self, x0):
        raise self.unavailable("trajectories", "Ask another.")

    def score_at(self, t, x):
        raise self.unavailable("score", "Ask another.")

    def velocity_at(self, t, x):
        raise self.unavailable("velocity", "Ask another.")

    def log_density_at(self, t, x):
        raise self.unavailable("log_density", "SplitOperator has one.")

    def wave_function_at(self, t, x):
        raise self.unavailable("wave_function", "Ask another.")


def without_density(problem, method, ts=TS):
    particles = bd.Particles(jnp.zeros((1, ts.size, problem.dimension)), jnp.ones(1))
    return WithoutDensity(problem, method, ts, particles, bd.Diagnostics())


def test_without_a_density(solution):
    bare = without_density(solution.problem, bd.SequentialScoreMatching())
    with pytest.raises(
        bd.UnavailableError,
        match=r"A solution by SequentialScoreMatching has no log_density\. SplitOperator has one\.",
    ):
        bare.log_density(0.0, jnp.zeros(2))
    for table in (bd.compare(bare, solution), bd.compare(solution, bare)):
        assert table.divergence is None
        assert str(table).endswith("divergence: not available")
    assert bd.compare(bare, solution).solution == "SequentialScoreMatching"


def test_refuses_what_cannot_be_compared(solution):
    line = without_density(
        bd.Problem(bd.Hamiltonian(lambda t, x: x[0]), bd.GaussianWavePacket([0.0], 1.0), t1=1.0),
        bd.GaussianDynamics(),
    )
    with pytest.raises(ValueError, match="have 2 and 1 coordinates; compare two solutions of the same"):
        bd.compare(solution, line)
    for ts in (TS[:2], 0.9 * TS):
        other = without_density(solution.problem, solution.method, ts)
        with pytest.raises(ValueError, match=r"saved at different times: pass the same ts=\.\.\."):
            bd.compare(solution, other)


@pytest.mark.parametrize("unit", [1e-15, 1e9])
def test_times_are_compared_in_their_own_unit(unit):
    """An absolute tolerance would let all times of femtoseconds in seconds pass."""
    oscillator = bd.Hamiltonian(lambda t, x: 0.5 * x[0] ** 2 / unit**2)
    problem = bd.Problem(oscillator, bd.GaussianWavePacket([0.0], 1.0), t1=unit)
    solution = without_density(problem, bd.GaussianDynamics(), unit * TS)
    other = without_density(problem, bd.GaussianDynamics(), unit * (TS + 1e-4))
    with pytest.raises(ValueError, match="saved at different times"):
        bd.compare(solution, other)
    rounded = without_density(problem, bd.GaussianDynamics(), jnp.asarray(unit * TS, jnp.float32))
    assert bd.compare(rounded, solution).mean_max[0] == 0
    # Rounding is that of the single time, but the unit is that of the span.
    once, nearly = (
        without_density(problem, bd.GaussianDynamics(), unit * t) for t in (TS[1:2], TS[1:2] + 1e-8)
    )
    assert bd.compare(nearly, once).mean_max[0] == 0


def test_to_xarray(solution):
    data = solution.to_xarray()
    assert data["mean"].dims == data["std"].dims == ("time", "coordinate")
    assert data["energy"].dims == ("time",)
    for name in ("mean", "std", "energy"):
        np.testing.assert_array_equal(data[name], getattr(solution, name)())
        assert data[name].attrs["long_name"]
    np.testing.assert_array_equal(data["time"], TS)
    np.testing.assert_array_equal(data["coordinate"], [0, 1])
    assert data.attrs["method"].startswith("GaussianDynamics(")
    assert data.attrs["potential"].startswith("Quadratic(")
    np.testing.assert_array_equal(data.attrs["mass"], MASS)
    assert data.attrs["hbar"] == HBAR

"""Data out: what a dataset says of itself, and that NetCDF keeps all of it."""

import os
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import xarray
from tests.unchecked import unchecked_types

import bohmdiff as bd

# The packet is not harmonic enough for GaussianDynamics, which says so.
pytestmark = pytest.mark.filterwarnings("ignore:The solution by GaussianDynamics may be wrong")
TS = jnp.linspace(0.0, 0.4, 5)
UNITS = bd.Units(bd.units.Label("fs"), bd.units.Label("Å"), bd.units.Label("ħω₀"))
ROOT = Path(__file__).parents[2]
METHODS = ["GaussianDynamics", "SplitOperator", "SequentialScoreMatching", "AutomaticDegree"]
METHODS += ["GivenScore", "SelfConsistentScoreMatching"]
MARKS = {
    "AutomaticDegree": [pytest.mark.long],
    "GivenScore": [pytest.mark.slow],
    "SelfConsistentScoreMatching": [pytest.mark.slow],
    "SequentialScoreMatching": [pytest.mark.slow],
}


def problem(mean=(0.5, -0.2), mass=(1.0, 2.0)):
    potential = bd.MorseChain(depth=12.5, width=[0.2, 0.3][: len(mean)], coupling=0.3)
    return bd.Problem(
        bd.Hamiltonian(potential, mass=jnp.array(mass), hbar=0.7),
        bd.GaussianWavePacket(list(mean), 0.5),
        t1=0.4,
    )


def method(name, of):
    few = {"particles": bd.GaussHermitePoints(6), "steps": 4}
    match name:
        case "GaussianDynamics":
            return bd.GaussianDynamics(steps=4)
        case "SplitOperator":
            return bd.SplitOperator(points=64, lower=-5.0, upper=5.0, steps=16)
        case "SequentialScoreMatching":
            return bd.SequentialScoreMatching(degree=3, **few)
        case "AutomaticDegree":
            return bd.AutomaticDegree(tolerance=0.5, method=bd.SequentialScoreMatching(**few))
        case "GivenScore":
            gaussian = bd.solve(of, bd.GaussianDynamics(steps=4), ts=TS)
            return bd.GivenScore(gaussian.score, **few)
    return bd.SelfConsistentScoreMatching(
        bd.NeuralScore(of, width=2, depth=1, key=jax.random.key(0)),
        bd.LogDensityVariance(),
        training=bd.Training(optax.adam(1e-3), epochs=3, validate_every=2),
        validation_particles=16,
        particles=16,
        steps=4,
    )


@pytest.fixture(scope="module")
def solved():
    of, kept = problem(), {}

    def solve(name):
        if name not in kept:
            kept[name] = bd.solve(of, method(name, of), key=jax.random.key(1), ts=TS)
        return kept[name]

    return solve


def written_and_read(dataset, folder):
    dataset.to_netcdf(folder / "data.nc")
    with xarray.open_dataset(folder / "data.nc") as again:
        return again.load()


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=MARKS.get(n, [])) for n in METHODS],
)
def test_netcdf_gives_back_the_same(name, solved, tmp_path):
    dataset = solved(name).to_xarray(units=UNITS)
    again = written_and_read(dataset, tmp_path)
    xarray.testing.assert_identical(again, dataset)
    for variable in ("mean", "std", "energy", "time"):
        assert again[variable].dtype == np.float64
    np.testing.assert_array_equal(again["mean"], solved(name).mean())
    # An AutomaticDegree ends in the degree that it chose.
    wanted = "SequentialScoreMatching" if name == "AutomaticDegree" else name
    assert again.attrs["method"].startswith(f"{wanted}(")
    # The same in every process.
    assert " at 0x" not in again.attrs["method"]


@pytest.mark.slow
def test_single_precision_and_one_coordinate(tmp_path):
    packet = bd.GaussianWavePacket(jnp.array([0.5], jnp.float32), 0.2)
    of = bd.Problem(bd.Hamiltonian(bd.DoubleWell(1.1), mass=jnp.array([0.3], jnp.float32)), packet, t1=0.4)
    dataset = bd.solve(of, bd.GaussianDynamics(steps=4), ts=TS).to_xarray()
    again = written_and_read(dataset, tmp_path)
    xarray.testing.assert_identical(again, dataset)
    assert again["mean"].dtype == again["time"].dtype == np.float32
    assert again.attrs["dtype"] == "float32"
    # In as many digits as there are, and lists of one are numbers, since NetCDF knows no others.
    assert again.attrs["potential"] == "DoubleWell(barrier=1.1, minimum=2.0)"
    assert (again.attrs["mass"], again.attrs["initial_mean"]) == (0.3, 0.5)
    assert again.attrs["initial_covariance"] == 0.2


@pytest.mark.parametrize("name", [pytest.param(n, marks=MARKS.get(n, pytest.mark.long)) for n in METHODS])
def test_every_variable_has_units_and_a_name(name, solved):
    dataset = solved(name).to_xarray(units=UNITS)
    assert {one: dataset[one].attrs["units"] for one in dataset.variables} == {
        "mean": "Å",
        "std": "Å",
        "energy": "ħω₀",
        "time": "fs",
        "coordinate": "1",
    }
    assert all(dataset[one].attrs["long_name"] for one in dataset.variables)
    neutral = solved(name).to_xarray()
    assert {neutral[one].attrs["units"] for one in ("mean", "std", "energy", "time")} == {"own units"}


def test_where_data_come_from(solved):
    attributes = solved("SequentialScoreMatching").to_xarray().attrs
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert attributes["bohmdiff_version"] == project["version"]
    assert attributes["potential"] == "MorseChain(depth=12.5, width=[0.2, 0.3], coupling=0.3)"
    # All options, also those that were left as they are.
    assert attributes["method"] == (
        "SequentialScoreMatching(degree=3, particles=GaussHermitePoints(points_per_axis=6, discard=1e-06), "
        "steps=4, solver=BlanesMoan4(), window=None, basis=TotalDegree(), "
        "tolerance=0.001)"
    )
    assert attributes["initial"] == "GaussianWavePacket"
    numbers = {
        "mass": [1.0, 2.0],
        "hbar": 0.7,
        "t0": 0.0,
        "t1": 0.4,
        "initial_mean": [0.5, -0.2],
        "initial_covariance": [0.5, 0.0, 0.0, 0.5],
        "initial_momentum": [0.0, 0.0],
        "initial_chirp": [0.0] * 4,
        "dimension": 2,
    }
    for name, value in numbers.items():
        np.testing.assert_array_equal(attributes[name], value)
    assert attributes["dtype"] == "float64"
    for name, value in attributes.items():
        assert isinstance(value, str | int | float | np.ndarray), name
        assert np.ndim(value) <= 1


@pytest.mark.slow
def test_the_text_of_a_method_is_short(solved):
    given = solved("GivenScore").to_xarray().attrs["method"]
    # Not the whole solution that the score belongs to.
    assert given.startswith("GivenScore(score=FunctionScore(function=<GaussianSolution.score>), particles=")
    trained = solved("SelfConsistentScoreMatching").to_xarray().attrs["method"]
    assert "objective=LogDensityVariance(" in trained
    # Shapes of networks, not their weights.
    assert "weight=float64[2, " in trained


@pytest.mark.slow
def test_potentials_that_are_functions_have_a_name():
    def anharmonic(t, x):
        return jnp.sum(0.5 * x**2 + 0.1 * x**4)

    def dataset(potential):
        of = bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket([0.5], 0.5), t1=0.4)
        return bd.solve(of, bd.GaussianDynamics(steps=4), ts=TS).to_xarray()

    assert dataset(anharmonic).attrs["potential"].endswith("anharmonic>")
    both = dataset(bd.DoubleWell() + anharmonic).attrs["potential"]
    assert both.startswith("PotentialSum(terms=(DoubleWell(barrier=1.0, minimum=2.0), <function ")
    large = dataset(bd.Quadratic(1.0, linear=lambda t: 0.1)).attrs["potential"]
    assert large.startswith("Quadratic(matrix=1.0, centre=None, linear=<function ")


@pytest.mark.slow
def test_history_of_a_training(solved, tmp_path):
    history = solved("SelfConsistentScoreMatching").history
    again = written_and_read(history, tmp_path)
    xarray.testing.assert_identical(again, history)
    assert list(again["epoch"]) == [1, 2, 3]
    assert np.isfinite(again["loss"]).all()
    assert np.isfinite(again["fisher"].dropna("epoch")).sum() >= 2
    for name in again.variables:
        assert again[name].attrs["units"]
        assert again[name].attrs["long_name"]
    assert again["seconds"].attrs["units"] == "s"
    assert again.attrs["method"].startswith("SelfConsistentScoreMatching(")
    assert again.attrs["potential"].startswith("MorseChain(depth=12.5")


@pytest.fixture
def drawn_without_a_screen():
    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


@pytest.mark.usefixtures("drawn_without_a_screen")
def test_what_was_read_is_drawn_like_a_solution(solved, tmp_path):
    ours, exact = solved("SequentialScoreMatching"), solved("SplitOperator")
    again = written_and_read(ours.to_xarray(units=UNITS), tmp_path)
    for draw in (bd.plot.moments, bd.plot.energy):
        from_data, from_solution = draw(again, exact), draw(ours, exact, units=UNITS)
        for one, other in zip(from_data.axes, from_solution.axes, strict=True):
            # With the units that the data name.
            assert one.get_ylabel() == other.get_ylabel()
            assert one.get_xlabel() == other.get_xlabel()
            for a, b in zip(one.get_lines(), other.get_lines(), strict=True):
                np.testing.assert_array_equal(a.get_ydata(), b.get_ydata())
    assert bd.plot.moments(exact, again).axes[0].get_ylabel() == "mean, Å"
    again_named = bd.Units(time=bd.units.Label("ps"), length=bd.units.Label("nm"))
    assert bd.plot.moments(again, units=again_named).axes[0].get_ylabel() == "mean, nm"
    bare = again.drop_attrs()
    assert bd.plot.moments(bare).axes[0].get_ylabel() == "mean, a.u."


def test_units_of_another_kind_are_refused(solved):
    wanted = r"units must be Units, .* but 'fs' was given"
    with unchecked_types(), pytest.raises(ValueError, match=wanted):
        solved("GaussianDynamics").to_xarray(units="fs")


def test_where_nothing_can_be_written(solved, tmp_path):
    dataset = solved("GaussianDynamics").to_xarray()
    with pytest.raises(OSError, match="missing"):
        dataset.to_netcdf(tmp_path / "missing" / "data.nc")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):  # root may write everywhere
        pytest.skip("this user may write into read-only folders")
    with pytest.raises(OSError, match="closed"):
        dataset.to_netcdf(closed / "data.nc")

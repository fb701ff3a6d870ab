"""What is drawn: axes with units, lines, markers; how it looks is for eyes."""

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray
from tests.unchecked import unchecked_types

import bohmdiff as bd

TS = jnp.linspace(0, 1, 17)
UNITS = bd.Units(bd.units.Label("fs"), bd.units.Label("Å"), bd.units.Label("eV"))


@pytest.fixture(autouse=True)
def drawn_without_a_screen():
    backend = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def gaussian(mean, ts=TS):
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(2 * jnp.eye(len(mean)))),
        bd.GaussianWavePacket(mean, 0.4 + 0.2 * mean[0]),
        t1=1.0,
    )
    return bd.solve(problem, bd.GaussianDynamics(steps=8), ts=ts)


@pytest.fixture(scope="module")
def solution():
    return gaussian([0.5, -0.2])


@pytest.fixture(scope="module")
def reference():
    return gaussian([0.6, -0.2])


@pytest.fixture(scope="module")
def line():
    return gaussian([0.5])


def with_markers(axes):
    return [line for line in axes.get_lines() if line.get_marker() not in ("None", None, "")]


def without_markers(axes):
    return [line for line in axes.get_lines() if line not in with_markers(axes)]


def test_moments_alone(solution):
    figure = bd.plot.moments(solution, units=UNITS)
    left, right = figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("mean, Å", "std. deviation, Å")
    assert left.get_xlabel() == right.get_xlabel() == "time t, fs"
    for axes, values in ((left, solution.mean()), (right, solution.std())):
        assert not with_markers(axes)
        for drawn, exact in zip(without_markers(axes), np.asarray(values).T, strict=True):
            np.testing.assert_allclose(drawn.get_xdata(), TS)
            np.testing.assert_allclose(drawn.get_ydata(), exact)
        # Told apart without colours.
        assert len({drawn.get_linestyle() for drawn in axes.get_lines()}) == 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["$x_{1}$", "$x_{2}$"]


@pytest.mark.parametrize("exported", [False, True], ids=["solution", "dataset"])
def test_moments_against_a_reference(solution, reference, exported):
    figure = bd.plot.moments(solution, reference.to_xarray() if exported else reference)
    assert len(figure.axes) == 4
    mean, std, mean_error, std_error = figure.axes
    assert mean.get_ylabel() == "mean, a.u."
    assert mean_error.get_ylabel() == "error of mean, a.u."
    assert std_error.get_ylabel() == "error of std. deviation, a.u."
    assert mean_error.get_xlabel() == std_error.get_xlabel() == "time t, a.u."
    assert mean_error.get_yscale() == std_error.get_yscale() == "log"
    assert len(without_markers(mean)) == len(with_markers(mean)) == 2
    np.testing.assert_allclose(with_markers(std)[1].get_ydata(), reference.std()[:, 1])
    error = np.abs(np.asarray(solution.mean() - reference.mean()))
    np.testing.assert_allclose(mean_error.get_lines()[0].get_ydata(), error[:, 0])
    assert figure.legends[0].get_texts()[-1].get_text() == "GaussianDynamics"


def test_moments_without_any_error(solution):
    figure = bd.plot.moments(solution, solution)
    assert figure.axes[2].get_yscale() == "linear"


def test_moments_against_a_reference_at_other_times(solution, reference):
    figure = bd.plot.moments(solution, reference.to_xarray().isel(time=slice(None, None, 4)))
    assert len(figure.axes) == 2
    np.testing.assert_allclose(with_markers(figure.axes[0])[0].get_xdata(), TS[::4])


@pytest.mark.parametrize("exported", [False, True], ids=["solution", "dataset"])
def test_energy(solution, reference, exported):
    figure = bd.plot.energy(solution, reference.to_xarray() if exported else reference, units=UNITS)
    top, below = figure.axes
    assert top.get_ylabel() == "mean energy, eV"
    assert below.get_ylabel() == "change since start, eV"
    assert below.get_xlabel() == "time t, fs"
    np.testing.assert_allclose(without_markers(top)[0].get_ydata(), solution.energy())
    np.testing.assert_allclose(with_markers(top)[0].get_ydata(), reference.energy())
    np.testing.assert_allclose(
        without_markers(below)[0].get_ydata(), solution.energy() - solution.energy()[0]
    )
    low, high = top.get_ylim()
    assert high - low > 0.05 * float(solution.energy()[0])
    assert len(bd.plot.energy(solution).axes[0].get_lines()) == 1


def test_density(line):
    paths = line.sample(jax.random.key(0), 5)[..., 0]
    figure = bd.plot.density(line, paths, label="Bohmian trajectories", units=UNITS)
    axes, colours = figure.axes
    assert axes.get_xlabel() == "time t, fs"
    assert axes.get_ylabel() == "position x, Å"
    assert colours.get_ylabel() == "density ρ(t, x) by GaussianDynamics, 1/Å"
    drawn = axes.get_lines()
    assert len(drawn) == 5
    np.testing.assert_allclose([d.get_ydata() for d in drawn], paths)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Bohmian trajectories"]
    (mesh,) = axes.collections
    values = np.asarray(mesh.get_array())
    np.testing.assert_allclose(
        np.max(values), 1 / np.sqrt(2 * np.pi) / float(jnp.min(line.std())), rtol=1e-3
    )
    low, high = axes.get_ylim()
    assert low < float(jnp.min(paths)) < float(jnp.max(paths)) < high


def test_density_alone_in_a_given_range(line):
    axes = bd.plot.density(line, lower=-1.0, upper=2.0).axes[0]
    assert axes.get_ylim() == (-1.0, 2.0)
    assert axes.get_legend() is None
    paths = np.zeros((2, 3))
    axes = bd.plot.density(line, paths, ts=[0.0, 0.2, 0.9]).axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_xdata(), [0.0, 0.2, 0.9])


def test_density_refuses_two_dimensions(solution):
    with pytest.raises(ValueError, match=r"one dimension, but the solution has 2\. Use plot\.moments"):
        bd.plot.density(solution)
    assert not plt.get_fignums()


def history(drift=(0.02, 0.004)):
    nan = np.nan
    return xarray.Dataset(
        {
            "loss": ("epoch", [2.0, 1.0, 0.5]),
            "fisher": ("epoch", [1.5, nan, 0.4]),
            "energy": ("epoch", [2.2, nan, 2.01]),
            "energy_drift": ("epoch", [drift[0], nan, drift[1]]),
        },
        coords={"epoch": [1, 2, 3]},
    )


def test_training():
    top, below = bd.plot.training(history(), reference_energy=2.0, units=UNITS).axes
    loss, fisher = top.get_lines()
    np.testing.assert_allclose(loss.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(loss.get_ydata(), [2.0, 1.0, 0.5])
    # Epochs without a validation leave no gap.
    np.testing.assert_allclose(fisher.get_xdata(), [1, 3])
    np.testing.assert_allclose(fisher.get_ydata(), [1.5, 0.4])
    error, drift = below.get_lines()
    np.testing.assert_allclose(error.get_ydata(), [0.2, 0.01])
    np.testing.assert_allclose(drift.get_ydata(), [0.02, 0.004])
    assert top.get_yscale() == below.get_yscale() == "log"
    assert fisher.get_label() == "Fisher divergence, 1/(Å)²"
    assert (below.get_xlabel(), below.get_ylabel()) == ("epoch", "energy error, eV")


def test_training_without_a_reference_or_an_error():
    top, below = bd.plot.training(history(drift=(0.0, 0.0))).axes
    assert len(below.get_lines()) == 1
    assert (top.get_yscale(), below.get_yscale()) == ("log", "linear")


def test_training_refuses_a_solution_that_was_not_trained():
    with pytest.raises(ValueError, match="only solutions by SelfConsistentScoreMatching, Deep"):
        bd.plot.training(None)


def test_settings_of_matplotlib_stay(solution):
    before = dict(mpl.rcParams)
    bd.plot.energy(solution)
    assert dict(mpl.rcParams) == before


def test_spectrum():
    ts = jnp.linspace(0, 400 * bd.units.fs, 201)
    signal = jnp.cos(2000 * bd.units.inverse_cm * ts)
    zero = jnp.zeros(())
    frequency = jnp.linspace(0, 4000, 801) * bd.units.inverse_cm
    peak = jnp.exp(-(((frequency / bd.units.inverse_cm - 2000) / 50) ** 2))
    spectrum = bd.Spectrum(frequency, peak, ts, signal, zero, zero + 1, False)
    axes = bd.plot.spectrum(spectrum, units=bd.Units(energy="inverse_cm")).axes[0]
    assert axes.get_xlabel() == "energy ħω, cm⁻¹"
    assert axes.get_ylabel() == "amplitude"
    (stick,) = axes.collections[0].get_segments()
    np.testing.assert_allclose(stick, [[2000, 0], [2000, 1]], atol=1e-6)
    curve = axes.lines[0]
    np.testing.assert_allclose(curve.get_xdata()[np.argmax(curve.get_ydata())], 2000)
    low, high = axes.get_xlim()
    assert 1700 < low < 2000 < high < 2300
    with unchecked_types(), pytest.raises(ValueError, match="spectrum must be a Spectrum"):
        bd.plot.spectrum(ts)

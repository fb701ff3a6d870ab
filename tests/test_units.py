"""Conversion factors against published values; axes and exported data that carry the numbers of their units."""

import re
from pathlib import Path

import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray

import bohmdiff as bd
from bohmdiff.units import Label
from tests.unchecked import unchecked_types

# From tables, not from scipy.constants; NIST gives atomic units, and the debye is 0.393430 e a0.
PUBLISHED = {
    "attosecond": 1 / 24.188843265,
    "fs": 1 / 0.024188843265,
    "ps": 1 / 0.000024188843265,
    "bohr": 1.0,
    "pm": 1 / 52.9177210,
    "angstrom": 1 / 0.529177210,
    "nm": 1 / 0.0529177210,
    "hartree": 1.0,
    "eV": 1 / 27.211386246,
    "meV": 1e-3 / 27.211386246,
    "inverse_cm": 1 / 219474.63136,
    "kelvin": 1 / 315775.0248,
    "kJ_per_mol": 1 / 2625.49964,
    "kcal_per_mol": 1 / 627.509474,
    "electron_mass": 1.0,
    "proton_mass": 1836.152673,
    "amu": 1822.888486,
    "debye": 0.393430270,
}
AXES = bd.Units("fs", "angstrom", "eV")
OWN = bd.Units(Label("1/ω"), Label("√(ħ/mω)"), Label("ħω"))
TS = jnp.linspace(0.0, 1.0, 5)


def test_factors_are_those_of_the_tables():
    numbers = {
        name: value
        for name, value in vars(bd.units).items()
        if isinstance(value, float) and not name.startswith("_")
    }
    assert set(numbers) == set(PUBLISHED)
    for name, value in PUBLISHED.items():
        assert numbers[name] == pytest.approx(value, rel=1e-8), name
        assert type(numbers[name]) is float


def test_a_vibration_of_hydrogen_chloride():
    """2991 cm⁻¹ and a reduced mass of 0.9796 u: a period of 11.15 fs and a force constant of 516 N/m."""
    omega, mass = 2991 * bd.units.inverse_cm, 0.9796 * bd.units.amu
    assert 2 * np.pi / omega / bd.units.fs == pytest.approx(11.152, abs=1e-3)
    assert mass * omega**2 / (bd.units.eV / bd.units.angstrom**2) == pytest.approx(
        516.4 / 16.0218, rel=1e-3
    )


def test_the_page_has_all_factors():
    page = (Path(__file__).parent.parent / "docs/api/units.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.e-]+) \|$", page, re.MULTILINE))
    assert set(rows) == set(PUBLISHED)
    for name, text in rows.items():
        assert float(text) == pytest.approx(getattr(bd.units, name), rel=1e-8), name


def test_names_are_symbols_however_they_are_written():
    assert bd.Units("fs", "angstrom", "inverse_cm") == bd.Units("fs", "Å", "cm⁻¹")
    assert bd.Units(length="\u212b") == bd.Units(length="\u00c5")  # the sign of ångström, and the letter
    assert (AXES.time, AXES.length, AXES.energy) == ("fs", "Å", "eV")
    assert bd.Units() == bd.Units("a.u.", "a.u.", "a.u.")
    assert bd.plot.Units is bd.Units is bd.units.Units
    for symbol, name in {
        "kJ/mol": "kJ_per_mol",
        "kcal/mol": "kcal_per_mol",
        "K": "kelvin",
        "as": "",
    }.items():
        kind = "time" if symbol == "as" else "energy"
        for one in filter(None, (symbol, name)):
            assert getattr(bd.Units(**{kind: one}), kind) == symbol


@pytest.mark.parametrize("kind", ["time", "length", "energy"])
@pytest.mark.parametrize("name", ["furlong", "FS", "", None, 41.3, ["fs"]])
def test_unknown_names_are_refused(kind, name):
    with unchecked_types(), pytest.raises(ValueError, match=rf"{kind} must be one of .*'a\.u\.'.*Label\("):
        bd.Units(**{kind: name})


@pytest.mark.parametrize(("kind", "name"), [("time", "eV"), ("length", "fs"), ("energy", "nm")])
def test_units_of_another_kind_are_refused(kind, name):
    with pytest.raises(ValueError, match=f"{kind} must be one of"):
        bd.Units(**{kind: name})


def test_labels_are_text():
    assert str(Label("ħω")) == "ħω"
    with unchecked_types(), pytest.raises(ValueError, match="A label must be text"):
        Label(3.0)


def test_conversion_of_numbers():
    assert AXES.convert(400 * bd.units.fs, time=1) == pytest.approx(400)
    np.testing.assert_allclose(AXES.convert(np.ones(3), length=-2), bd.units.angstrom**2)
    np.testing.assert_allclose(AXES.convert(1.0, energy=1, length=-1), bd.units.angstrom / bd.units.eV)
    for units in (bd.Units(), OWN):
        values = np.array([0.1, 0.2])
        assert units.convert(values, time=1, length=2, energy=-1) is values
        assert not units.converts
    single = AXES.convert(np.ones(3, np.float32), length=1)
    assert single.dtype == np.float32


def packet(d=1, hbar=1.0):
    hamiltonian = bd.Hamiltonian(bd.Quadratic(1.0), hbar=hbar)
    problem = bd.Problem(hamiltonian, bd.GaussianWavePacket([0.5] * d, 0.4), t1=1.0)
    return bd.solve(problem, bd.GaussianDynamics(steps=8), ts=TS)


@pytest.fixture(scope="module")
def atomic():
    return packet()


@pytest.fixture(scope="module")
def with_hbar():
    return packet(hbar=0.6582)


def test_exported_numbers_are_in_the_units_that_they_name(atomic):
    data, plain = atomic.to_xarray(units=AXES), atomic.to_xarray()
    for name, factor in {"mean": "angstrom", "std": "angstrom", "energy": "eV", "time": "fs"}.items():
        value = getattr(bd.units, factor)
        np.testing.assert_allclose(data[name].values * value, plain[name].values, rtol=1e-12)
        assert data[name].attrs["value_in_atomic_units"] == value
        assert plain[name].attrs["value_in_atomic_units"] == 1.0
    assert [data[name].attrs["units"] for name in ("time", "mean", "std", "energy")] == [
        "fs",
        "Å",
        "Å",
        "eV",
    ]
    assert data.attrs["t1"] == 1.0
    own = atomic.to_xarray(units=OWN)
    np.testing.assert_array_equal(own["energy"], plain["energy"])
    assert own["energy"].attrs == {"long_name": "mean energy", "units": "ħω"}


def test_a_problem_in_other_units_is_not_converted(with_hbar):
    wanted = r"Units\(time='fs'.*its hbar is 0\.6582 instead of 1.*Label\('fs'\)"
    for draw in (bd.plot.moments, bd.plot.energy, bd.plot.density, bd.plot.movie):
        with pytest.raises(ValueError, match=wanted):
            draw(with_hbar, units=bd.Units(time="fs"))
    with pytest.raises(ValueError, match=wanted):
        with_hbar.to_xarray(units=bd.Units(time="fs"))
    named = with_hbar.to_xarray(units=bd.Units(time=Label("fs")))
    assert (named["time"].attrs["units"], named["mean"].attrs["units"]) == ("fs", "own units")
    np.testing.assert_array_equal(named["time"], TS)
    with pytest.raises(ValueError, match=wanted):
        bd.plot.energy(named, units=bd.Units(time="fs"))


@pytest.fixture
def drawn_without_a_screen():
    backend = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


@pytest.mark.usefixtures("drawn_without_a_screen")
class TestPlots:
    def test_moments_and_energy(self, atomic):
        for source in (atomic, atomic.to_xarray(), atomic.to_xarray(units=bd.Units("ps", "nm", "meV"))):
            mean, std = bd.plot.moments(source, units=AXES).axes
            assert (mean.get_ylabel(), std.get_xlabel()) == ("mean, Å", "time t, fs")
            (line,) = mean.get_lines()
            np.testing.assert_allclose(line.get_xdata(), TS / bd.units.fs, rtol=1e-6)
            np.testing.assert_allclose(line.get_ydata(), atomic.mean()[:, 0] / bd.units.angstrom, rtol=1e-6)
            (line,) = std.get_lines()
            np.testing.assert_allclose(line.get_ydata(), atomic.std()[:, 0] / bd.units.angstrom, rtol=1e-6)
            top, _ = bd.plot.energy(source, units=AXES).axes
            assert top.get_ylabel() == "mean energy, eV"
            (line,) = top.get_lines()
            np.testing.assert_allclose(line.get_ydata(), atomic.energy() / bd.units.eV, rtol=1e-6)

    def test_a_solution_is_drawn_in_the_units_of_a_dataset(self, atomic):
        data = atomic.to_xarray(units=AXES)
        for sources in ((atomic, data), (data, atomic)):
            mean, _, error, _ = bd.plot.moments(*sources).axes
            assert mean.get_ylabel() == "mean, Å"
            ours, theirs = mean.get_lines()
            np.testing.assert_allclose(ours.get_ydata(), theirs.get_ydata(), rtol=1e-12)
            assert error.get_ylabel() == "error of mean, Å"
        other = atomic.to_xarray(units=bd.Units(length="pm"))
        ours, theirs = bd.plot.moments(data, other).axes[0].get_lines()
        np.testing.assert_allclose(ours.get_ydata(), theirs.get_ydata(), rtol=1e-12)

    def test_labels_of_a_dataset_are_kept_and_never_converted(self, atomic, tmp_path):
        atomic.to_xarray(units=OWN).to_netcdf(tmp_path / "own.nc")
        data = xarray.load_dataset(tmp_path / "own.nc")
        ours, theirs = bd.plot.moments(data, atomic).axes[0].get_lines()
        np.testing.assert_array_equal(ours.get_ydata(), theirs.get_ydata())
        with pytest.raises(ValueError, match=r"time of solution is in '1/ω', .* to 'fs'.*Label\('1/ω'\)"):
            bd.plot.energy(data, units=AXES)
        assert bd.plot.energy(data, units=bd.Units(Label("s"), Label("m"), Label("J"))).axes[0].get_ylabel()

    def test_own_units(self, with_hbar):
        for source in (with_hbar, with_hbar.to_xarray()):
            assert bd.plot.moments(source).axes[0].get_ylabel() == "mean, own units"
        assert bd.plot.energy(with_hbar, units=OWN).axes[0].get_ylabel() == "mean energy, ħω"

    def test_density(self, atomic):
        paths, times = [[0.1, 0.3]], [0.2, 0.8]
        drawn, colours = bd.plot.density(
            atomic, paths, ts=times, reference=[[0.5] * 5], lower=-2.0, upper=3.0, units=AXES
        ).axes
        assert (drawn.get_xlabel(), drawn.get_ylabel()) == ("time t, fs", "position x, Å")
        np.testing.assert_allclose(drawn.get_ylim(), np.array([-2.0, 3.0]) / bd.units.angstrom)
        path, exact = drawn.get_lines()
        np.testing.assert_allclose(path.get_xdata(), np.array(times) / bd.units.fs)
        np.testing.assert_allclose(path.get_ydata(), np.array(paths[0]) / bd.units.angstrom)
        np.testing.assert_allclose(exact.get_xdata(), TS / bd.units.fs)
        np.testing.assert_allclose(exact.get_ydata(), 0.5 / bd.units.angstrom)
        assert colours.get_ylabel().endswith(", 1/Å")
        # A density per length: its integral stays one.
        (mesh,) = drawn.collections
        rho, y = np.asarray(mesh.get_array()), mesh.get_coordinates()[:, 0, 1]
        np.testing.assert_allclose(np.trapezoid(rho[:, 0], y), 1.0, atol=1e-3)

    @pytest.mark.parametrize("d", [1, 2])
    def test_movie(self, d):
        solution = packet(d)
        paths = np.full((1, 5, d), 0.4)
        animation = bd.plot.movie(solution, paths, exact=solution, lower=-2.0, upper=3.0, units=AXES)
        drawn = animation._fig.axes[0]
        animation._func(4)
        assert drawn.get_title(loc="left") == f"t = {1 / bd.units.fs:.2f} fs"
        np.testing.assert_allclose(drawn.get_xlim(), np.array([-2.0, 3.0]) / bd.units.angstrom)
        dots = next(line for line in drawn.get_lines() if line.get_marker() == "o")
        np.testing.assert_allclose(dots.get_xdata(), 0.4 / bd.units.angstrom)
        if d == 1:
            curve = drawn.get_lines()[0]
            np.testing.assert_allclose(np.trapezoid(curve.get_ydata(), curve.get_xdata()), 1.0, atol=2e-3)
            below = animation._fig.axes[1]
            np.testing.assert_allclose(below.get_ylim(), [0, 1 / bd.units.fs])
            assert (below.get_ylabel(), below.get_xlabel()) == ("time t, fs", "position x, Å")
        else:
            (image,) = drawn.images
            area = np.ptp(image.get_extent()[:2]) * np.ptp(image.get_extent()[2:])
            np.testing.assert_allclose(image.get_array().mean() * area, 1.0, atol=0.03)
        animation._draw_was_started = True  # it is not shown

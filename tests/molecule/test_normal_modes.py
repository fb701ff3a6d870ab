"""Normal modes against other programs, against diagonalisation, and as files."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.molecule.vibrations import perturbed_shifts, variational_levels
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff._check import cast_floats
from bohmdiff.hamiltonian import bounded
from bohmdiff.testing import check_potential

ROOT = Path(__file__).parents[2]
WATER = ROOT / "examples/data/water.json"
FORMALDEHYDE = ROOT / "tests/data/formaldehyde.json"
CM = bd.units.inverse_cm
XYZ = "3\nwater\nO 0 0 0.117\nH 0 0.757 -0.469\nH 0 -0.757 -0.469\n"
# CFOUR, RHF/6-31G*, as in the tests of pyvpt2. The last mode of formaldehyde is in resonance.
HARMONIC = {
    WATER: [1826.8154, 4060.2203, 4177.8273],
    FORMALDEHYDE: [1335.4895, 1382.7834, 1679.7417, 2031.0176, 3157.7172, 3230.2677],
}
SHIFTS = {
    WATER: [-54.0635, -158.2345, -177.9707],
    FORMALDEHYDE: [-17.4496, -18.9212, -33.1555, -25.5869, -142.8295],
}


@pytest.fixture(scope="module")
def water():
    return bd.NormalModes.load(WATER)


@pytest.fixture(scope="module")
def formaldehyde():
    return bd.NormalModes.load(FORMALDEHYDE)


@pytest.mark.parametrize(("path", "accuracy"), [(WATER, 5.0), (FORMALDEHYDE, 0.3)])
def test_harmonic_frequencies_are_those_of_cfour(path, accuracy):
    modes = bd.NormalModes.load(path)
    np.testing.assert_allclose(modes.frequencies / CM, HARMONIC[path], atol=accuracy)


@pytest.mark.parametrize("path", [WATER, FORMALDEHYDE])
def test_the_shifts_of_perturbation_theory_are_those_of_cfour(path):
    shifts = perturbed_shifts(bd.NormalModes.load(path))
    np.testing.assert_allclose(shifts[: len(SHIFTS[path])], SHIFTS[path], atol=0.1)


@pytest.mark.slow
def test_the_bounded_force_field_has_the_levels_of_the_polynomial(water):
    plain, bound = (variational_levels(water, 11, reach)[:6] for reach in (None, float(water.reach)))
    np.testing.assert_allclose(bound[0], plain[0], atol=1e-3)
    np.testing.assert_allclose(bound[1:] - bound[0], plain[1:] - plain[0], atol=0.03)
    # The fundamentals are the second, fourth and fifth level.
    np.testing.assert_allclose((bound - bound[0])[[1, 3, 4]], (plain - plain[0])[[1, 3, 4]], atol=2e-3)
    # As converged with up to 15 quanta.
    np.testing.assert_allclose(plain[0], 4976.877, atol=5e-3)
    np.testing.assert_allclose((plain - plain[0])[[1, 3, 4]], [1750.313, 3934.223, 4028.295], atol=5e-3)


@pytest.mark.slow
def test_the_bound_moves_the_fundamentals_of_formaldehyde_little(formaldehyde):
    plain, bound = (variational_levels(formaldehyde, 6, r) for r in (None, float(formaldehyde.reach)))
    # Five fundamentals, and those in resonance near 3024 cm⁻¹.
    np.testing.assert_allclose((bound - bound[0])[1:13], (plain - plain[0])[1:13], atol=0.1)


def test_the_levels_are_those_of_the_hamiltonian(water):
    """One mode by itself, on points of Gauss and Hermite, with the potential of the library."""
    n, points = 24, 60
    x, weights = np.polynomial.hermite.hermgauss(points)
    functions = [np.pi**-0.25 * np.ones(points), np.pi**-0.25 * np.sqrt(2) * x]
    for k in range(2, n):
        functions.append(np.sqrt(2 / k) * x * functions[-1] - np.sqrt((k - 1) / k) * functions[-2])
    values = np.array(functions)
    hamiltonian = water.hamiltonian
    line = jnp.zeros((points, 3)).at[:, 1].set(x)
    anharmonic = (
        jax.vmap(hamiltonian.potential, in_axes=(None, 0))(0.0, line) - 0.5 * x**2 / hamiltonian.mass[1]
    )
    matrix = (values * weights * anharmonic) @ values.T + np.diag(
        (np.arange(n) + 0.5) / hamiltonian.mass[1]
    )
    field = bd.NormalModes.from_force_field(
        [water.frequencies[1]],
        {(0, 0, 0): water.cubic[1, 1, 1]},
        {(0,) * 4: water.quartic[1, 1, 1, 1]},
        energy=1.0,
    )
    np.testing.assert_allclose(
        np.linalg.eigvalsh(matrix)[:4] / CM,
        variational_levels(field, n - 1, float(field.reach))[:4],
        rtol=1e-9,
    )


@pytest.mark.parametrize("path", [WATER, FORMALDEHYDE])
def test_near_the_minimum_all_is_polynomial(path):
    modes = bd.NormalModes.load(path)
    potential, dipole = modes.hamiltonian.potential, modes.dipole
    omega, cubic, quartic = (np.asarray(one) for one in (modes.frequencies, modes.cubic, modes.quartic))
    both = jax.jit(lambda q: (potential(0.0, q), dipole(q)))
    for q in np.random.default_rng(0).uniform(-0.8, 0.8, size=(4, omega.size)) * float(modes.reach):
        expected = 0.5 * omega @ q**2 + cubic @ q @ q @ q / 6 + quartic @ q @ q @ q @ q / 24
        curved = np.asarray(dipole.curvature) @ q @ q / 2
        energy, moment = both(jnp.asarray(q))
        np.testing.assert_allclose(energy, expected, atol=0.02 * CM)
        np.testing.assert_allclose(moment, dipole.constant + modes.dipole_gradient @ q + curved, atol=1e-6)
    np.testing.assert_allclose(modes.hamiltonian.mass * omega, 1.0, rtol=1e-12)


def test_the_bounded_coordinate():
    q = jnp.array([*np.linspace(-4.0, 4.0, 41), -1e200, -1e3, -6.0, 6.0, 1e3, 1e200])
    u = jax.jit(bounded)(q, jnp.array(5.0))
    np.testing.assert_allclose(u[:41], q[:41], atol=1e-6)
    np.testing.assert_allclose(u[41:], [-5, -5, -5, 5, 5, 5], atol=1e-6)
    everywhere = jnp.linspace(-20.0, 20.0, 2001)
    slopes = jax.jit(jax.vmap(jax.grad(bounded), in_axes=(0, None)))(everywhere, jnp.array(5.0))
    assert jnp.all((slopes >= 0) & (slopes <= 1 + 1e-12))


@pytest.mark.parametrize("path", [WATER, FORMALDEHYDE])
def test_no_energy_is_below_the_minimum(path):
    modes = bd.NormalModes.load(path)
    energy = jax.jit(jax.vmap(modes.hamiltonian.potential, in_axes=(None, 0)))
    draws = jax.random.uniform(jax.random.key(0), (20_000, modes.frequencies.size), minval=-1.0, maxval=1.0)
    for scale in (0.5, 2.0, 4.0, 8.0, 100.0):
        corners = jnp.clip(2 * draws, -1, 1) * scale
        assert jnp.min(energy(0.0, corners)) >= 0
    assert jnp.isfinite(energy(0.0, 1e100 * draws)).all()


@pytest.mark.slow
def test_a_reach_beyond_the_first_minimum_is_told(formaldehyde):
    constants = (
        np.asarray(one) for one in (formaldehyde.frequencies, formaldehyde.cubic, formaldehyde.quartic)
    )
    frequencies, cubic, quartic = constants
    with pytest.warns(UserWarning, match=r"energies below the minimum .* at most 3\.74"):
        modes = bd.NormalModes.from_force_field(frequencies, cubic, quartic, energy=1.0, reach=5.0)
    # There they are.
    corner = jnp.array([-5.0, 5.0, 5.0, -5.0, 5.0, -5.0])
    corners = corner * jnp.array(np.array(np.meshgrid(*[[-1.0, 1.0]] * 6)).reshape(6, -1).T)
    assert jnp.min(jax.vmap(modes.hamiltonian.potential, in_axes=(None, 0))(0.0, corners)) < -0.1
    with pytest.warns(UserWarning, match=r"falls below the minimum of the molecule at \|q\| = 1\."):
        bd.NormalModes.from_force_field([1000.0], {(0, 0, 0): 1900.0}, energy=CM)


@pytest.mark.slow
@pytest.mark.parametrize("path", [WATER, FORMALDEHYDE])
def test_terms_of_few_coordinates_add_up(path):
    modes = bd.NormalModes.load(path)
    d = modes.frequencies.size
    potential = modes.hamiltonian.potential
    terms = potential.separable_terms(d)
    assert len({term.coordinates for term in terms}) == len(terms)
    assert {len(term.coordinates) for term in terms} == {1, 2, 3}

    @jax.jit
    def both(x):
        return potential(0.0, x), sum(term.potential(0.0, x[jnp.array(term.coordinates)]) for term in terms)

    for scale in (1.0, 3.0):
        whole, total = both(scale * jax.random.normal(jax.random.key(1), (d,)))
        np.testing.assert_allclose(total, whole, rtol=1e-12)


@pytest.mark.slow
def test_four_modes_may_be_coupled():
    modes = bd.NormalModes.from_force_field([1.0] * 4, quartic={(0, 1, 2, 3): 0.1}, energy=1.0)
    terms = modes.hamiltonian.potential.separable_terms(4)
    assert [term.coordinates for term in terms] == [(0,), (1,), (2,), (3,), (0, 1, 2, 3)]
    x = jnp.array([0.5, -0.4, 0.3, 0.8])
    # 4! orders of the indices over 4!.
    np.testing.assert_allclose(terms[-1].potential(0.0, x), 0.1 * jnp.prod(x), rtol=1e-9)


@pytest.mark.slow
def test_law(water):
    check_potential(water.hamiltonian.potential, 3, time_dependent=False)


def test_float32(water):
    single = cast_floats(water, jnp.float32)
    x = jnp.array([0.4, -0.7, 0.9], jnp.float32)
    value, moment = jax.jit(lambda x: (single.hamiltonian.potential(0.0, x), single.dipole(x)))(x)
    assert value.dtype == moment.dtype == jnp.float32
    np.testing.assert_allclose(value, water.hamiltonian.potential(0.0, x.astype(float)), rtol=1e-5)


def test_published_constants_in_any_form(water):
    cubic = {(1, 0, 1): 62.5, (2, 0, 2): 238.0, (1, 1, 1): -1833.0}
    field = bd.NormalModes.from_force_field([1826.5, 4056.4, 4174.5], cubic, energy=CM, reach=4.0)
    assert field.cubic[0, 1, 1] == field.cubic[1, 1, 0] == 62.5 * CM
    same = bd.NormalModes.from_force_field(
        np.asarray(field.frequencies), np.asarray(field.cubic), energy=1.0, reach=4.0
    )
    x = jnp.array([0.4, -0.7, 0.9])
    np.testing.assert_allclose(
        same.hamiltonian.potential(0.0, x), field.hamiltonian.potential(0.0, x), rtol=1e-14
    )
    with pytest.raises(ValueError, match="no dipole moment"):
        _ = field.dipole
    gradient = np.arange(9.0).reshape(3, 3)
    polar = bd.NormalModes.from_force_field([1826.5, 4056.4, 4174.5], energy=CM, dipole_gradient=gradient)
    np.testing.assert_allclose(polar.dipole(x), gradient @ x, rtol=1e-12)


def test_gradients_flow_to_force_constants():
    x = jnp.array([0.4, -0.7])

    def energy(constant):
        cubic = jnp.zeros((2, 2, 2)).at[1, 1, 1].set(constant)
        modes = bd.NormalModes.from_force_field([1.0, 2.0], cubic, energy=1.0, reach=4.0)
        return modes.hamiltonian.potential(0.0, x)

    np.testing.assert_allclose(jax.jit(jax.grad(energy))(0.3), x[1] ** 3 / 6, rtol=1e-9)


def test_a_file_gives_the_same_back(water, tmp_path):
    for path in (tmp_path / "deep" / "water.json", tmp_path / "water.json"):
        water.save(path)
        again = bd.NormalModes.load(path)
        # Units are converted, so the last bit may change once.
        for ours, theirs in zip(jax.tree.leaves(water), jax.tree.leaves(again), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=4e-16)
        assert jax.tree.structure(water) == jax.tree.structure(again)
    stored = json.loads(path.read_text(encoding="utf-8"))
    assert stored["units"]["frequencies"] == "cm^-1"
    np.testing.assert_allclose(stored["frequencies"], [1826.51, 4056.40, 4174.51], atol=0.01)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "water.json"]


def test_a_plain_force_field_is_a_file_too(tmp_path):
    field = bd.NormalModes.from_force_field([1000.0, 1500.0], {(0, 0, 1): 80.0}, energy=CM)
    field.save(tmp_path / "field.json")
    again = bd.NormalModes.load(tmp_path / "field.json")
    np.testing.assert_allclose(again.cubic, field.cubic, rtol=4e-16)
    assert again.symbols is None
    assert again.geometry is None


def test_repr(water):
    assert repr(water) == (
        "NormalModes of O H H, hf/6-31g*, PySCF 2.14.0: harmonic frequencies 1826.51, 4056.40, 4174.51 cm⁻¹"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored: stored.pop("cubic"), "lacks cubic"),
        (
            lambda stored: stored.update(format="bohmdiff normal modes, version 9"),
            "its format is .*version 9",
        ),
        (lambda stored: stored["units"].update(cubic="eV"), "the unit of cubic is 'eV'"),
        (lambda stored: stored["cubic"].append([0, 0, 7, 1.0]), "indices of cubic must be 3 whole numbers"),
        (lambda stored: stored["cubic"].append([1, 0, 0, 1.0]), "two different values"),
        (lambda stored: stored["frequencies"].append(1.0), "must have shape"),
    ],
)
def test_a_damaged_file_is_refused(water, tmp_path, change, message):
    path = tmp_path / "water.json"
    stored = json.loads(WATER.read_text(encoding="utf-8"))
    change(stored)
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        bd.NormalModes.load(path)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2", encoding="utf-8")
    with pytest.raises(ValueError, match="no file of normal modes"):
        bd.NormalModes.load(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError):
        bd.NormalModes.load(tmp_path / "none.json")


def from_field(**given):
    return bd.NormalModes.from_force_field(**({"frequencies": [1.0, 2.0], "energy": 1.0} | given))


def from_xyz(geometry=XYZ, **given):
    return bd.NormalModes.from_geometry(geometry, **({"method": "hf", "basis": "sto-3g"} | given))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_field(frequencies=[1.0, -2.0]), r"frequencies must be positive, but \[ 1., -2.\]"),
        (lambda: from_field(frequencies=1.0), r"frequencies must have shape \(d,\)"),
        (lambda: from_field(frequencies=[]), "at least one entry"),
        (lambda: from_field(cubic={(0, 0): 1.0}), "indices of cubic must be 3 whole numbers from 0 to 1"),
        (lambda: from_field(cubic={(0, 0, 2): 1.0}), r"but \(0, 0, 2\) was given"),
        (lambda: from_field(cubic={(0, 0, 1): 1.0, (1, 0, 0): 2.0}), "two different values"),
        (lambda: from_field(cubic={(0, 0, 1): "big"}), r"cubic\[\(0, 0, 1\)\] must be a number"),
        (lambda: from_field(cubic=np.zeros((2, 2))), r"cubic must have shape \(2, 2, 2\)"),
        (lambda: from_field(quartic=np.arange(16.0).reshape(2, 2, 2, 2)), "symmetric in all its indices"),
        (lambda: from_field(energy=0.0), "energy must be the unit"),
        (lambda: from_field(dipole_gradient=np.zeros((2, 3))), r"dipole_gradient must have shape \(3, d\)"),
        (lambda: from_field(reach=-1.0), "reach must be a positive number"),
        (lambda: from_xyz("O 0 0 0\nH 0 0 one\n"), "the line 'H 0 0 one', which is no atom"),
        (lambda: from_xyz("3\nwater\nO 0 0 0\nH 0 0 1\n"), "announces 3 atoms .* but 2 follow"),
        (lambda: from_xyz("O 0 0 0\n"), "has 1 atoms"),
        (lambda: from_xyz("O 0 0 0\nH 0 0 0.001\n"), "atoms 0 and 1 at a distance of"),
        (lambda: from_xyz(method="hf", basis=None), "basis must be the name of a basis"),
        (lambda: from_xyz(method=None), "method must be 'hf' or the name"),
        (lambda: from_xyz(charge=0.5), "charge must be a whole number"),
        (lambda: from_xyz(3.0), "geometry must be the path of an XYZ file"),
        (
            lambda: from_xyz(masses=[1.0, 2.0]),
            "masses must be positive numbers in u, one for each of the 3",
        ),
    ],
)
def test_errors(make, message):
    with unchecked_types(), pytest.raises(ValueError, match=message):
        make()


def test_other_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .* or its text"):
        from_xyz("water.xyz")
    with unchecked_types(), pytest.raises(TypeError, match=r"made by NormalModes\.from_geometry"):
        bd.NormalModes(3)


def test_without_pyscf_one_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(ImportError, match=r'pip install "\.\[chem\]"'):
        from_xyz(cache=tmp_path)

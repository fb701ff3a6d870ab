"""Normal modes from electronic structure, with PySCF."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.molecule.test_normal_modes import WATER, XYZ

import bohmdiff as bd

pytest.importorskip("pyscf")
pytestmark = pytest.mark.slow
CM = bd.units.inverse_cm


def hydrogen(cache, distance=0.712, **given):
    text = f"H 0 0 0\nH 0 0 {distance}\n"
    return bd.NormalModes.from_geometry(
        text, **({"method": "hf", "basis": "sto-3g", "cache": cache} | given)
    )


def test_water(tmp_path):
    water = bd.NormalModes.from_geometry(XYZ, method="HF", basis="6-31G*", optimize=True, cache=tmp_path)
    kept = bd.NormalModes.load(WATER)
    np.testing.assert_allclose(water.frequencies / CM, kept.frequencies / CM, atol=0.01)
    np.testing.assert_allclose(water.cubic / CM, kept.cubic / CM, atol=0.05)
    np.testing.assert_allclose(water.quartic / CM, kept.quartic / CM, atol=0.5)
    np.testing.assert_allclose(water.dipole_gradient, kept.dipole_gradient, atol=1e-5)

    # The energy and the dipole moment of the electrons themselves, at another geometry.
    import pyscf

    def at(q):
        positions = np.asarray(water.geometry) + np.tensordot(q, np.asarray(water.displacements), axes=1)
        atoms = list(zip(water.symbols, positions.tolist(), strict=True))
        field = pyscf.gto.M(atom=atoms, unit="Bohr", basis="6-31g*", verbose=0).RHF()
        field.conv_tol = 1e-11
        return field.kernel(), field.dip_moment(unit="AU", verbose=0)

    energy, _ = at(np.zeros(3))
    for q in ([0.3, -0.2, 0.25], [-0.3, 0.25, 0.2]):
        other, moment = at(np.array(q))
        # Up to terms of the fifth order.
        found = water.hamiltonian.potential(0.0, jnp.array(q))
        np.testing.assert_allclose(found / CM, (other - energy) / CM, atol=0.5)
        np.testing.assert_allclose(water.dipole(jnp.array(q)), moment, atol=3e-4)
    assert abs(found - 0.5 * np.sum(water.frequencies * np.square(q))) > 10 * CM


def test_hydrogen_and_the_kept_result(tmp_path, monkeypatch):
    """The bond of 1.346 bohr is in Szabo and Ostlund, Modern Quantum Chemistry, table 3.11."""
    modes = hydrogen(tmp_path, distance=0.8, optimize=True)
    bond = np.linalg.norm(modes.geometry[1] - modes.geometry[0])
    np.testing.assert_allclose(bond, 1.346, atol=1e-3)
    assert modes.frequencies.shape == (1,)
    assert len(list(tmp_path.iterdir())) == 1
    # It is found again without PySCF, and has the same bits.
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyscf", None)
        again = hydrogen(tmp_path, distance=0.8, optimize=True)
        for ours, theirs in zip(jax.tree.leaves(modes), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        with pytest.raises(ImportError):
            hydrogen(tmp_path, distance=0.8, basis="3-21g", optimize=True)
    # Deuterium, by the ratio of the masses.
    heavy = hydrogen(tmp_path, distance=0.8, masses=[2.014, 2.014], optimize=True)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_allclose(heavy.frequencies / modes.frequencies, np.sqrt(1.007825 / 2.014), rtol=1e-4)


def test_a_kept_file_that_is_damaged_is_made_anew(tmp_path):
    modes = hydrogen(tmp_path, optimize=True)
    (path,) = tmp_path.iterdir()
    path.write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match="cannot be read, and is computed again"):
        again = hydrogen(tmp_path, optimize=True)
    np.testing.assert_allclose(again.frequencies, modes.frequencies, rtol=1e-9)
    np.testing.assert_array_equal(hydrogen(tmp_path, optimize=True).frequencies, again.frequencies)


def test_a_folder_that_takes_no_files_is_told(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.warns(UserWarning, match="could not be kept in"):
        hydrogen(tmp_path / "file", optimize=True)


def test_a_geometry_that_is_not_stationary_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"not stationary: the minimum is about 0\.\d+ away .* optimize=True"
    ):
        hydrogen(tmp_path, distance=0.74)
    assert list(tmp_path.iterdir()) == []


def test_a_saddle_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not a minimum: modes have the frequencies -\d+.*imaginary"):
        bd.NormalModes.from_geometry(
            "O 0 0 0\nH 0 0 0.93\nH 0 0 -0.93", method="hf", basis="sto-3g", optimize=True, cache=tmp_path
        )


def test_a_linear_molecule_has_one_mode_more(tmp_path):
    cyanide = "H 0 0 -1.06\nC 0 0 0\nN 0 0 1.15"
    with pytest.warns(UserWarning, match="Torsions and the bends of linear molecules"):
        modes = bd.NormalModes.from_geometry(
            cyanide, method="hf", basis="sto-3g", optimize=True, cache=tmp_path
        )
    assert modes.frequencies.shape == (4,)
    # Two bends, with the same frequency.
    np.testing.assert_allclose(modes.frequencies[0], modes.frequencies[1], rtol=1e-4)


@pytest.mark.long
def test_a_mole_and_a_density_functional(tmp_path):
    from pyscf import gto

    mole = gto.M(atom="H 0 0 0; H 0 0 0.74", basis="sto-3g", verbose=0)
    modes = bd.NormalModes.from_geometry(mole, method="lda,vwn", optimize=True, cache=tmp_path)
    same = hydrogen(tmp_path, distance=0.74, method="lda,vwn", optimize=True)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_allclose(modes.frequencies / CM, same.frequencies / CM, atol=0.01)
    np.testing.assert_allclose(modes.cubic / CM, same.cubic / CM, atol=0.5)
    with pytest.raises(ValueError, match="A Mole has its own basis"):
        bd.NormalModes.from_geometry(mole, method="hf", basis="6-31g", cache=tmp_path)


def test_an_open_shell(tmp_path):
    modes = bd.NormalModes.from_geometry(
        "O 0 0 0\nH 0 0 0.97", method="hf", basis="6-31g", spin=1, optimize=True, cache=tmp_path
    )
    assert 3500 < modes.frequencies[0] / CM < 4500


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "ccsd(t)"}, "method must be 'hf' or the name of a density functional"),
        ({"basis": "no-such-basis"}, "cannot build this molecule. Check the elements, basis="),
        ({"charge": 1}, "cannot build this molecule"),
    ],
)
def test_errors(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        hydrogen(tmp_path, **given)


def test_a_symbol_that_is_no_element(tmp_path):
    with pytest.raises(ValueError, match="no elements"):
        bd.NormalModes.from_geometry("Qq 0 0 0\nH 0 0 1", method="hf", basis="sto-3g", cache=tmp_path)

"""Energies, forces, Hessians and dipole moments from PySCF."""

from typing import Any

import numpy as np

from .._errors import ElectronicStructureError

_NEEDED = 'from_geometry needs PySCF for this: pip install ".[chem]", or pip install pyscf.'
_SCF_TOLERANCE = 1e-12  # hartree: second differences of Hessians lose digits
_GRID_LEVEL = 5  # of 9, for density functionals


def import_pyscf() -> Any:
    try:
        import pyscf
        import pyscf.dft
        import pyscf.hessian
    except ImportError as error:
        raise ImportError(_NEEDED) from error
    return pyscf


class Surface:
    """The Born–Oppenheimer surface of a molecule, all in atomic units.

    - `build`: the keywords of `pyscf.gto.M`, except for the atoms.
    """

    def __init__(self, labels: tuple[str, ...], method: str, build: dict[str, Any]):
        self._pyscf = import_pyscf()
        self._labels = labels
        self._build = build
        self._method = method.lower()
        self._guess: Any = None
        self.version: str = self._pyscf.__version__
        if self._method != "hf":
            _check_functional(self._pyscf, method)

    def mole(self, positions: np.ndarray) -> Any:
        atoms = [
            (label, position.tolist()) for label, position in zip(self._labels, positions, strict=True)
        ]
        try:
            return self._pyscf.gto.M(atom=atoms, unit="Bohr", verbose=0, **self._build)
        except Exception as error:
            raise ValueError(
                "PySCF cannot build this molecule. Check the elements, basis=, charge= and spin= (the number of "
                f"unpaired electrons). It says: {' '.join(str(error).split())}"
            ) from error

    def solve(self, positions: np.ndarray) -> Any:
        """The self-consistent field at these positions, shape `(N, 3)`."""
        mole = self.mole(positions)
        if self._method == "hf":
            field = mole.RHF() if mole.spin == 0 else mole.UHF()
        else:
            field = mole.RKS() if mole.spin == 0 else mole.UKS()
            field.xc = self._method
            field.grids.level = _GRID_LEVEL
        field.conv_tol = _SCF_TOLERANCE
        field.max_cycle = 200
        # From the density nearby, a displaced molecule converges in a third of the cycles.
        field.kernel(dm0=self._guess)
        if not field.converged:
            raise ElectronicStructureError(
                f"The self-consistent field of {self._method} did not converge within {field.max_cycle} cycles. "
                "Check the geometry, charge= and spin=, or try another method or basis."
            )
        self._guess = field.make_rdm1()
        return field

    def energy_and_gradient(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        """The energy, and its gradient of shape `(N, 3)`."""
        field = self.solve(positions)
        return float(field.e_tot), np.array(field.nuc_grad_method().kernel())

    def dipole(self, field: Any, origin: np.ndarray) -> np.ndarray:
        """The dipole moment about `origin`, shape `(3,)`."""
        moment = np.array(field.dip_moment(unit="AU", verbose=0))
        return moment - field.mol.charge * origin

    def hessian(self, field: Any) -> np.ndarray:
        """Second derivatives of the energy, shape `(3 N, 3 N)`."""
        blocks = np.array(field.Hessian().kernel())
        size = 3 * len(self._labels)
        matrix = blocks.transpose(0, 2, 1, 3).reshape(size, size)
        return 0.5 * (matrix + matrix.T)


def isotope_masses(symbols: tuple[str, ...]) -> np.ndarray:
    """The mass of the most common isotope of each element, in u."""
    elements = import_pyscf().data.elements
    try:
        charges = [elements.charge(symbol) for symbol in symbols]
    except (KeyError, RuntimeError):
        raise ValueError(f"The geometry has symbols that are no elements: {', '.join(symbols)}.") from None
    if min(charges) < 1:
        raise ValueError(
            f"The geometry has atoms without a nucleus, {', '.join(symbols)}: ghosts do not vibrate."
        )
    return np.array([elements.COMMON_ISOTOPE_MASSES[charge] for charge in charges])


def _check_functional(pyscf: Any, method: str) -> None:
    try:
        pyscf.dft.libxc.parse_xc(method)
    except Exception:
        raise ValueError(
            "method must be 'hf' or the name of a density functional of PySCF, such as 'b3lyp', since only these "
            f"have analytic Hessians, but {method!r} was given."
        ) from None

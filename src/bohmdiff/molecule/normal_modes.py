"""The vibrations of a molecule in dimensionless normal coordinates."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import units
from .._check import as_flag, as_float, as_real_array, describe, is_concrete, require, warn
from .._precision import in_full_precision
from .._types import Numbers, Scalar
from ..hamiltonian import Hamiltonian, PolynomialDipole
from . import _file
from ._constants import constants_of
from ._derivatives import STEP, normal_modes
from ._electronic import Surface, isotope_masses
from ._geometry import masses_of, molecule_of
from ._reach import largest_reach
from .force_field import QuarticForceField

_REACH = 5.0
# A wave function with a few quanta goes farther.
_SMALL_REACH = 3.0


class NormalModes(eqx.Module):
    r"""The vibrations of a molecule: a quartic force field and a dipole moment in dimensionless normal
    coordinates $q$.

    $$H = \sum_i \frac{\omega_i}{2} (p_i^2 + q_i^2) + \frac16 \sum_{ijk} \phi_{ijk} u_i u_j u_k
    + \frac1{24} \sum_{ijkl} \phi_{ijkl} u_i u_j u_k u_l$$

    ```python
    water = bd.NormalModes.from_geometry(
        "O 0 0 0.117\nH 0 0.757 -0.469\nH 0 -0.757 -0.469",
        method="hf",
        basis="6-31g*",
        optimize=True,
        cache="cache",
    )
    water.frequencies / bd.units.inverse_cm
    ground = bd.GaussianWavePacket(mean=jnp.zeros(3), covariance=0.5)
    problem = bd.Problem(water.hamiltonian, ground, t1=10 * bd.units.fs)
    ```

    Make one with `from_geometry`, `from_force_field` or `load`. Here $\hbar = 1$, the mass of $q_i$ is
    $1/\omega_i$, and the harmonic ground state is a Gaussian of covariance ½. Energies are in hartree, so times
    are in atomic units: `t1=400 * bd.units.fs`.

    A quartic polynomial has no lower bound. So the anharmonic part is one of $u_i = u(q_i)$, which is $q_i$ near
    the minimum and turns smoothly to $\pm c$ at the `reach` $c$: within $|q| < 0.8\,c$, $u = q$ holds to
    $10^{-6}$. Beyond, only the harmonic part grows. The reach is 5, or smaller where the polynomial would
    otherwise fall below the minimum of the molecule: 5 for water, 3.7 for formaldehyde in a small basis. States
    that go beyond $0.8\,c$, and their energies, mean nothing. The fundamentals of water differ by less than
    0.01 cm⁻¹ from those of the polynomial, and those of formaldehyde by less than 0.2 cm⁻¹.

    Two things are left out. The kinetic energy is that of uncoupled normal coordinates, without the Coriolis and
    Watson terms of a rotating frame, which shift the fundamentals of small molecules by up to some 15 cm⁻¹.
    `from_geometry` has no force constants of four different modes. So compare dynamics with eigenvalues of the
    same Hamiltonian; experiments, and perturbation theory with these terms, differ.

    - `frequencies`: $\omega_i$, harmonic, in increasing order if computed, shape `(d,)`.
    - `cubic`, `quartic`: $\phi_{ijk}$ and $\phi_{ijkl}$, shapes `(d, d, d)` and `(d, d, d, d)`; symmetric.
    - `hamiltonian`: the [`Hamiltonian`][bohmdiff.Hamiltonian] above. Its potential has terms of at most three
        coordinates, or four if $\phi_{ijkl}$ of four different modes was given.
    - `dipole`: a function of `x`, shape `(d,)`, that returns the dipole moment, shape `(3,)`: a polynomial of
        degree two in $u$. The axes are those of the geometry.
    - `dipole_gradient`: its derivatives at the minimum, shape `(3, d)`.
    - `symbols`, `masses`, `geometry`: of the `N` atoms; shapes `(N,)` and `(N, 3)`. `None` without atoms.
    - `displacements`: how the atoms move, shape `(d, N, 3)`: they are at `geometry` plus the sum of
        $q_i$ `displacements[i]`.
    - `reach`: the limit $c$ of $u$.
    - `source`: what the force field comes from, in words.

    All are differentiable: a molecule is a module.

    **Units:** atomic units: hartree, electron masses, bohr, and e bohr for dipole moments.
    """

    frequencies: Float[Array, " d"]
    cubic: Float[Array, "d d d"]
    quartic: Float[Array, "d d d d"]
    reach: Scalar
    masses: Float[Array, " N"] | None
    geometry: Float[Array, "N 3"] | None
    displacements: Float[Array, "d N 3"] | None
    symbols: tuple[str, ...] | None = eqx.field(static=True)
    source: str = eqx.field(static=True)
    _dipole: PolynomialDipole | None

    @in_full_precision
    def __init__(self, content: Mapping[str, Any]):
        if not isinstance(content, Mapping):
            raise TypeError(
                "NormalModes are made by NormalModes.from_geometry, NormalModes.from_force_field or "
                "NormalModes.load."
            )
        self.frequencies = _frequencies(content)
        shapes: dict[str, Any] = {"d": self.frequencies.size}
        self.cubic = _numbers(content, "cubic", ("d",) * 3, shapes)
        self.quartic = _numbers(content, "quartic", ("d",) * 4, shapes)
        reach = as_float(content["reach"], "reach")
        if not 0 < reach < np.inf:
            raise ValueError(f"reach must be a positive number, but {reach!r} was given.")
        self.reach = jnp.asarray(reach, self.frequencies.dtype)
        self.symbols = content.get("symbols")
        self.source = str(content.get("source", "a force field"))
        shapes["N"] = None if self.symbols is None else len(self.symbols)
        self.masses = _numbers(content, "masses", ("N",), shapes)
        self.geometry = _numbers(content, "geometry", ("N", 3), shapes)
        self.displacements = _numbers(content, "displacements", ("d", "N", 3), shapes)
        gradient = _numbers(content, "dipole_gradient", (3, "d"), shapes)
        self._dipole = None
        if gradient is not None:
            d, dtype = gradient.shape[1], gradient.dtype
            constant = _numbers(content, "dipole", (3,), shapes)
            curvature = _numbers(content, "dipole_curvature", (3, "d", "d"), shapes)
            self._dipole = PolynomialDipole(
                jnp.zeros(3, dtype) if constant is None else constant,
                gradient,
                jnp.zeros((3, d, d), dtype) if curvature is None else curvature,
                self.reach,
            )

    @property
    def hamiltonian(self) -> Hamiltonian:
        """The Hamiltonian in dimensionless normal coordinates."""
        potential = QuarticForceField(self.frequencies, self.cubic, self.quartic, self.reach)
        return Hamiltonian(potential, mass=1 / self.frequencies)

    @property
    def dipole(self) -> PolynomialDipole:
        """The dipole moment, a function of one `x` of shape `(d,)` that returns shape `(3,)`."""
        if self._dipole is None:
            raise ValueError(
                "These normal modes have no dipole moment. Pass dipole_gradient= to NormalModes.from_force_field."
            )
        return self._dipole

    @property
    def dipole_gradient(self) -> Float[Array, "3 d"]:
        """The derivatives of the dipole moment at the minimum, shape `(3, d)`."""
        return self.dipole.gradient

    @staticmethod
    def from_geometry(
        geometry: Any,
        *,
        method: str,
        basis: str | None = None,
        charge: int | None = None,
        spin: int | None = None,
        optimize: bool = False,
        masses: Numbers | None = None,
        reach: float | None = None,
        cache: str | Path | None = None,
    ) -> "NormalModes":
        """Normal modes and a quartic force field from electronic structure, by PySCF.

        ```python
        modes = bd.NormalModes.from_geometry(
            "H 0 0 0\\nH 0 0 0.7",
            method="hf",
            basis="sto-3g",
            optimize=True,
            cache="cache",
        )
        ```

        PySCF is an extra: `pip install ".[chem]"`. With `d` modes it computes `2 d + 1` analytic Hessians, at
        steps of 0.05 in each dimensionless normal coordinate, and `d (d - 1)` more dipole moments. In a small
        basis, water takes some ten seconds, and formaldehyde a few minutes. The result is kept in a folder; the
        next call with the same arguments reads it, and does not need PySCF then if the geometry is a file or
        text.

        **Arguments:**

        - `geometry`: the path of an XYZ file, its text (lines of a symbol and three numbers in ångström), or a
            `Mole` of PySCF, which has basis, charge and spin already.
        - `method`: `"hf"`, or the name of a density functional such as `"b3lyp"`. Open shells are unrestricted.
        - `basis`: a basis of PySCF by its name, with spherical functions.
        - `charge`, `spin`: the charge of the molecule and its number of unpaired electrons; zero if not given.
        - `optimize`: whether to relax the geometry to the nearest minimum first. If not, a geometry is refused
            whose minimum is farther away than 0.001 in any normal coordinate, which shifts fundamentals by about
            1 cm⁻¹.
        - `masses`: of the atoms in u, shape `(N,)`; by default those of the most common isotopes.
        - `reach`: where the anharmonic part ends, see [`NormalModes`][bohmdiff.NormalModes]; found if not given.
        - `cache`: the folder of results. By default `bohmdiff` in the folder of the user for such files:
            `$XDG_CACHE_HOME` or `~/.cache` on Linux, `~/Library/Caches` on macOS. A name there is a digest of
            all arguments; the files are those of `save`, and may be deleted at any time.

        **Raises:** `ValueError` for bad arguments, and for a geometry that is not stationary or has imaginary
        modes. `ImportError` without PySCF. [`ElectronicStructureError`][bohmdiff.ElectronicStructureError] if the
        self-consistent field or the search for the minimum does not converge. Warns if force constants
        that can be computed in two ways differ, and of a reach that is too large or small.
        """
        if not isinstance(method, str) or not method:
            raise ValueError(
                "method must be 'hf' or the name of a density functional, such as 'b3lyp', but "
                f"{method!r} was given."
            )
        optimize = as_flag(optimize, "optimize")
        atoms, labels, build = molecule_of(geometry, basis, charge, spin)
        given = None if masses is None else masses_of(masses, len(atoms.symbols))
        what = {
            "symbols": labels,
            "positions": np.round(atoms.positions, 9).tolist(),
            "method": method.lower(),
            "build": build,
            "optimize": optimize,
            "masses": None if given is None else given.tolist(),
            "step": STEP,
        }
        path = _file.cache_folder(cache) / _file.name_of(what, atoms.symbols)
        content = _file.cached(path)
        if content is None:
            surface = Surface(labels, method, build)
            in_u = isotope_masses(atoms.symbols) if given is None else given
            found = normal_modes(atoms, in_u * units.amu, surface, optimize)
            name = basis if basis is not None else "the basis of the Mole"
            source = f"{method}/{name}, PySCF {surface.version}"
            content = {"source": source, "symbols": atoms.symbols, **found}
            content = _file.kept(path, content)
        return NormalModes(_with_reach(content, reach))

    @staticmethod
    def from_force_field(
        frequencies: Numbers,
        cubic: Mapping[Sequence[int], float] | Numbers | None = None,
        quartic: Mapping[Sequence[int], float] | Numbers | None = None,
        *,
        energy: float,
        dipole_gradient: Numbers | None = None,
        reach: float | None = None,
    ) -> "NormalModes":
        r"""Normal modes from a published force field in dimensionless normal coordinates.

        ```python
        modes = bd.NormalModes.from_force_field(
            frequencies=[1650.0, 3830.0],
            cubic={(0, 0, 1): 250.0, (1, 1, 1): -1800.0},
            quartic={(1, 1, 1, 1): 750.0},
            energy=bd.units.inverse_cm,
        )
        ```

        The force constants are derivatives of the energy:
        $V = \tfrac16 \sum_{ijk} \phi_{ijk} q_i q_j q_k + \tfrac1{24} \sum_{ijkl} \phi_{ijkl} q_i q_j q_k q_l$,
        with sums over all indices. If a paper writes $V = \sum_{i \le j \le k} k_{ijk} q_i q_j q_k + \ldots$,
        multiply its constants by the factorial of the number of times that each index occurs.

        **Arguments:**

        - `frequencies`: $\omega_i$, shape `(d,)`.
        - `cubic`, `quartic`: the constants by their indices, which count from 0, each once with its indices in
            any order; or symmetric arrays of shapes `(d, d, d)` and `(d, d, d, d)`.
        - `energy`: the unit of all these in hartree: `bd.units.inverse_cm` for cm⁻¹, 1 for atomic units.
        - `dipole_gradient`: the derivatives of the dipole moment, shape `(3, d)`, in e bohr.
        - `reach`: where the anharmonic part ends, see [`NormalModes`][bohmdiff.NormalModes]; found if not given.

        **Raises:** `ValueError` for shapes that do not fit, frequencies that are not positive, or arrays that are
        not symmetric. Warns of a reach that is too large or small.
        """
        unit = as_float(energy, "energy")
        if not 0 < unit < np.inf:
            raise ValueError(
                "energy must be the unit of the constants, such as bd.units.inverse_cm, but "
                f"{energy!r} was given."
            )
        omega = as_real_array(frequencies, "frequencies")
        if omega.ndim != 1:
            raise ValueError(f"frequencies must have shape (d,), but shape {omega.shape} was given.")
        content = {
            "frequencies": omega * unit,
            "cubic": constants_of(cubic, omega.size, 3, "cubic") * unit,
            "quartic": constants_of(quartic, omega.size, 4, "quartic") * unit,
            "dipole_gradient": dipole_gradient,
        }
        return NormalModes(_with_reach(content, reach))

    def save(self, path: str | Path) -> None:
        """Writes a JSON file that people can read: names, units and numbers.

        ```python
        modes = bd.NormalModes.from_force_field(
            [1650.0, 3830.0], energy=bd.units.inverse_cm
        )
        modes.save("modes.json")
        bd.NormalModes.load("modes.json").frequencies
        ```

        **Arguments:**

        - `path`: the name of the file. One that exists is replaced.
        """
        target = _as_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        dipole = self._dipole
        content: dict[str, Any] = {
            "source": self.source,
            "reach": float(self.reach),
            "symbols": self.symbols,
        }
        for name in ("geometry", "masses", "displacements", "frequencies", "cubic", "quartic"):
            content[name] = getattr(self, name)
        if dipole is not None:
            content |= {"dipole": dipole.constant, "dipole_gradient": dipole.gradient}
            content["dipole_curvature"] = dipole.curvature
        _file.write(target, {name: value for name, value in content.items() if value is not None})

    @staticmethod
    def load(path: str | Path) -> "NormalModes":
        """Reads a file of `save`; PySCF is not needed.

        **Arguments:**

        - `path`: the name of the file.

        **Raises:** `ValueError` if it is another file, and `FileNotFoundError` if there is none.
        """
        content = _file.read(_as_path(path))
        return NormalModes(content if "reach" in content else _with_reach(content, None))

    def __repr__(self) -> str:
        name = "NormalModes" if self.symbols is None else f"NormalModes of {' '.join(self.symbols)}"
        if not is_concrete(self.frequencies):
            return f"{name}, {self.source}"
        numbers = ", ".join(f"{one:.2f}" for one in np.asarray(self.frequencies) / units.inverse_cm)
        return f"{name}, {self.source}: harmonic frequencies {numbers} cm⁻¹"


def _frequencies(content: Mapping[str, Any]) -> Array:
    array = _numbers(content, "frequencies", ("d",), {})
    if array.size == 0:
        raise ValueError("frequencies must have at least one entry, but none was given.")
    return require(
        array, jnp.all(array > 0), f"frequencies must be positive, but {describe(array)} was given."
    )


def _with_reach(content: Mapping[str, Any], reach: float | None) -> dict[str, Any]:
    """The content with the reach that is given, or the largest that is sensible."""
    constants = [content[name] for name in ("frequencies", "cubic", "quartic")]
    if not is_concrete(constants):
        if reach is None:
            raise ValueError(
                "reach must be given where the force constants are traced, for example reach=4.0."
            )
        return {**content, "reach": reach}
    _frequencies(content)
    largest = largest_reach(*(np.asarray(one, float) for one in constants))
    if reach is None:
        reach = min(_REACH, largest)
        if reach < _SMALL_REACH:
            warn(
                f"The quartic force field falls below the minimum of the molecule at |q| = {largest:.2f} "
                "already, so that its anharmonic part ends there: energies of states that go beyond "
                f"{0.8 * reach:.1f} mean nothing. Torsions and the bends of linear molecules need another "
                "potential."
            )
    elif as_float(reach, "reach") > largest:
        warn(
            f"Within its reach of {reach:g} the force field has energies below the minimum of the molecule, "
            f"where states may end. Pass a reach of at most {largest:.2f}, or leave it out."
        )
    return {**content, "reach": reach}


def _numbers(content: Mapping[str, Any], name: str, shape: tuple, sizes: dict[str, Any]) -> Any:
    """The array of this name, or `None` if there is none, with a check of its shape."""
    if content.get(name) is None:
        return None
    array = as_real_array(content[name], name)
    expected = tuple(sizes.get(axis, -1) if isinstance(axis, str) else axis for axis in shape)
    fits = array.ndim == len(shape) and all(
        n in (-1, size) for n, size in zip(expected, array.shape, strict=True)
    )
    if not fits:
        wanted = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
        known = ", ".join(f"{axis} = {size}" for axis, size in sizes.items() if axis in shape)
        raise ValueError(
            f"{name} must have shape {wanted}{' with ' + known if known else ''}, but shape {array.shape} was "
            "given."
        )
    return array


def _as_path(path: Any) -> Path:
    try:
        return Path(os.path.expanduser(path))
    except TypeError:
        raise ValueError(
            f"path must be the name of a file, as text or a Path, but {path!r} was given."
        ) from None

"""Normal modes of a molecule, with force constants by numerical differentiation of analytic Hessians."""

from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from .. import units
from .._check import warn
from .._errors import ElectronicStructureError
from ._electronic import Surface
from ._geometry import Geometry

STEP = 0.05  # of a dimensionless normal coordinate
# Where the minimum may be, in dimensionless normal coordinates: fundamentals then change by about 1 cm⁻¹.
_STATIONARY = 1e-3
_RELAXED = 1e-5
_NEWTON_STEPS = 8
_LOWEST = 2 * units.inverse_cm
_DECIMALS = 9
# Below the accuracy of the differentiation. Most of such constants are zero by symmetry, and cost terms.
_NEGLIGIBLE = 0.01 * units.inverse_cm
_LARGEST_MISMATCH = 2 * units.inverse_cm


def normal_modes(
    geometry: Geometry, masses: np.ndarray, surface: Surface, optimize: bool
) -> dict[str, Any]:
    """Everything that [`NormalModes`][bohmdiff.NormalModes] holds, in atomic units, as arrays of NumPy.

    - `masses`: in electron masses, shape `(N,)`.
    """
    if optimize:
        harmonic = _relaxed(geometry.positions, masses, surface)
    else:
        harmonic = _harmonic(geometry.positions, masses, surface)
        offset = np.max(np.abs(harmonic.newton_step))
        if offset > _STATIONARY:
            raise ValueError(
                f"The geometry is not stationary: the minimum is about {offset:.2g} away in a dimensionless "
                f"normal coordinate, and at most {_STATIONARY:g} is accepted. Pass optimize=True to relax it "
                "first, or the geometry of the minimum for this method and basis."
            )
    smooth = {
        "geometry": harmonic.positions,
        "displacements": harmonic.displacements,
        **_dipoles(harmonic, masses, surface),
    }
    return {
        **{name: _rounded(value) for name, value in smooth.items()},
        "masses": masses,
        "frequencies": harmonic.frequencies,
        **_anharmonic(harmonic, surface),
    }


def _rounded(array: np.ndarray) -> np.ndarray:
    """Without digits that the calculation does not have, so that what is zero by symmetry is zero."""
    return np.round(array, _DECIMALS) + 0.0


class _Harmonic(NamedTuple):
    """The harmonic approximation at `positions`: frequencies `(d,)`, the displacements of the atoms by one unit
    of each dimensionless normal coordinate, `(d, N, 3)`, the way to the minimum in these coordinates, and the
    self-consistent field."""

    positions: np.ndarray
    frequencies: np.ndarray
    displacements: np.ndarray
    newton_step: np.ndarray
    field: Any

    def displaced(self, q: np.ndarray) -> np.ndarray:
        return self.positions + np.tensordot(q, self.displacements, axes=1)


def _harmonic(positions: np.ndarray, masses: np.ndarray, surface: Surface) -> _Harmonic:
    field = surface.solve(positions)
    gradient = np.array(field.nuc_grad_method().kernel()).ravel()
    weights = np.repeat(masses, 3) ** -0.5
    weighted = weights[:, None] * surface.hessian(field) * weights
    inner = _vibrations(positions, masses)
    squares, vectors = np.linalg.eigh(inner.T @ weighted @ inner)
    if squares[0] < _LOWEST**2:
        bad = [f"{_signed_root(one) / units.inverse_cm:.1f}" for one in squares if one < _LOWEST**2]
        raise ValueError(
            f"The geometry is not a minimum: modes have the frequencies {', '.join(bad)} cm⁻¹, where a negative "
            "number stands for an imaginary one. Start from another geometry, for example one that is displaced "
            "along such a mode, with optimize=True."
        )
    frequencies = np.sqrt(squares)
    vectors = _fixed_sign(inner @ vectors)
    along = (weights[:, None] * vectors / np.sqrt(frequencies)).T
    displacements = along.reshape(-1, masses.size, 3)
    return _Harmonic(positions, frequencies, displacements, -along @ gradient / frequencies, field)


def _vibrations(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the mass-weighted displacements that neither move nor turn the molecule."""
    centred = positions - masses @ positions / np.sum(masses)
    roots = np.sqrt(masses)[:, None]
    rigid = [np.broadcast_to(axis, positions.shape) * roots for axis in np.eye(3)]
    rigid += [np.cross(axis, centred) * roots for axis in np.eye(3)]
    left, sizes, _ = np.linalg.svd(np.array([one.ravel() for one in rigid]).T)
    # A linear molecule has no rotation about its axis.
    return left[:, np.count_nonzero(sizes > 1e-5 * sizes[0]) :]


def _fixed_sign(vectors: np.ndarray) -> np.ndarray:
    """So that the same molecule gives the same modes: the first of the largest entries is positive."""
    sizes = np.abs(vectors)
    first = np.argmax(sizes > 0.99 * np.max(sizes, axis=0), axis=0)
    return vectors * np.sign(vectors[first, np.arange(vectors.shape[1])])


def _signed_root(square: float) -> float:
    return float(np.sign(square) * np.sqrt(abs(square)))


def _anharmonic(harmonic: _Harmonic, surface: Surface) -> dict[str, np.ndarray]:
    """Cubic and quartic force constants, from Hessians at both sides along each mode.

    Constants that can be had in several ways are their mean. Those of four different modes cannot, and are zero.
    """
    d = harmonic.frequencies.size
    along = harmonic.displacements.reshape(d, -1)

    def hessian(q: np.ndarray) -> np.ndarray:
        return along @ surface.hessian(surface.solve(harmonic.displaced(q))) @ along.T

    centre = np.diag(harmonic.frequencies)
    up, down = (np.array([hessian(sign * STEP * e) for e in np.eye(d)]) for sign in (1, -1))
    # (d, d, d): the first index is that of the step. (d, d, d): two indices of the Hessian, the third is doubled.
    first = (up - down) / (2 * STEP)
    second = ((up + down - 2 * centre) / STEP**2).transpose(1, 2, 0)
    orders = list(permutations(range(3)))
    cubic = np.mean([first.transpose(order) for order in orders], axis=0)
    mismatch = np.max(np.abs(first - cubic))
    quartic = np.zeros((d,) * 4)
    for i in range(d):
        for j in range(i, d):
            for k in range(d):
                ways = [second[i, j, k]]
                if i == j:
                    ways.append(second[k, k, i])
                    mismatch = max(mismatch, abs(second[i, i, k] - second[k, k, i]))
                for order in set(permutations((i, j, k, k))):
                    quartic[order] = np.mean(ways)
    if mismatch > _LARGEST_MISMATCH:
        mismatch = mismatch / units.inverse_cm
        warn(
            f"Force constants that were computed in two ways differ by {mismatch:.1f} cm⁻¹, and frequencies are "
            "wrong by about as much. The grid of a density functional causes this: Hartree–Fock has none, and "
            "functionals without the kinetic energy density need a coarser one."
        )
    return {"cubic": _cleaned(cubic), "quartic": _cleaned(quartic)}


def _cleaned(tensor: np.ndarray) -> np.ndarray:
    return np.where(np.abs(tensor) < _NEGLIGIBLE, 0.0, tensor)


def _dipoles(harmonic: _Harmonic, masses: np.ndarray, surface: Surface) -> dict[str, np.ndarray]:
    """The dipole moment about the centre of mass and its first and second derivatives along the modes."""
    d = harmonic.frequencies.size
    origin = masses @ harmonic.positions / np.sum(masses)

    def dipole(q: np.ndarray) -> np.ndarray:
        return surface.dipole(surface.solve(harmonic.displaced(q)), origin)

    steps = STEP * np.eye(d)
    centre = surface.dipole(harmonic.field, origin)
    up, down = (np.array([dipole(sign * step) for step in steps]).T for sign in (1, -1))
    curvature = np.zeros((3, d, d))
    sums = up + down - 2 * centre[:, None]
    curvature[:, range(d), range(d)] = sums / STEP**2
    for i, j in combinations(range(d), 2):
        both = dipole(steps[i] + steps[j]) + dipole(-steps[i] - steps[j]) - 2 * centre
        curvature[:, i, j] = curvature[:, j, i] = (both - sums[:, i] - sums[:, j]) / (2 * STEP**2)
    return {
        "dipole": centre,
        "dipole_gradient": (up - down) / (2 * STEP),
        "dipole_curvature": curvature,
    }


def _relaxed(positions: np.ndarray, masses: np.ndarray, surface: Surface) -> _Harmonic:
    """At the minimum near `positions`: a quasi-Newton search that starts with the Hessian, then Newton steps."""
    shape = positions.shape
    eigenvalues, vectors = np.linalg.eigh(surface.hessian(surface.solve(positions)))
    # The curvature of a soft bond for what is flat, as rotations and translations are.
    inverse = vectors / np.maximum(np.abs(eigenvalues), 0.05) @ vectors.T

    def value_and_slope(x: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient = surface.energy_and_gradient(x.reshape(shape))
        return energy, gradient.ravel()

    found = minimize(
        value_and_slope,
        positions.ravel(),
        jac=True,
        method="BFGS",
        options={"hess_inv0": 0.5 * (inverse + inverse.T), "gtol": 1e-5, "maxiter": 200},
    )
    positions = found.x.reshape(shape)
    offset = np.inf
    for _ in range(_NEWTON_STEPS):
        harmonic = _harmonic(positions, masses, surface)
        previous, offset = offset, np.max(np.abs(harmonic.newton_step))
        # The last digits are those of the self-consistent field, which no further step improves.
        if offset < _RELAXED or 0.5 * previous < offset < _STATIONARY:
            return harmonic
        positions = harmonic.displaced(harmonic.newton_step)
    raise ElectronicStructureError(
        f"The search for the minimum did not converge: it is still {offset:.2g} away in a dimensionless normal "
        "coordinate. Start from a better geometry."
    )

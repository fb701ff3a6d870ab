"""Vibrational levels of a quartic force field, by perturbation theory and by diagonalisation, with NumPy only."""

from itertools import combinations_with_replacement, product
from math import factorial

import numpy as np
from scipy.special import erf

from bohmdiff import units


def perturbed_shifts(modes) -> np.ndarray:
    """The shifts of the fundamentals by second-order perturbation theory (VPT2) with Coriolis terms, in cm⁻¹.

    H. H. Nielsen, Rev. Mod. Phys. 23, 90 (1951).
    """
    w, cubic, quartic = (
        np.asarray(one) / units.inverse_cm for one in (modes.frequencies, modes.cubic, modes.quartic)
    )
    d = w.size
    zeta, rotational = _coriolis(modes)
    x = np.zeros((d, d))
    for i, j in product(range(d), repeat=2):
        if i == j:
            x[i, i] = quartic[i, i, i, i] / 16 - sum(
                cubic[i, i, k] ** 2
                * (8 * w[i] ** 2 - 3 * w[k] ** 2)
                / (16 * w[k] * (4 * w[i] ** 2 - w[k] ** 2))
                for k in range(d)
            )
            continue
        x[i, j] = quartic[i, i, j, j] / 4
        for k in range(d):
            x[i, j] -= cubic[i, i, k] * cubic[k, j, j] / (4 * w[k])
            gaps = (w[i] + w[j] + w[k]) * (w[i] + w[j] - w[k]) * (w[i] - w[j] + w[k]) * (w[i] - w[j] - w[k])
            x[i, j] += cubic[i, j, k] ** 2 * w[k] * (w[i] ** 2 + w[j] ** 2 - w[k] ** 2) / (2 * gaps)
        x[i, j] += np.sum(rotational * zeta[:, i, j] ** 2) * (w[i] / w[j] + w[j] / w[i])
    return 2 * np.diag(x) + 0.5 * (np.sum(x, axis=1) - np.diag(x))


def _coriolis(modes) -> tuple[np.ndarray, np.ndarray]:
    """Coriolis constants `(3, d, d)` about the principal axes, and rotational constants in cm⁻¹."""
    masses, positions = np.asarray(modes.masses), np.asarray(modes.geometry)
    positions = positions - masses @ positions / np.sum(masses)
    inertia = np.einsum("n,nab->ab", masses, [r @ r * np.eye(3) - np.outer(r, r) for r in positions])
    moments, axes = np.linalg.eigh(inertia)
    weights = np.sqrt(masses)[None, :, None] * np.sqrt(np.asarray(modes.frequencies))[:, None, None]
    vectors = (np.asarray(modes.displacements) * weights) @ axes
    np.testing.assert_allclose(np.einsum("ina,jna->ij", vectors, vectors), np.eye(len(vectors)), atol=1e-7)
    zeta = np.cross(vectors[:, None], vectors[None]).sum(axis=2).transpose(2, 0, 1)
    return zeta, 1 / (2 * moments) / units.inverse_cm


def variational_levels(modes, quanta: int, reach: float | None = None) -> np.ndarray:
    """Eigenvalues in cm⁻¹, in products of harmonic-oscillator functions with at most `quanta` in all.

    - `reach`: where the coordinates of the anharmonic part end; `None` for the plain polynomial.
    """
    w, cubic, quartic = (
        np.asarray(one) / units.inverse_cm for one in (modes.frequencies, modes.cubic, modes.quartic)
    )
    d = w.size
    states = np.array([n for n in product(range(quanta + 1), repeat=d) if sum(n) <= quanta])
    powers = _powers(quanta + 1, reach)
    matrix = np.diag((states + 0.5) @ w)
    for tensor in (cubic, quartic):
        for indices in combinations_with_replacement(range(d), tensor.ndim):
            if tensor[indices] == 0:
                continue
            counts = np.bincount(indices, minlength=d)
            # φ over the factorials of how often each index occurs: the sum over all orders of the indices.
            strength = tensor[indices] / np.prod([factorial(k) for k in counts])
            used = [i for i in range(d) if counts[i]]
            # The other modes do not change.
            others = [i for i in range(d) if not counts[i]]
            same = np.all(states[:, None, others] == states[None, :, others], axis=2)
            rows, columns = np.nonzero(same)
            one = [powers[counts[i]][states[rows, i], states[columns, i]] for i in used]
            matrix[rows, columns] += strength * np.prod(one, axis=0)
    return np.linalg.eigvalsh(matrix)


def _powers(n: int, reach: float | None) -> np.ndarray:
    """Matrices of u⁰ … u⁴ between the first `n` functions of the harmonic oscillator."""
    x, weights = np.polynomial.hermite.hermgauss(150)
    functions = [np.pi**-0.25 * np.ones_like(x)]
    for k in range(1, n):
        before = functions[-2] if k > 1 else 0.0
        functions.append(np.sqrt(2 / k) * x * functions[-1] - np.sqrt((k - 1) / k) * before)
    values = np.array(functions)
    u = x if reach is None else _bounded(x, reach)
    return np.array([(values * weights * u**p) @ values.T for p in range(5)])


def _bounded(q: np.ndarray, reach: float) -> np.ndarray:
    width = reach / 15

    def rounded(z):
        return z * erf(z) + np.exp(-(z**2)) / np.sqrt(np.pi)

    return 0.5 * width * (rounded((q + reach) / width) - rounded((q - reach) / width))

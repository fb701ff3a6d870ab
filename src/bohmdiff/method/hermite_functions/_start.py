"""The coefficients of an initial state."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._check import is_concrete
from ..._types import Scalar
from ...wavepacket import AbstractInitialState, GaussianWavePacket
from ._index import Quanta, functions_at_nodes, listed
from ._operator import MOST_TOGETHER, Coefficients, Frame
from ._run import places
from .state import HermiteState

# Quadrature points beyond the number of functions: ψ0 has parts that the basis does not hold.
_MORE_NODES = 24


def initial_coefficients(initial: AbstractInitialState, hbar: Scalar, quanta: Quanta, frame: Frame) -> Any:
    """⟨φ_k|ψ0⟩, shape `(2, N)`; of NumPy for a Gaussian with known values."""
    if isinstance(initial, GaussianWavePacket):
        return _of_a_gaussian(initial, hbar, quanta, frame)
    if isinstance(initial, HermiteState) and _holds(quanta, initial.quanta):
        frames = (frame, initial.frame)
        same = is_concrete(frames) and all(
            np.array_equal(np.asarray(a), np.asarray(b))
            for a, b in ((frame.centre, initial.frame.centre), (frame.scale, initial.frame.scale))
        )
        if same:
            c = jnp.zeros((2, len(listed(quanta))), initial.coefficients.dtype)
            return c.at[:, places(initial.quanta, quanta)].set(initial.coefficients)
    if quanta.dimension > MOST_TOGETHER:
        raise ValueError(
            f"HermiteFunctions takes initial states other than GaussianWavePacket in at most {MOST_TOGETHER} "
            f"coordinates, but a {type(initial).__name__} with {quanta.dimension} was given: its coefficients "
            "are integrals over all of them."
        )
    return _by_quadrature(initial, hbar, quanta, frame)


def _holds(quanta: Quanta, other: Quanta) -> bool:
    """Whether an index set has all functions of another."""
    return quanta.weights == other.weights and quanta.degree >= other.degree


@eqx.filter_jit
def _by_quadrature(
    initial: AbstractInitialState, hbar: Scalar, quanta: Quanta, frame: Frame
) -> Coefficients:
    dtype = frame.scale.dtype
    nodes, functions = [], []
    for i, most in enumerate(quanta.most):
        places, values, root = functions_at_nodes(most, most + 1 + _MORE_NODES)
        nodes.append(frame.centre[i] + frame.scale[i] * jnp.asarray(places, dtype))
        functions.append(jnp.asarray(values * root[:, None], dtype) * jnp.sqrt(frame.scale[i]))

    def amplitude(x):
        phase = initial.phase(x) / hbar
        size = jnp.exp(0.5 * initial.log_density(x))
        return size * jnp.cos(phase), size * jnp.sin(phase)

    points = jnp.stack(jnp.meshgrid(*nodes, indexing="ij"), axis=-1)
    psi = jnp.stack(jax.vmap(amplitude)(points.reshape(-1, len(nodes))))
    psi = psi.reshape(2, *points.shape[:-1])
    for i, values in enumerate(functions):
        psi = jnp.moveaxis(jnp.tensordot(psi, values, axes=((i + 1,), (0,))), -1, i + 1)
    shape = tuple(most + 1 for most in quanta.most)
    positions = np.ravel_multi_index(tuple(listed(quanta).astype(np.int64).T), shape)
    return psi.reshape(2, -1)[:, positions]


def _of_a_gaussian(initial: GaussianWavePacket, hbar: Scalar, quanta: Quanta, frame: Frame) -> Any:
    """By the recurrence that follows from the generating function of Hermite polynomials.

    With ψ0 = exp(a + b·ξ − ½ ξᵀMξ) in the coordinates of the frame, u = (1 + M)⁻¹ b and W = 2 (1 + M)⁻¹ − 1:
    √(k_i + 1) c_{k+e_i} = √2 u_i c_k + Σ_j W_ij √k_j c_{k−e_j}.
    """
    given = (initial, hbar, frame)
    xp: Any = np if is_concrete(given) else jnp
    real = frame.scale.dtype
    number = np.result_type(real, np.complex64)
    mean, covariance, momentum, chirp, quantum, centre, scale = (
        xp.asarray(a, real)
        for a in (
            initial.mean,
            initial.covariance,
            initial.momentum,
            initial.chirp,
            hbar,
            frame.centre,
            frame.scale,
        )
    )
    d = quanta.dimension
    y = (centre - mean).astype(number)
    form = 0.5 * xp.linalg.inv(covariance) - 1j * chirp / quantum
    wave = 1j * momentum / quantum
    matrix = form * xp.outer(scale, scale)
    b = (wave - form @ y) * scale
    a = -0.25 * xp.linalg.slogdet(2 * np.pi * covariance)[1] + wave @ y - 0.5 * y @ form @ y
    inverse = xp.linalg.inv(xp.eye(d) + matrix)
    u, w = inverse @ b, 2 * inverse - xp.eye(d)
    log_first = a + 0.5 * b @ u - 0.5 * _log_determinant(xp.eye(d) + matrix, xp)
    log_first = log_first + 0.25 * d * np.log(np.pi) + 0.5 * d * np.log(2.0) + 0.5 * xp.sum(xp.log(scale))
    levels = _levels(quanta)
    if xp is np:
        c = np.zeros(len(listed(quanta)) + 1, number)
        c[0] = np.exp(log_first)
        for level in zip(*levels, strict=True):
            index, value = _raised(c, level, u, w, np)
            c[index] = value
            c[-1] = 0
    else:

        def step(c: Array, level: tuple) -> tuple[Array, None]:
            index, value = _raised(c, level, u, w, jnp)
            return c.at[index].set(value).at[-1].set(0), None

        start = jnp.zeros(len(listed(quanta)) + 1, number).at[0].set(jnp.exp(log_first))
        c, _ = jax.lax.scan(step, start, tuple(map(jnp.asarray, levels)))
    amplitudes: Any = c[:-1]
    return xp.stack([amplitudes.real, amplitudes.imag]).astype(real)


def _raised(c: Any, level: tuple, u: Any, w: Any, xp: Any) -> tuple[Any, Any]:
    index, first, first_below, below, factors, divisor = level
    total = np.sqrt(2.0) * u[first] * c[first_below] + xp.sum(w[first].T * factors * c[below], axis=0)
    return index, (total / divisor).astype(c.dtype)


class _Levels(NamedTuple):
    """Functions by their number of quanta, from one on: which coordinate is raised, and where the lower ones are.
    Filled up with N."""

    where: Int[np.ndarray, "L W"]
    first: Int[np.ndarray, "L W"]
    first_below: Int[np.ndarray, "L W"]
    below: Int[np.ndarray, "L d W"]
    factors: Float[np.ndarray, "L d W"]
    divisor: Float[np.ndarray, "L W"]


@functools.lru_cache(4)
def _levels(quanta: Quanta) -> _Levels:
    numbers = listed(quanta).astype(np.int64)
    n, d = numbers.shape
    radix = np.array([most + 1 for most in quanta.most], np.int64)
    steps = np.concatenate([np.cumprod(radix[:0:-1])[::-1], [1]]).astype(np.int64)
    keys = numbers @ steps

    def found(wanted: np.ndarray) -> np.ndarray:
        """The index of functions, or N where a quantum number is negative."""
        there = np.all(wanted >= 0, axis=1)
        where = np.searchsorted(keys, np.where(there, wanted @ steps, 0))
        return np.where(there, where, n).astype(np.int32)

    quanta_of = numbers.sum(axis=1)
    most, width = int(quanta_of.max()), int(np.max(np.bincount(quanta_of)))
    whole = np.full((most, width), n, np.int32)
    levels = _Levels(
        whole,
        np.zeros((most, width), np.int32),
        whole.copy(),
        np.full((most, d, width), n, np.int32),
        np.zeros((most, d, width)),
        np.ones((most, width)),
    )
    for level in range(most):
        index = np.flatnonzero(quanta_of == level + 1)
        own, size = numbers[index], len(index)
        first = np.argmax(own > 0, axis=1)
        lower = own.copy()
        lower[np.arange(size), first] -= 1
        levels.where[level, :size] = index
        levels.first[level, :size] = first
        levels.first_below[level, :size] = found(lower)
        for j in range(d):
            levels.below[level, j, :size] = found(lower - np.eye(d, dtype=np.int64)[j])
        levels.factors[level, :, :size] = np.sqrt(lower.T)
        levels.divisor[level, :size] = np.sqrt(own[np.arange(size), first])
    return levels


def _log_determinant(matrix: Any, xp: Any) -> Any:
    """Of a complex symmetric matrix whose real part is positive definite, continuous in it: the pivots of an
    elimination have positive real parts."""
    total = 0.0
    for _ in range(matrix.shape[0]):
        pivot = matrix[0, 0]
        total = total + xp.log(pivot)
        matrix = matrix[1:, 1:] - xp.outer(matrix[1:, 0], matrix[0, 1:]) / pivot
    return total

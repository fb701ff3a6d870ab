"""Stationary states in a basis of Hermite functions."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, eigsh

from ..._types import Vector
from ...hamiltonian import Hamiltonian, PotentialTerm
from ._index import Quanta, count
from ._operator import Frame
from ._run import RAISED, Basis, outside, places

# Up to so many functions, the whole matrix is diagonalised.
_MOST_DENSE = 1200
# Where a frame is tried, and which: factors of the scales, and shifts by a share of them.
_TUNING_DEGREE = 8
_FRAMES = ((1.15, 0.0), (1 / 1.15, 0.0), (1.0, 0.25), (1.0, -0.25))
_TRIALS = 8


class Levels(NamedTuple):
    """Energies, states `(n, N)`, and the norm of (H − E)ψ of each, which bounds its error."""

    energy: np.ndarray
    states: np.ndarray
    residual: np.ndarray
    basis: Basis


def levels(basis: Basis, larger: Basis, number: int) -> Levels:
    """The lowest states of a basis."""
    size, operator = basis.size, basis.constant
    if size <= max(_MOST_DENSE, 2 * number):
        dtype = np.dtype(basis.frame.scale.dtype)
        energy, vectors = np.linalg.eigh(operator(np.eye(size, dtype=dtype)))
        energy, states = energy[:number], vectors[:, :number].T
    else:
        start = np.zeros(size)
        start[: min(size, 64)] = 1.0
        matrix: Any = cast(Any, LinearOperator)(  # its types ask for a subclass
            (size, size), matvec=lambda v: operator(v.reshape(1, -1))[0], dtype=float
        )
        energy, vectors = eigsh(matrix, k=number, which="SA", v0=start, ncv=max(3 * number + 1, 40))
        order = np.argsort(energy)
        energy, states = energy[order], vectors[:, order].T
    within = places(basis.quanta, larger.quanta)
    residual = []
    for value, state in zip(energy, states, strict=True):
        pair = np.stack([state, np.zeros_like(state)])
        inside = np.linalg.norm(operator(pair)[0] - value * state)
        residual.append(np.hypot(inside, outside(larger.constant, within, pair)))
    return Levels(energy, states, np.array(residual), basis)


def frame_at_minimum(hamiltonian: Hamiltonian, near: Vector) -> Frame:
    """At a minimum of the potential, as wide as the ground state of its harmonic expansion."""

    def potential(x: Any) -> Any:
        return hamiltonian.potential(jnp.zeros((), near.dtype), x)

    slope = jax.jit(jax.value_and_grad(potential))
    found = minimize(
        lambda x: [np.asarray(a, float) for a in slope(jnp.asarray(x, near.dtype))],
        np.asarray(near, float),
        jac=True,
    )
    where = jnp.asarray(found.x, near.dtype)
    force = np.diag(np.asarray(jax.hessian(potential)(where), float))
    masses = np.asarray(hamiltonian.masses(near.size), float)
    # At a saddle, or where the potential is flat, a width of the right size is enough: it is tuned.
    least = max(float(np.max(np.abs(force))), float(np.finfo(np.float32).tiny)) * 1e-2
    scale = (float(hamiltonian.hbar) ** 2 / (masses * np.maximum(np.abs(force), least))) ** 0.25
    return Frame(where, jnp.asarray(scale, near.dtype))


def tuned(
    frame: Frame,
    hamiltonian: Hamiltonian,
    terms: tuple[PotentialTerm, ...],
    weights: tuple[float, ...],
    number: int,
) -> Frame:
    """The frame in which a small basis has the lowest sum of energies: each is an upper bound."""
    degree = float(_TUNING_DEGREE)
    while count(Quanta(degree, weights)) < 2 * number + 4:
        degree += 2.0

    def total(frame: Frame) -> float:
        basis = Basis(Quanta(degree, weights), frame, hamiltonian, terms, on_host=True)
        return float(np.sum(levels(basis, basis, number).energy))

    best = total(frame)
    for factor, shift in _FRAMES:
        for _ in range(_TRIALS):
            other = Frame(frame.centre + shift * frame.scale, frame.scale * factor)
            energy = total(other)
            if not energy < best - 1e-9 * abs(best):
                break
            best, frame = energy, other
    return frame


def raised(basis: Basis, terms: tuple[PotentialTerm, ...]) -> Basis:
    return Basis(basis.quanta.raised(RAISED), basis.frame, basis.hamiltonian, terms, on_host=True)

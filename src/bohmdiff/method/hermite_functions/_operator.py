"""The Hamiltonian in a basis of products of Hermite functions, as an operator on coefficients.

Coefficients are real arrays `(2, N)`, real and imaginary parts, since the Hamiltonian is real. A term that
depends on m coordinates is a matrix over their m quantum numbers: the coefficients are sorted into blocks that
share all other quantum numbers, and each block is multiplied by the beginning of the matrix. That is exact, as
the blocks are complete. A term that depends on all coordinates is multiplied on a grid of quadrature points
instead.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._types import Scalar, Times, Vector
from ...hamiltonian import Hamiltonian, PotentialTerm, separable_terms
from ._index import Quanta, Table, functions_at_nodes, functions_on_a_grid, listed, module_of, table

Coefficients = Float[Array, "2 N"]

# Quadrature points beyond the number of functions, along each coordinate.
MORE_NODES = 12
_MORE_NODES_TOGETHER = 8
# Where the potential may have structure that these miss: points of a grid along each coordinate of a term of
# one or two, quadrature points for more.
_FINE = {1: 4096, 2: 384}
_MORE_NODES_FINER = 16
# A term of so many coordinates is a matrix, unless they are all there are.
_LARGEST_LOCAL = 3
_LARGEST_MATRIX = 1200
MOST_TOGETHER = 5


class Frame(eqx.Module):
    """Where the Hermite functions are, and how wide: x = centre + scale ξ along each coordinate."""

    centre: Vector
    scale: Vector


class _Together(NamedTuple):
    """All functions as an array with one axis for each coordinate, and where it has them."""

    embedding: Any
    positions: Any


class Structure(eqx.Module):
    """Which terms there are: what depends on the index set and on the coordinates of the terms only.

    The tables are arrays of NumPy, or of JAX where a program is compiled: as arguments of it, since XLA would
    spend seconds on constants.
    """

    quanta: Quanta = eqx.field(static=True)
    supports: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    tables: tuple[Table, ...]
    together: _Together | None


class Operator(eqx.Module):
    """A Hamiltonian on coefficients, in NumPy or JAX."""

    structure: Structure
    matrices: tuple[Any, ...]
    values: Any
    functions: tuple[Any, ...]

    def __call__(self, c: Any) -> Any:
        xp, rows = module_of(c), c.shape[0]
        padded = xp.concatenate([c, xp.zeros((rows, 1), c.dtype)], axis=1)
        total = xp.zeros_like(c)
        for one, matrix in zip(self.structure.tables, self.matrices, strict=True):
            parts = []
            for block in one.blocks:
                n = block.shape[1]
                parts.append((padded[:, block].reshape(-1, n) @ matrix[:n, :n]).reshape(rows, -1))
            total = total + xp.concatenate(parts, axis=1)[:, one.inverse]
        together = self.structure.together
        if together is None:
            return total
        shape = tuple(functions.shape[1] for functions in self.functions)
        psi = padded[:, together.embedding].reshape(rows, *shape)
        for i, functions in enumerate(self.functions):
            psi = xp.moveaxis(xp.tensordot(psi, functions, axes=((i + 1,), (1,))), -1, i + 1)
        psi = psi * self.values[None]
        for i, functions in enumerate(self.functions):
            psi = xp.moveaxis(xp.tensordot(psi, functions, axes=((i + 1,), (0,))), -1, i + 1)
        return total + psi.reshape(rows, -1)[:, together.positions]


def terms_of(hamiltonian: Hamiltonian, dimension: int) -> tuple[PotentialTerm, ...]:
    """The terms of the potential, checked to be few enough coordinates each."""
    terms = separable_terms(hamiltonian.potential, dimension)
    widest = max(len(term.coordinates) for term in terms)
    if widest > _LARGEST_LOCAL and dimension > MOST_TOGETHER:
        raise ValueError(
            f"A term of the potential depends on {widest} coordinates together. In more than {MOST_TOGETHER} "
            f"coordinates (here {dimension}) HermiteFunctions needs a sum of terms of at most {_LARGEST_LOCAL} "
            "coordinates each: subclass bd.AbstractSeparablePotential, or add "
            "potentials that are such sums."
        )
    if any(term.coordinates[-1] >= dimension for term in terms):
        raise ValueError(
            f"The potential has a term of coordinate {max(t.coordinates[-1] for t in terms)}, but there are only "
            f"{dimension} coordinates."
        )
    return terms


def goes_together(terms: tuple[PotentialTerm, ...], quanta: Quanta) -> bool:
    """Whether the potential is multiplied on a grid of all coordinates."""
    d = quanta.dimension
    widest = max((len(term.coordinates) for term in terms), default=1)
    if d == 1 or d > MOST_TOGETHER:
        return False
    if d == 2:
        return widest == 2 and len(table(quanta, (0, 1)).local) > _LARGEST_MATRIX
    return widest > _LARGEST_LOCAL or widest == d


def structure_of(terms: tuple[PotentialTerm, ...], quanta: Quanta) -> Structure:
    """The tables, in NumPy."""
    together = goes_together(terms, quanta)
    wanted = {(i,) for i in range(quanta.dimension)}
    if not together:
        wanted |= {term.coordinates for term in terms}
    supports = tuple(sorted(one for one in wanted if not any(set(one) < set(other) for other in wanted)))
    tables = tuple(table(quanta, support) for support in supports)
    return Structure(quanta, supports, tables, _embedding(quanta) if together else None)


@functools.lru_cache(16)
def _embedding(quanta: Quanta) -> _Together:
    shape = tuple(most + 1 for most in quanta.most)
    numbers = listed(quanta).astype(np.int64)
    positions = np.ravel_multi_index(tuple(numbers.T), shape)
    embedding = np.full(int(np.prod(shape)), len(numbers), np.int32)
    embedding[positions] = np.arange(len(numbers))
    return _Together(embedding, positions.astype(np.int32))


def on_device(tree: Any) -> Any:
    """The same with arrays of JAX."""
    return jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a, tree)


def nodes_for(quanta: Quanta, together: bool, more: int) -> tuple[int, ...]:
    """How many quadrature points each coordinate has: few different numbers, as each compiles the potential."""
    beyond = (_MORE_NODES_TOGETHER if together else MORE_NODES) + more
    step = 4 if together else 16
    return tuple(step * -(-(most + 1 + beyond) // step) for most in quanta.most)


class Nodes(NamedTuple):
    """Quadrature points along each coordinate, and the functions there."""

    places: tuple[Vector, ...]
    functions: tuple[Any, ...]


def nodes_of(structure: Structure, frame: Frame, xp: Any, widest: int, finer: bool) -> Nodes:
    """For terms of up to `widest` coordinates; finer ones see what the usual ones miss."""
    quanta, dtype, together = structure.quanta, frame.scale.dtype, structure.together is not None
    if finer and widest in _FINE:
        grids = [functions_on_a_grid(most, _FINE[widest]) for most in quanta.most]
    else:
        sizes = nodes_for(quanta, together, _MORE_NODES_FINER if finer else 0)
        tables = (functions_at_nodes(most, size) for most, size in zip(quanta.most, sizes, strict=True))
        grids = [(places, values) for places, values, _ in tables]
    return Nodes(
        tuple(jnp.asarray(places, dtype) for places, _ in grids),
        tuple(xp.asarray(values, dtype) for _, values in grids),
    )


def values_at(
    structure: Structure, terms: tuple[PotentialTerm, ...], frame: Frame, nodes: Nodes, times: Times
) -> tuple[Array, ...]:
    """The terms of the potential on the nodes at some times, those of the same coordinates together."""
    if structure.together is not None:
        whole = tuple(range(structure.quanta.dimension))
        return (_on_nodes(_Sum(terms, True), frame, nodes.places, whole, times),)
    return tuple(
        _on_nodes(
            _Sum(parts, False), frame, tuple(nodes.places[i] for i in coordinates), coordinates, times
        )
        for coordinates, parts in _by_coordinates(terms).items()
    )


def potential_part(
    structure: Structure,
    terms: tuple[PotentialTerm, ...],
    frame: Frame,
    nodes: Nodes,
    values: tuple[Any, ...],
) -> Operator:
    """The potential with such values on the nodes."""
    xp, dtype = module_of(values[0]), frame.scale.dtype
    matrices = [xp.zeros((len(one.local), len(one.local)), dtype) for one in structure.tables]
    if structure.together is not None:
        return Operator(structure, tuple(matrices), values[0], nodes.functions)
    for coordinates, total in zip(_by_coordinates(terms), values, strict=True):
        where = next(n for n, one in enumerate(structure.supports) if set(coordinates) <= set(one))
        for i in coordinates:
            # The first axis, of nodes, becomes two last axes: row and column.
            products = nodes.functions[i][:, :, None] * nodes.functions[i][:, None, :]
            total = xp.tensordot(total, products, axes=((0,), (0,)))
        support = structure.supports[where]
        places = tuple(support.index(i) for i in coordinates)
        matrices[where] = matrices[where] + _spread(total, places, structure.tables[where].local)
    return Operator(structure, tuple(matrices), None, ())


def kinetic_part(structure: Structure, hamiltonian: Hamiltonian, frame: Frame, xp: Any) -> Operator:
    """The kinetic energy, without the functions of a potential that goes together."""
    quanta, d = structure.quanta, structure.quanta.dimension
    matrices = [xp.zeros((len(one.local), len(one.local)), frame.scale.dtype) for one in structure.tables]
    masses, hbar = hamiltonian.masses(d), hamiltonian.hbar
    for i, most in enumerate(quanta.most):
        where = next(n for n, one in enumerate(structure.supports) if i in one)
        unit = xp.asarray(hbar**2 / (2 * masses[i] * frame.scale[i] ** 2))
        matrix = unit * xp.asarray(_second_derivative(most), frame.scale.dtype)
        place = (structure.supports[where].index(i),)
        matrices[where] = matrices[where] + _spread(matrix, place, structure.tables[where].local)
    return Operator(structure, tuple(matrices), None, ())


def added(one: Operator, other: Operator, share: Any = 1.0) -> Operator:
    """share × one + other, where `one` has no values on nodes."""
    matrices = tuple(share * a + b for a, b in zip(one.matrices, other.matrices, strict=True))
    return Operator(one.structure, matrices, other.values, other.functions)


def _by_coordinates(terms: tuple[PotentialTerm, ...]) -> dict[tuple[int, ...], tuple[PotentialTerm, ...]]:
    groups: dict[tuple[int, ...], tuple[PotentialTerm, ...]] = {}
    for term in terms:
        groups[term.coordinates] = (*groups.get(term.coordinates, ()), term)
    return groups


def _second_derivative(most: int) -> Float[np.ndarray, "k k"]:
    """−d²/dξ² between Hermite functions."""
    n = np.arange(most + 1)
    matrix = np.diag(n + 0.5)
    if most >= 2:
        off = -0.5 * np.sqrt((n[:-2] + 1) * (n[:-2] + 2))
        matrix = matrix + np.diag(off, 2) + np.diag(off, -2)
    return matrix


def _spread(matrix: Any, places: tuple[int, ...], local: Any) -> Any:
    """A matrix over some of the local quantum numbers, with the others unchanged."""
    xp = module_of(matrix)
    # The axes of the matrix are row and column of the first quantum number, then of the second.
    pairs = tuple(index for p in places for index in (local[:, p][:, None], local[:, p][None, :]))
    values = matrix[pairs]
    for place in range(local.shape[1]):
        if place not in places:
            values = xp.where(local[:, place][:, None] == local[:, place][None, :], values, 0)
    return values


class _Sum(eqx.Module):
    """Terms of the same coordinates, or of any where each takes all of them."""

    terms: tuple[PotentialTerm, ...]
    whole: bool = eqx.field(static=True)

    def __call__(self, t: Scalar, y: Vector) -> Scalar:
        values = [term(t, y) if self.whole else term.potential(t, y) for term in self.terms]
        return sum((jnp.asarray(value, y.dtype) for value in values), jnp.zeros((), y.dtype))


@eqx.filter_jit
def _on_nodes(
    potential: _Sum, frame: Frame, nodes: tuple[Vector, ...], coordinates: tuple[int, ...], times: Times
) -> Float[Array, "T ..."]:
    """V(t, x) on the product of the nodes of some coordinates."""
    axes = [frame.centre[i] + frame.scale[i] * one for i, one in zip(coordinates, nodes, strict=True)]
    shape = tuple(len(axis) for axis in axes)
    points = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    values = jax.lax.map(lambda t: jax.vmap(lambda x: potential(t, x))(points), times)
    return values.reshape(times.shape[0], *shape)

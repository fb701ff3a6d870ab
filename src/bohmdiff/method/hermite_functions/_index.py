"""Which products of Hermite functions there are, and how they are grouped by the coordinates of a term."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

# Blocks of one table differ in length by no more than this factor: they are filled up to the longest.
_FILL = 0.7
# Blocks that are shorter are not worth a table of their own.
_SHORT = 24
_SLACK = 1e-9


def module_of(array: Any) -> Any:
    """NumPy or JAX, as the array is."""
    return np if isinstance(array, np.ndarray) else jnp


class Quanta(NamedTuple):
    """The index set: all k with Σ_i weights_i k_i ≤ degree."""

    degree: float
    weights: tuple[float, ...]

    @property
    def dimension(self) -> int:
        return len(self.weights)

    @property
    def most(self) -> tuple[int, ...]:
        """The largest quantum number of each coordinate."""
        return tuple(int(self.degree / weight + _SLACK) for weight in self.weights)

    def raised(self, by: int) -> "Quanta":
        """The set with more functions along each coordinate, `by` of them along one of weight one."""
        return Quanta(self.degree + by * min(self.weights), self.weights)


class Table(NamedTuple):
    """Blocks of functions that differ in the quantum numbers of some coordinates only.

    `local` has these quantum numbers, shape `(n, m)`, by increasing degree, so that each block is the beginning
    of the list. `blocks` has the indices of the functions, shape `(R, n')` for each length; those past the end
    of a block are N. `inverse` is where a function is in the flattened blocks, shape `(N,)`.
    """

    local: Int[np.ndarray, "n m"]
    blocks: tuple[Int[np.ndarray, "R n"], ...]
    inverse: Int[np.ndarray, " N"]


def count(quanta: Quanta) -> int:
    """How many functions there are, without listing them."""
    if len(set(quanta.weights)) == 1:
        k, d = quanta.most[0], quanta.dimension
        return int(np.prod([(k + i) / i for i in range(1, d + 1)]) + 0.5)
    numbers = np.zeros(1)
    counts = np.ones(1)
    for weight in quanta.weights[:-1]:
        levels = np.floor((quanta.degree - numbers) / weight + _SLACK).astype(int) + 1
        parents = np.repeat(np.arange(numbers.size), levels)
        numbers = numbers[parents] + weight * _within(levels)
        counts = counts[parents]
        numbers, index = np.unique(np.round(numbers, 9), return_inverse=True)
        counts = np.bincount(index, counts)
    levels = np.floor((quanta.degree - numbers) / quanta.weights[-1] + _SLACK) + 1
    return int(np.sum(counts * levels))


@functools.lru_cache(16)
def listed(quanta: Quanta) -> Int[np.ndarray, "N d"]:
    """The quantum numbers of all functions, the last coordinate fastest."""
    numbers, rest = np.zeros((1, 0), np.int16), np.full(1, quanta.degree)
    for weight in quanta.weights:
        levels = np.floor(rest / weight + _SLACK).astype(int) + 1
        last = _within(levels)
        numbers = np.concatenate(
            [np.repeat(numbers, levels, axis=0), last[:, None].astype(np.int16)], axis=1
        )
        rest = np.repeat(rest, levels) - weight * last
    numbers.setflags(write=False)
    return numbers


@functools.lru_cache(256)
def table(quanta: Quanta, coordinates: tuple[int, ...]) -> Table:
    """The blocks of the coordinates of a term."""
    numbers = listed(quanta)
    d = quanta.dimension
    others = [i for i in range(d) if i not in coordinates]
    own = Quanta(quanta.degree, tuple(quanta.weights[i] for i in coordinates))
    local = listed(own)
    degrees = local @ np.asarray(own.weights)
    local = local[np.argsort(np.round(degrees, 9), kind="stable")]
    # Where each combination of the own quantum numbers is in the list.
    shape = [most + 1 for most in own.most]
    rank = np.zeros(shape, np.int64)
    rank[tuple(local.T.astype(int))] = np.arange(len(local))
    ranks = rank[tuple(numbers[:, list(coordinates)].T.astype(int))]
    group = np.zeros(len(numbers), np.int64)
    for i in others:
        group = group * (quanta.most[i] + 1) + numbers[:, i]
    order = np.lexsort((ranks, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    lengths = np.diff(np.append(starts, len(numbers)))
    by_length = np.argsort(-lengths, kind="stable")
    blocks, inverse, first, done = [], np.empty(len(numbers), np.int32), 0, 0
    while first < len(lengths):
        longest = int(lengths[by_length[first]])
        chosen = by_length[first:][
            lengths[by_length[first:]] >= (_FILL * longest if longest > _SHORT else 1)
        ]
        where = starts[chosen, None] + np.arange(longest)[None]
        inside = np.arange(longest)[None] < lengths[chosen, None]
        block = np.where(inside, order[np.minimum(where, len(numbers) - 1)], len(numbers)).astype(np.int32)
        positions = done + np.arange(block.size, dtype=np.int32).reshape(block.shape)
        inverse[block[inside]] = positions[inside]
        blocks.append(block)
        first, done = first + len(chosen), done + block.size
    return Table(local, tuple(blocks), inverse)


class Prefixes(NamedTuple):
    """How sums over the last coordinate of each list of quantum numbers go: child k of prefix r is `first[r] +
    k`, for k < `lengths[r]`."""

    first: Int[np.ndarray, " R"]
    lengths: Int[np.ndarray, " R"]


@functools.lru_cache(16)
def prefixes(quanta: Quanta) -> tuple[Prefixes, ...]:
    """For each coordinate, the children of the lists of quantum numbers before it."""
    found = []
    for i in range(quanta.dimension):
        rest = np.full(1, quanta.degree)
        if i:
            before = Quanta(quanta.degree, quanta.weights[:i])
            rest = quanta.degree - listed(before) @ np.asarray(before.weights)
        lengths = np.floor(rest / quanta.weights[i] + _SLACK).astype(np.int32) + 1
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int32)
        found.append(Prefixes(first, lengths))
    return tuple(found)


def _within(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ..., length - 1 for each length, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)


@functools.lru_cache(64)
def functions_at_nodes(most: int, nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gauss–Hermite nodes, shape `(Q,)`, the Hermite functions at them times the root of the weights,
    `(Q, most + 1)`, and these roots, `(Q,)`: sums of products of the former are integrals."""
    diagonal = np.sqrt(np.arange(1, nodes) / 2)
    places = np.linalg.eigvalsh(np.diag(diagonal, 1) + np.diag(diagonal, -1))
    values = hermite_functions(max(nodes - 1, most), places)
    # Christoffel: 1 / Σ_k φ_k².
    root = 1 / np.sqrt(np.sum(values[:, :nodes] ** 2, axis=1))
    return places, values[:, : most + 1] * root[:, None], root


@functools.lru_cache(16)
def functions_on_a_grid(most: int, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Equally spaced points that hold all functions, and the functions there times the root of the spacing."""
    edge = (2 * most + 1) ** 0.5 + 6.0
    places = np.linspace(-edge, edge, points)
    return places, hermite_functions(most, places) * (places[1] - places[0]) ** 0.5


def hermite_functions(most: int, x: np.ndarray) -> np.ndarray:
    """φ_0, ..., φ_most at points, shape `(len(x), most + 1)`, in NumPy."""
    values = np.empty((len(x), most + 1))
    values[:, 0] = np.pi**-0.25 * np.exp(-0.5 * x**2)
    if most:
        values[:, 1] = np.sqrt(2.0) * x * values[:, 0]
    for n in range(1, most):
        values[:, n + 1] = np.sqrt(2 / (n + 1)) * x * values[:, n] - np.sqrt(n / (n + 1)) * values[:, n - 1]
    return values

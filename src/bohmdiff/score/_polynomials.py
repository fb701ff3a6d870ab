"""Orthonormal Hermite polynomials of bounded total degree, and calculus on their coefficients.

With h_α(ξ) = Π_i He_{α_i}(ξ_i) / √(α_i!), derivatives stay in the basis: ∂_i h_α = √α_i h_{α − e_i}.
Every derivative of an expansion is therefore an expansion in the same basis with mapped coefficients, and
no automatic differentiation is needed.
"""

from functools import lru_cache, partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .basis import AbstractBasis, TotalDegree


class HermitePolynomials(NamedTuple):
    """The polynomials up to degree `highest` among those that `basis` allows for total degree `degree`."""

    dimension: int
    degree: int
    basis: AbstractBasis
    highest: int

    @property
    def size(self) -> int:
        """The number of polynomials, the constant included."""
        products = _tables(self.dimension, self.degree, self.basis).products
        return sum(len(factors) <= self.highest for factors in products)

    @property
    def lower(self) -> "HermitePolynomials":
        """The polynomials of the first derivatives; lower degrees come first in the coefficients."""
        return self._replace(highest=self.highest - 1)


def hermite_polynomials(
    dimension: int, degree: int, basis: AbstractBasis | None = None
) -> HermitePolynomials:
    """All polynomials up to a total degree, or those that `basis` allows.

    **Raises:** `ValueError` if the first two degrees of a coordinate are not allowed.
    """
    polynomials = HermitePolynomials(dimension, degree, TotalDegree() if basis is None else basis, degree)
    _tables(*polynomials[:3])
    return polynomials


class _Tables(NamedTuple):
    products: list[tuple[int, ...]]  # the coordinates of the factors, in increasing order
    lowered: np.ndarray  # (d, n): index of α − e_i, or n where α_i = 0
    lowered_root: np.ndarray  # (d, n): √α_i
    raised: np.ndarray  # (d, n): index of α + e_i, or n where there is none
    raised_root: np.ndarray  # (d, n): √(α_i + 1), or 0 there


@lru_cache(maxsize=64)
def _tables(dimension: int, degree: int, basis: AbstractBasis) -> _Tables:
    # Each product extends one with a factor less, and is used if all products with a factor less are used.
    place: dict[tuple[int, ...], int] = {(): 0}
    newest = [()]
    for _ in range(degree):
        newest = [
            (*factors, i)
            for factors in newest
            for i in range(factors[-1] if factors else 0, dimension)
            if basis.allows(*np.unique((*factors, i), return_counts=True), degree)
            and all(less in place for less in _with_a_factor_less((*factors, i)).values())
        ]
        place |= {factors: len(place) + index for index, factors in enumerate(newest)}
    single = [(i,) * power for power in range(1, min(degree, 2) + 1) for i in range(dimension)]
    if missing := [factors for factors in single if factors not in place]:
        raise ValueError(
            f"{basis!r} forbids degree {len(missing[0])} in coordinate {missing[0][0]} alone: allow the "
            "first two degrees of each coordinate."
        )
    n = len(place)
    exponents = np.zeros((dimension, n), dtype=int)
    lowered, raised = np.full((dimension, n), n), np.full((dimension, n), n)
    for factors, index in place.items():
        for i, less in _with_a_factor_less(factors).items():
            exponents[i, index] = factors.count(i)
            lowered[i, index] = place[less]
            raised[i, place[less]] = index
    raised_root = np.where(raised < n, np.sqrt(exponents + 1), 0)
    return _Tables(list(place), lowered, np.sqrt(exponents), raised, raised_root)


def _with_a_factor_less(factors: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """The products with one factor removed, by the coordinate of that factor."""
    cuts = {i: factors.index(i) for i in set(factors)}
    return {i: factors[:cut] + factors[cut + 1 :] for i, cut in cuts.items()}


class _Recipe(NamedTuple):
    levels: list[tuple[np.ndarray, np.ndarray]]  # index in the previous level and in the powers of one axis
    order: np.ndarray  # (n,): the index of each product, counted level by level


@lru_cache(maxsize=64)
def _recipe(basis: HermitePolynomials) -> _Recipe:
    """How to build the products of k coordinates from those of k - 1, for increasing k."""
    products = _tables(*basis[:3]).products[: basis.size]
    place: dict[tuple[int, ...], int] = {(): 0}
    place_in_level, levels, known = place, [], 1
    for k in range(1, basis.dimension + 1):
        here = [factors for factors in products if len(set(factors)) == k]
        if not here:
            break
        cuts = [factors.index(factors[-1]) for factors in here]
        rest = [place_in_level[factors[:cut]] for factors, cut in zip(here, cuts, strict=True)]
        power = [
            (len(factors) - cut) * basis.dimension + factors[-1]
            for factors, cut in zip(here, cuts, strict=True)
        ]
        levels.append((np.array(rest), np.array(power)))
        place = place | {factors: known + index for index, factors in enumerate(here)}
        place_in_level = {factors: index for index, factors in enumerate(here)}
        known += len(here)
    return _Recipe(levels, np.array([place[factors] for factors in products]))


def hermite_basis(xi: Float[Array, "M d"], basis: HermitePolynomials) -> Float[Array, "M n"]:
    """All basis functions at points `xi`: shape `(M, n)`, the constant first."""
    axes = xi.T
    powers = [jnp.ones_like(axes), axes]
    for k in range(1, basis.highest):
        powers.append((axes * powers[k] - k**0.5 * powers[k - 1]) / (k + 1) ** 0.5)
    one_axis = jnp.concatenate(powers)
    recipe = _recipe(basis)
    levels = [jnp.ones_like(axes[:1])]
    for rest, power in recipe.levels:
        levels.append(_pick(levels[-1], rest) * _pick(one_axis, power))
    return _pick(jnp.concatenate(levels), recipe.order).T


def _pick(array: Array, indices: ArrayLike, axis: int = 0) -> Array:
    """Entries by indices that are known to be in bounds, without a check of each."""
    return jnp.take(array, indices, axis=axis, mode="clip")


def differentiate(
    coefficients: Float[Array, "*batch n"], basis: HermitePolynomials
) -> Float[Array, "*batch d n"]:
    r"""The coefficients of $\partial_i \sum_\alpha c_\alpha h_\alpha$ for every i, of all basis functions."""
    tables = _tables(*basis[:3])
    n = coefficients.shape[-1]
    raised = np.minimum(tables.raised[:, :n], n)
    padded = jnp.concatenate([coefficients, jnp.zeros_like(coefficients[..., :1])], axis=-1)
    root = jnp.asarray(tables.raised_root[:, :n], coefficients.dtype)
    columns = _pick(padded, raised, axis=-1)
    return columns * root.reshape((1,) * (columns.ndim - 2) + root.shape)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def expand(
    xi: Float[Array, "M d"], coefficients: Float[Array, "k n"], basis: HermitePolynomials
) -> Float[Array, "M k"]:
    r"""$\sum_\alpha c_\alpha h_\alpha(\xi)$ for `k` sets of coefficients at `M` points, shape `(M, k)`.

    Its derivative is again an expansion, with mapped coefficients: derivatives of any order need only
    one evaluation of the basis, and one product with it per derivative.
    """
    return hermite_basis(xi, basis) @ coefficients.T


@expand.defjvp
def _expand_jvp(basis, primals, tangents):
    xi, coefficients = primals
    xi_dot, coefficients_dot = tangents
    k, d = coefficients.shape[0], xi.shape[1]
    change = expand(xi, coefficients_dot, basis)
    if basis.highest > 0:
        slopes = differentiate(coefficients, basis)[..., : basis.lower.size].reshape(k * d, -1)
        along_axes = expand(xi, slopes, basis.lower).reshape(-1, k, d)
        change = change + jnp.einsum("md,mkd->mk", xi_dot, along_axes)
    return expand(xi, coefficients, basis), change


def expected_gradients(
    gram: Float[Array, "low low"], metric: Float[Array, "d d"], basis: HermitePolynomials
) -> tuple[Float[Array, "n n"], Float[Array, " n"], Float[Array, " n"]]:
    r"""The moments that implicit score matching needs, from the Gram matrix of `basis.lower`.

    **Arguments:**

    - `gram`: $E[h_\beta h_\gamma]$ for all of `basis.lower`.
    - `metric`: a symmetric matrix $A$.
    - `basis`: the basis of the $h_\alpha$ below, of degree 2 or more.

    **Returns:** $E[\nabla h_\alpha^\top A \nabla h_\beta]$, $E[\xi^\top A \nabla h_\alpha]$ and
    $E[\mathrm{tr}(A \nabla\nabla h_\alpha)]$ for all α, β of `basis`.
    """
    low = gram.shape[0]
    tables = _tables(*basis[:3])
    lowered = np.minimum(tables.lowered, low)  # the row and column of zeros added here
    root = jnp.asarray(tables.lowered_root, gram.dtype)
    padded = jnp.pad(gram, ((0, 1), (0, 1)))
    columns = _pick(padded, lowered, axis=1) * root[None]  # (low + 1, d, n)
    mixed = jnp.einsum("ij,bjn->ibn", metric, columns)
    gradients = _lower(mixed, basis)

    linear = gram[1 : basis.dimension + 1]  # h_{e_i} = ξ_i
    slopes = columns[0, :, :low]
    return (
        gradients,
        expected_derivatives(metric @ linear, basis),
        expected_derivatives(metric @ slopes, basis),
    )


def expected_derivatives(moments: Float[Array, "d low"], basis: HermitePolynomials) -> Float[Array, " n"]:
    r"""$E[\sum_i f_i \partial_i h_\alpha]$ for every α of `basis`, from the moments $E[f_i h_\beta]$ for all of
    `basis.lower`."""
    return _lower(jnp.pad(moments, ((0, 0), (0, 1)))[..., None], basis)[:, 0]


def _lower(moments: Float[Array, "d low_padded k"], basis: HermitePolynomials) -> Float[Array, "n k"]:
    """Σ_i √α_i moments[i, α − e_i] for every α, with a row of zeros at the end of the moments."""
    tables = _tables(*basis[:3])
    # A product has few factors, so most of its derivatives vanish: only those of its own coordinates are added.
    most = int(np.max(np.sum(tables.lowered_root > 0, axis=0)))
    axes = np.argsort(tables.lowered_root == 0, axis=0, kind="stable")[:most]
    lowered = np.minimum(np.take_along_axis(tables.lowered, axes, axis=0), moments.shape[1] - 1)
    root = jnp.asarray(np.take_along_axis(tables.lowered_root, axes, axis=0), moments.dtype)
    rows = moments.reshape(-1, moments.shape[-1])
    places = axes * moments.shape[1] + lowered
    parts = [root[k][:, None] * _pick(rows, places[k]) for k in range(most)]
    return reduce(jnp.add, parts)

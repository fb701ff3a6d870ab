"""Orthonormal Hermite polynomials of bounded total degree, and calculus on their coefficients.

With h_α(ξ) = Π_i He_{α_i}(ξ_i) / √(α_i!), derivatives stay in the basis: ∂_i h_α = √α_i h_{α − e_i}.
So every derivative of an expansion is the same basis with mapped coefficients, and no automatic
differentiation is needed.
"""

from functools import lru_cache, partial
from itertools import combinations_with_replacement
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def basis_size(dimension: int, degree: int) -> int:
    """The number of polynomials of total degree at most `degree`, the constant included."""
    return comb(dimension + degree, degree)


class _Tables(NamedTuple):
    exponents: np.ndarray  # (n, d), by rising total degree
    lowered: np.ndarray  # (d, n): index of α − e_i, or n where α_i = 0
    lowered_root: np.ndarray  # (d, n): √α_i
    raised: np.ndarray  # (d, n): index of α + e_i, or n where its degree is too high
    raised_root: np.ndarray  # (d, n): √(α_i + 1), or 0 there


@lru_cache(maxsize=64)
def _tables(dimension: int, degree: int) -> _Tables:
    factors = [
        variables
        for total in range(degree + 1)
        for variables in combinations_with_replacement(range(dimension), total)
    ]
    n = len(factors)
    exponents = np.zeros((n, dimension), dtype=int)
    for row, variables in enumerate(factors):
        np.add.at(exponents[row], list(variables), 1)
    place = {tuple(row): index for index, row in enumerate(exponents)}
    lowered, raised = np.full((dimension, n), n), np.full((dimension, n), n)
    for i, unit in enumerate(np.eye(dimension, dtype=int)):
        for index, row in enumerate(exponents):
            lowered[i, index] = place.get(tuple(row - unit), n)
            raised[i, index] = place.get(tuple(row + unit), n)
    lowered_root = np.sqrt(exponents.T)
    raised_root = np.where(raised < n, np.sqrt(exponents.T + 1), 0)
    return _Tables(exponents, lowered, lowered_root, raised, raised_root)


def hermite_basis(xi: Float[Array, "M d"], degree: int) -> Float[Array, "M n"]:
    """All basis functions at points `xi`: shape `(M, n)`, the constant first."""
    values = [jnp.ones_like(xi), xi]
    for k in range(1, degree):
        values.append((xi * values[k] - k**0.5 * values[k - 1]) / (k + 1) ** 0.5)
    one_axis = jnp.stack(values[: degree + 1], axis=-1)
    exponents = _tables(xi.shape[1], degree).exponents
    out = one_axis[:, 0, exponents[:, 0]]
    for i in range(1, xi.shape[1]):
        out = out * one_axis[:, i, exponents[:, i]]
    return out


def differentiate(coefficients: Float[Array, "*batch n"], axis: int, dimension: int, degree: int):
    r"""The coefficients of $\partial_i \sum_\alpha c_\alpha h_\alpha$; the shape stays."""
    tables = _tables(dimension, degree)
    padded = jnp.concatenate([coefficients, jnp.zeros_like(coefficients[..., :1])], axis=-1)
    root = jnp.asarray(tables.raised_root[axis], coefficients.dtype)
    return padded[..., tables.raised[axis]] * root


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def expand(xi: Float[Array, "M d"], coefficients: Float[Array, "k n"], degree: int) -> Float[Array, "M k"]:
    r"""$\sum_\alpha c_\alpha h_\alpha(\xi)$ for `k` sets of coefficients at `M` points, shape `(M, k)`.

    Its derivative is again an expansion, with mapped coefficients: however often it is differentiated,
    there is one evaluation of the basis, and one product with it per derivative.
    """
    return hermite_basis(xi, degree) @ coefficients.T


@expand.defjvp
def _expand_jvp(degree, primals, tangents):
    xi, coefficients = primals
    xi_dot, coefficients_dot = tangents
    k, d = coefficients.shape[0], xi.shape[1]
    change = expand(xi, coefficients_dot, degree)
    if degree > 0:
        slopes = jnp.concatenate([differentiate(coefficients, i, d, degree) for i in range(d)])
        slopes = slopes[:, : basis_size(d, degree - 1)]
        along_axes = expand(xi, slopes, degree - 1).reshape(-1, d, k)
        change = change + jnp.einsum("md,mdk->mk", xi_dot, along_axes)
    return expand(xi, coefficients, degree), change


def expected_gradients(
    gram: Float[Array, "low low"], metric: Float[Array, "d d"], degree: int
) -> tuple[Float[Array, "n n"], Float[Array, " n"], Float[Array, " n"]]:
    r"""The moments that implicit score matching needs, from the Gram matrix of degree `degree - 1`.

    **Arguments:**

    - `gram`: $E[h_\beta h_\gamma]$ for total degrees up to `degree - 1`.
    - `metric`: a symmetric matrix $A$.
    - `degree`: the largest total degree of the $h_\alpha$ below, at least 2.

    **Returns:** $E[\nabla h_\alpha^\top A \nabla h_\beta]$, $E[\xi^\top A \nabla h_\alpha]$ and
    $E[\mathrm{tr}(A \nabla\nabla h_\alpha)]$ for all α, β up to `degree`.
    """
    dimension, low = metric.shape[0], gram.shape[0]
    tables = _tables(dimension, degree)
    lowered = np.minimum(tables.lowered, low)  # the row and column of zeros added here
    root = jnp.asarray(tables.lowered_root, gram.dtype)
    padded = jnp.pad(gram, ((0, 1), (0, 1)))
    columns = jnp.stack([padded[:, lowered[j]] * root[j] for j in range(dimension)])
    mixed = jnp.einsum("ij,jbn->ibn", metric, columns)
    gradients = jnp.sum(
        jnp.stack([root[i][:, None] * mixed[i][lowered[i]] for i in range(dimension)]), axis=0
    )

    def pull_back(moments: Float[Array, "d low_padded"]) -> Float[Array, " n"]:
        # E[Σ_ij A_ij f_j ∂_i h_α] from the moments E[f_j h_β].
        mixed = metric @ moments
        return jnp.sum(jnp.stack([root[i] * mixed[i][lowered[i]] for i in range(dimension)]), axis=0)

    linear = padded[1 : dimension + 1]  # h_{e_i} = ξ_i
    mean = padded[0]
    slopes = jnp.stack([mean[lowered[j]] * root[j] for j in range(dimension)])[:, :low]
    return gradients, pull_back(linear), pull_back(jnp.pad(slopes, ((0, 0), (0, 1))))

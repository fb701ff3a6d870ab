"""A dipole moment as a polynomial of the coordinates, which stays bounded."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._check import is_concrete
from .._types import Scalar, Vector
from ._bounded import bounded


class PolynomialDipole(eqx.Module):
    r"""$\mu(x) = \mu_0 + \sum_i \mu_i u_i + \tfrac12 \sum_{ij} \mu_{ij} u_i u_j$, where $u_i = u(x_i)$.

    [`NormalModes`][bohmdiff.NormalModes] makes it, and says what the bounded function $u$ is.

    - `constant`: $\mu_0$, shape `(3,)`.
    - `gradient`: $\mu_i$, shape `(3, d)`.
    - `curvature`: $\mu_{ij}$, shape `(3, d, d)`, symmetric.
    - `reach`: the limit of $u$.
    """

    constant: Float[Array, "3"]
    gradient: Float[Array, "3 d"]
    curvature: Float[Array, "3 d d"]
    reach: Scalar

    def __call__(self, x: Vector) -> Float[Array, "3"]:
        """The dipole moment of one particle at `x`, shape `(d,)`."""
        if x.shape != self.gradient.shape[1:]:
            d = self.gradient.shape[1]
            raise ValueError(
                f"The dipole has {d} coordinates, so x must have shape ({d},), but shape {x.shape} was given."
            )
        u = bounded(x, self.reach)
        # Sums of products: a GPU would round the factors of `dot` in single precision.
        slope = self.gradient + 0.5 * jnp.sum(self.curvature * u, axis=-1)
        return self.constant + jnp.sum(slope * u, axis=-1)

    def parts(self) -> tuple[tuple[tuple[int, ...], "PolynomialDipole"], ...]:
        """Dipoles of one or two coordinates, with the indices of these. Their sum is this one."""
        d = self.gradient.shape[1]
        none = jnp.zeros_like
        ones, pairs = [], []
        for i in range(d):
            constant = self.constant if i == 0 else none(self.constant)
            own = self.gradient[:, i : i + 1], self.curvature[:, i : i + 1, i : i + 1]
            ones.append(((i,), PolynomialDipole(constant, *own, self.reach)))
        off_diagonal = ~np.eye(2, dtype=bool)
        for i, j in zip(*np.triu_indices(d, k=1), strict=True):
            both = np.array([i, j])
            curvature = self.curvature[:, both[:, None], both] * off_diagonal
            if is_concrete(curvature) and not np.any(np.asarray(curvature)):
                continue
            part = PolynomialDipole(
                none(self.constant), none(self.gradient[:, both]), curvature, self.reach
            )
            pairs.append(((int(i), int(j)), part))
        return (*ones, *pairs)

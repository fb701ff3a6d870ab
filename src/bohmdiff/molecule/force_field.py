"""The potential of a quartic force field, bounded below and a sum of terms of few coordinates."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._check import is_concrete
from .._types import Scalar, Time, Vector
from ..hamiltonian import AbstractSeparablePotential, PotentialTerm, bounded


class QuarticForceField(AbstractSeparablePotential):
    r"""$V = \sum_i \tfrac12 \omega_i q_i^2 + \tfrac16 \sum_{ijk} \phi_{ijk} u_i u_j u_k
    + \tfrac1{24} \sum_{ijkl} \phi_{ijkl} u_i u_j u_k u_l$, where $u_i = u(q_i)$ is bounded.

    [`NormalModes`][bohmdiff.NormalModes] makes it, and says what $u$ is.

    - `frequencies`: $\omega_i$, shape `(d,)`.
    - `cubic`, `quartic`: $\phi_{ijk}$ and $\phi_{ijkl}$, symmetric, shapes `(d, d, d)` and `(d, d, d, d)`.
    - `reach`: the limit of $u$.
    """

    frequencies: Float[Array, " d"]
    cubic: Float[Array, "d d d"]
    quartic: Float[Array, "d d d d"]
    reach: Scalar

    def __call__(self, t: Time, x: Vector) -> Scalar:
        if x.shape != self.frequencies.shape:
            d = self.frequencies.size
            raise ValueError(
                f"The force field has {d} normal coordinates, so x must have shape ({d},), but shape "
                f"{x.shape} was given."
            )
        u = bounded(x, self.reach)
        # Sums of products: a GPU would round the factors of `dot` in single precision.
        tensor = self.cubic / 6 + jnp.sum(self.quartic * u, axis=-1) / 24
        for _ in range(3):
            tensor = jnp.sum(tensor * u, axis=-1)
        return 0.5 * jnp.sum(self.frequencies * x**2) + tensor

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        """One term for each coordinate, pair, triple and quadruple of coordinates that has a force constant."""
        terms = []
        for size in range(1, min(4, dimension) + 1):
            for support in combinations(range(dimension), size):
                part = self._within(support)
                if size == 1 or not is_concrete(part) or _any_force(part):
                    terms.append(PotentialTerm(support, part))
        return tuple(terms)

    def _within(self, support: tuple[int, ...]) -> "QuarticForceField":
        """The part of the potential that depends on each of these coordinates, and on no other."""
        where = np.array(support)
        frequencies = (
            self.frequencies[where] if where.size == 1 else jnp.zeros_like(self.frequencies[where])
        )
        cubic, quartic = (
            tensor[np.ix_(*[where] * tensor.ndim)] * _uses_all(where.size, tensor.ndim)
            for tensor in (self.cubic, self.quartic)
        )
        return QuarticForceField(frequencies, cubic, quartic, self.reach)


def _uses_all(size: int, order: int) -> np.ndarray:
    """Which entries of a tensor have every index from 0 to size - 1."""
    indices = np.indices((size,) * order)
    return np.all([np.any(indices == k, axis=0) for k in range(size)], axis=0)


def _any_force(part: QuarticForceField) -> bool:
    return bool(np.any(np.asarray(part.cubic)) or np.any(np.asarray(part.quartic)))

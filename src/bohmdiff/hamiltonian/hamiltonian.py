"""The Hamiltonian: a potential, one mass per coordinate, and ħ."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import as_real_array, describe, range_hint, require
from .._closure import as_module, settled
from .._precision import in_full_precision
from .._types import Numbers, Scalar, Time, Vector
from .potential import PotentialSum, terms_of

# Where one mass is for all coordinates, a function is tried with these numbers of coordinates.
_DIMENSIONS = (1, 2, 3, 4)


class Hamiltonian(eqx.Module):
    r"""$H = \sum_i p_i^2 / 2 m_i + V(t, x)$ with $[x_i, p_i] = i\hbar$.

    ```python
    hamiltonian = bd.Hamiltonian(
        bd.MorseChain(depth=12.5, width=0.2, coupling=0.3), mass=1.0
    )
    hamiltonian.potential(0.0, jnp.zeros(4))
    driven = hamiltonian + (
        lambda t, x: -0.1 * jnp.sin(t) * x[0]
    )  # the same masses, one potential more
    ```

    A plain function becomes a module, with the values that it closes over (numbers, arrays, global names,
    default arguments) at the time when the Hamiltonian is made: later changes have no effect. Numbers and arrays
    among them are parameters: functions that differ only in these share what is compiled, and gradients flow
    to them. Whole numbers are not: they are exponents and indices. Where a function needs the value of a number,
    as in `if c > 0` or `math.sqrt(c)`, or uses an object of a class of your own, everything compiles anew for
    each value. Do not change such an object while a Hamiltonian holds it.

    **Arguments:**

    - `potential`: any callable or module `V(t, x) -> scalar` for one particle, `t` a scalar and `x`
        of shape `(d,)`; it must be differentiable in `x`. Energy units.
    - `mass`: a positive scalar, or one positive mass per coordinate, shape `(d,)`.
    - `hbar`: a positive scalar, in units of energy times time.

    **Raises:** `ValueError` if a mass or ħ is not positive, or the potential is not callable.
    """

    potential: Callable[[Time, Vector], Scalar]
    mass: Float[Array, "*d"]
    hbar: Scalar

    @in_full_precision
    def __init__(
        self,
        potential: Callable[[Time, Vector], Scalar],
        mass: Numbers = 1.0,
        hbar: Numbers = 1.0,
    ):
        if not callable(potential):
            raise ValueError(
                f"potential must be a callable V(t, x) -> scalar, but {potential!r} was given."
            )
        mass = as_real_array(mass, "mass")
        hbar = as_real_array(hbar, "hbar")
        if mass.ndim > 1 or mass.size == 0:
            raise ValueError(
                f"mass must be a scalar or one mass per coordinate, shape (d,), but shape {mass.shape} "
                "was given."
            )
        if hbar.ndim != 0:
            raise ValueError(f"hbar must be a scalar, but shape {hbar.shape} was given.")
        dimensions = mass.shape or _DIMENSIONS
        self.potential = settled(as_module(potential), *((jnp.zeros(()), jnp.zeros(d)) for d in dimensions))
        self.mass = _positive(mass, "Every mass")
        self.hbar = _positive(hbar, "hbar")

    def __add__(self, other: Any) -> "Hamiltonian":
        if not callable(other):
            return NotImplemented
        return Hamiltonian(PotentialSum(*terms_of(self.potential), *terms_of(other)), self.mass, self.hbar)

    def masses(self, dimension: int) -> Vector:
        """The mass of each coordinate, shape `(d,)`."""
        return jnp.broadcast_to(self.mass, (dimension,))

    def kinetic_energy(self, velocity: Vector) -> Scalar:
        r"""$\sum_i \tfrac12 m_i v_i^2$ of one particle."""
        return 0.5 * jnp.sum(self.mass * velocity**2)


def _positive(array: Array, name: str) -> Array:
    """`array`, with a check that every entry is positive. Subnormal numbers are not: XLA takes them for zero."""
    return require(
        array,
        jnp.all(array >= jnp.finfo(array.dtype).tiny),
        f"{name} must be positive, but {describe(array)} was given.{range_hint(array)}",
    )

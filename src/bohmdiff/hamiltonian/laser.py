"""The interaction of a dipole moment with an electric field."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._check import reason
from .._closure import as_module, name_of, settled
from .._precision import in_full_precision
from .._types import Scalar, Time, Vector
from .dipole import PolynomialDipole
from .potential import AbstractSeparablePotential, PotentialTerm

_SHAPES = ((), (3,))


class Laser(AbstractSeparablePotential):
    r"""$V(t, x) = -E(t) \cdot \mu(x)$: a dipole moment in the electric field of a light pulse.

    ```python
    pulse = bd.GaussianPulse(
        amplitude=0.05, frequency=1.0, centre=10.0, duration=8.0
    )
    laser = bd.Laser(pulse, dipole=lambda x: 0.3 * x[0])
    driven = hamiltonian + laser
    ```

    The field is the same all over the molecule (dipole approximation, length gauge).

    **Arguments:**

    - `field`: $E(t)$: a [`GaussianPulse`][bohmdiff.GaussianPulse], a
        [`SineSquaredPulse`][bohmdiff.SineSquaredPulse], or any function or module of `t` that returns shape
        `(3,)` or a number.
    - `dipole`: $\mu(x)$: any function or module of one `x` of shape `(d,)` that returns the same shape as the
        field. For a molecule, the `dipole` of [`NormalModes`][bohmdiff.NormalModes].

    What both return is cast to the precision of `x`.

    **Units:** field times dipole moment is an energy; with atomic units all is in these.

    **Raises:** `ValueError` if one of them is not callable, if the field does not return a number or shape
    `(3,)`, or, at the call, if the shapes of field and dipole differ.
    """

    field: Callable[[Time], Array]
    dipole: Callable[[Vector], Array]

    @in_full_precision
    def __init__(self, field: Callable[[Time], Any], dipole: Callable[[Vector], Any]):
        if not callable(field):
            raise ValueError(
                f"field must be a function of the time t, such as bd.GaussianPulse(...), but {field!r} was given."
            )
        if not callable(dipole):
            raise ValueError(
                "dipole must be a function of the position x, such as the dipole of bd.NormalModes, but "
                f"{dipole!r} was given."
            )
        self.field = settled(as_module(field), (jnp.zeros(()),))
        self.dipole = as_module(dipole)
        eqx.filter_eval_shape(lambda t: _value(self.field, "field", t, t), jnp.zeros(()))

    def __call__(self, t: Time, x: Vector) -> Scalar:
        field, dipole = _value(self.field, "field", t, x), _value(self.dipole, "dipole", x, x)
        if field.shape != dipole.shape:
            raise ValueError(
                f"field(t) has shape {field.shape} and dipole(x) has shape {dipole.shape}, but both must be "
                "numbers, or both vectors of shape (3,). A pulse is a vector if it has a polarisation."
            )
        return -jnp.sum(field * dipole)

    def separable_terms(self, dimension: int) -> tuple[PotentialTerm, ...]:
        """Terms of at most two coordinates for the dipole of [`NormalModes`][bohmdiff.NormalModes], and a single
        one of all coordinates for any other dipole."""
        parts = ((tuple(range(dimension)), self.dipole),)
        if isinstance(self.dipole, PolynomialDipole):
            parts = self.dipole.parts()
        return tuple(PotentialTerm(coordinates, Laser(self.field, part)) for coordinates, part in parts)


def _value(function: Callable[[Any], Any], name: str, argument: Any, x: Any) -> Array:
    """What the field or the dipole returns, in the precision of `x`."""
    try:
        value = jnp.asarray(function(argument))
        if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
            raise TypeError(f"its dtype is {value.dtype}")
    except Exception as error:
        raise ValueError(
            f"{name} must return a number or a vector of shape (3,), but {name_of(function)} did not: "
            f"{reason(error)}"
        ) from error
    if value.shape not in _SHAPES:
        raise ValueError(
            f"{name} must return a number or a vector of shape (3,), but {name_of(function)} returned shape "
            f"{value.shape}."
        )
    return value.astype(jnp.result_type(x))

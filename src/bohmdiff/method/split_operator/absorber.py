"""A complex absorbing potential at the edges of the box."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._types import Numbers, Scalar, Vector
from ._each import each, one_or_each
from ._fourier import FourierGrid

# Manolopoulos: the end of the layer in his units, the coefficients of y(x), and δ, which sets the
# reflection of the slowest wave, 1 %.
_C = 2.62206
_A = 1 - 16 / _C**3
_B = (1 - 17 / _C**3) / _C**2
_DELTA = 0.2
# The logarithm to the base of 10 of the share of a wave that is reflected, by wavenumber times width, from
# a numerical solution of the stationary equation.
_PHASES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24)
_REFLECTIONS = (
    *(0, -0.24, -0.49, -0.76, -1.08, -1.46, -1.93, -2.49),
    *(-3.02, -3.63, -4.15, -4.59, -4.89, -5.52, -6.02),
)


class ComplexAbsorber(eqx.Module):
    r"""Takes away what reaches the edges of the box: a potential $-iW(x)$, for
    [`SplitOperator`][bohmdiff.SplitOperator].

    ```python
    bd.SplitOperator(
        points=512,
        lower=-30.0,
        upper=30.0,
        absorber=bd.ComplexAbsorber(width=8.0),
    )
    ```

    $W$ is that of Manolopoulos. It is infinite at the edges, so that nothing comes in again on the other side. A
    layer of width $L$ reflects $7\cdot10^{-2}$ of a wave whose length $2\pi\hbar/p$ is $1.5\,L$,
    $8\cdot10^{-3}$ for $L$, $6\cdot10^{-5}$ for $L/2$, and $10^{-6}$ for $L/4$. The figure `absorber` in
    the `diagnostics` estimates what was reflected, and fails beyond 1e-3.

    ψ is then no longer normalised: `norm()` tells how much is left, and [`flux`][bohmdiff.flux] where it went.
    `probability` and `log_density` count what is left; means, widths, energies and draws are those of the
    part that is left, normalised.

    **Arguments:**

    - `width`: $L$, of the layers inside of `lower` and inside of `upper`: a number, or one for each coordinate,
        shape `(d,)`. Zero for a coordinate without layers, where ψ is bound.

    **Units:** `width` in lengths.

    **Raises:** `ValueError` for a width that is negative or not finite, or if all are zero.

    ??? cite "Reference"

        D. E. Manolopoulos, *Derivation and reflection properties of a transmission-free absorbing
        potential*, J. Chem. Phys. **117**, 9552 (2002).
    """

    width: float | tuple[float, ...] = eqx.field(static=True)

    def __init__(self, width: Numbers):
        self.width = one_or_each(width, "width", float)
        given = np.asarray(self.width, float)
        if not (np.all(given >= 0) and np.any(given > 0)):
            raise ValueError(
                "width must be positive, or not negative for each coordinate and positive for one, but "
                f"{width!r} was given."
            )

    def widths(self, grid: FourierGrid) -> tuple[float, ...]:
        """The width along each coordinate of a grid that has room for it."""
        widths = each(self.width, "The width of the absorber", grid.dimension)
        for i, width in enumerate(widths):
            if not 2 * width < grid.lengths[i]:
                raise ValueError(
                    f"The layers of the absorber along coordinate {i} have a width of {width:g} each, but "
                    f"the box has a length of {grid.lengths[i]:g}. Widen lower and upper, or use a "
                    "narrower absorber."
                )
        return widths

    def on_axes(
        self, grid: FourierGrid, masses: Vector, hbar: Scalar
    ) -> tuple[Float[Array, " n"] | None, ...]:
        """W along each coordinate, of which W is the sum; `None` where there are no layers."""
        return tuple(
            None
            if width == 0
            else hbar**2 / (2 * masses[i]) * jnp.asarray(_profile(grid, i, width), masses.dtype)
            for i, width in enumerate(self.widths(grid))
        )


def reflection(phase: Float[Array, "..."]) -> Float[Array, "..."]:
    """The share of a wave that a layer reflects, by its wavenumber times the width of the layer."""
    known = jnp.asarray([_PHASES, _REFLECTIONS], phase.dtype)
    return 10 ** jnp.interp(phase, known[0], known[1])


def _profile(grid: FourierGrid, i: int, width: float) -> np.ndarray:
    """2 m W / ħ²."""
    x, half = grid.axis(i), 0.5 * grid.spacing[i]
    depth = np.maximum(width - np.minimum(x - grid.lower[i], grid.upper[i] - x), 0)
    # At the edge itself W is infinite, and its derivatives are NaN.
    s = _C * np.minimum(depth, width - half) / width
    y = _A * s - _B * s**3 + 4 / (_C - s) ** 2 - 4 / (_C + s) ** 2
    return (_C / (2 * _DELTA * width)) ** 2 * np.where(depth > 0, y, 0)

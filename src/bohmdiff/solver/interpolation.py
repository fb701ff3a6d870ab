"""Hermite interpolation of one step, from the derivatives at its two ends."""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._types import Time

# `Any` because diffrax also builds these from batches of steps and from shapes alone.


class CubicHermite(diffrax.AbstractLocalInterpolation):
    """The cubic that has the values and first derivatives of `y` at both ends; error $O(h^4)$.

    **Arguments:**

    - `t0`, `t1`: the ends.
    - `y0`, `y1`: the values there, a pytree.
    - `k0`, `k1`: `(t1 - t0)` times the derivatives there.
    """

    t0: Any
    t1: Any
    y0: PyTree
    y1: PyTree
    k0: PyTree
    k1: PyTree

    def evaluate(self, t0: Time, t1: Time | None = None, left: bool = True) -> PyTree[Array]:
        del left
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        s = _fraction(self.t0, t0, self.t1)

        def one(y0, y1, k0, k1):
            # In differences from y0, so that a large constant part costs no digits.
            r = s.astype(jnp.finfo(y0.dtype).dtype)
            rise = y1 - y0
            return y0 + r * (k0 + r * (3 * rise - 2 * k0 - k1 + r * (k0 + k1 - 2 * rise)))

        return jax.tree.map(one, self.y0, self.y1, self.k0, self.k1)


class QuinticHermite(diffrax.AbstractLocalInterpolation):
    """The quintic that has the values and first two derivatives of `y` at both ends; error $O(h^6)$.

    **Arguments:**

    - `t0`, `t1`: the ends.
    - `y0`, `y1`: the values there, a pytree.
    - `k0`, `k1`: `(t1 - t0)` times the first derivatives there.
    - `c0`, `c1`: `(t1 - t0)**2` times the second derivatives there.
    """

    t0: Any
    t1: Any
    y0: PyTree
    y1: PyTree
    k0: PyTree
    k1: PyTree
    c0: PyTree
    c1: PyTree

    def evaluate(self, t0: Time, t1: Time | None = None, left: bool = True) -> PyTree[Array]:
        del left
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        s = _fraction(self.t0, t0, self.t1)

        def one(y0, y1, k0, k1, c0, c1):
            r = s.astype(jnp.finfo(y0.dtype).dtype)
            rise = y1 - y0
            cubic = 10 * rise - 6 * k0 - 4 * k1 - 1.5 * c0 + 0.5 * c1
            quartic = -15 * rise + 8 * k0 + 7 * k1 + 1.5 * c0 - c1
            last = 6 * rise - 3 * k0 - 3 * k1 - 0.5 * c0 + 0.5 * c1
            return y0 + r * (k0 + r * (0.5 * c0 + r * (cubic + r * (quartic + r * last))))

        return jax.tree.map(one, self.y0, self.y1, self.k0, self.k1, self.c0, self.c1)


def _fraction(t0: Any, t: Any, t1: Any) -> Array:
    """Where `t` lies between `t0` and `t1`, on a scale from 0 to 1."""
    # Diffrax evaluates an interval of zero length when a solve takes no step.
    empty = t1 == t0
    return jnp.where(empty, 0, t - t0) / jnp.where(empty, 1, t1 - t0)

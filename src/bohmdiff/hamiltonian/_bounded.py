"""A bounded function of a coordinate that is the coordinate itself where a wave function is."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar

# How wide the turn from slope one to slope zero is, as a share of the reach.
_TURN = 1 / 15
# Farther out, in widths of the turn, the slope is zero to the last digit.
_FLAT = 6.0


def bounded(q: Float[Array, "*d"], reach: Scalar) -> Float[Array, "*d"]:
    r"""$u(q)$ with slope $\tfrac12[\operatorname{erf}((q + c)/w) - \operatorname{erf}((q - c)/w)]$.

    It is smooth, odd, and goes to $\pm c$, the reach; $w = c / 15$. Within $0.8\,c$ it is $q$ to $10^{-6} c$.
    """
    w = _TURN * reach
    # Without the clip, the difference below would lose its digits far out.
    q = jnp.clip(q, -reach - _FLAT * w, reach + _FLAT * w)
    return 0.5 * w * (_rounded((q + reach) / w) - _rounded((q - reach) / w))


def _rounded(z: Float[Array, "*d"]) -> Float[Array, "*d"]:
    """|z|, rounded at zero: the integral of erf."""
    return z * jax.scipy.special.erf(z) + jnp.exp(-(z**2)) / math.sqrt(math.pi)

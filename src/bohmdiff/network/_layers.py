"""The layers of networks in a moving frame."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from .._check import as_positive_integer, cast_floats
from .._closure import as_module
from .._types import Key, Scalar, Vector

_HEAD_WIDTH, _SIZE = 16, 0.1


class Layers(eqx.Module):
    """A head that maps time to coefficients, and a body that takes time and position; both start small."""

    head: eqx.nn.MLP
    body: eqx.nn.MLP

    @staticmethod
    def new(
        d: int, coefficients: int, outputs: int, width: int, depth: int, dtype: DTypeLike, key: Key
    ) -> "Layers":
        width = as_positive_integer(width, "width", "Pass the size of the hidden layers.")
        depth = as_positive_integer(depth, "depth", "Pass the number of hidden layers.")
        head_key, body_key = jax.random.split(key)
        size = _features(jnp.zeros(())).size
        head = eqx.nn.MLP(size, coefficients, _HEAD_WIDTH, 1, jnp.tanh, key=head_key)
        body = eqx.nn.MLP(size + d, outputs, width, depth, jnp.tanh, key=body_key)
        # The activations of Equinox are leaves; converted to modules, they leave arrays as the only leaves.
        return cast_floats(as_module(Layers(head, body)), dtype)

    def coefficients(self, clock: Scalar) -> Float[Array, " coefficients"]:
        return _SIZE * self.head(_features(clock))

    def __call__(self, clock: Scalar, z: Vector) -> Float[Array, " outputs"]:
        return _SIZE * self.body(jnp.concatenate([_features(clock), z]))


def _features(clock: Scalar) -> Float[Array, " features"]:
    return jnp.stack([clock, clock**2, jnp.sin(3 * clock), jnp.cos(3 * clock)])

"""Steps of equal size whose number is a value, so that another number compiles nothing."""

from typing import Any

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._types import Scalar

_SMALLEST_ROOM = 1024
_ROOM_RATIO = 8


class EqualSteps(diffrax.AbstractStepSizeController):
    """`count` equal steps from `t0` to `t1`; `count` may be traced."""

    t0: Scalar
    t1: Scalar
    count: Int[Array, ""]

    def time(self, index: Any) -> Scalar:
        """When step number `index` begins; the steps go on beyond `t1`."""
        time = self.t0 + (self.t1 - self.t0) * (index / self.count).astype(self.t0.dtype)
        # Rounding must not move the end.
        return jnp.where(index == self.count, self.t1, time)

    def wrap(self, direction: Any) -> "EqualSteps":
        return EqualSteps(self.t0 * direction, self.t1 * direction, self.count)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        del terms, t0, t1, y0, dt0, args, func, error_order
        return self.time(1), 2

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        del t0, y0, y1_candidate, args, y_error, error_order
        later = self.time(controller_state)
        return True, t1, later, False, controller_state + 1, diffrax.RESULTS.successful


def room_for(count: int) -> int:
    """A number of steps that compiled code has room for: at least `count`, and one of a few."""
    room = _SMALLEST_ROOM
    while room < count:
        room *= _ROOM_RATIO
    return room

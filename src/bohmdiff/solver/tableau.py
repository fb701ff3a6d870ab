"""The coefficients of symmetric kick–drift–kick compositions, with checks."""

import math
from itertools import accumulate
from typing import Any

import equinox as eqx

# Published coefficients have 15 digits.
_TOLERANCE = 1e-13


class SymplecticTableau(eqx.Module):
    r"""Coefficients of a symmetric kick–drift–kick composition of one step $h$,

    $$e^{b_s h B}\, e^{a_s h A}\, e^{b_{s-1} h B} \cdots e^{b_1 h B}\, e^{a_1 h A}\, e^{b_0 h B}$$

    where $A$ is the drift ($\dot q = v(p)$, and time advances) and $B$ the kick ($\dot p = f(t, q)$).

    ```python
    verlet = bd.SymplecticTableau(kicks=(0.5, 0.5), drifts=(1.0,), order=2)
    verlet.nodes
    ```

    **Arguments:**

    - `kicks`: $b_0, \dots, b_s$.
    - `drifts`: $a_1, \dots, a_s$.
    - `order`: the order of convergence; a symmetric composition has an even order.

    **Raises:** `ValueError` unless there is one more kick than drifts, both are palindromic (the step
    is its own inverse with $h \to -h$) and both sum to one.
    """

    kicks: tuple[float, ...] = eqx.field(converter=lambda c: _numbers(c, "kicks"))
    drifts: tuple[float, ...] = eqx.field(converter=lambda c: _numbers(c, "drifts"))
    order: int

    def __check_init__(self):
        if len(self.drifts) < 1 or len(self.kicks) != len(self.drifts) + 1:
            raise ValueError(
                "A kick–drift–kick composition has at least one drift and one more kick than drifts, but "
                f"{len(self.kicks)} kicks and {len(self.drifts)} drifts were given."
            )
        for name, coefficients in (("kicks", self.kicks), ("drifts", self.drifts)):
            # Written so that a NaN fails.
            if not abs(math.fsum(coefficients) - 1) <= _TOLERANCE:
                raise ValueError(
                    f"{name} must sum to 1, but {coefficients} sums to {math.fsum(coefficients)}."
                )
            if coefficients != coefficients[::-1]:
                raise ValueError(f"{name} must read the same backwards, but {coefficients} was given.")
        if not isinstance(self.order, int) or self.order < 2 or self.order % 2:
            raise ValueError(
                "A symmetric composition has an even order of at least 2, but "
                f"order={self.order} was given."
            )

    @property
    def stages(self) -> int:
        """The number of force evaluations per step."""
        return len(self.drifts)

    @property
    def nodes(self) -> tuple[float, ...]:
        r"""$c_i = a_1 + \dots + a_i$: the fraction of the step at which the i-th force is evaluated."""
        # The next step reuses the last force, so its time must be free of rounding errors.
        return (*accumulate(self.drifts[:-1]), 1.0)


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a sequence of numbers, but {values!r} was given.") from None


def mirrored(half: tuple[float, ...], *, number: int) -> tuple[float, ...]:
    """The palindrome of `number` coefficients that starts with `half` and sums to one.

    The sum determines the coefficient in the middle, after `half`. It appears once or, for an even number, twice.
    """
    once = number % 2
    middle = 1 - 2 * math.fsum(half) if once else 0.5 - math.fsum(half)
    return (*half, middle, *([] if once else [middle]), *half[::-1])

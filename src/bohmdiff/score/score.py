"""The interface of a score, and the conversion of functions and solutions to scores."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._closure import as_module, settled
from .._precision import in_full_precision
from .._types import Field, Scalar, Time, Vector

# The numbers of coordinates with which a function is tried.
_DIMENSIONS = (1, 2, 3, 4)


class AbstractScore(eqx.Module):
    r"""A score field $s(t, x) \approx \nabla\ln\rho(t, x)$ of one particle.

    ```python
    class Spreading(bd.AbstractScore):
        rate: float = 0.5

        def __call__(self, t, x):
            return -x / (1 + (self.rate * t) ** 2)
    ```

    `+` adds scores: the sum is a [`ScoreSum`][bohmdiff.ScoreSum].

    A score must be differentiable twice in `x` for the quantum force, three times for tangents (`F`) and four
    times for the Fisher divergence. A score that can compute more than its value declares this by its base
    classes:

    - [`AbstractGradientScore`][bohmdiff.AbstractGradientScore]: the scalar whose gradient it is.
    - [`AbstractWithDerivatives`][bohmdiff.AbstractWithDerivatives] and
        [`AbstractWithPullback`][bohmdiff.AbstractWithPullback]: its derivatives.

    Wherever bohmdiff takes a score, it also takes a solution, or a plain function `s(t, x) -> (d,)`, which
    becomes a [`FunctionScore`][bohmdiff.FunctionScore].
    """

    @abstractmethod
    def __call__(self, t: Time, x: Vector) -> Vector:
        """The score, shape `(d,)`, at time `t`, a scalar, and position `x`, shape `(d,)`."""

    def __add__(self, other: "Score") -> "AbstractScore":
        # combined.py imports this file.
        from .combined import ScoreSum

        return ScoreSum(self, other)


class AbstractGradientScore(AbstractScore):
    r"""A score that knows the scalar whose gradient it is.

    ```python
    class Squeezed(bd.AbstractGradientScore):
        stiffness: jax.Array

        def __call__(self, t, x):
            return -self.stiffness * x

        def log_density(self, t, x):
            return -0.5 * self.stiffness * x @ x
    ```

    [`LogDensityVariance`][bohmdiff.LogDensityVariance] and the `log_density` of solutions need the scalar.
    [`GradientScore`][bohmdiff.GradientScore] makes a score from a scalar alone.
    """

    @abstractmethod
    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""$\ln\rho$ up to a function of time."""


class AbstractScoreSource(eqx.Module):
    """An object that provides a score, such as a solution.

    ```python
    bd.FrozenScore(solution).source  # solution.as_score()
    ```
    """

    @abstractmethod
    def as_score(self) -> AbstractScore:
        """The score as a module."""


# The types that a user may pass as a score; `as_score` converts them to an `AbstractScore`.
Score = AbstractScore | AbstractScoreSource | Field


class FunctionScore(AbstractScore):
    """A score given as a function, or as a module that is not an `AbstractScore`.

    ```python
    score = bd.FunctionScore(lambda t, x: -x / (1 + t**2))
    ```

    A function that is passed as a score is converted to this class. The numbers that a plain function closes
    over are not parameters: training does not change them.

    **Arguments:**

    - `function`: `s(t, x) -> (d,)`, for one particle of shape `(d,)`.

    **Units:** 1 / length.

    **Raises:** `ValueError` for something that cannot be called.
    """

    function: Callable[..., Any] = eqx.field(
        converter=lambda f: _as_function(f, "function", "s(t, x) -> (d,)")
    )

    # The output of a user's function is checked where the function is passed, with a helpful message.
    def __call__(self, t: Time, x: Vector) -> Any:
        return self.function(t, x)


class GradientScore(AbstractGradientScore):
    r"""$s = \nabla\varphi$ of a scalar field, curl-free by construction.

    ```python
    score = bd.GradientScore(lambda t, x: -0.5 * jnp.sum(x**2) / (1 + t**2))
    score(0.0, jnp.ones(2))
    ```

    **Arguments:**

    - `scalar_field`: any callable or module `φ(t, x) -> scalar`; φ is a log density up to a
        function of time.

    **Units:** a scalar without units; its gradient, of shape `(d,)`, is in 1 / length.

    **Raises:** `ValueError` for something that cannot be called.
    """

    scalar_field: Callable[..., Any] = eqx.field(
        converter=lambda f: _as_function(f, "scalar_field", "φ(t, x) -> scalar")
    )

    def __call__(self, t: Time, x: Vector) -> Vector:
        return jax.grad(self.scalar_field, argnums=1)(t, x)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""φ itself: $\ln\rho$ up to a function of time."""
        return self.scalar_field(t, x)


def as_score(value: Any, name: str = "score") -> AbstractScore:
    """Converts what a user passes to a score: a score, a solution, or a function `s(t, x) -> (d,)`.

    ```python
    class Advance(bd.AbstractMethod):
        score: bd.AbstractScore = eqx.field(converter=bd.score.as_score)
    ```
    """
    if isinstance(value, AbstractScore):
        return as_module(value)
    if isinstance(value, AbstractScoreSource):
        return value.as_score()
    return FunctionScore(_as_function(value, name, "s(t, x) -> (d,), or a solution"))


@in_full_precision
def _as_function(value: Any, name: str, form: str) -> Callable[..., Any]:
    if not callable(value):
        raise ValueError(f"{name} must be a callable {form}, but {value!r} was given.")
    return settled(as_module(value), *((jnp.zeros(()), jnp.zeros(d)) for d in _DIMENSIONS))


def asymmetry(score: Field, t: Time, x: Vector) -> Scalar:
    r"""The deviation of a field from a gradient field at one point: $|J - J^\top| / |J|$ of its Jacobian."""
    jacobian = jax.jacfwd(score, argnums=1)(t, x)
    size = jnp.sqrt(jnp.sum(jacobian**2))
    return jnp.sqrt(jnp.sum((jacobian - jacobian.T) ** 2)) / jnp.where(size > 0, size, 1)

"""What a score is, and the ways to make one from something else."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._check import as_float, check_output
from .._types import Scalar, Time, Vector
from ..network.derivatives import LocalScore, Pullback, combined, local_derivatives, pullback, weighted_sum
from ..network.frozen import AbstractFrozen, held_fixed


class AbstractScore(eqx.Module):
    r"""A score field $s(t, x) \approx \nabla\ln\rho(t, x)$ of one particle.

    ```python
    class Spreading(bd.AbstractScore):
        rate: float = 0.5

        def __call__(self, t, x):
            return -x / (1 + (self.rate * t) ** 2)
    ```

    Any callable `s(t, x) -> (d,)` will do wherever a score is wanted; this base adds the contract, and
    `+`: the sum of two scores is a [`ScoreSum`][bohmdiff.ScoreSum].

    A score must be differentiable twice in `x` for the quantum force, three times for tangents (`F`),
    four times for the Fisher divergence. One that is the gradient of a scalar can offer that scalar as
    `log_density(t, x)`, which is $\ln\rho$ up to a function of time;
    [`LogDensityVariance`][bohmdiff.LogDensityVariance] needs it. One that knows its derivatives can offer
    them as `derivatives(t, x, inverse_mass)`: see [`LocalScore`][bohmdiff.LocalScore]. The force alone needs
    less, which a score may offer as `pullback(t, x, inverse_mass)`: see [`Pullback`][bohmdiff.Pullback].
    """

    @abstractmethod
    def __call__(self, t: Time, x: Vector) -> Vector:
        """The score at time `t`, a scalar, and position `x`, shape `(d,)`; shape `(d,)`."""

    def __add__(self, other: Callable[[Time, Vector], Vector]) -> "ScoreSum":
        return ScoreSum(self, other)


class GradientScore(AbstractScore):
    r"""$s = \nabla\varphi$ of a scalar field, curl-free by construction.

    ```python
    score = bd.GradientScore(lambda t, x: -0.5 * jnp.sum(x**2) / (1 + t**2))
    score(0.0, jnp.ones(2))
    ```

    **Arguments:**

    - `scalar_field`: any callable or module `φ(t, x) -> scalar`; φ is a log density up to a
        function of time.

    **Units:** a scalar without units; its gradient, of shape `(d,)`, is in 1 / length.

    **Raises:** `ValueError` for something that can not be called.
    """

    scalar_field: Callable[[Time, Vector], Scalar]

    def __call__(self, t: Time, x: Vector) -> Vector:
        return jax.grad(self.scalar_field, argnums=1)(t, x)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""φ itself: $\ln\rho$ up to a function of time."""
        return self.scalar_field(t, x)


def _vector_of(score: Callable[[Time, Vector], Vector], t: Time, x: Vector) -> Vector:
    """The value of one among several scores: a scalar would be added to each component in silence."""
    value = score(t, x)
    if jnp.shape(value) != x.shape:
        raise ValueError(
            f"A score must return shape {x.shape} for a particle of that shape, but {score!r} returned "
            f"{jnp.shape(value)}. Of a scalar field, GradientScore makes a score."
        )
    return value


class ScoreSum(AbstractScore):
    r"""The sum of scores: the density is the product of theirs.

    ```python
    score = bd.HarmonicScore(problem) + bd.GradientScore(lambda t, x: -0.01 * jnp.sum(x**4))
    ```

    **Arguments:**

    - `terms`: scores, at least one.

    **Units:** 1 / length, shape `(d,)`.

    **Raises:** `ValueError` for something that can not be called.
    """

    terms: tuple[Callable[[Time, Vector], Vector], ...]

    def __init__(self, *terms: Callable[[Time, Vector], Vector]):
        if not terms or not all(callable(term) for term in terms):
            raise ValueError(
                f"A sum needs scores, callables s(t, x) -> (d,), but {terms!r} was given. Of a solution, "
                "pass FrozenScore(solution)."
            )
        # A sum of sums is one sum.
        self.terms = tuple(
            part for term in terms for part in (term.terms if isinstance(term, ScoreSum) else (term,))
        )

    def __call__(self, t: Time, x: Vector) -> Vector:
        first, *others = (_vector_of(term, t, x) for term in self.terms)
        return sum(others, first)

    def derivatives(
        self, t: Time, x: Vector, inverse_mass: Vector, order: int = 1
    ) -> tuple[LocalScore, ...]:
        """The sum of the terms' derivatives, each found in its own way."""
        return weighted_sum(
            [(1, local_derivatives(term, t, x, inverse_mass, order)) for term in self.terms]
        )

    def pullback(self, t: Time, x: Vector, inverse_mass: Vector) -> Pullback:
        """The sum of those of the terms."""
        return combined([(1, pullback(term, t, x, inverse_mass)) for term in self.terms])

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""The sum of the terms' log densities: $\ln\rho$ up to a function of time."""
        first, *others = (scalar_of(term) for term in self.terms)
        return sum((term(t, x) for term in others), first(t, x))


class BlendedScore(AbstractScore):
    r"""One score early and another late: $s = (1 - w)\,s_\text{early} + w\,s_\text{late}$, where $w(t)$ goes
    smoothly, with two derivatives, from 0 at `start` to 1 at `end`.

    A fit that follows the bulk best need not be the one to trust in the tails once a density has become
    skew: degree 6 of `SequentialScoreMatching` may hand over to degree 4.

    ```python
    early, late = (bd.solve(problem, bd.SequentialScoreMatching(degree)) for degree in (6, 4))
    baseline = bd.BlendedScore(early.fitted, late.fitted, start=1.6, end=2.8)
    ```

    **Arguments:**

    - `early`, `late`: scores.
    - `start`, `end`: times, `start` before `end`. Before `start` and after `end` it is one score alone.

    **Units:** `start` and `end` in times. The score has the shape `(d,)`.

    **Raises:** `ValueError` for what is not a score, and for times that are not in this order.
    """

    early: Callable[[Time, Vector], Vector]
    late: Callable[[Time, Vector], Vector]
    start: float = eqx.field(static=True, converter=lambda v: as_float(v, "start"))
    end: float = eqx.field(static=True, converter=lambda v: as_float(v, "end"))

    def __check_init__(self):
        if not all(callable(score) for score in (self.early, self.late)):
            raise ValueError(
                f"Two scores, callables s(t, x) -> (d,), are wanted, but {self.early!r} and {self.late!r} "
                "were given. Of a solution, pass FrozenScore(solution)."
            )
        if not -math.inf < self.start < self.end < math.inf:
            raise ValueError(
                f"start must be before end, both finite, but start={self.start} and end={self.end} were given."
            )

    def __call__(self, t: Time, x: Vector) -> Vector:
        return weighted_sum([(weight, _vector_of(score, t, x)) for weight, score in self._weighted(t, x)])

    def derivatives(
        self, t: Time, x: Vector, inverse_mass: Vector, order: int = 1
    ) -> tuple[LocalScore, ...]:
        """Those of both scores, each found in its own way, blended."""
        parts = [
            (weight, local_derivatives(score, t, x, inverse_mass, order))
            for weight, score in self._weighted(t, x)
        ]
        return weighted_sum(parts)

    def pullback(self, t: Time, x: Vector, inverse_mass: Vector) -> Pullback:
        """Those of both scores, blended."""
        return combined(
            [(weight, pullback(score, t, x, inverse_mass)) for weight, score in self._weighted(t, x)]
        )

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""The blend of their log densities: $\ln\rho$ up to a function of time."""
        return weighted_sum([(weight, scalar_of(score)(t, x)) for weight, score in self._weighted(t, x)])

    def _weighted(self, t: Time, x: Vector) -> list[tuple[Scalar, Callable[[Time, Vector], Vector]]]:
        """Both scores with their weights at one time, in the precision of the place."""
        passed = jnp.clip((jnp.asarray(t, x.dtype) - self.start) / (self.end - self.start), 0, 1)
        late = passed**3 * (10 - 15 * passed + 6 * passed**2)
        return [(1 - late, self.early), (late, self.late)]


class FrozenScore(AbstractScore, AbstractFrozen):
    """A score that training leaves as it is.

    ```python
    baseline = bd.FrozenScore(bd.solve(problem, bd.SequentialScoreMatching(degree=4)))
    ```

    **Arguments:**

    - `source`: a score, or anything with a method `score(t, x)`, such as the
        [`Solution`][bohmdiff.Solution] of another method. Of one that has its score as a module, `fitted`,
        only that is kept.

    **Units:** those of the score.

    **Raises:** `ValueError` for something that can not be called.
    """

    source: Any = eqx.field(converter=lambda source: getattr(source, "fitted", source))

    def __check_init__(self):
        if not callable(self.source) and not hasattr(self.source, "score"):
            raise ValueError(
                "A score s(t, x) or a solution with a method score(t, x) is wanted, but "
                f"{self.source!r} was given."
            )

    def __call__(self, t: Time, x: Vector) -> Vector:
        return self._field()(t, x)

    def derivatives(
        self, t: Time, x: Vector, inverse_mass: Vector, order: int = 1
    ) -> tuple[LocalScore, ...]:
        """Those of the source, found in its own way."""
        return local_derivatives(self._field(), t, x, inverse_mass, order)

    def pullback(self, t: Time, x: Vector, inverse_mass: Vector) -> Pullback:
        """That of the source."""
        return pullback(self._field(), t, x, inverse_mass)

    def _field(self) -> Callable[[Time, Vector], Vector]:
        source = held_fixed(self.source)
        field: Any = source if callable(source) else source.score
        return field

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""$\ln\rho$ up to a function of time, if the source offers it."""
        return scalar_of(held_fixed(self.source))(t, x)


def scalar_of(score: Any) -> Callable[[Time, Vector], Scalar]:
    """The scalar whose gradient a score is, or an error that says what offers one."""
    scalar = getattr(score, "log_density", None)
    if scalar is None:
        raise ValueError(
            f"{type(score).__name__} is a vector field without the scalar it may be the gradient of: give "
            "it a method log_density(t, x), write the scalar and pass GradientScore(scalar), or choose an "
            "objective that needs only the score, such as FisherDivergence."
        )
    return scalar


def require_gradient(score: Any, dimension: int, dtype: Any) -> None:
    """Raises unless the score offers the scalar whose gradient it is."""
    check_output(scalar_of(score), (jnp.zeros((), dtype), jnp.zeros(dimension, dtype)), (), "log_density")


def asymmetry(score: Callable[[Time, Vector], Vector], t: Time, x: Vector) -> Scalar:
    r"""By how much a field fails to be a gradient at one point: $|J - J^\top| / |J|$ of its Jacobian."""
    jacobian = jax.jacfwd(score, argnums=1)(t, x)
    size = jnp.sqrt(jnp.sum(jacobian**2))
    return jnp.sqrt(jnp.sum((jacobian - jacobian.T) ** 2)) / jnp.where(size > 0, size, 1)

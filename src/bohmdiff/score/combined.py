"""Scores that are composed of other scores."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import ArrayLike

from .._check import as_float, check_output
from .._closure import name_of
from .._types import Field, Scalar, Time, Vector
from ..network.derivatives import (
    AbstractWithDerivatives,
    AbstractWithPullback,
    LocalScore,
    Pullback,
    combined,
    local_derivatives,
    pullback,
    weighted_sum,
)
from ..network.frozen import AbstractFrozen, held_fixed
from .score import AbstractGradientScore, AbstractScore, FunctionScore, Score, as_score

Weighted = list[tuple[ArrayLike, Time, AbstractScore]]


class AbstractCombinedScore(AbstractScore, AbstractWithDerivatives, AbstractWithPullback):
    """A sum of scores with weights that depend on time alone.

    Each part computes its own derivatives. The sum has a `log_density` if all parts have one.
    """

    @property
    @abstractmethod
    def parts(self) -> tuple[AbstractScore, ...]:
        """All parts, each at least once."""

    @abstractmethod
    def weighted(self, t: Scalar) -> Weighted:
        """For each term: its weight at time `t`, the time at which to evaluate the part, and the part."""

    def __call__(self, t: Time, x: Vector) -> Vector:
        return weighted_sum([(weight, _vector_of(part, at, x)) for weight, at, part in self._at(t, x)])

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""The sum of the parts' log densities: $\ln\rho$ up to a function of time.

        **Raises:** `ValueError` if a part has none.
        """
        return weighted_sum([(weight, scalar_of(part)(at, x)) for weight, at, part in self._at(t, x)])

    def derivatives(self, t: Time, x: Vector, inverse_mass: Vector, order: int) -> tuple[LocalScore, ...]:
        """The sum of the parts' derivatives."""
        return weighted_sum(
            [
                (weight, local_derivatives(part, at, x, inverse_mass, order))
                for weight, at, part in self._at(t, x)
            ]
        )

    def pullback(self, t: Time, x: Vector, inverse_mass: Vector) -> Pullback:
        """The sum of the parts' pullbacks."""
        return combined(
            [(weight, pullback(part, at, x, inverse_mass)) for weight, at, part in self._at(t, x)]
        )

    def _at(self, t: Time, x: Vector) -> Weighted:
        # The precision is that of the position.
        return self.weighted(jnp.asarray(t, x.dtype))


class ScoreSum(AbstractCombinedScore):
    """The sum of scores: the density is the product of theirs.

    ```python
    score = bd.HarmonicScore(problem) + bd.GradientScore(
        lambda t, x: -0.01 * jnp.sum(x**4)
    )
    ```

    **Arguments:**

    - `terms`: scores, functions `s(t, x)` or solutions, at least one.

    **Units:** 1 / length, shape `(d,)`.

    **Raises:** `ValueError` for something that is not a score.
    """

    terms: tuple[AbstractScore, ...]

    def __init__(self, *terms: Score):
        if not terms:
            raise ValueError("A sum needs at least one score, but none was given.")
        scores = (as_score(term, "A term of a sum") for term in terms)
        # A sum of sums is one sum.
        self.terms = tuple(
            part for score in scores for part in (score.terms if isinstance(score, ScoreSum) else (score,))
        )

    @property
    def parts(self) -> tuple[AbstractScore, ...]:
        return self.terms

    def weighted(self, t: Scalar) -> Weighted:
        return [(1, t, term) for term in self.terms]


class BlendedScore(AbstractCombinedScore):
    r"""One score early and another late: $s = (1 - w)\,s_\text{early} + w\,s_\text{late}$, where $w(t)$ rises
    from 0 at `start` to 1 at `end` with two continuous derivatives.

    The fit that is best in the bulk is not always the most reliable one in the tails once the density has become
    skewed: a baseline may change from degree 6 of `SequentialScoreMatching` to degree 4.

    ```python
    early, late = (
        bd.solve(problem, bd.SequentialScoreMatching(degree))
        for degree in (6, 4)
    )
    baseline = bd.BlendedScore(early, late, start=1.6, end=2.8)
    ```

    **Arguments:**

    - `early`, `late`: scores, functions `s(t, x)` or solutions.
    - `start`, `end`: times, `start` before `end`. Before `start` only `early` counts, after `end` only `late`.

    **Units:** `start` and `end` in units of time. The score has the shape `(d,)`.

    **Raises:** `ValueError` for something that is not a score, and for times that are not in this order.
    """

    early: AbstractScore = eqx.field(converter=lambda score: as_score(score, "early"))
    late: AbstractScore = eqx.field(converter=lambda score: as_score(score, "late"))
    start: float = eqx.field(static=True, converter=lambda v: as_float(v, "start"))
    end: float = eqx.field(static=True, converter=lambda v: as_float(v, "end"))

    def __check_init__(self):
        if not -math.inf < self.start < self.end < math.inf:
            raise ValueError(
                f"start must be before end, both finite, but start={self.start} and end={self.end} were given."
            )

    @property
    def parts(self) -> tuple[AbstractScore, ...]:
        return self.early, self.late

    def weighted(self, t: Scalar) -> Weighted:
        passed = jnp.clip((t - self.start) / (self.end - self.start), 0, 1)
        late = passed**3 * (10 - 15 * passed + 6 * passed**2)
        return [(1 - late, t, self.early), (late, t, self.late)]


class FrozenScore(AbstractCombinedScore, AbstractFrozen):
    """A score that training does not change.

    ```python
    baseline = bd.FrozenScore(
        bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    )
    ```

    **Arguments:**

    - `source`: a score, a function `s(t, x)` or a [`Solution`][bohmdiff.Solution]. Only the score of a
        solution is kept.

    **Units:** those of the score.

    **Raises:** `ValueError` for something that is not a score.
    """

    source: AbstractScore = eqx.field(converter=lambda source: as_score(source, "source"))

    @property
    def parts(self) -> tuple[AbstractScore, ...]:
        return (self.source,)

    def weighted(self, t: Scalar) -> Weighted:
        return [(1, t, held_fixed(self.source))]


def has_log_density(score: AbstractScore) -> bool:
    """Whether a score knows the scalar whose gradient it is: `log_density(t, x)`."""
    return _without_log_density(score) is None


def scalar_of(score: Score) -> Field:
    """The scalar whose gradient a score is, or an error that says how to provide it."""
    score = as_score(score)
    without = _without_log_density(score)
    if without is not None:
        raise ValueError(
            f"{_name(without)} is a vector field without log_density(t, x), the scalar whose gradient it "
            "is. Write the scalar and pass GradientScore(scalar); or derive the class from AbstractGradientScore "
            "and write log_density(t, x); or choose an objective that needs only the score, such as "
            "FisherDivergence."
        )
    assert isinstance(score, AbstractGradientScore | AbstractCombinedScore)
    return score.log_density


def require_gradient(score: Score, dimension: int, dtype: Any) -> None:
    """Raises unless the score knows the scalar whose gradient it is."""
    check_output(scalar_of(score), (jnp.zeros((), dtype), jnp.zeros(dimension, dtype)), (), "log_density")


def _without_log_density(score: AbstractScore) -> AbstractScore | None:
    """The first part of a score that has no `log_density`, if there is one."""
    if isinstance(score, AbstractCombinedScore):
        return next((part for part in map(_without_log_density, score.parts) if part is not None), None)
    return None if isinstance(score, AbstractGradientScore) else score


def _name(score: AbstractScore) -> str:
    """The name of the class, or of the function that a user passed."""
    module: Any = score.function if isinstance(score, FunctionScore) else score
    return name_of(module)


def _vector_of(score: AbstractScore, t: Time, x: Vector) -> Vector:
    """The value of one score among several: a scalar would silently be added to each component."""
    value = score(t, x)
    if jnp.shape(value) != x.shape:
        raise ValueError(
            f"A score must return shape {x.shape} for a particle of that shape, but {score!r} returned "
            f"{jnp.shape(value)}. GradientScore makes a score from a scalar field."
        )
    return value

"""The interface of an objective, and sums of objectives."""

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._check import as_float
from .._types import Key, Points, Scalar, Time, Weights
from ..flow import HalfState, pushed_score
from ..problem import Problem
from ..score import AbstractScore

_DEFAULT_MIN_DETERMINANT = 0.1
_DEFAULT_MAX_TARGET = 100.0


class Ensemble(NamedTuple):
    """The particles at one time, as an objective receives them.

    ```python
    class MeanSquare(bd.AbstractObjective):
        second_tangents = "none"
        min_determinant: float = 0.1

        def at(self, problem, score, t, ensemble):
            return ensemble.weights @ jnp.sum(
                ensemble.position.motion**2, axis=1
            )
    ```

    - `start`: the positions at `t0`, shape `(M, d)`.
    - `position`: a [`HalfState`][bohmdiff.flow.HalfState]: the positions `x` as `motion`, shape `(M, d)`, F as
        `tangent`, shape `(M, d, d)`, and the derivatives of F along `directions` as `second`.
    - `weights`: of the particles that are `kept`, shape `(M,)`; they sum to one.
    - `kept`: true for particles that are not masked, shape `(M,)`. For a masked one F is the identity, and the
        derivatives of F are zero.
    - `directions`: of the second tangents, shape `(n, d)`, or `(M, n, d)` where each particle has its own.
    - `determinant`: det F of every particle before masking, shape `(M,)`.
    - `equal_weights`: equal weights of all particles with a positive weight, shape `(M,)`; they sum to one.
    """

    start: Points
    position: HalfState
    weights: Weights
    kept: Bool[Array, " M"]
    directions: Float[Array, "*M n d"] | None
    determinant: Float[Array, " M"]
    equal_weights: Weights


class AbstractObjective(eqx.Module):
    r"""A function of a score and of the ensemble that its flow moves, averaged over time.

    Objectives compose: `FisherDivergence() + 0.1 * LogDensityVariance()` is an objective again. To write
    your own, subclass this and define `at`:

    ```python
    class SquaredScore(bd.AbstractObjective):
        second_tangents = "none"
        min_determinant: float = 0.1

        def at(self, problem, score, t, ensemble):
            s = jax.vmap(score, in_axes=(None, 0))(t, ensemble.position.motion)
            return ensemble.weights @ jnp.sum(s**2, axis=1)
    ```

    Gauss-Newton steps need more: for them subclass
    [`AbstractLeastSquares`][bohmdiff.AbstractLeastSquares].

    `second_tangents` says which derivatives of $F$ with respect to the start the flow must carry:
    `"none"`, `"random"` (along one random direction for each particle) or `"all"`. `through_flow` says
    whether derivatives go through the trajectories or hold them fixed. `min_determinant` is the value of
    $|\det F|$ below which a particle is left out at that time, or `None` for no limit.
    """

    second_tangents: ClassVar[Literal["none", "random", "all"]]
    through_flow: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False

    min_determinant: eqx.AbstractVar[float | None]

    @abstractmethod
    def at(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Scalar:
        """The objective at one time."""

    def __add__(self, other: "AbstractObjective") -> "ObjectiveSum":
        return _summed((*_terms(self), *_terms(other)))

    def __rmul__(self, factor: float | int) -> "ObjectiveSum":
        return _summed(tuple((float(factor) * weight, term) for weight, term in _terms(self)))


class AbstractLeastSquares(AbstractObjective):
    r"""An objective that is a sum of squares over single particles, which Gauss-Newton steps need.

    A subclass defines `residuals` as well as `at`:

    ```python
    class Distance(bd.AbstractLeastSquares):
        second_tangents = "none"
        min_determinant: float = 0.1

        def residuals(self, problem, score, t, ensemble):
            s = jax.vmap(score, in_axes=(None, 0))(t, ensemble.position.motion)
            return jnp.sqrt(ensemble.weights)[:, None] * (
                s + ensemble.position.motion
            )

        def at(self, problem, score, t, ensemble):
            return jnp.sum(self.residuals(problem, score, t, ensemble) ** 2)
    ```

    If outliers count less, the squares need not sum to the value, but the sum of squares must have the same
    gradient. See [`scale_by_gauss_newton`][bohmdiff.scale_by_gauss_newton].
    """

    @abstractmethod
    def residuals(
        self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        """The residuals at one time, weights included, shape `(M, c)`; row `i` depends on particle `i` only."""


def target_limit() -> Any:
    """A field: the limit at which the components of the flow's own score are clipped."""
    return eqx.field(default=_DEFAULT_MAX_TARGET, converter=lambda v: positive(v, "max_target"))


def determinant_limit() -> Any:
    """A field: the |det F| below which a particle is masked."""
    return eqx.field(
        default=_DEFAULT_MIN_DETERMINANT, converter=lambda v: _not_negative(v, "min_determinant")
    )


class ObjectiveSum(AbstractObjective):
    """A weighted sum of objectives, made by `+` and `*`.

    ```python
    objective = bd.FisherDivergence() + 30.0 * bd.EnergyDrift()
    objective.terms
    ```

    **Arguments:**

    - `terms`: pairs of a factor and an objective. All must mask at the same determinant, and either all or
        none must differentiate through the flow.

    **Units:** those of its terms; the factors convert between different units.

    **Raises:** `ValueError` for terms that mask at different determinants, and if only some of the terms
    differentiate through the flow.
    """

    terms: tuple[tuple[float, AbstractObjective], ...] = eqx.field(converter=lambda terms: _as_terms(terms))

    def __check_init__(self):
        limits = set(self._limits())
        if len(limits) > 1:
            raise ValueError(
                f"Objectives in a sum must have the same min_determinant, but {sorted(limits)} were given."
            )
        if len({term.through_flow for _, term in self.terms}) != 1:
            raise ValueError(
                "ImplicitScoreMatching holds the trajectories fixed, but the other objectives do not, so they "
                "cannot be summed. Remove it from the sum."
            )

    @property
    def min_determinant(self) -> float | None:
        return next(iter(self._limits()), None)

    def _limits(self) -> list[float]:
        limits = (term.min_determinant for _, term in self.terms)
        return [limit for limit in limits if limit is not None]

    @property
    def through_flow(self) -> bool:
        return self.terms[0][1].through_flow

    @property
    def needs_gradient(self) -> bool:
        return any(term.needs_gradient for _, term in self.terms)

    @property
    def second_tangents(self) -> Literal["none", "random", "all"]:
        wanted = {term.second_tangents for _, term in self.terms}
        return next(kind for kind in ("all", "random", "none") if kind in wanted)

    def at(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Scalar:
        (factor, first), *others = self.terms
        values = (weight * term.at(problem, score, t, ensemble) for weight, term in others)
        return sum(values, factor * first.at(problem, score, t, ensemble))


def own_score(problem: Problem, ensemble: Ensemble, largest: float | Scalar) -> Points:
    r"""The score of the density that the flow itself produces, $F^{-\top}(\nabla\ln\rho_0 - \nabla\ln\det F)$, at
    each particle.

    ```python
    class AbsoluteError(bd.AbstractObjective):
        second_tangents = "all"
        min_determinant: float = 0.1

        def at(self, problem, score, t, ensemble):
            own = bd.objective.own_score(problem, ensemble, largest=100.0)
            ours = jax.vmap(score, in_axes=(None, 0))(
                t, ensemble.position.motion
            )
            return ensemble.weights @ jnp.sum(jnp.abs(ours - own), axis=1)
    ```

    **Arguments:**

    - `problem`: for the initial density.
    - `ensemble`: the particles, with all second tangents.
    - `largest`: components are clipped to plus or minus this; `math.inf` clips none.

    **Units:** 1 / length.

    **Returns:** shape `(M, d)`.

    **Raises:** nothing; it is called within an objective, at every time.
    """
    position = ensemble.position
    assert position.tangent is not None
    assert position.second is not None
    own = jax.vmap(lambda *particle: pushed_score(problem, *particle))(
        ensemble.start, position.tangent, position.second
    )
    return jnp.clip(own, -largest, largest)


def squared_terms(objective: AbstractObjective) -> list[tuple[float, AbstractLeastSquares]]:
    """The terms of an objective that are sums of squares, with their factors."""
    return [
        (factor, term)
        for factor, term in _terms(objective)
        if factor > 0 and isinstance(term, AbstractLeastSquares)
    ]


def squared_residuals(
    objective: AbstractObjective, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble
) -> Float[Array, "M components"]:
    """The residuals of all terms that are sums of squares; the others do not affect the direction of a step."""
    parts = [
        math.sqrt(factor) * term.residuals(problem, score, t, ensemble)
        for factor, term in squared_terms(objective)
    ]
    return jnp.concatenate(parts, axis=1)


def random_directions(objective: AbstractObjective, x0: Points, key: Key | None):
    """The directions along which the flow must carry second tangents."""
    if objective.second_tangents == "none":
        return None
    if objective.second_tangents == "all":
        return jnp.eye(x0.shape[1], dtype=x0.dtype)
    if key is None:
        raise ValueError(
            f"{type(objective).__name__} draws random directions and needs a key: pass "
            "key=jax.random.key(0)."
        )
    return jax.random.normal(key, (x0.shape[0], 1, x0.shape[1]), x0.dtype)


def _terms(objective: AbstractObjective) -> tuple[tuple[float, AbstractObjective], ...]:
    return objective.terms if isinstance(objective, ObjectiveSum) else ((1.0, objective),)


def _summed(terms: tuple[tuple[float, AbstractObjective], ...]) -> ObjectiveSum:
    # Its min_determinant is a property; pyright takes it for a field.
    return ObjectiveSum(terms=terms)  # pyright: ignore[reportCallIssue]


def mean(ensemble: Ensemble, values: Float[Array, " M"]) -> Scalar:
    """The weighted mean of one value per particle, without the masked ones."""
    # Masked entries may be anything; a zero weight alone would not keep NaN out.
    return ensemble.weights @ jnp.where(ensemble.kept, values, 0)


def rooted(ensemble: Ensemble, errors: Float[Array, "M components"]) -> Float[Array, "M components"]:
    """Errors times the square root of the particles' weights: their squares sum to the mean."""
    return jnp.sqrt(ensemble.weights)[:, None] * jnp.where(ensemble.kept[:, None], errors, 0)


def _as_terms(terms: Any) -> tuple[tuple[float, AbstractObjective], ...]:
    try:
        pairs = tuple((as_float(factor, "The factor of an objective"), term) for factor, term in terms)
    except TypeError:
        pairs = ()
    if not pairs or not all(isinstance(term, AbstractObjective) for _, term in pairs):
        raise ValueError(
            "terms must be pairs of a factor and an objective, such as ((1.0, FisherDivergence()),), but "
            f"{terms!r} was given. The usual way is to write 2.0 * FisherDivergence() + EnergyDrift()."
        )
    return pairs


def _not_negative(value: float, name: str) -> float:
    number = as_float(value, name)
    if not number >= 0:
        raise ValueError(f"{name} must not be negative, but {value!r} was given.")
    return number


def positive(value: float, name: str) -> float:
    """The value as a number, which must be positive."""
    number = as_float(value, name)
    if not number > 0:
        raise ValueError(f"{name} must be positive, but {value!r} was given.")
    return number

"""What is minimised: measures of how far a score is from that of the density its flow makes."""

import math
from abc import abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._check import as_float
from .._types import Key, Points, Scalar, Time, Vector, Weights
from ..flow import HalfState, Score, pushed_score
from ..problem import Problem
from ..score import scalar_of

_DEFAULT_SMALLEST_DETERMINANT = 0.1
_DEFAULT_LARGEST_TARGET = 100.0


class Ensemble(NamedTuple):
    """What an objective sees of the particles at one time.

    `start` are the positions at `t0`, shape `(M, d)`; `position` holds x, F and, along `directions`, the
    derivatives of F with respect to the start; `weights` are those of the particles that are `kept`, which
    sum to one. Where a particle is masked, its F is the identity and its derivatives are zero; `determinant` is
    that of every F before masking, shape `(M,)`, and `equal_weights` are one over the number of particles,
    for all that have a weight.
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

    Objectives compose: `FisherDivergence() + 0.1 * LogDensityVariance()` is one again. To write your
    own, subclass this and give `at`:

    ```python
    class SquaredScore(bd.AbstractObjective):
        second_tangents = "none"
        smallest_determinant: float = 0.1

        def at(self, problem, score, t, ensemble):
            s = jax.vmap(score, in_axes=(None, 0))(t, ensemble.position.motion)
            return ensemble.weights @ jnp.sum(s**2, axis=1)
    ```

    An objective that is a sum of squares may have a method `residuals(problem, score, t, ensemble)` of shape
    `(M, c)`: what is squared, weights included, where row `i` depends on particle `i` alone.
    [`scale_by_gauss_newton`][bohmdiff.scale_by_gauss_newton] needs it.

    `second_tangents` says which derivatives of $F$ with respect to the start the flow must carry:
    `"none"`, `"random"` (along one random direction for each particle) or `"all"`; `through_flow` whether
    derivatives go through the trajectories, or these are held fixed; `smallest_determinant` below
    which $|\det F|$ a particle is left out at that time, or `None` for an objective that does not care.
    """

    second_tangents: ClassVar[Literal["none", "random", "all"]]
    through_flow: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False

    smallest_determinant: eqx.AbstractVar[float | None]

    @abstractmethod
    def at(self, problem: Problem, score: Score, t: Time, ensemble: Ensemble) -> Scalar:
        """The objective at one time."""

    def __add__(self, other: "AbstractObjective") -> "ObjectiveSum":
        return _summed((*_terms(self), *_terms(other)))

    def __rmul__(self, factor: float | int) -> "ObjectiveSum":
        return _summed(tuple((float(factor) * weight, term) for weight, term in _terms(self)))


def _outlier_scale() -> Any:
    """A field: where an error begins to count as an outlier."""
    return eqx.field(static=True, default=math.inf, converter=lambda v: _positive(v, "outlier_scale"))


def target_limit() -> Any:
    """A field: where the components of the flow's own score are clipped."""
    return eqx.field(default=_DEFAULT_LARGEST_TARGET, converter=lambda v: _positive(v, "largest_target"))


def determinant_limit() -> Any:
    """A field: below which |det F| a particle is masked."""
    return eqx.field(
        default=_DEFAULT_SMALLEST_DETERMINANT, converter=lambda v: _not_negative(v, "smallest_determinant")
    )


class FisherDivergence(AbstractObjective):
    r"""$E_\rho\,|s_\theta - s_\rho|^2$, with the score $s_\rho$ of the density that the flow itself has
    made: what the exactness theorem is about. It carries `d` second tangents.

    ```python
    method = bd.SelfConsistentScoreMatching(score, bd.FisherDivergence(), epochs=1000)
    ```

    **Arguments:**

    - `smallest_determinant`: a particle with $|\det F|$ below is close to a caustic and is masked at that
        time. 0 masks none.
    - `largest_target`: components of $s_\rho$ are clipped to plus or minus this. `math.inf` clips none.
    - `outlier_scale`: a particle whose error $e = |s_\theta - s_\rho|$ is well above this $c$ counts as
        $c^2\ln(1 + e^2/c^2)$ instead of $e^2$ (the Cauchy loss), so that a few in the far tails do not
        decide the whole gradient. With `math.inf` the objective is the Fisher divergence itself.

    **Units:** 1 / length²; `largest_target` and `outlier_scale` in 1 / length.

    **Raises:** `ValueError` for a negative determinant, and limits that are not positive.
    """

    second_tangents = "all"

    smallest_determinant: float = determinant_limit()
    largest_target: float = target_limit()
    outlier_scale: float = _outlier_scale()

    def at(self, problem: Problem, score: Score, t: Time, ensemble: Ensemble) -> Scalar:
        error = self._error(problem, score, t, ensemble)
        return mean(ensemble, _cauchy_loss(jnp.sum(error**2, axis=1), self.outlier_scale))

    def residuals(
        self, problem: Problem, score: Score, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        """The error of the score on each particle, times the root of its weight."""
        error = self._error(problem, score, t, ensemble)
        # The slope of the Cauchy loss: an outlier pulls as if it weighed less.
        trust = 1 / (1 + jnp.sum(jax.lax.stop_gradient(error) ** 2, axis=1) / self.outlier_scale**2)
        return _rooted(ensemble, jnp.sqrt(trust)[:, None] * error)

    def _error(self, problem: Problem, score: Score, t: Time, ensemble: Ensemble) -> Points:
        own = own_score(problem, ensemble, self.largest_target)
        return jax.vmap(score, in_axes=(None, 0))(t, ensemble.position.motion) - own


class DirectionalDivergence(AbstractObjective):
    r"""$E\,|\nabla_{x_0} e|^2$ with $e = \ln\rho_\theta(x(t), t) - \ln\rho(x(t), t)$, estimated along one
    random direction for each particle, which needs one second tangent instead of `d`.

    As $\nabla_{x_0} e = F^\top(s_\theta - s_\rho)$, it vanishes exactly when the Fisher divergence does. The
    estimate is unbiased: the directions are Gaussian with the identity as covariance. Only the score
    is needed, not its scalar.

    ```python
    method = bd.SelfConsistentScoreMatching(score, bd.DirectionalDivergence(), epochs=1000)
    ```

    **Arguments:**

    - `smallest_determinant`: as for [`FisherDivergence`][bohmdiff.FisherDivergence].

    **Units:** 1 / length², as directions have lengths.

    **Raises:** `ValueError` for a negative determinant.
    """

    second_tangents = "random"

    smallest_determinant: float = determinant_limit()

    def at(self, problem: Problem, score: Score, t: Time, ensemble: Ensemble) -> Scalar:
        return mean(ensemble, jnp.sum(self._error(problem, score, t, ensemble) ** 2, axis=1))

    def residuals(
        self, problem: Problem, score: Score, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        """The error along the directions of each particle, times the root of its weight."""
        return _rooted(ensemble, self._error(problem, score, t, ensemble))

    def _error(
        self, problem: Problem, score: Score, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        directions = ensemble.directions
        assert directions is not None

        def one(start: Vector, position: HalfState, directions: Float[Array, "n d"]) -> Float[Array, " n"]:
            assert position.tangent is not None
            assert position.second is not None
            inverse = jnp.linalg.inv(position.tangent)
            own = directions @ problem.initial.score(start) - jnp.einsum(
                "ij,jin->n", inverse, position.second
            )
            ours = directions @ (position.tangent.T @ score(t, position.motion))
            return ours - own

        each = 0 if directions.ndim == 3 else None
        return jax.vmap(one, in_axes=(0, 0, each))(ensemble.start, ensemble.position, directions)


class LogDensityVariance(AbstractObjective):
    r"""The variance over particles of $e = \ln\rho_\theta(x(t), t) - \ln\rho(x(t), t)$: no derivative with
    respect to the start beyond $F$ is needed, which makes it the cheapest.

    It vanishes exactly when the Fisher divergence does, where there are particles, but weighs errors of
    short wavelength less. The score must be the gradient of a scalar that it offers as
    `log_density(t, x)`.

    ```python
    method = bd.SelfConsistentScoreMatching(score, bd.LogDensityVariance(), epochs=1000)
    ```

    **Arguments:**

    - `smallest_determinant`: as for [`FisherDivergence`][bohmdiff.FisherDivergence].
    - `outlier_scale`: the same for $|e|$, measured from its mean. e has no unit: 1 is an error by a factor
        2.7 in the density.

    **Raises:** `ValueError` for a negative determinant and a scale that is not positive; in training for a
    score without `log_density`.
    """

    second_tangents = "none"
    needs_gradient = True

    smallest_determinant: float = determinant_limit()
    outlier_scale: float = _outlier_scale()

    def at(self, problem: Problem, score: Score, t: Time, ensemble: Ensemble) -> Scalar:
        position = ensemble.position
        assert position.tangent is not None
        _, log_determinant = jnp.linalg.slogdet(position.tangent)
        own = jax.vmap(problem.initial.log_density)(ensemble.start) - log_determinant
        error = jax.vmap(scalar_of(score), in_axes=(None, 0))(t, position.motion) - own
        error = jnp.where(ensemble.kept, error, 0)
        square = (error - ensemble.weights @ error) ** 2
        if not math.isinf(self.outlier_scale):
            # The mean must not follow the outliers either.
            trust = ensemble.weights / (1 + square / self.outlier_scale**2)
            square = (error - trust @ error / jnp.sum(trust)) ** 2
        return mean(ensemble, _cauchy_loss(square, self.outlier_scale))


class ImplicitScoreMatching(AbstractObjective):
    r"""Hyvärinen's $E_\rho[\tfrac12|s_\theta|^2 + \nabla\cdot s_\theta]$ with the trajectories held fixed.

    Its minimum over all scores is that of the particles' density, and the value there is minus half
    the Fisher information: it may be negative. It needs neither $F$ nor derivatives through the flow,
    so an epoch is cheap; but a step down it ignores that the flow will change, and from far away
    repeated steps need not converge.

    ```python
    method = bd.SelfConsistentScoreMatching(score, bd.ImplicitScoreMatching(), epochs=1000)
    ```

    **Arguments:**

    - `smallest_determinant`: as for [`FisherDivergence`][bohmdiff.FisherDivergence].

    **Units:** 1 / length².

    **Raises:** `ValueError` for a negative determinant.

    ??? cite "Reference"

        A. Hyvärinen, *Estimation of non-normalized statistical models by score matching*,
        J. Mach. Learn. Res. 6, 695 (2005).
    """

    second_tangents = "none"
    through_flow = False

    smallest_determinant: float = determinant_limit()

    def at(self, problem: Problem, score: Score, t: Time, ensemble: Ensemble) -> Scalar:
        def one(x: Vector) -> Scalar:
            s = score(t, x)
            return 0.5 * jnp.sum(s**2) + jnp.trace(jax.jacfwd(score, argnums=1)(t, x))

        return mean(ensemble, jax.vmap(one)(ensemble.position.motion))


class CausticPenalty(AbstractObjective):
    r"""The mean over particles of $\max(0, 1 - \det F/f)^2$, which pushes a flow away from caustics.

    Bohmian trajectories never cross, so $\det F$ stays positive; under a score that is wrong in the tails it
    need not, and the other objectives mask just the particles that would tell. Every particle counts the
    same, whatever its weight. Where all $\det F$ are above $f$ it is zero: nothing is asked of a flow that
    stays clear of caustics.

    ```python
    objective = bd.LogDensityVariance() + 0.3 * bd.CausticPenalty(0.4)
    ```

    **Arguments:**

    - `threshold`: $f$, positive. It must be below the smallest $\det F$ of the exact flow: 1 where nothing
        moves, the product of the ratios of final to initial widths for a Gaussian.

    **Units:** none.

    **Raises:** `ValueError` for a threshold that is not positive.
    """

    second_tangents = "none"
    smallest_determinant: ClassVar[None] = None

    threshold: float = eqx.field(converter=lambda v: _positive(v, "threshold"))

    def at(self, problem: Problem, score: Score, t: Time, ensemble: Ensemble) -> Scalar:
        return ensemble.equal_weights @ self._missing(ensemble) ** 2

    def residuals(
        self, problem: Problem, score: Score, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        """By how much each determinant is too small, times the root of an equal weight."""
        return (jnp.sqrt(ensemble.equal_weights) * self._missing(ensemble))[:, None]

    def _missing(self, ensemble: Ensemble) -> Float[Array, " M"]:
        return jax.nn.relu(1 - ensemble.determinant / self.threshold)


class ObjectiveSum(AbstractObjective):
    """A weighted sum of objectives, made by `+` and `*`.

    ```python
    objective = bd.FisherDivergence() + 30.0 * bd.EnergyDrift()
    objective.terms
    ```

    **Arguments:**

    - `terms`: pairs of a factor and an objective. Derivatives go through the flow if they do for one of
        them, and all must mask at the same determinant.

    **Units:** those of its terms; the factors make up for differences.

    **Raises:** `ValueError` for terms that mask at different determinants, or of which only some
    differentiate through the flow.
    """

    terms: tuple[tuple[float, AbstractObjective], ...] = eqx.field(converter=lambda terms: _as_terms(terms))

    def __check_init__(self):
        limits = set(self._limits())
        if len(limits) > 1:
            raise ValueError(
                f"Objectives in a sum must have the same smallest_determinant, but {sorted(limits)} were given."
            )
        if len({term.through_flow for _, term in self.terms}) != 1:
            raise ValueError(
                "ImplicitScoreMatching holds the trajectories fixed, the other objectives do not: they can't "
                "be summed."
            )

    @property
    def smallest_determinant(self) -> float | None:
        return next(iter(self._limits()), None)

    def _limits(self) -> list[float]:
        limits = (term.smallest_determinant for _, term in self.terms)
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

    def at(self, problem: Problem, score: Score, t: Time, ensemble: Ensemble) -> Scalar:
        (factor, first), *others = self.terms
        values = (weight * term.at(problem, score, t, ensemble) for weight, term in others)
        return sum(values, factor * first.at(problem, score, t, ensemble))

    def residuals(
        self, problem: Problem, score: Score, t: Time, ensemble: Ensemble
    ) -> Float[Array, "M components"]:
        """Those of the terms that have some; the others have no say in the direction of a step."""
        parts = [
            math.sqrt(factor) * term.residuals(problem, score, t, ensemble)
            for factor, term in squared_terms(self)
        ]
        return jnp.concatenate(parts, axis=1)


def own_score(problem: Problem, ensemble: Ensemble, largest: float | Scalar) -> Points:
    """The score of the density that the flow itself has made, at each particle, clipped; shape `(M, d)`."""
    position = ensemble.position
    assert position.tangent is not None
    assert position.second is not None
    own = jax.vmap(lambda *particle: pushed_score(problem, *particle))(
        ensemble.start, position.tangent, position.second
    )
    return jnp.clip(own, -largest, largest)


def squared_terms(objective: AbstractObjective) -> list[tuple[float, Any]]:
    """The parts of an objective that are sums of squares and give what is squared, with their factors."""
    return [
        (factor, term) for factor, term in _terms(objective) if factor > 0 and hasattr(term, "residuals")
    ]


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
    # Its smallest_determinant is a property; pyright takes it for a field.
    return ObjectiveSum(terms=terms)  # pyright: ignore[reportCallIssue]


def mean(ensemble: Ensemble, values: Float[Array, " M"]) -> Scalar:
    """The weighted mean of a number of each particle, without the masked ones."""
    # Masked entries may be anything; a zero weight alone would not keep NaN out.
    return ensemble.weights @ jnp.where(ensemble.kept, values, 0)


def _rooted(ensemble: Ensemble, errors: Float[Array, "M components"]) -> Float[Array, "M components"]:
    """Errors times the root of the particles' weights: their squares sum to the mean."""
    return jnp.sqrt(ensemble.weights)[:, None] * jnp.where(ensemble.kept[:, None], errors, 0)


def _cauchy_loss(square: Float[Array, " M"], scale: float) -> Float[Array, " M"]:
    """The square of an error, which grows logarithmically where the error is above `scale`."""
    return square if math.isinf(scale) else scale**2 * jnp.log1p(square / scale**2)


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


def _positive(value: float, name: str) -> float:
    number = as_float(value, name)
    if not number > 0:
        raise ValueError(f"{name} must be positive, but {value!r} was given.")
    return number

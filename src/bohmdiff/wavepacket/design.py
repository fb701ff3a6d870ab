"""Designs of points for the standard normal distribution: random, Sobol, Gauss–Hermite."""

import math
from abc import abstractmethod

import equinox as eqx
import jax
import numpy as np
from jaxtyping import ArrayLike, Float
from scipy.special import roots_hermitenorm
from scipy.stats import chi, norm, qmc

from .._check import as_float, as_key, as_positive_integer, numpy_generator
from .._types import Key

_LARGEST_GRID = 50_000_000
_LARGEST_RULE = 1000
_MOST_SOBOL = 2**30
_TRUNCATED = 1e-3
_MOST_CONDITIONED = 1e12


class AbstractDesign(eqx.Module):
    """A rule that places points for the standard normal distribution in any dimension.

    ```python
    points, weights = bd.SobolPoints(64)(
        2, key
    )  # any design: of the standard normal distribution, (64, 2)
    ```

    A design is an option of a method. In your own design, declare all fields as `eqx.field(static=True)`, with
    hashable values.
    """

    @abstractmethod
    def __call__(
        self, dimension: int, key: Key | None = None
    ) -> tuple[Float[ArrayLike, "M d"], Float[ArrayLike, " M"]]:
        """Points of shape `(M, d)` and weights of shape `(M,)` that sum to one."""


class RandomPoints(AbstractDesign):
    """Independent random points; the error of a mean falls as `number ** -0.5`.

    ```python
    x0, weights = initial.particles(bd.RandomPoints(1000), key)
    ```

    **Arguments:**

    - `number`: the number of points, at least 1.

    Called with a dimension and a key: points of shape `(number, d)` and weights `(number,)`, without units.

    **Raises:** `ValueError` unless the number is a positive integer; when drawing, if the key is missing.
    """

    number: int = eqx.field(
        static=True, converter=lambda n: as_positive_integer(n, "number", "Pass the number of points.")
    )

    def __call__(self, dimension, key=None):
        key = needs_key(self, key)
        return jax.random.normal(key, (self.number, dimension)), _equal_weights(self.number)


class SobolPoints(AbstractDesign):
    """Scrambled Sobol points (Owen's scrambling); the error of a smooth mean falls almost as `1 / number`.

    ```python
    x0, weights = initial.particles(bd.SobolPoints(1024), key)
    ```

    **Arguments:**

    - `number`: the number of points, at least 1; powers of two are balanced best.

    Called with a dimension and a key: points of shape `(number, d)` and weights `(number,)`, without units.

    **Raises:** `ValueError` unless the number is a positive integer; when drawing, if the key is missing.
    """

    number: int = eqx.field(
        static=True, converter=lambda n: as_positive_integer(n, "number", "Pass the number of points.")
    )

    def __call__(self, dimension, key=None):
        if self.number > _MOST_SOBOL:
            raise ValueError(
                f"There are at most {_MOST_SOBOL} Sobol points, but number={self.number} was given."
            )
        sampler = qmc.Sobol(dimension, scramble=True, rng=numpy_generator(needs_key(self, key)))
        # SciPy warns unless the number is a power of two: draw the next power of two.
        uniform = sampler.random_base2(max(self.number - 1, 0).bit_length())[: self.number]
        tiny = np.finfo(float).tiny
        return norm.ppf(np.clip(uniform, tiny, 1 - np.finfo(float).eps)), _equal_weights(self.number)


class GaussHermitePoints(AbstractDesign):
    """The tensor product of a Gauss–Hermite rule, without the nodes of smallest weight.

    ```python
    x0, weights = initial.particles(bd.GaussHermitePoints(6))
    variance = weights @ (x0 - weights @ x0) ** 2  # that of the packet
    ```

    Exact for polynomials of degree up to `2 * points_per_axis - 1` in each coordinate, up to
    the discarded probability.

    **Arguments:**

    - `points_per_axis`: nodes along each coordinate, at least 1.
    - `discard`: the nodes of smallest weight are left out as long as their weights sum to less than this
        probability. They lie far in the tails, where a fitted score is not determined. The remaining nodes
        are shifted outwards just enough to restore the variance of one.

    Called with a dimension: points of shape `(M, d)` and weights `(M,)`, without units.

    **Raises:** `ValueError` unless the number is a positive integer and the probability is in [0, 1), and
    if the grid would be too large.
    """

    points_per_axis: int = eqx.field(
        static=True,
        converter=lambda n: as_positive_integer(n, "points_per_axis", "Pass the nodes per coordinate."),
    )
    discard: float = eqx.field(static=True, default=1e-6, converter=lambda p: _discarded_probability(p))

    def __call__(self, dimension, key=None):
        del key
        if self.points_per_axis > _LARGEST_RULE:
            raise ValueError(
                f"A Gauss–Hermite rule has at most {_LARGEST_RULE} nodes, but "
                f"points_per_axis={self.points_per_axis} was given."
            )
        nodes, weights = roots_hermitenorm(self.points_per_axis)
        # Built axis by axis, dropping nodes of negligible weight on the way, so that the full grid is
        # never built in many dimensions.
        points, mass = np.zeros((1, 0)), np.ones(1)
        for axes in range(1, dimension + 1):
            if mass.size * nodes.size > _LARGEST_GRID:
                raise ValueError(
                    f"{self.points_per_axis} Gauss–Hermite nodes on each of {dimension} axes is more than "
                    f"{_LARGEST_GRID} points. Use fewer nodes, or SobolPoints."
                )
            points = np.concatenate(
                [np.repeat(points, nodes.size, axis=0), np.tile(nodes, mass.size)[:, None]], axis=1
            )
            mass = np.outer(mass, weights / weights.sum()).ravel()
            budget = self.discard - (1 - mass.sum()) if axes == dimension else 1e-3 * self.discard
            kept = _heaviest(mass, budget)
            points, mass = points[kept], mass[kept]
        mass = mass / mass.sum()
        # The dropped points lay far out: without rescaling, the variance of the rest would be too small.
        return points / np.sqrt(mass @ points[:, 0] ** 2) if points.any() else points, mass


class TruncatedPoints(AbstractDesign):
    """Another design, moved inwards to represent the standard normal distribution truncated at a radius.

    Every point keeps its direction and the rank of its distance from the centre. This avoids trajectories far
    out in the tails, where an untrained score is unreliable. With the outermost thousandth of the probability
    removed, the variances are smaller by 1.2, 0.7, 0.5 and 0.4 % in one to four dimensions;
    [`StandardizedPoints`][bohmdiff.StandardizedPoints] of these points have the correct variances.

    ```python
    bd.TruncatedPoints(bd.SobolPoints(256), radius=3.3)
    ```

    **Arguments:**

    - `design`: any design of points.
    - `radius`: in standard deviations, positive. By default, a thousandth of the probability lies
        outside: 3.3, 3.7, 4.0 and 4.3 in one to four dimensions.

    Called like the design: points of shape `(M, d)` and weights `(M,)`, without units.

    **Raises:** `ValueError` if `design` is not a design or the radius is not positive.
    """

    design: AbstractDesign = eqx.field(static=True)
    radius: float | None = eqx.field(
        static=True, default=None, converter=lambda v: None if v is None else as_float(v, "radius")
    )

    def __check_init__(self):
        _require_design(self.design)
        if self.radius is not None and not self.radius > 0:
            raise ValueError(f"radius must be positive, but {self.radius!r} was given.")

    def __call__(self, dimension, key=None):
        return self.moved(*self.design(dimension, key))

    def moved(
        self, points: Float[ArrayLike, "M d"], weights: Float[ArrayLike, " M"]
    ) -> tuple[Float[ArrayLike, "M d"], Float[ArrayLike, " M"]]:
        """The points of another design, moved inwards, and their weights."""
        points = np.asarray(points)
        dimension = points.shape[1]
        distance = np.linalg.norm(points, axis=1)
        within = 1 - _TRUNCATED if self.radius is None else chi.cdf(self.radius, dimension)
        inside = chi.cdf(distance, dimension) * within
        scale = chi.ppf(inside, dimension) / np.where(distance > 0, distance, 1.0)
        return points * scale[:, None], weights


class StandardizedPoints(AbstractDesign):
    """Another design, shifted and stretched slightly so that its mean is exactly zero and its covariance exactly
    one.

    Under a linear flow the points then have exact first and second moments, as with Gauss–Hermite points; under a
    nonlinear flow they have the small errors of the design. If a flow has ripples finer than a grid, Sobol points
    are better than the grid.

    ```python
    x0, weights = initial.particles(
        bd.StandardizedPoints(bd.SobolPoints(4096)), key
    )
    variance = weights @ (x0 - weights @ x0) ** 2  # that of the packet
    ```

    **Arguments:**

    - `design`: any design of more points than dimensions.

    Called like the design: points of shape `(M, d)` and weights `(M,)`, without units.

    **Raises:** `ValueError` if `design` is not a design or its points lie in a plane.
    """

    design: AbstractDesign = eqx.field(static=True)

    def __check_init__(self):
        _require_design(self.design)

    def __call__(self, dimension, key=None):
        points, weights = self.design(dimension, key)
        points, weights = np.asarray(points), np.asarray(weights)
        away = points - weights @ points
        covariance = np.einsum("m,mi,mj->ij", weights, away, away)
        if not np.linalg.cond(covariance) < _MOST_CONDITIONED:
            raise ValueError(
                f"The {len(points)} points of {self.design} lie in a plane of {dimension} dimensions, so their "
                "covariance cannot be normalised to one. Draw more points."
            )
        return np.linalg.solve(np.linalg.cholesky(covariance), away.T).T, weights


class WidenedPoints(AbstractDesign):
    r"""Another design, moved outwards and reweighted to represent the standard normal distribution.

    The points represent a normal distribution `factor` times as wide and have the importance weights
    $\propto e^{-\frac12 r^2 (1 - \text{factor}^{-2})}$. With equal weights, a few points sample the tails and
    each counts too much; here, many points of small weight sample them. The effective number of points
    shrinks by $(\text{factor}^2/\sqrt{2\,\text{factor}^2 - 1})^d$: 1.15 to the power of $d$ for 1.4.

    With a `power` below 1, the importance weights are raised to that power and the points represent a
    distribution between the two: the tails have more weight than their probability.

    ```python
    bd.WidenedPoints(
        bd.TruncatedPoints(bd.SobolPoints(256), radius=3.3), factor=1.4
    )  # out to 4.6
    ```

    **Arguments:**

    - `design`: any design of points.
    - `factor`: at least 1.
    - `power`: between 0 and 1.

    Called like the design: points of shape `(M, d)` and weights `(M,)`, without units.

    **Raises:** `ValueError` if `design` is not a design, or for a factor or power that is not allowed.
    """

    design: AbstractDesign = eqx.field(static=True)
    factor: float = eqx.field(static=True, converter=lambda v: as_float(v, "factor"))
    power: float = eqx.field(static=True, default=1.0, converter=lambda v: as_float(v, "power"))

    def __check_init__(self):
        _require_design(self.design)
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"factor must be at least 1 and finite, but {self.factor!r} was given.")
        if not 0 <= self.power <= 1:
            raise ValueError(f"power must be between 0 and 1, but {self.power!r} was given.")

    def __call__(self, dimension, key=None):
        return self.moved(*self.design(dimension, key))

    def moved(
        self, points: Float[ArrayLike, "M d"], weights: Float[ArrayLike, " M"]
    ) -> tuple[Float[ArrayLike, "M d"], Float[ArrayLike, " M"]]:
        """The points of another design, moved outwards, and their weights."""
        points = self.factor * np.asarray(points)
        square = np.sum(points**2, axis=1)
        # Relative to the innermost point: otherwise all weights would underflow if every point is far out.
        exponent = 0.5 * self.power * (1 - self.factor**-2)
        with np.errstate(invalid="ignore"):
            reweighted = np.asarray(weights) * np.exp(-exponent * (square - square.min()))
            reweighted = reweighted / reweighted.sum()
        if not np.all(np.isfinite(reweighted)):
            raise ValueError(f"factor is too large to weigh the points: {self.factor!r} was given.")
        return points, reweighted


def _require_design(design: object) -> None:
    if not isinstance(design, AbstractDesign):
        raise ValueError(f"design must be a design such as SobolPoints(256), but {design!r} was given.")


def _discarded_probability(value: object) -> float:
    if isinstance(value, int | float | np.floating) and 0 <= value < 1:
        return float(value)
    raise ValueError(f"discard is a probability, 0 <= discard < 1, but {value!r} was given.")


def _heaviest(mass: np.ndarray, discard: float) -> np.ndarray:
    """Indices without the smallest entries whose sum stays below `discard`; ties are kept together."""
    order = np.argsort(mass)
    below = np.searchsorted(np.cumsum(mass[order]), discard)
    threshold = mass[order[below]] * (1 - 1e-9)
    return np.flatnonzero(mass >= threshold)


def _equal_weights(number: int) -> np.ndarray:
    return np.full(number, 1 / number)


def needs_key(design: AbstractDesign, key: Key | None) -> Key:
    if key is None:
        raise ValueError(
            f"{type(design).__name__} places its points at random and needs a key: pass "
            "key=jax.random.key(0)."
        )
    return as_key(key)


def default_design(dimension: int, per_axis: int) -> AbstractDesign:
    """Gauss–Hermite points with `per_axis` nodes if that is at most 20,000 points, otherwise Sobol points."""
    if per_axis**dimension <= 20_000:
        return GaussHermitePoints(per_axis, discard=1e-5)
    return SobolPoints(16_384)


def as_design(particles: object, name: str) -> AbstractDesign:
    """`particles` itself if it is a design; for an integer, that number of Sobol points."""
    if isinstance(particles, AbstractDesign):
        return particles
    number = as_positive_integer(
        particles, name, "Pass a number, or a design such as GaussHermitePoints(6)."
    )
    return SobolPoints(number)

"""Score fields with parameters: the gradient of a network conditioned on time."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import as_flag, as_float, as_positive_integer, cast_floats, check_output, is_concrete
from .._closure import as_module, settled
from .._precision import in_full_precision
from .._types import Key, Scalar, Time, Vector
from ..network.derivatives import (
    AbstractWithDerivatives,
    AbstractWithPullback,
    LocalScore,
    Pullback,
    differentiated,
    differentiated_once,
    pullback,
)
from ..network.frozen import AbstractFrozen
from ..network.perceptron import TimeConditionedMLP, softplus
from ..problem import Problem, as_problem
from ..wavepacket import AbstractInitialState, default_design
from .combined import AbstractCombinedScore, FrozenScore, Weighted
from .score import AbstractGradientScore, AbstractScore, Score, as_score


class FourierTime(AbstractFrozen):
    r"""The time features of the network: $1, \cos(\tfrac\pi2 k\tau), \sin(\tfrac\pi2 k\tau)$ for $k$ from 1
    to `frequencies`, with $\tau = (t - t_0)/(t_1 - t_0)$.

    The slowest waves do not complete a period within the span, so the features are not periodic on it.
    """

    t0: Scalar
    t1: Scalar
    frequencies: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        """The number of features."""
        return 2 * self.frequencies + 1

    def fraction(self, t: Time) -> Scalar:
        """The fraction of the span that has passed, from 0 to 1."""
        return jnp.asarray((t - self.t0) / (self.t1 - self.t0))

    def __call__(self, t: Time) -> Float[Array, " features"]:
        tau = self.fraction(t)
        angles = 0.5 * math.pi * jnp.arange(1, self.frequencies + 1).astype(tau.dtype) * tau
        return jnp.concatenate([jnp.ones_like(tau)[None], jnp.cos(angles), jnp.sin(angles)])


class NeuralScore(AbstractCombinedScore):
    r"""$s = s_\text{base} + \nabla\phi$, the gradient of a scalar network on top of a baseline.

    $\phi(t, x) = \epsilon\, \tau^p N(\tau, z)$ with $\tau = (t - t_0)/(t_1 - t_0)$ and
    $z = (x - \mu_0)/\sigma_0$, where $\mu_0$ and $\sigma_0$ are
    the mean and the standard deviations of the initial state.

    ```python
    baseline = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    score = bd.NeuralScore(
        problem, baseline=baseline, width=32, depth=2, key=jax.random.key(0)
    )
    score(0.5, x)
    ```

    **Arguments:**

    - `problem`: for the dimension, the span of time and the initial state.
    - `baseline`: the score that the network corrects: `None`, a score such as
        [`HarmonicScore(problem)`][bohmdiff.HarmonicScore], or a solution by any method. It is frozen: training
        does not change it. To train both, add scores with `+`.
    - `fade_in`: the power $p$. A baseline is most accurate close to `t0`, where the network would only disturb
        it. If not given, 2 with a baseline or with `exact_start`, and 0 without.
    - `exact_start`: whether to make the score equal to that of the initial state at `t0`. If the baseline is
        not exact there, its error is removed by a term that fades out with $\tau$. Needs `fade_in` above 0.
    - `width`, `depth`, `conditioning`, `activation`: of the network, see
        [`TimeConditionedMLP`][bohmdiff.TimeConditionedMLP].
    - `frequencies`: the number of frequencies in the Fourier features of time.
    - `output_scale`: $\epsilon$. Small, so that training starts close to the baseline.
    - `network`: your own `N(features, z) -> scalar`, a module, instead of the perceptron.
    - `key`: for the initial weights.

    **Units:** those of the problem; the inputs of the network are made dimensionless. The score has the shape
    `(d,)`.

    **Raises:** `ValueError` for invalid options, and for a baseline of another dimension.
    """

    network: Callable[[Float[Array, " features"], Vector], Scalar]
    time: FourierTime
    baseline: FrozenScore | None
    initial: FrozenScore | None
    standardise: "_Standardise"
    output_scale: float = eqx.field(static=True)
    fade_in: int = eqx.field(static=True)

    @in_full_precision
    def __init__(
        self,
        problem: Problem,
        *,
        baseline: Score | None = None,
        fade_in: int | None = None,
        exact_start: bool = False,
        width: int | tuple[int, ...] = 32,
        depth: int = 2,
        conditioning: Literal["film", "concat"] = "film",
        activation: Callable[[Array], Array] = softplus,
        frequencies: int = 4,
        output_scale: float = 1e-2,
        network: Callable[..., Scalar] | None = None,
        key: Key,
    ):
        problem = as_problem(problem)
        d, dtype = problem.dimension, problem.dtype
        frequencies = as_positive_integer(frequencies, "frequencies", "Pass the number of waves in time.")
        output_scale = as_float(output_scale, "output_scale")
        if not 0 < output_scale < math.inf:
            raise ValueError(f"output_scale must be positive, but {output_scale!r} was given.")
        t0, t1 = problem.t0.astype(dtype), problem.t1.astype(dtype)
        self.time = FourierTime(t0, t1, frequencies)
        sample = jnp.ones(self.time.size, dtype), jnp.zeros(d, dtype)
        if network is not None:
            if not callable(network):
                raise ValueError(
                    f"network must be a callable N(features, z) -> scalar, but {network!r} was given."
                )
            self.network = settled(cast_floats(as_module(network), dtype), sample)
        else:
            perceptron = TimeConditionedMLP(
                d,
                self.time.size,
                width=width,
                depth=depth,
                conditioning=conditioning,
                activation=activation,
                key=key,
            )
            self.network = cast_floats(perceptron, dtype)
        check_output(self.network, sample, (), "network")
        self.baseline = None
        if baseline is not None:
            base = cast_floats(as_score(baseline, "baseline"), dtype)
            check_output(base, (t0, jnp.zeros(d, dtype)), (d,), "baseline")
            self.baseline = FrozenScore(base)
        points, weights = problem.initial.particles(default_design(d, per_axis=3), jax.random.key(0))
        mean = weights @ points
        self.standardise = _Standardise(mean, jnp.sqrt(weights @ (points - mean[None]) ** 2))
        self.output_scale = output_scale
        if fade_in is None:
            fade_in = 0 if baseline is None and not exact_start else 2
        if isinstance(fade_in, bool) or not isinstance(fade_in, int) or fade_in < (1 if exact_start else 0):
            raise ValueError(
                f"fade_in must be a whole number, 0 or more, and 1 or more with exact_start, but {fade_in!r} "
                "was given."
            )
        self.fade_in = fade_in
        self.initial = None
        if as_flag(exact_start, "exact_start") and not _starts_at(
            self.baseline, problem.initial, t0, points
        ):
            self.initial = FrozenScore(_InitialScore(problem.initial))

    @property
    def parts(self) -> tuple[AbstractScore, ...]:
        others = (self.baseline, self.initial)
        return (self._correction, *(part for part in others if part is not None))

    def weighted(self, t: Scalar) -> Weighted:
        terms: Weighted = [(1, t, self._correction)]
        if self.baseline is not None:
            terms.append((1, t, self.baseline))
        if self.initial is not None:
            late = self.time.fraction(t)
            terms.append((1 - late, t, self.initial))
            if self.baseline is not None:
                terms.append((late - 1, self.time.t0, self.baseline))
        return terms

    @property
    def _correction(self) -> "_Correction":
        return _Correction(self.network, self.time, self.standardise, self.output_scale, self.fade_in)


class _Correction(AbstractGradientScore, AbstractWithDerivatives, AbstractWithPullback):
    r"""$\nabla\phi$: the part of the network."""

    network: Callable[..., Scalar]
    time: FourierTime
    standardise: "_Standardise"
    output_scale: float = eqx.field(static=True)
    fade_in: int = eqx.field(static=True)

    def __call__(self, t: Time, x: Vector) -> Vector:
        return jax.grad(self.log_density, argnums=1)(t, x)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        return self._size(t) * self.network(self.time(t), self.standardise(x))

    def derivatives(self, t: Time, x: Vector, inverse_mass: Vector, order: int) -> tuple[LocalScore, ...]:
        if not isinstance(self.network, TimeConditionedMLP):
            return differentiated(self.__call__, t, x, inverse_mass, order)
        std = self.standardise.std
        of_z = self.network.derivatives(self.time(t), self.standardise(x), inverse_mass / std**2, order + 2)
        size = self._size(t)

        def of_x(tensor: Array) -> Array:
            return size * tensor / reduce(jnp.multiply.outer, [std] * tensor.ndim)

        return jax.tree.map(of_x, of_z).as_score(inverse_mass)

    def pullback(self, t: Time, x: Vector, inverse_mass: Vector) -> Pullback:
        network = self.network
        if not isinstance(network, TimeConditionedMLP):
            return pullback(self.__call__, t, x, inverse_mass)
        features, size, std = self.time(t), self._size(t), self.standardise.std

        def score_and_divergence(y: Vector) -> tuple[Vector, Scalar]:
            gradient, laplacian = network.laplacian(features, self.standardise(y), inverse_mass / std**2)
            return size * gradient / std, size * laplacian

        return differentiated_once(score_and_divergence, x, inverse_mass)

    def _size(self, t: Time) -> Scalar:
        return self.output_scale * self.time.fraction(t) ** self.fade_in


class _Standardise(AbstractFrozen):
    """Coordinates relative to the initial state's mean, in units of its standard deviations."""

    mean: Vector
    std: Vector

    def __call__(self, x: Vector) -> Vector:
        return (x - self.mean) / self.std


class _InitialScore(AbstractGradientScore):
    """The score of the initial state, at all times."""

    state: AbstractInitialState

    def __call__(self, t: Time, x: Vector) -> Vector:
        return self.state.score(x)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        return self.state.log_density(x)


def _starts_at(
    baseline: FrozenScore | None, initial: AbstractInitialState, t0: Scalar, points: Float[Array, "M d"]
) -> bool:
    """Whether the baseline equals the initial state's score at t0 up to round-off, so that it needs no
    correction there."""
    if baseline is None or not is_concrete((baseline, initial)):
        return False
    exact = jax.vmap(initial.score)(points)
    difference = jax.vmap(lambda x: baseline(t0, x))(points) - exact
    slack = 1e3 * float(jnp.finfo(exact.dtype).eps)
    return bool(jnp.max(jnp.abs(difference)) <= slack * (1 + jnp.max(jnp.abs(exact))))

"""Score fields with parameters: the gradient of a network that is told the time."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import as_positive_integer, cast_floats, check_output, is_concrete
from .._types import Key, Scalar, Time, Vector
from ..problem import Problem
from ..wavepacket import AbstractInitialState, GaussHermitePoints
from .score import AbstractScore, FrozenScore, scalar_of


@jax.custom_jvp
def softplus(x: Array) -> Array:
    r"""$\ln(1 + e^x)$, whose derivatives are those of the logistic function: cheap, however many."""
    return jax.nn.softplus(x)


softplus.defjvps(lambda tangent, value, x: tangent * jax.lax.logistic(x))


class FourierTime(eqx.Module):
    r"""Time as the network sees it: $1, \cos(\tfrac\pi2 k\tau), \sin(\tfrac\pi2 k\tau)$ for `k` up to a
    number of frequencies, with $\tau = (t - t_0)/(t_1 - t_0)$.

    The slowest waves do not return within the span, so the features are not periodic on it.
    """

    frozen: ClassVar[bool] = True

    t0: Scalar
    t1: Scalar
    frequencies: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        """The number of features."""
        return 2 * self.frequencies + 1

    def fraction(self, t: Time) -> Scalar:
        """How much of the span has passed, from 0 to 1."""
        return jnp.asarray((t - self.t0) / (self.t1 - self.t0))

    def __call__(self, t: Time) -> Float[Array, " features"]:
        tau = self.fraction(t)
        angles = 0.5 * math.pi * jnp.arange(1, self.frequencies + 1).astype(tau.dtype) * tau
        return jnp.concatenate([jnp.ones_like(tau)[None], jnp.cos(angles), jnp.sin(angles)])


class TimeConditionedMLP(eqx.Module):
    r"""A multilayer perceptron $N(\tau, z) \to$ scalar, conditioned on features of time.

    With `"film"` every hidden layer is scaled and shifted by linear functions of the features, which
    are computed once per time, not once per particle; with `"concat"` they are further inputs.

    ```python
    network = bd.TimeConditionedMLP(dimension=2, features=9, width=32, depth=2, key=key)
    network(jnp.ones(9), jnp.zeros(2))
    ```

    **Arguments:**

    - `dimension`: of the input `z`.
    - `features`: how many features of time there are.
    - `width`, `depth`: of the hidden layers; `width` may be a sequence, one for each layer.
    - `conditioning`: `"film"` or `"concat"`.
    - `activation`: smooth: it is differentiated five times.
    - `key`: for the initial weights.

    ??? cite "Reference"

        E. Perez et al., FiLM: Visual reasoning with a general conditioning layer, AAAI (2018).
    """

    hidden: tuple[eqx.nn.Linear, ...]
    modulation: tuple[eqx.nn.Linear, ...] | None
    output: eqx.nn.Linear
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        dimension: int,
        features: int,
        *,
        width: int | tuple[int, ...] = 32,
        depth: int = 2,
        conditioning: Literal["film", "concat"] = "film",
        activation: Callable[[Array], Array] = softplus,
        key: Key,
    ):
        if conditioning not in ("film", "concat"):
            raise ValueError(f'conditioning must be "film" or "concat", but {conditioning!r} was given.')
        depth = as_positive_integer(depth, "depth", "Pass the number of hidden layers.")
        widths = (width,) * depth if isinstance(width, int) else tuple(width)
        if len(widths) != depth:
            raise ValueError(
                f"width must be one number or one for each of the {depth} layers, but {width!r} was given."
            )
        for one in widths:
            as_positive_integer(one, "width", "Pass the number of units of a hidden layer.")
        inputs = dimension if conditioning == "film" else dimension + features
        keys = jax.random.split(key, 2 * depth + 1)
        self.hidden = tuple(
            eqx.nn.Linear(before, after, key=k)
            for before, after, k in zip((inputs, *widths[:-1]), widths, keys[:depth], strict=True)
        )
        self.modulation = None
        if conditioning == "film":
            self.modulation = tuple(
                eqx.nn.Linear(features, 2 * size, use_bias=False, key=k)
                for size, k in zip(widths, keys[depth:-1], strict=True)
            )
        self.output = eqx.nn.Linear(widths[-1], "scalar", use_bias=False, key=keys[-1])
        self.activation = activation

    def __call__(self, features: Float[Array, " features"], z: Vector) -> Scalar:
        if self.modulation is None:
            z = jnp.concatenate([z, features])
            for layer in self.hidden:
                z = self.activation(layer(z))
        else:
            for layer, film in zip(self.hidden, self.modulation, strict=True):
                scale, shift = jnp.split(film(features), 2)
                z = self.activation((1 + scale) * layer(z) + shift)
        return self.output(z)


class NeuralScore(AbstractScore):
    r"""$s = s_\text{base} + \nabla\phi$, the gradient of a scalar network on top of a baseline.

    $\phi(t, x) = \epsilon\, N(\tau(t), z)$ with $z = (x - \mu_0)/\sigma_0$, where $\mu_0$ and $\sigma_0$ are
    the mean and the standard deviations of the initial state.

    ```python
    baseline = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    score = bd.NeuralScore(problem, baseline=baseline, width=32, depth=2, key=jax.random.key(0))
    score(0.5, x)
    ```

    **Arguments:**

    - `problem`: for the dimension, the span of time and the initial state.
    - `baseline`: what the network adds to: `None`, a score such as
        [`HarmonicScore(problem)`][bohmdiff.HarmonicScore], or a solution by `GaussianDynamics`,
        `SequentialScoreMatching` or any other method that has a score. It is frozen: training does not
        change it. For one that shall be trained as well, add scores with `+`.
    - `exact_start`: whether the score is made equal to that of the initial state at `t0`: the network then
        fades in with $\tau$, and where the baseline is not exact at `t0` its error there fades out.
    - `width`, `depth`, `conditioning`, `activation`: of the network, see
        [`TimeConditionedMLP`][bohmdiff.TimeConditionedMLP].
    - `frequencies`: of the Fourier features of time.
    - `output_scale`: $\epsilon$. Small, so that training starts close to the baseline.
    - `network`: your own `N(features, z) -> scalar`, a module, instead of the perceptron.
    - `key`: for the initial weights.

    **Raises:** `ValueError` for options that are not allowed, and for a baseline of another dimension.
    """

    network: Callable[[Float[Array, " features"], Vector], Scalar]
    time: FourierTime
    baseline: FrozenScore | None
    initial: FrozenScore | None
    standardise: "_Standardise"
    output_scale: float = eqx.field(static=True)
    exact_start: bool = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        *,
        baseline: Any = None,
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
        d, dtype = problem.dimension, problem.dtype
        frequencies = as_positive_integer(frequencies, "frequencies", "Pass how many waves of time.")
        if not output_scale > 0:
            raise ValueError(f"output_scale must be positive, but {output_scale!r} was given.")
        t0, t1 = problem.t0.astype(dtype), problem.t1.astype(dtype)
        self.time = FourierTime(t0, t1, frequencies)
        if network is not None:
            self.network = cast_floats(network, dtype)
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
        check_output(self.network, (jnp.ones(self.time.size, dtype), jnp.zeros(d, dtype)), (), "network")
        self.baseline = None if baseline is None else cast_floats(FrozenScore(baseline), dtype)
        if self.baseline is not None:
            check_output(self.baseline, (t0, jnp.zeros(d, dtype)), (d,), "baseline")
        points, weights = problem.initial.points(GaussHermitePoints(3, discard=0.0))
        mean = weights @ points
        self.standardise = _Standardise(mean, jnp.sqrt(weights @ (points - mean) ** 2))
        self.output_scale, self.exact_start = float(output_scale), bool(exact_start)
        self.initial = None
        if exact_start and not _starts_at(self.baseline, problem.initial, t0, points):
            self.initial = FrozenScore(_InitialScore(problem.initial))

    def __call__(self, t: Time, x: Vector) -> Vector:
        s = self.output_scale * jax.grad(self._network, argnums=1)(t, x)
        if self.baseline is not None:
            s = s + self.baseline(t, x)
        if self.initial is not None:
            missing = self.initial(t, x)
            if self.baseline is not None:
                missing = missing - self.baseline(self.time.t0, x)
            s = s + (1 - self.time.fraction(t)) * missing
        return s

    def log_density(self, t: Time, x: Vector) -> Scalar:
        r"""$\ln\rho$ up to a function of time, if the baseline offers its own."""
        phi = self.output_scale * self._network(t, x)
        if self.baseline is not None:
            phi = phi + scalar_of(self.baseline)(t, x)
        if self.initial is not None:
            missing = self.initial.log_density(t, x)
            if self.baseline is not None:
                missing = missing - self.baseline.log_density(self.time.t0, x)
            phi = phi + (1 - self.time.fraction(t)) * missing
        return phi

    def _network(self, t: Time, x: Vector) -> Scalar:
        value = self.network(self.time(t), self.standardise(x))
        return self.time.fraction(t) * value if self.exact_start else value


class _Standardise(eqx.Module):
    """Coordinates in units of the initial state's standard deviations, from its mean."""

    frozen: ClassVar[bool] = True

    mean: Vector
    std: Vector

    def __call__(self, x: Vector) -> Vector:
        return (x - self.mean) / self.std


class _InitialScore(AbstractScore):
    """The score of the initial state, at all times."""

    state: AbstractInitialState

    def __call__(self, t: Time, x: Vector) -> Vector:
        return self.state.score(x)

    def log_density(self, t: Time, x: Vector) -> Scalar:
        return self.state.log_density(x)


def _starts_at(
    baseline: FrozenScore | None, initial: AbstractInitialState, t0: Scalar, points: Float[Array, "M d"]
) -> bool:
    """Whether the baseline is the initial state's score at t0, to round-off, so that nothing is to be
    corrected there."""
    if baseline is None or not is_concrete((baseline, initial)):
        return False
    exact = jax.vmap(initial.score)(points)
    difference = jax.vmap(lambda x: baseline(t0, x))(points) - exact
    slack = 1e3 * float(jnp.finfo(exact.dtype).eps)
    return bool(jnp.max(jnp.abs(difference)) <= slack * (1 + jnp.max(jnp.abs(exact))))

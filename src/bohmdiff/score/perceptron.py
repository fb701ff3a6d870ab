"""A multilayer perceptron that is told the time, and its derivatives without nested differentiation."""

from collections.abc import Callable
from itertools import combinations_with_replacement, permutations, product
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import as_positive_integer
from .._types import Key, Scalar, Vector
from .derivatives import LocalScore


@jax.custom_jvp
def softplus(x: Array) -> Array:
    r"""$\ln(1 + e^x)$, whose derivatives are those of the logistic function: cheap, however many."""
    return jax.nn.softplus(x)


softplus.defjvps(lambda tangent, value, x: tangent * jax.lax.logistic(x))


class ScalarDerivatives(NamedTuple):
    r"""Derivatives of a scalar at one point; $\Delta = \sum_i \partial_i^2 / m_i$.

    - `gradient`, `hessian`, `third`: shapes `(d,)`, `(d, d)`, `(d, d, d)`.
    - `laplacian_hessian`: $\partial_k \partial_l \Delta$, shape `(d, d)`.
    """

    gradient: Float[Array, " d"]
    hessian: Float[Array, "d d"]
    third: Float[Array, "d d d"]
    laplacian_hessian: Float[Array, "d d"]

    def as_score(self, inverse_mass: Vector) -> tuple[LocalScore, LocalScore]:
        """The gradient as a score, as `local_derivatives` has it."""
        laplacian_gradient = jnp.einsum("i,iik->k", inverse_mass, self.third)
        return (
            LocalScore(self.gradient, self.hessian, laplacian_gradient),
            LocalScore(self.hessian, self.third, self.laplacian_hessian),
        )


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
    - `activation`: smooth: it is differentiated five times, six with second tangents.
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
        for weight, bias in self._layers(features):
            z = self.activation(z @ weight.T + bias)
        return self.output(z)

    def derivatives(
        self, features: Float[Array, " features"], z: Vector, inverse_mass: Vector
    ) -> ScalarDerivatives:
        """The derivatives with respect to `z`: layer by layer, each component by itself."""
        (weight, bias), *others = self._layers(features)
        preactivation = z @ weight.T + bias
        slopes = _slopes(self.activation, preactivation)
        first = _FirstLayer(slopes, tuple(weight.T), inverse_mass)
        readout = self.output.weight[0]
        if not others:
            return first.read_out(readout)
        (weight, bias), *others = others
        jet = first.through(weight, bias)
        for weight, bias in others:
            jet = _activate(self.activation, jet, inverse_mass)
            jet = jax.tree.map(lambda part, weight=weight: part @ weight.T, jet)
            jet = jet._replace(value=jet.value + bias)
        return _read_out(_activate(self.activation, jet, inverse_mass), readout)

    def _layers(self, features: Float[Array, " features"]) -> list[tuple[Array, Array]]:
        """Weights and biases of the hidden layers at one time."""
        layers = [(layer.weight, jnp.asarray(layer.bias)) for layer in self.hidden]
        if self.modulation is None:
            first, bias = layers[0]
            d = first.shape[1] - features.shape[0]
            return [(first[:, :d], bias + first[:, d:] @ features), *layers[1:]]
        films = (jnp.split(film(features), 2) for film in self.modulation)
        return [
            ((1 + scale)[:, None] * weight, (1 + scale) * bias + shift)
            for (weight, bias), (scale, shift) in zip(layers, films, strict=True)
        ]


class _Jet(NamedTuple):
    """The derivatives of every unit of a layer; of symmetric ones each component once, in the order of
    `combinations_with_replacement`."""

    value: Float[Array, " width"]
    gradient: tuple[Float[Array, " width"], ...]
    hessian: tuple[Float[Array, " width"], ...]
    third: tuple[Float[Array, " width"], ...]
    laplacian_hessian: tuple[Float[Array, " width"], ...]


class _FirstLayer(NamedTuple):
    """The first layer after its activation, whose derivatives factorise: those of the activation, one for
    each particle, times products of `rows`, the columns of the weight matrix, the same for all."""

    slopes: tuple[Float[Array, " width"], ...]
    rows: tuple[Float[Array, " width"], ...]
    inverse_mass: Vector

    def _square(self) -> Float[Array, " width"]:
        return self.inverse_mass @ jnp.stack(self.rows) ** 2

    def through(self, weight: Float[Array, "after width"], bias: Float[Array, " after"]) -> _Jet:
        """The next layer before its activation."""
        value, *slopes = self.slopes
        rows, d = self.rows, len(self.rows)
        square = self._square()
        pairs, triples = _combinations(d, 2), _combinations(d, 3)
        return _Jet(
            value @ weight.T + bias,
            tuple(slopes[0] @ (weight * row).T for row in rows),
            tuple(slopes[1] @ (weight * (rows[i] * rows[j])).T for i, j in pairs),
            tuple(slopes[2] @ (weight * (rows[i] * rows[j] * rows[k])).T for i, j, k in triples),
            tuple(slopes[3] @ (weight * (square * rows[i] * rows[j])).T for i, j in pairs),
        )

    def read_out(self, weight: Float[Array, " width"]) -> ScalarDerivatives:
        _, *slopes = self.slopes
        rows = jnp.stack(self.rows)
        d, width = rows.shape
        pairs = rows[:, None] * rows
        triples = rows[:, None, None] * pairs
        return ScalarDerivatives(
            slopes[0] @ (weight * rows).T,
            (slopes[1] @ (weight * pairs).reshape(-1, width).T).reshape(d, d),
            (slopes[2] @ (weight * triples).reshape(-1, width).T).reshape(d, d, d),
            (slopes[3] @ (weight * self._square() * pairs).reshape(-1, width).T).reshape(d, d),
        )


def _combinations(d: int, order: int) -> list[tuple[int, ...]]:
    return list(combinations_with_replacement(range(d), order))


def _slopes(activation: Callable[[Array], Array], u: Array) -> tuple[Array, ...]:
    """The activation and its first four derivatives at `u`."""
    functions = [activation]
    for _ in range(4):
        functions.append(lambda v, last=functions[-1]: jax.jvp(last, (v,), (jnp.ones_like(v),))[1])
    return tuple(function(u) for function in functions)


def _activate(activation: Callable[[Array], Array], jet: _Jet, inverse_mass: Vector) -> _Jet:
    """The chain rule for an activation, up to the second derivative of the Laplacian."""
    d = len(jet.gradient)
    axes = range(d)
    pairs, triples = _combinations(d, 2), _combinations(d, 3)
    value, s1, s2, s3, s4 = _slopes(activation, jet.value)
    g, w = jet.gradient, inverse_mass
    h, t = _at_any_order(pairs, jet.hessian), _at_any_order(triples, jet.third)
    k = dict(zip(pairs, jet.laplacian_hessian, strict=True))
    # |∇u|² and Δu of the layer u before its activation, and their derivatives.
    square = sum(w[i] * g[i] ** 2 for i in axes)
    laplacian = sum(w[i] * h[i, i] for i in axes)
    square_slope = [2 * sum(w[i] * g[i] * h[i, a] for i in axes) for a in axes]
    laplacian_slope = [sum(w[i] * t[i, i, a] for i in axes) for a in axes]

    def laplacian_curvature(a: int, b: int) -> Array:
        square_curvature = 2 * sum(w[i] * (h[i, a] * h[i, b] + g[i] * t[i, a, b]) for i in axes)
        return (
            (s4 * square + s3 * laplacian) * g[a] * g[b]
            + (s3 * square_slope[a] + s2 * laplacian_slope[a]) * g[b]
            + (s3 * square_slope[b] + s2 * laplacian_slope[b]) * g[a]
            + (s3 * square + s2 * laplacian) * h[a, b]
            + s2 * square_curvature
            + s1 * k[a, b]
        )

    return _Jet(
        value,
        tuple(s1 * g[a] for a in axes),
        tuple(s2 * g[a] * g[b] + s1 * h[a, b] for a, b in pairs),
        tuple(
            s3 * g[a] * g[b] * g[c]
            + s2 * (h[a, b] * g[c] + h[a, c] * g[b] + h[b, c] * g[a])
            + s1 * t[a, b, c]
            for a, b, c in triples
        ),
        tuple(laplacian_curvature(a, b) for a, b in pairs),
    )


def _read_out(jet: _Jet, weight: Float[Array, " width"]) -> ScalarDerivatives:
    d = len(jet.gradient)
    _, gradient, *others = jax.tree.map(lambda part: part @ weight, jet)
    orders = (2, 3, 2)

    def full(order: int, parts: tuple[Array, ...]) -> Array:
        part = _at_any_order(_combinations(d, order), parts)
        return jnp.stack([part[index] for index in product(range(d), repeat=order)]).reshape((d,) * order)

    return ScalarDerivatives(jnp.stack(gradient), *map(full, orders, others))


def _at_any_order(
    combinations: list[tuple[int, ...]], parts: tuple[Array, ...]
) -> dict[tuple[int, ...], Array]:
    """The components of a symmetric tensor by their indices, in any order of these."""
    return {
        index: part
        for combination, part in zip(combinations, parts, strict=True)
        for index in permutations(combination)
    }

"""A multilayer perceptron conditioned on time, and its derivatives without nested differentiation."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._check import as_key, as_positive_integer, check_output
from .._types import Key, Scalar, Vector
from ._jet import Index, Jet, activate, activate_affine, slopes
from .derivatives import ScalarDerivatives, combinations, spread


@jax.custom_jvp
def softplus(x: Array) -> Array:
    r"""$\ln(1 + e^x)$, whose derivatives are those of the logistic function: cheap to any order."""
    return jax.nn.softplus(x)


softplus.defjvps(lambda tangent, value, x: tangent * jax.lax.logistic(x))


class TimeConditionedMLP(eqx.Module):
    r"""A multilayer perceptron $N(\tau, z) \to$ scalar, conditioned on features of time.

    With `"film"` every hidden layer is scaled and shifted by linear functions of the features, which
    are computed once per time, not once per particle; with `"concat"` they are further inputs.

    ```python
    network = bd.TimeConditionedMLP(
        dimension=2, features=9, width=32, depth=2, key=key
    )
    network(jnp.ones(9), jnp.zeros(2))
    ```

    **Arguments:**

    - `dimension`: of the input `z`.
    - `features`: the number of time features.
    - `width`, `depth`: of the hidden layers; `width` may be a sequence, one for each layer.
    - `conditioning`: `"film"` or `"concat"`.
    - `activation`: a smooth function: it is differentiated five times, six with second tangents.
    - `key`: for the initial weights.

    **Units:** none; its inputs, of shapes `(features,)` and `(dimension,)`, are expected to be of order one, and
    its value is a scalar.

    **Raises:** `ValueError` for sizes that are not positive integers.

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
        if not isinstance(conditioning, str) or conditioning not in ("film", "concat"):
            raise ValueError(f'conditioning must be "film" or "concat", but {conditioning!r} was given.')
        depth = as_positive_integer(depth, "depth", "Pass the number of hidden layers.")
        dimension = as_positive_integer(dimension, "dimension", "Pass the number of coordinates.")
        features = as_positive_integer(features, "features", "Pass the number of functions of time.")
        if not callable(activation):
            raise ValueError(f"activation must be a smooth function, but {activation!r} was given.")
        check_output(activation, (jnp.zeros(2),), (2,), "activation")
        widths = tuple(width) if isinstance(width, Sequence) else (width,) * depth
        if len(widths) != depth:
            raise ValueError(
                f"width must be one number or one for each of the {depth} layers, but {width!r} was given."
            )
        for one in widths:
            as_positive_integer(one, "width", "Pass the number of units of a hidden layer.")
        inputs = dimension if conditioning == "film" else dimension + features
        keys = jax.random.split(as_key(key), 2 * depth + 1)
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
        self, features: Float[Array, " features"], z: Vector, inverse_mass: Vector, order: int
    ) -> ScalarDerivatives:
        """The derivatives with respect to `z` up to `order`, at least 2: layer by layer, each component
        separately."""
        (weight, bias), *others = self._layers(features)
        jet = activate_affine(self.activation, z @ weight.T + bias, weight.T, inverse_mass, order)
        for weight, bias in others:
            jet = _through(jet, weight)
            jet = jet._replace(parts={**jet.parts, (): jet.parts[()] + bias})
            jet = activate(self.activation, jet, inverse_mass)
        return _tensors(_through(jet, self.output.weight), z.shape[0])

    def laplacian(
        self, features: Float[Array, " features"], z: Vector, inverse_mass: Vector
    ) -> tuple[Vector, Scalar]:
        r"""The gradient with respect to `z` and $\Delta = \sum_i \partial_i^2 / m_i$, propagated forwards
        through the layers: one column for each coordinate and one for the Laplacian."""
        value, gradient, laplacian = z, jnp.eye(z.shape[0], dtype=z.dtype), jnp.zeros_like(z)
        for weight, bias in self._layers(features):
            value, gradient, laplacian = value @ weight.T + bias, gradient @ weight.T, laplacian @ weight.T
            value, slope, curvature = slopes(self.activation, value, 2)
            laplacian = slope * laplacian + curvature * (inverse_mass @ gradient**2)
            gradient = slope * gradient
        readout = self.output.weight[0]
        return gradient @ readout, laplacian @ readout

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


def activations(tree: PyTree) -> list[Callable[[Array], Array]]:
    """The activations of all perceptrons in a tree."""

    def is_perceptron(node: Any) -> bool:
        return isinstance(node, TimeConditionedMLP)

    nodes = jax.tree.leaves(tree, is_leaf=is_perceptron)
    return [node.activation for node in nodes if isinstance(node, TimeConditionedMLP)]


@jax.custom_jvp
def _through(jet: Jet, weight: Float[Array, "after width"]) -> Jet:
    """The jet after a linear layer."""
    return jax.tree.map(lambda part: part @ weight.T, jet)


@_through.defjvp
def _through_tangent(primals: tuple[Jet, Array], tangents: tuple[Jet, Array]) -> tuple[Jet, Jet]:
    # The same as the automatic rule, but with all columns at once for the weight: a reverse pass then sums them
    # in one matrix product, instead of writing one outer product for each.
    jet, weight = primals
    jet_tangent, weight_tangent = tangents
    parts, structure = jax.tree.flatten(jet)
    columns = jax.lax.split(jnp.stack(parts) @ weight_tangent.T, (1,) * len(parts))
    of_weight = jax.tree.unflatten(structure, [column[0] for column in columns])
    tangent = jax.tree.map(lambda part, other: part @ weight.T + other, jet_tangent, of_weight)
    return _through(jet, weight), tangent


def _tensors(jet: Jet, dimension: int) -> ScalarDerivatives:
    """The derivatives of a layer of one unit as full tensors."""

    def tensor(parts: dict[Index, Array], order: int) -> Array:
        components = jnp.concatenate([parts[index] for index in combinations(dimension, order)])
        return components[spread(dimension, order)]

    return ScalarDerivatives(
        tuple(tensor(jet.parts, order) for order in range(1, jet.order + 1)),
        tensor(jet.laplacian, jet.order - 1),
    )

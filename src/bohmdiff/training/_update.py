"""One update: the loss, its gradient, and the optimiser's step."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from .._types import Key, Points, Scalar, Weights


class TrainingState(eqx.Module):
    """All that changes from epoch to epoch, so that a run can go on from it."""

    parameters: PyTree
    optimizer: PyTree
    carry: PyTree
    epoch: Array
    skipped: Array
    skipped_in_a_row: Array

    @staticmethod
    def initial(
        parameters: PyTree, optimizer: optax.GradientTransformation, carry: PyTree
    ) -> "TrainingState":
        # Of definite types, as `update` returns them: it would be compiled a second time otherwise.
        start = optimizer.init(parameters)
        state = as_types_of(start, start)
        zero = jnp.zeros((), int)
        return TrainingState(parameters, state, carry, epoch=zero, skipped=zero, skipped_in_a_row=zero)


class AbstractLoss(eqx.Module):
    """A function of the parameters: all that an update needs to know of a run, and no more, as it is compiled
    again when any of it changes."""

    fixed: eqx.AbstractVar[PyTree]

    @abstractmethod
    def __call__(
        self, parameters: PyTree, x: Points, weights: Weights, key: Key
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss on particles, and figures for the log."""

    @abstractmethod
    def residual_rows(
        self, parameters: PyTree, x: Points, weights: Weights, key: Key, projections: int
    ) -> PyTree:
        """For steps of second order: gradients of random combinations of each particle's residuals."""


class Report(eqx.Module):
    """What one epoch says about itself."""

    loss: Scalar
    gradient_norm: Scalar
    figures: dict[str, Scalar]


@eqx.filter_jit
def update(
    state: TrainingState,
    loss: AbstractLoss,
    optimizer: optax.GradientTransformation,
    x: Points,
    weights: Weights,
    key: Key,
) -> tuple[TrainingState, Report]:
    """One epoch. Where the loss, its gradient or the step is not finite, nothing but the counters changes."""
    (value, figures), gradient = jax.value_and_grad(loss, has_aux=True)(state.parameters, x, weights, key)
    norm = optax.tree.norm(gradient)

    # Optax's line search refuses what `value_fn` does not take.
    def value_fn(parameters: PyTree, residual_rows: Any = None) -> Scalar:
        return loss(parameters, x, weights, key)[0]

    changes, optimizer_state = optax.with_extra_args_support(optimizer).update(
        gradient,
        state.optimizer,
        state.parameters,
        value=value,
        grad=gradient,
        value_fn=value_fn,
        residual_rows=lambda number: loss.residual_rows(state.parameters, x, weights, key, number),
    )
    parameters = optax.apply_updates(state.parameters, changes)
    accepted = jnp.all(jnp.isfinite(jnp.stack([value, norm, optax.tree.norm(changes)])))
    old = (state.parameters, state.optimizer)
    chosen = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), (parameters, optimizer_state), old
    )
    parameters, optimizer_state = as_types_of(chosen, old)
    refused = 1 - accepted.astype(int)
    state = TrainingState(
        parameters=parameters,
        optimizer=optimizer_state,
        carry=state.carry,
        epoch=state.epoch + 1,
        skipped=state.skipped + refused,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * refused,
    )
    return state, Report(value, norm, figures)


def as_types_of(tree: PyTree, like: PyTree) -> PyTree:
    """Arrays of exactly these types, not weakly; random keys as they are."""

    def cast(leaf: Any, like: Any) -> Array:
        return leaf if is_key(like) else jnp.asarray(leaf, jnp.result_type(like))

    return jax.tree.map(cast, tree, like)


def is_key(leaf: Any) -> bool:
    return eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

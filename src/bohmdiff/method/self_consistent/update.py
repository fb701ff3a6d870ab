"""One update of a score: the objective along its own flow, its gradient, and the optimiser's step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ..._types import Key, Points, Scalar, Weights
from ...objective import evaluate
from ...problem import Problem


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient was not finite for too many epochs in a row."""


class TrainingState(eqx.Module):
    """All that changes from epoch to epoch, so that a run can go on from it."""

    parameters: PyTree
    optimizer: PyTree
    epoch: Array
    skipped: Array
    skipped_in_a_row: Array

    @staticmethod
    def initial(parameters: PyTree, optimizer: optax.GradientTransformation) -> "TrainingState":
        # Three arrays, not one thrice: their buffers are donated separately.
        return TrainingState(
            parameters, optimizer.init(parameters), *(jnp.zeros((), int) for _ in range(3))
        )


class Report(eqx.Module):
    """What one epoch says about itself."""

    loss: Scalar
    gradient_norm: Scalar
    masked_fraction: Scalar
    minimum_determinant: Scalar
    accepted: Array


@eqx.filter_jit
def update(
    state: TrainingState,
    fixed: PyTree,
    problem: Problem,
    method: Any,
    x0: Points,
    weights: Weights,
    key: Key,
) -> tuple[TrainingState, Report]:
    """One epoch. Where the loss or its gradient is not finite, nothing but the counters changes."""

    def loss(parameters: PyTree) -> tuple[Scalar, Any]:
        score = eqx.combine(parameters, fixed)
        report = evaluate(
            problem,
            score,
            method.objective,
            x0,
            weights,
            method.solver,
            method.steps,
            times=method.times,
            key=key,
        )
        return report.value, report

    (value, report), gradient = jax.value_and_grad(loss, has_aux=True)(state.parameters)
    norm = optax.tree.norm(gradient)
    optimizer = optax.with_extra_args_support(method.optimizer)
    changes, optimizer_state = optimizer.update(
        gradient,
        state.optimizer,
        state.parameters,
        value=value,
        grad=gradient,
        value_fn=lambda parameters: loss(parameters)[0],
    )
    parameters = optax.apply_updates(state.parameters, changes)
    accepted = jnp.isfinite(value) & jnp.isfinite(norm)
    parameters, optimizer_state = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old),
        (parameters, optimizer_state),
        (state.parameters, state.optimizer),
    )
    refused = 1 - accepted.astype(int)
    state = TrainingState(
        parameters=parameters,
        optimizer=optimizer_state,
        epoch=state.epoch + 1,
        skipped=state.skipped + refused,
        skipped_in_a_row=(state.skipped_in_a_row + 1) * refused,
    )
    return state, Report(value, norm, report.masked_fraction, report.minimum_determinant, accepted)


class Devices:
    """All visible devices, over which particles are divided; everything else is on each."""

    def __init__(self) -> None:
        devices = jax.devices()
        self.number = len(devices)
        mesh = jax.sharding.Mesh(np.array(devices), ("particles",))
        self._divided = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("particles"))
        self._copied = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def divide(self, x0: Points, weights: Weights) -> tuple[Points, Weights]:
        """The particles, as many on each device, filled up with some that weigh nothing."""
        missing = -x0.shape[0] % self.number
        if missing:
            x0 = jnp.concatenate([x0, jnp.broadcast_to(x0[-1], (missing, x0.shape[1]))])
            weights = jnp.concatenate([weights, jnp.zeros(missing, weights.dtype)])
        return jax.device_put(x0, self._divided), jax.device_put(weights, self._divided)

    def copy(self, tree: PyTree) -> PyTree:
        """Every array on every device."""
        arrays, others = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.device_put(arrays, self._copied), others)

    def gather(self, tree: PyTree) -> PyTree:
        """Every array on the first device alone."""
        arrays, others = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.device_put(arrays, jax.devices()[0]), others)

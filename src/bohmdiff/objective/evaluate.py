"""An objective along the flow of a score: its mean over time."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._check import is_concrete
from .._types import Key, Points, Scalar, Times, Weights
from ..flow import HalfState, bohmian_terms, initial_halves, integrate
from ..network import held_fixed
from ..problem import Problem
from ..score import Score, as_score
from .objective import AbstractObjective, Ensemble, random_directions

# The memory for the states from which the reverse pass starts.
_CHECKPOINT_BYTES = 2**28


class ObjectiveReport(eqx.Module):
    r"""An objective along the flow of a score.

    ```python
    report = bd.fisher_divergence(
        problem,
        score,
        x0,
        weights=weights,
        steps=16,
        solver=bd.VelocityVerlet(),
    )
    print(report)
    worst = report.ts[jnp.argmax(report.per_time)]
    ```

    - `value`: its mean over time, a scalar.
    - `ts`, `per_time`: its value at every step, shape `(steps + 1,)` each; zero at the steps that a random
        subset left out.
    - `masked_fraction`: the fraction of the weight, averaged over time, that was left out because the flow
        is close to a caustic there, with $|\det F|$ below the threshold.
    - `minimum_determinant`: the smallest $|\det F|$ of any particle at any step, before masking.
    """

    value: Scalar
    ts: Times
    per_time: Times
    masked_fraction: Scalar
    minimum_determinant: Scalar

    def __str__(self) -> str:
        if not is_concrete(self):
            return repr(self)
        return (
            f"{self.value:.1e} on average over {self.ts.size} times, {jnp.max(self.per_time):.1e} at most; "
            f"{self.masked_fraction:.1%} left out; smallest |det F| {self.minimum_determinant:.2g}"
        )


@eqx.filter_jit
def evaluate(
    problem: Problem,
    score: Score,
    objective: AbstractObjective,
    x0: Points,
    weights: Weights,
    solver: diffrax.AbstractSolver,
    steps: int,
    *,
    times: int | None = None,
    key: Key | None = None,
) -> ObjectiveReport:
    """An objective at every step, or at a random subset of `times` of them, and its mean over time.

    The mean uses the trapezoidal rule; a random subset gives an unbiased estimate of it.
    """
    score = as_score(score)
    directions_key, times_key = (None, None) if key is None else jax.random.split(key)
    directions = random_directions(objective, x0, directions_key)
    chosen = _chosen(steps, times, times_key)
    # Particles that only fill up the devices have zero weight.
    counted = (weights > 0).astype(weights.dtype)
    equal_weights = counted / jnp.sum(counted)

    def kept_ensemble(position: HalfState) -> tuple[Ensemble, Scalar, Scalar]:
        position, kept, determinant = masked(objective, position)
        held = jnp.where(kept, weights, 0)
        ensemble = Ensemble(
            x0, position, held / jnp.sum(held), kept, directions, determinant, equal_weights
        )
        smallest = jnp.min(jnp.abs(jax.lax.stop_gradient(determinant)))
        return ensemble, jnp.sum(jnp.where(kept, 0, weights)), smallest

    def at(index: Any, t: Any, position: HalfState) -> tuple[Scalar, Scalar, Scalar]:
        ensemble, left_out, determinant = kept_ensemble(position)
        if chosen is None:
            return objective.at(problem, score, t, ensemble), left_out, determinant
        nothing = jnp.zeros((), x0.dtype)
        value = jax.lax.cond(
            chosen[index], lambda e: objective.at(problem, score, t, e), lambda e: nothing, ensemble
        )
        return value, left_out, determinant

    def index_of(t: Any) -> Any:
        return jnp.round((t - problem.t0) / (problem.t1 - problem.t0) * steps).astype(int)

    moving = score if objective.through_flow else held_fixed(score)
    keep = (lambda t, position: at(index_of(t), t, position)) if objective.through_flow else _itself
    start = initial_halves(problem, x0, directions=directions)
    solution = integrate(
        problem,
        bohmian_terms(problem, moving, directions),
        start,
        diffrax.SaveAt(t0=True, steps=True, fn=lambda t, y, args: keep(t, y[0])),
        solver,
        steps,
        checkpoints=checkpoints_for(start, steps),
    )
    assert solution.ts is not None
    assert solution.ys is not None
    if objective.through_flow:
        per_time, left_out, determinant = solution.ys
    else:
        # No derivative goes through the flow, so the reverse pass skips its steps.
        fixed = jax.lax.stop_gradient((jnp.arange(steps + 1), solution.ts, solution.ys))
        per_time, left_out, determinant = jax.lax.map(jax.checkpoint(lambda args: at(*args)), fixed)
    share = 1.0 if times is None else times / (steps + 1)
    return ObjectiveReport(
        value=time_mean(per_time) / share,
        ts=solution.ts,
        per_time=per_time,
        masked_fraction=time_mean(left_out),
        minimum_determinant=jnp.min(determinant),
    )


def masked(
    objective: AbstractObjective, position: HalfState
) -> tuple[HalfState, Bool[Array, " M"], Float[Array, " M"]]:
    """The particles, with harmless tangents for those close to a caustic; the mask of the others; and det F of
    all."""
    assert position.tangent is not None
    determinant = jnp.linalg.det(position.tangent)
    limit = objective.min_determinant
    # A lost particle is kept, so that the value becomes non-finite.
    kept = ~(jnp.abs(jax.lax.stop_gradient(determinant)) < (0 if limit is None else limit))
    # Where F is singular, neither its inverse nor the inverse's derivative may enter, not even times zero.
    identity = jnp.eye(position.motion.shape[1], dtype=position.motion.dtype)
    position = position._replace(
        tangent=jnp.where(kept[:, None, None], position.tangent, identity),
        second=None
        if position.second is None
        else jnp.where(kept[:, None, None, None], position.second, 0),
    )
    return position, kept, determinant


def _chosen(steps: int, times: int | None, key: Key | None) -> Array | None:
    """A mask of the `steps + 1` times: true for those that count."""
    if times is None:
        return None
    if key is None:
        raise ValueError("A random subset of times needs a key: pass key=jax.random.key(0).")
    order = jax.random.permutation(key, steps + 1)
    return order < times


def checkpoints_for(state: tuple[HalfState, HalfState], steps: int) -> int | None:
    """The number of states from which the reverse pass starts: all if they fit, so that no step is taken twice;
    otherwise the number that fits, or `None` if about the square root of twice the steps is more."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    fitting = min(_CHECKPOINT_BYTES // size, steps)
    return fitting if fitting == steps or fitting**2 > 2 * steps else None


def _itself(t: Any, position: HalfState) -> HalfState:
    return position


def time_mean(values: Float[Array, " K"]) -> Scalar:
    """The mean over equal steps by the trapezoidal rule."""
    return 0.5 * jnp.mean(values[1:] + values[:-1])

"""For Gauss-Newton steps: the gradients of single particles' residuals in the parameters of a score."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._types import Key, Points, Scalar, Vector, Weights
from ..flow import HalfState, bohmian_terms, initial_halves, integrate
from ..problem import Problem
from .evaluate import checkpoints_for, masked
from .objective import AbstractObjective, Ensemble, random_directions, squared_residuals, squared_terms


def residual_rows(
    problem: Problem,
    parameters: PyTree,
    fixed: PyTree,
    objective: AbstractObjective,
    x0: Points,
    weights: Weights,
    solver: diffrax.AbstractSolver,
    steps: int,
    *,
    projections: int,
    key: Key,
) -> PyTree:
    r"""Gradients of random combinations of each particle's residuals with respect to the parameters.

    With the residuals $r_{ik}$ of particle $i$ at all times, whose squares sum to the objective, and random
    signs $\xi$, row $(i, n)$ is $N^{-1/2} \sum_k \xi_{nik}\, \partial_\theta r_{ik}$ for $N$ projections, so that
    the mean of the Gram matrix $A^\top A$ is $J^\top J$.

    **Returns:** a tree like `parameters`, every array with a first axis of length `M * projections`.

    **Raises:** `ValueError` for an objective that has no residuals.
    """
    if not squared_terms(objective):
        raise ValueError(
            "Gauss-Newton steps need an objective that is a sum of squares over single particles, such as "
            f"FisherDivergence or DirectionalDivergence, or a sum with one, but {objective!r} was given."
        )
    directions_key, signs_key = jax.random.split(key)
    directions = random_directions(objective, x0, directions_key)
    each = 0 if directions is not None and directions.ndim == 3 else None
    equal_weight = 1 / jnp.sum(weights > 0).astype(weights.dtype)
    checkpoints = checkpoints_for(initial_halves(problem, x0, directions=directions), steps)
    ends = jnp.ones(steps + 1, x0.dtype).at[jnp.array([0, -1])].set(0.5)
    share = jnp.sqrt(ends / steps)[:, None]

    def residuals_of(
        parameters: PyTree, start: Vector, weight: Scalar, directions: Any
    ) -> Float[Array, "K components"]:
        """All residuals of one particle."""
        score = eqx.combine(parameters, fixed)
        start, directions = start[None], directions if each is None else directions[None]

        def save(t: Any, y: tuple[HalfState, HalfState], args: Any) -> Float[Array, " components"]:
            position, kept, determinant = masked(objective, y[0])
            one = Ensemble(
                start,
                position,
                jnp.where(kept, weight, 0),
                kept,
                directions,
                determinant,
                jnp.where(weight > 0, equal_weight, 0)[None],
            )
            return squared_residuals(objective, problem, score, t, one)[0]

        solution = integrate(
            problem,
            bohmian_terms(problem, score, directions),
            initial_halves(problem, start, directions=directions),
            diffrax.SaveAt(t0=True, steps=True, fn=save),
            solver,
            steps,
            checkpoints=checkpoints,
        )
        assert solution.ys is not None
        return share * solution.ys

    def rows_of(start: Vector, weight: Scalar, directions: Any, key: Key) -> PyTree:
        values, pull = jax.vjp(lambda p: residuals_of(p, start, weight, directions), parameters)
        signs = jax.random.rademacher(key, (projections, *values.shape), values.dtype)
        return jax.vmap(lambda one: pull(one)[0])(signs / projections**0.5)

    keys = jax.random.split(signs_key, x0.shape[0])
    rows = jax.vmap(rows_of, in_axes=(0, 0, each, 0))(x0, weights, directions, keys)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)

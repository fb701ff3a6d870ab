"""Steps of second order, as a transformation of gradients for optax."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._check import as_float, as_positive_integer
from .._precision import in_full_precision


class GaussNewtonState(NamedTuple):
    """How many steps were taken, and the running mean of the matrix."""

    steps: Array
    matrix: Float[Array, "P P"]


def scale_by_gauss_newton(
    damping: float = 1e-5, decay: float = 0.9, projections: int = 2
) -> optax.GradientTransformationExtraArgs:
    r"""Gauss-Newton steps: an optax transformation, to be chained with schedules and clipping.

    It works in every [`Training`][bohmdiff.Training] whose loss is a sum of squares of residuals: that of
    [`SelfConsistentScoreMatching`][bohmdiff.SelfConsistentScoreMatching] with a
    [`FisherDivergence`][bohmdiff.FisherDivergence] or another
    [`AbstractLeastSquares`][bohmdiff.AbstractLeastSquares] objective, and those of
    [`DeepStochasticMechanics`][bohmdiff.DeepStochasticMechanics] and
    [`PhysicsInformedNetwork`][bohmdiff.PhysicsInformedNetwork]. The default optimizers of all three use it.

    With the residuals $r$ and their Jacobian $J$ in the parameters, a step is
    $(J^\top J + \lambda)^{-1} \tfrac12 \nabla L$: a rate of 1 would solve the linearised problem. Each particle
    contributes random combinations of its residuals, each for about the cost of one more gradient, which makes
    $J^\top J$ right in the mean. A running mean over epochs makes up for the small number of combinations.

    ```python
    rate = optax.warmup_cosine_decay_schedule(0.1, 0.5, 5, 60, 0.01)
    optimizer = optax.chain(
        bd.scale_by_gauss_newton(),
        optax.clip_by_global_norm(6.0),
        optax.scale_by_learning_rate(rate),
    )
    training = bd.Training(optimizer, epochs=60)
    ```

    The matrix has the square of the number of parameters as entries and is factorised in every epoch: use it for
    networks of up to several thousand parameters.

    **Arguments:**

    - `damping`: $\lambda$, positive: larger makes steps shorter where the particles say little.
    - `decay`: of the running mean, from 0 (this epoch's particles only) to below 1.
    - `projections`: how many random combinations each particle contributes in an epoch.

    **Units:** of the parameters, which have none.

    **Returns:** an optax transformation. Its `update` needs `residual_rows`, which the training passes to it.

    **Raises:** `ValueError` for options that are not allowed, and in training for an objective that is not a
    sum of squares over single particles.

    ??? cite "Reference"

        G. Goldshlager, N. Abrahamsen and L. Lin, *A Kaczmarz-inspired approach to accelerate the optimization
        of neural network wavefunctions*, J. Comput. Phys. 516, 113351 (2024), for running means of such
        matrices from few samples.
    """
    damping, decay = as_float(damping, "damping"), as_float(decay, "decay")
    if not 0 < damping < math.inf:
        raise ValueError(
            f"damping must be positive, but {damping!r} was given. Pass a small number such as 1e-5."
        )
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be at least 0 and below 1, but {decay!r} was given.")
    projections = as_positive_integer(projections, "projections", "Pass a number of combinations.")

    def init(params: PyTree) -> GaussNewtonState:
        flat, _ = ravel_pytree(params)
        return GaussNewtonState(jnp.zeros((), int), jnp.zeros((flat.size, flat.size), flat.dtype))

    @in_full_precision
    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        residual_rows: Callable[[int], PyTree] | None = None,
        **_: Any,
    ) -> tuple[PyTree, GaussNewtonState]:
        if residual_rows is None:
            raise ValueError(
                "scale_by_gauss_newton needs residual_rows, which a training passes to its optimizer. Use it in "
                "bd.Training(optimizer, epochs=...), alone or in optax.chain."
            )
        gradient, unravel = ravel_pytree(updates)
        rows = jax.vmap(lambda row: ravel_pytree(row)[0])(residual_rows(projections))
        matrix = decay * state.matrix + (1 - decay) * rows.T @ rows
        steps = state.steps + 1
        mean = matrix / (1 - decay ** steps.astype(matrix.dtype))
        damped = lx.MatrixLinearOperator(
            mean + damping * jnp.eye(gradient.size, dtype=gradient.dtype), lx.positive_semidefinite_tag
        )
        step = lx.linear_solve(damped, 0.5 * gradient, lx.Cholesky(), throw=False).value
        return unravel(step), GaussNewtonState(steps, matrix)

    return optax.GradientTransformationExtraArgs(init, update)

"""The law for scores."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..network import AbstractWithDerivatives, AbstractWithPullback, local_derivatives, pullback
from ..network.derivatives import differentiated
from ..score import AbstractScore, Score, as_score, has_log_density, scalar_of
from .law import agree, check_call, check_ladder, fail, first, places, point

_LAW = "check_score"
# Derivatives of the score: two in the force, three in tangents, four in the Fisher divergence.
_ORDERS = {"force": 2, "tangents": 3, "fisher": 4}
_WORDS = ("the first derivative", "the second derivative", "the third derivative", "the fourth derivative")
_MASSES = (1.0, 0.7, 1.6, 2.3)


def check_score(
    score: Score,
    dimension: int,
    *,
    times: tuple[float, float] = (0.0, 1.0),
    box: float = 2.0,
    needs: Literal["force", "tangents", "fisher"] = "fisher",
    gradient: bool = True,
) -> None:
    r"""Raises unless a score fulfils the assumptions of the flow and the objectives.

    It must return a finite real vector for one particle, in the precision of its input. The derivatives that its
    use `needs` must be finite and agree with finite differences of one another. Its Jacobian must be symmetric,
    as for any gradient. The methods that its base classes declare (`log_density`, `derivatives`, `pullback`) must
    match the score. It must return the same values under `jax.jit` and `jax.vmap`.

    ```python
    score = bd.GradientScore(lambda t, x: -0.5 * jnp.sum(x**2) / (1 + t**2))
    bohmdiff.testing.check_score(score, dimension=2)
    ```

    **Arguments:**

    - `score`: a score, a function `s(t, x)` from and to shape `(d,)`, or a solution.
    - `dimension`: `d`.
    - `times`, `box`: where it is checked, as in [`check_potential`][bohmdiff.testing.check_potential].
    - `needs`: `"force"` (trajectories), `"tangents"` (densities, `LogDensityVariance`) or `"fisher"`
        (`FisherDivergence`): two, three or four derivatives.
    - `gradient`: whether the score must be curl-free. Pass `False` if it is not meant to be.

    **Raises:** [`LawError`][bohmdiff.testing.LawError], whose message has code that reproduces the failure at
    the simplest place where it was found.
    """
    if needs not in _ORDERS:
        raise ValueError(f"needs must be one of {list(_ORDERS)}, but {needs!r} was given.")
    score, where = as_score(score), places(dimension, times, box)
    check_call(_LAW, "score", score, where, (dimension,))
    check_ladder(_LAW, "score", lambda t, x: score(t, x), where, _WORDS[: _ORDERS[needs]])
    if gradient:
        _check_curl(score, where)
    _check_declared(score, where, _ORDERS[needs] - 2)


def _check_curl(score: AbstractScore, where: Any) -> None:
    jacobian = np.asarray(
        jax.jit(jax.vmap(jax.jacfwd(lambda t, x: score(t, x), argnums=1)))(where.t, where.x)
    )
    curl = np.abs(jacobian - np.swapaxes(jacobian, 1, 2))
    allowed = 1e4 * float(jnp.finfo(where.x.dtype).eps) * (1 + np.max(np.abs(jacobian)))
    index = first(~(curl <= allowed))
    if index is not None:
        fail(
            _LAW,
            "the score is not a gradient: its Jacobian is not symmetric. Write it as GradientScore(scalar), or "
            "pass gradient=False if that is intended",
            f"jax.jacfwd(score, argnums=1)({point(where, index)})",
            jacobian=jacobian[index],
        )


def _check_declared(score: AbstractScore, where: Any, order: int) -> None:
    """Checks what a score declares about itself against differentiation."""
    inverse_mass = 1 / jnp.resize(jnp.array(_MASSES, where.x.dtype), where.x.shape[1])

    def on_all(function: Callable[..., Any]) -> Any:
        return jax.jit(jax.vmap(function))(where.t, where.x, where.along)

    if has_log_density(score):
        log_density = scalar_of(score)
        agree(
            _LAW,
            "the gradient of its log_density is not the score",
            lambda index: (
                f"t, x = {point(where, index)}\njax.grad(score.log_density, argnums=1)(t, x), score(t, x)"
            ),
            where,
            gradient=on_all(lambda t, x, u: jax.grad(log_density, argnums=1)(t, x)),
            score=on_all(lambda t, x, u: score(t, x)),
        )
    if isinstance(score, AbstractWithDerivatives):
        agree(
            _LAW,
            "its derivatives(...) are not those of the score",
            lambda index: f"score.derivatives({point(where, index)}, {inverse_mass!r}, {order})",
            where,
            offered=on_all(lambda t, x, u: local_derivatives(score, t, x, inverse_mass, order)),
            differentiated=on_all(lambda t, x, u: differentiated(score, t, x, inverse_mass, order)),
        )

    def pulled(t: Array, x: Array, u: Array) -> tuple[Array, ...]:
        found = pullback(score, t, x, inverse_mass)
        return found.score, found.divergence, found.pull(u)

    def expected(t: Array, x: Array, u: Array) -> tuple[Array, ...]:
        (local,) = differentiated(score, t, x, inverse_mass, 0)
        pull = local.divergence_gradient + (inverse_mass * u) @ local.jacobian
        return local.score, inverse_mass @ jnp.diagonal(local.jacobian), pull

    if isinstance(score, AbstractWithPullback):
        agree(
            _LAW,
            "its pullback(...) is not that of the score",
            lambda index: f"score.pullback({point(where, index)}, {inverse_mass!r})",
            where,
            offered=on_all(pulled),
            differentiated=on_all(expected),
        )

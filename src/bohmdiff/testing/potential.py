"""The law for potentials."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Scalar, Time, Vector
from ..hamiltonian import AbstractSeparablePotential
from .law import Places, agree, check_call, check_ladder, fail, places, point

_LAW = "check_potential"
_WORDS = ("the gradient", "the second derivative", "the third derivative")


def check_potential(
    potential: Callable[[Time, Vector], Scalar],
    dimension: int,
    *,
    times: tuple[float, float] = (0.0, 1.0),
    box: float = 2.0,
    time_dependent: bool | None = None,
) -> None:
    r"""Raises unless a potential fulfils the assumptions of all methods.

    It must return a finite real scalar for one particle, in the precision of its input. Its derivatives up to
    the third, which tangents of the flow need, must be finite and agree with finite differences of one another.
    It must return the same values under `jax.jit` and `jax.vmap`, with a time argument that may be traced. If it
    is an `AbstractSeparablePotential`, it must be the sum of its terms.

    ```python
    bohmdiff.testing.check_potential(
        lambda t, x: jnp.sum(x**4) - jnp.cos(t) * x[0], dimension=2
    )
    ```

    **Arguments:**

    - `potential`: `V(t, x) -> scalar`, with `x` of shape `(d,)`.
    - `dimension`: `d`.
    - `times`, `box`: where it is checked: at the start, the middle and the end of the times, at 0, at units
        and halves of `box` along the axes, and at 32 points with every coordinate between `-box` and `box`.
    - `time_dependent`: whether the values must, or must not, depend on time; not checked if not given.

    **Raises:** [`LawError`][bohmdiff.testing.LawError], whose message has code that reproduces the failure at
    the simplest place where it was found.

    The tolerance of the finite differences depends on the precision in use: with 64 bits (`jax_enable_x64`) the
    check finds much smaller errors.
    """
    where = places(dimension, times, box)
    check_call(_LAW, "potential", potential, where, ())
    check_ladder(_LAW, "potential", potential, where, _WORDS)
    reverse = jax.jit(jax.vmap(lambda t, x, u: jax.grad(potential, argnums=1)(t, x) @ u))
    forward = jax.jit(jax.vmap(lambda t, x, u: jax.jvp(lambda y: potential(t, y), (x,), (u,))[1]))
    agree(
        _LAW,
        "its gradients by reverse and by forward differentiation differ",
        lambda index: (
            f"t, x = {point(where, index)}\njax.grad(potential, argnums=1)(t, x), "
            "jax.jacfwd(potential, argnums=1)(t, x)"
        ),
        where,
        reverse=reverse(where.t, where.x, where.along),
        forward=forward(where.t, where.x, where.along),
    )
    if isinstance(potential, AbstractSeparablePotential):
        _check_terms(potential, where, dimension)
    if time_dependent is not None:
        _check_time(potential, where.x, times, time_dependent)


def _check_terms(potential: AbstractSeparablePotential, where: Places, dimension: int) -> None:
    terms = potential.separable_terms(dimension)
    agree(
        _LAW,
        "the sum of its separable_terms is another function",
        lambda index: (
            f"t, x = {point(where, index)}\npotential(t, x), "
            f"sum(term(t, x) for term in potential.separable_terms({dimension}))"
        ),
        where,
        whole=jax.vmap(potential)(where.t, where.x),
        terms=jax.vmap(lambda t, x: sum(term(t, x) for term in terms))(where.t, where.x),
    )


def _check_time(potential: Callable, x: jax.Array, times: tuple[float, float], dependent: bool) -> None:
    start, end = (jax.vmap(potential, in_axes=(None, 0))(jnp.asarray(t, x.dtype), x) for t in times)
    changes = np.asarray(start != end)
    if dependent and not changes.any():
        fail(
            _LAW,
            "declared to depend on time, but the same at both times everywhere",
            f"x = jnp.array({x[-1].tolist()})\npotential({times[0]}, x), potential({times[1]}, x)",
        )
    if not dependent and changes.any():
        index = int(np.flatnonzero(changes)[0])
        fail(
            _LAW,
            "declared not to depend on time, but it does",
            f"x = jnp.array({x[index].tolist()})\npotential({times[0]}, x), potential({times[1]}, x)",
            at_the_start=start[index],
            at_the_end=end[index],
        )

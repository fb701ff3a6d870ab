"""The Schrödinger equation in terms of the osmotic and the current velocity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .._check import check_output
from .._precision import in_full_precision
from .._types import Field, Scalar, Time, Vector
from ..flow import check_point
from ..hamiltonian import Hamiltonian


@in_full_precision
def velocity_residuals(
    hamiltonian: Hamiltonian, osmotic: Field, current: Field, t: Time, x: Vector
) -> tuple[Vector, Vector]:
    r"""The residuals of two velocity fields in the Schrödinger equation at one point.

    $$r^u = \partial_t u + \frac1m\nabla\Big[\sum_j m_j u_j v_j + \frac\hbar2\,\mathrm{div}\,v\Big],$$

    $$r^v = \partial_t v + \frac1m\nabla V - (u\cdot\nabla)u + (v\cdot\nabla)v
    - \frac{\hbar}{2m}\nabla\,\mathrm{div}\,u$$

    ```python
    velocities = bd.Velocities(problem, solution.score, solution.velocity)
    bd.velocity_residuals(
        hamiltonian, velocities.osmotic, velocities.velocity, t, x
    )
    ```

    Both vanish for the velocities of a nodeless $\psi$. The gradients of both divergences come from one reverse
    pass through `d` forward passes, instead of `d³` derivatives.

    **Arguments:**

    - `hamiltonian`: for potential, masses and $\hbar$.
    - `osmotic`, `current`: $u$ and $v$, any functions of a time and one point, of shape `(d,)`, not necessarily
        gradients.
    - `t`, `x`: a time and a point, shape `(d,)`.

    **Units:** length / time².

    **Returns:** $r^u$ and $r^v$, shape `(d,)` each.

    **Raises:** `ValueError` for bad input.

    ??? cite "Reference"

        E. Orlova, A. Ustimenko, R. Jiang, P. Y. Lu and R. Willett, *Deep stochastic mechanics*, ICML (2024).
    """
    t, x = check_point(hamiltonian, osmotic, t, x)
    check_output(current, (t, x), x.shape, "current")
    check_output(hamiltonian.potential, (t, x), (), "potential")
    return residuals_at(hamiltonian, osmotic, current, t, x)


def residuals_at(
    hamiltonian: Hamiltonian, osmotic: Field, current: Field, t: Scalar, x: Vector
) -> tuple[Vector, Vector]:
    """The residuals, without a check of the arguments."""
    d = x.shape[0]
    mass, hbar = hamiltonian.masses(d), hamiltonian.hbar

    def both(t: Time, y: Vector) -> Array:
        return jnp.concatenate([osmotic(t, y), current(t, y)])

    def scalars(y: Vector) -> tuple[tuple[Scalar, Scalar], tuple[Array, Array]]:
        """The scalars whose gradients are needed, and the fields with their derivatives."""
        slopes, fields = _jacobian(lambda z: both(t, z), y)
        u, v = fields[:d], fields[d:]
        density = mass * u @ v + 0.5 * hbar * jnp.trace(slopes[d:])
        phase = hamiltonian.potential(t, y) - 0.5 * hbar * jnp.trace(slopes[:d])
        return (density, phase), (fields, slopes)

    _, pull, (fields, slopes) = jax.vjp(scalars, x, has_aux=True)
    one, zero = jnp.ones((), x.dtype), jnp.zeros((), x.dtype)
    (of_density,), (of_phase,) = pull((one, zero)), pull((zero, one))
    _, rates = jax.jvp(lambda s: both(s, x), (t,), (jnp.ones_like(t),))
    u, v = fields[:d], fields[d:]
    convection = slopes[d:] @ v - slopes[:d] @ u
    return rates[:d] + of_density / mass, rates[d:] + of_phase / mass + convection


def _jacobian(function: Callable[[Vector], Array], x: Vector) -> tuple[Array, Array]:
    """The Jacobian and the value."""
    value, push = jax.linearize(function, x)
    return jax.vmap(push, out_axes=1)(jnp.eye(x.shape[0], dtype=x.dtype)), value

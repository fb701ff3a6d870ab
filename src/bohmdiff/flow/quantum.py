"""The quantum potential of a score, and the force that it exerts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Matrix, Points, Scalar, Time, Vector
from ..hamiltonian import Hamiltonian
from ..score import HermiteExpansion, LocalScore, local_derivatives

Score = Callable[[Time, Vector], Vector]


def quantum_potential(hamiltonian: Hamiltonian, score: Score, t: Time, x: Vector) -> Scalar:
    r"""$Q = -\sum_i \frac{\hbar^2}{4 m_i}\left(\partial_i s_i + \tfrac12 s_i^2\right)$ at one point.

    With $s = \nabla\ln\rho$ it equals $-\sum_i \frac{\hbar^2}{2 m_i} \partial_i^2\sqrt\rho / \sqrt\rho$
    (Bohm, Phys. Rev. 85, 166 (1952)).

    ```python
    bd.quantum_potential(hamiltonian, lambda t, x: -2.0 * x, 0.0, jnp.zeros(3))
    ```

    **Arguments:**

    - `hamiltonian`: for the masses and ħ.
    - `score`: any `s(t, x) -> (d,)`, differentiable.
    - `t`, `x`: a time and one position of shape `(d,)`.

    **Returns:** a scalar, in units of energy.
    """
    s = score(t, x)
    own_slopes = jnp.diagonal(jax.jacfwd(score, argnums=1)(t, x))
    return _potential(s, own_slopes, 1 / hamiltonian.masses(x.shape[0]), hamiltonian.hbar)


def acceleration(hamiltonian: Hamiltonian, score: Score, t: Time, x: Vector) -> Vector:
    r"""$-\nabla(V + Q) / m$ at one point, shape `(d,)`."""
    return effective_force(hamiltonian, score, t, x)[1] / hamiltonian.mass


def effective_force(hamiltonian: Hamiltonian, score: Score, t: Time, x: Vector) -> tuple[Scalar, Vector]:
    """V + Q and minus its gradient at one point."""
    inverse_mass = 1 / hamiltonian.masses(x.shape[0])
    local, _ = local_derivatives(score, t, x, inverse_mass)
    potential, gradient = jax.value_and_grad(hamiltonian.potential, argnums=1)(t, x)
    quantum, force = _quantum(local, inverse_mass, hamiltonian.hbar)
    return potential + quantum, force - gradient


def effective_force_and_slope(
    hamiltonian: Hamiltonian, score: Score, t: Time, x: Vector
) -> tuple[Scalar, Vector, Matrix]:
    """V + Q at one point, minus its gradient, and the derivative of that, shape `(d, d)`."""
    inverse_mass = 1 / hamiltonian.masses(x.shape[0])

    def classical(y: Vector) -> tuple[Scalar, Vector]:
        return jax.value_and_grad(hamiltonian.potential, argnums=1)(t, y)

    def classical_along(axis: Vector):
        (potential, gradient), (_, slope) = jax.jvp(classical, (x,), (axis,))
        return potential, gradient, slope

    def quantum_along(change: LocalScore):
        return jax.jvp(lambda here: _quantum(here, inverse_mass, hamiltonian.hbar)[1], (local,), (change,))[
            1
        ]

    potential, gradient, curvature = jax.vmap(classical_along, out_axes=(None, None, 1))(
        jnp.eye(x.shape[0], dtype=x.dtype)
    )
    local, slopes = local_derivatives(score, t, x, inverse_mass)
    quantum, force = _quantum(local, inverse_mass, hamiltonian.hbar)
    slope = jax.vmap(quantum_along, in_axes=-1, out_axes=-1)(slopes)
    return potential + quantum, force - gradient, slope - curvature


def _quantum(local: LocalScore, inverse_mass: Vector, hbar: Scalar) -> tuple[Scalar, Vector]:
    """Q and minus its gradient."""
    s = local.score
    force = 0.25 * hbar**2 * (local.divergence_gradient + (inverse_mass * s) @ local.jacobian)
    return _potential(s, jnp.diagonal(local.jacobian), inverse_mass, hbar), force


def _potential(s: Vector, own_slopes: Vector, inverse_mass: Vector, hbar: Scalar) -> Scalar:
    """Q of a score and of the derivative of each of its components along its own coordinate."""
    return -0.25 * hbar**2 * (inverse_mass @ (own_slopes + 0.5 * s**2))


def hermite_acceleration(
    hamiltonian: Hamiltonian, expansion: HermiteExpansion, t: Time, x: Points
) -> Points:
    r"""$-\nabla(V + Q) / m$ of a whole ensemble, shape `(M, d)`, with Q of an expansion in closed form."""
    classical = -jax.vmap(jax.grad(hamiltonian.potential, argnums=1), in_axes=(None, 0))(t, x)
    mass = hamiltonian.masses(x.shape[1])
    return (classical + expansion.quantum_force(x, mass, hamiltonian.hbar)) / mass

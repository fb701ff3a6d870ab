"""The quantum potential of a score, and the force that it exerts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .._types import Points, Scalar, Time, Vector
from ..hamiltonian import Hamiltonian
from ..score import HermiteExpansion

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
    return -0.25 * hamiltonian.hbar**2 * jnp.sum((own_slopes + 0.5 * s**2) / hamiltonian.mass)


def acceleration(hamiltonian: Hamiltonian, score: Score, t: Time, x: Vector) -> Vector:
    r"""$-\nabla(V + Q) / m$ at one point, shape `(d,)`."""
    return effective_force(hamiltonian, score, t, x)[1] / hamiltonian.mass


def effective_force(hamiltonian: Hamiltonian, score: Score, t: Time, x: Vector) -> tuple[Scalar, Vector]:
    """V + Q and minus its gradient at one point."""

    def effective_potential(y: Vector) -> Scalar:
        return hamiltonian.potential(t, y) + quantum_potential(hamiltonian, score, t, y)

    value, gradient = jax.value_and_grad(effective_potential)(x)
    return value, -gradient


def hermite_acceleration(
    hamiltonian: Hamiltonian, expansion: HermiteExpansion, t: Time, x: Points
) -> Points:
    r"""$-\nabla(V + Q) / m$ of a whole ensemble, shape `(M, d)`, with Q of an expansion in closed form."""
    classical = -jax.vmap(jax.grad(hamiltonian.potential, argnums=1), in_axes=(None, 0))(t, x)
    mass = hamiltonian.masses(x.shape[1])
    return (classical + expansion.quantum_force(x, mass, hamiltonian.hbar)) / mass

"""The quantum potential of a score, and the force that it exerts."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._check import as_real_array, check_output
from .._precision import in_full_precision
from .._types import Field, Points, Scalar, Time, Vector
from ..hamiltonian import Hamiltonian
from ..network import LocalScore, ladder, local_derivatives, pullback
from ..score import AbstractScore, HermiteExpansion, Score, as_score


@in_full_precision
def quantum_potential(hamiltonian: Hamiltonian, score: Score, t: Time, x: Vector) -> Scalar:
    r"""$Q = -\sum_i \frac{\hbar^2}{4 m_i}\left(\partial_i s_i + \tfrac12 s_i^2\right)$ at one point.

    With $s = \nabla\ln\rho$ it equals $-\sum_i \frac{\hbar^2}{2 m_i} \partial_i^2\sqrt\rho / \sqrt\rho$
    (Bohm, Phys. Rev. 85, 166 (1952)).

    ```python
    bd.quantum_potential(hamiltonian, lambda t, x: -2.0 * x, 0.0, x)
    ```

    **Arguments:**

    - `hamiltonian`: for the masses and ħ.
    - `score`: a score, a function `s(t, x) -> (d,)` or a solution.
    - `t`, `x`: a time and one position of shape `(d,)`.

    **Returns:** a scalar, in units of energy.

    **Raises:** `ValueError` if the score does not return shape `(d,)`.
    """
    score = as_score(score)
    t, x = check_point(hamiltonian, score, t, x)
    inverse_mass = 1 / hamiltonian.masses(x.shape[0])
    divergence = inverse_mass @ jnp.diagonal(jax.jacfwd(score, argnums=1)(t, x))
    return _potential(score(t, x), divergence, inverse_mass, hamiltonian.hbar)


@in_full_precision
def acceleration(hamiltonian: Hamiltonian, score: Score, t: Time, x: Vector) -> Vector:
    r"""$-\nabla(V + Q) / m$ at one point, shape `(d,)`.

    ```python
    bd.acceleration(hamiltonian, score, 0.5, x)
    ```

    **Arguments:**

    - `hamiltonian`: the potential $V$, masses and $\hbar$.
    - `score`: a score, a function `s(t, x) -> (d,)` or a solution.
    - `t`, `x`: a time and a point, shape `(d,)`.

    **Returns:** shape `(d,)`, in units of length / time².

    **Raises:** `ValueError` if the score does not return shape `(d,)`.
    """
    score = as_score(score)
    t, x = check_point(hamiltonian, score, t, x)
    check_output(hamiltonian.potential, (t, x), (), "potential")
    _, force = effective_force(hamiltonian, score, t, x)
    return force / hamiltonian.mass


def check_point(hamiltonian: Hamiltonian, score: Field, t: Time, x: Vector) -> tuple[Scalar, Vector]:
    """The time and the point as arrays, after a check that all four arguments are consistent."""
    if not isinstance(hamiltonian, Hamiltonian):
        raise ValueError(f"hamiltonian must be a Hamiltonian, but {hamiltonian!r} was given.")
    t, x = as_real_array(t, "t"), as_real_array(x, "x")
    if t.ndim != 0 or x.ndim != 1 or hamiltonian.mass.shape not in ((), x.shape):
        raise ValueError(
            f"t must be a number and x one point, with a coordinate for each mass, but shapes {t.shape} and "
            f"{x.shape} were given for masses of shape {hamiltonian.mass.shape}."
        )
    check_output(score, (t, x), x.shape, "score")
    return t, x


def effective_force(
    hamiltonian: Hamiltonian, score: AbstractScore, t: Time, x: Vector, order: int = 0
) -> tuple[Array, ...]:
    """V + Q at one point, the force -∇(V + Q), and the derivatives of the force up to `order`: 0, 1 or 2, each
    with one more axis."""
    inverse_mass, hbar = 1 / hamiltonian.masses(x.shape[0]), hamiltonian.hbar
    if order == 0:
        local = pullback(score, t, x, inverse_mass)
        s, divergence, forces = local.score, local.divergence, (local.quantum_force(hbar),)
    else:
        local = local_derivatives(score, t, x, inverse_mass, order)
        s, divergence = local[0].score, inverse_mass @ jnp.diagonal(local[0].jacobian)
        forces = _quantum_forces(local, inverse_mass, hbar)
    classical = ladder(lambda y: jax.value_and_grad(hamiltonian.potential, argnums=1)(t, y), x, order)
    potential = classical[0][0] + _potential(s, divergence, inverse_mass, hbar)
    return potential, *(force - gradient for force, (_, gradient) in zip(forces, classical, strict=True))


def _quantum_forces(local: tuple[LocalScore, ...], inverse_mass: Vector, hbar: Scalar) -> Iterator[Array]:
    r"""$-\nabla Q = \tfrac{\hbar^2}{4}(\nabla\,\mathrm{div}\,m^{-1}s + J^\top m^{-1}s)$ and its derivatives: the
    product rule for the second term."""
    s, jacobian, _ = zip(*local, strict=True)
    products = [jnp.einsum("i,i,ik->k", inverse_mass, s[0], jacobian[0])]
    if len(local) > 1:
        products.append(
            jnp.einsum("i,il,ik->kl", inverse_mass, s[1], jacobian[0])
            + jnp.einsum("i,i,ikl->kl", inverse_mass, s[0], jacobian[1])
        )
    if len(local) > 2:
        crossed = jnp.einsum("i,il,ikm->klm", inverse_mass, s[1], jacobian[1])
        products.append(
            jnp.einsum("i,ilm,ik->klm", inverse_mass, s[2], jacobian[0])
            + crossed
            + jnp.swapaxes(crossed, 1, 2)
            + jnp.einsum("i,i,iklm->klm", inverse_mass, s[0], jacobian[2])
        )
    for part, product in zip(local, products, strict=True):
        yield 0.25 * hbar**2 * (part.divergence_gradient + product)


def _potential(s: Vector, divergence: Scalar, inverse_mass: Vector, hbar: Scalar) -> Scalar:
    """Q from a score and its divergence with the inverse masses as weights."""
    return -0.25 * hbar**2 * (divergence + 0.5 * inverse_mass @ s**2)


def hermite_force(
    hamiltonian: Hamiltonian, expansion: HermiteExpansion, t: Time, x: Points
) -> tuple[Float[Array, " M"], Points]:
    r"""$V + Q$ and $-\nabla(V + Q) / m$ of a whole ensemble, shapes `(M,)` and `(M, d)`, with Q of an
    expansion in closed form."""
    both = jax.value_and_grad(hamiltonian.potential, argnums=1)
    potential, gradient = jax.vmap(both, in_axes=(None, 0))(t, x)
    mass = hamiltonian.masses(x.shape[1])
    quantum, force = expansion.quantum(x, mass, hamiltonian.hbar)
    return potential + quantum, (force - gradient) / mass[None]

"""The solution that a wave function is, given as a module."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex

from ..._types import Paths, Points, Scalar, Time, Times, Vector, Weights
from ...hamiltonian import Hamiltonian
from ...problem import Problem
from ...solution.solution import place
from .._field_solution import AbstractFieldSolution, moved

WaveFunction = Callable[..., Complex[Array, ""]]


class WaveVelocity(eqx.Module):
    r"""The osmotic or the current velocity of a wave function: real or imaginary part of
    $\tfrac\hbar m \nabla\psi / \psi$."""

    hamiltonian: Hamiltonian
    psi: WaveFunction
    kind: Literal["osmotic", "current"] = eqx.field(static=True)

    def __call__(self, t: Time, x: Vector) -> Vector:
        def parts(y: Vector) -> tuple[Array, Complex[Array, ""]]:
            value = self.psi(t, y)
            return parts_of(value), value

        gradients, value = jax.jacrev(parts, has_aux=True)(x)
        (real, imaginary), size = _relative(value)
        gradients = gradients / size
        if self.kind == "osmotic":
            gradient = real * gradients[0] + imaginary * gradients[1]
        else:
            gradient = real * gradients[1] - imaginary * gradients[0]
        return self.hamiltonian.hbar / self.hamiltonian.mass * gradient / (real**2 + imaginary**2)


def parts_of(value: Complex[Array, ""]) -> Array:
    """Real and imaginary part."""
    return jnp.stack([jnp.real(value), jnp.imag(value)])


def _relative(value: Complex[Array, ""]) -> tuple[Array, Scalar]:
    """Both parts, relative to the larger, whose squares are no numbers too small to be told from zero."""
    parts = parts_of(value)
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(parts)))
    return parts / size, size


class WaveFunctionSolution(AbstractFieldSolution):
    r"""A wave function as a module: what [`PhysicsInformedNetwork`][bohmdiff.PhysicsInformedNetwork] returns.

    ```python
    psi = bd.NeuralWaveFunction(problem, width=4, key=key)
    trained = bd.solve(problem, bd.PhysicsInformedNetwork(psi, epochs=2, particles=16), key=key)
    trained.wave_function(0.5, x), trained.velocity(0.5, x), trained.history["residual"]
    ```

    - `psi`: the wave function itself, a module: after training, the trained one.
    - `osmotic`, `current`: its velocities, real and imaginary part of $\tfrac\hbar m \nabla\psi / \psi$, as
        functions of a time and one point.
    - `position`: particles that moved with the current velocity, at the saved times, shape `(M, K, d)`.
    - `weights`: of the particles, shape `(M,)`.
    - `history`: of the training, an `xarray.Dataset` over `epoch`.

    Moments are those of the particles. The score is that of $|\psi|^2$, and $\ln\rho = \ln|\psi|^2$ as it is,
    which is normalised as well as ψ has been learned. The energy is
    $\langle \tfrac m2 (u^2 + v^2) + V \rangle$ with the osmotic and the current velocity of ψ.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    psi: WaveFunction
    osmotic: WaveVelocity
    current: WaveVelocity
    position: Paths
    weights: Weights
    _history: str = eqx.field(static=True)

    @staticmethod
    def of(
        problem: Problem,
        method: eqx.Module,
        ts: Times,
        psi: WaveFunction,
        x0: Points,
        weights: Weights,
        history: str,
    ) -> "WaveFunctionSolution":
        """The solution whose particles start at `x0`."""
        osmotic = WaveVelocity(problem.hamiltonian, psi, "osmotic")
        current = WaveVelocity(problem.hamiltonian, psi, "current")
        return WaveFunctionSolution(
            problem=problem,
            method=method,
            ts=ts,
            psi=psi,
            osmotic=osmotic,
            current=current,
            position=moved(problem, current, x0, ts),
            weights=weights,
            _history=history,
        )

    def log_density(self, t: Time, x: Vector) -> Scalar:
        parts, size = _relative(self.wave_function(t, x))
        return jnp.log(jnp.sum(parts**2)) + 2 * jnp.log(size)

    def wave_function(self, t: Time, x: Vector) -> Complex[Array, ""]:
        t, x = place(self.problem, t, x)
        return self.psi(t, x)

"""The solution from a wave function given as a module."""

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex

from ..._types import Field, Points, Scalar, Time, Times, Vector, Weights
from ...hamiltonian import Hamiltonian
from ...problem import Problem
from ...solution import Diagnostics, Particles
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
    """Both parts relative to the larger one, so that their squares do not underflow; and its size."""
    parts = parts_of(value)
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(parts)))
    return parts / size, size


class WaveFunctionSolution(AbstractFieldSolution):
    r"""A wave function as a module: what [`PhysicsInformedNetwork`][bohmdiff.PhysicsInformedNetwork] returns.

    ```python
    psi = bd.NeuralWaveFunction(problem, width=4, key=key)
    method = bd.PhysicsInformedNetwork(
        psi, training=bd.Training(epochs=2), particles=16
    )
    trained = bd.solve(problem, method, key=key)
    trained.wave_function(0.5, x), trained.velocity(0.5, x)
    trained.history["residual"]
    ```

    - `psi`: the trained wave function, as a module.
    - `osmotic`, `current`: its velocities, real and imaginary part of $\tfrac\hbar m \nabla\psi / \psi$, as
        functions of a time and one point.
    - `particles`: [`Particles`][bohmdiff.Particles] that moved with the current velocity, with the density and
        phase of ψ.
    - `history`: the log of the training, an `xarray.Dataset` over `epoch`.

    Moments are those of the particles. The score is that of $|\psi|^2$. The density $|\psi|^2$ is not
    normalised again: its norm is as accurate as ψ itself. The energy is
    $\langle \tfrac m2 (u^2 + v^2) + V \rangle$ with the osmotic and the current velocity of ψ.
    """

    problem: Problem
    method: eqx.Module
    ts: Times
    psi: WaveFunction
    osmotic: Field
    current: Field
    particles: Particles
    diagnostics: Diagnostics
    _history: dict[str, Array]

    @staticmethod
    def of(
        problem: Problem,
        method: eqx.Module,
        ts: Times,
        psi: WaveFunction,
        x0: Points,
        weights: Weights,
        history: dict[str, Array],
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
            particles=_with_amplitudes(problem, psi, moved(problem, current, x0, weights, ts), ts),
            diagnostics=Diagnostics(ts=ts, t1=problem.t1),
            _history=history,
        )

    def log_density_at(self, t: Scalar, x: Vector) -> Scalar:
        return _log_density(self.psi(t, x))

    def wave_function_at(self, t: Scalar, x: Vector) -> Complex[Array, ""]:
        return self.psi(t, x)


def _log_density(value: Complex[Array, ""]) -> Scalar:
    parts, size = _relative(value)
    return jnp.log(jnp.sum(parts**2)) + 2 * jnp.log(size)


@eqx.filter_jit
def _with_amplitudes(problem: Problem, psi: WaveFunction, particles: Particles, ts: Times) -> Particles:
    """The particles with the density and the phase of ψ."""

    def at(t: Scalar, x: Vector) -> tuple[Scalar, Scalar]:
        value = psi(t, x)
        return _log_density(value), problem.hamiltonian.hbar * jnp.angle(value)

    amplitudes = jax.vmap(jax.vmap(at), in_axes=(None, 0))(ts, particles.position)
    return Particles(particles.position, particles.weights, *amplitudes)

"""Reference solutions of the experiments: closed forms, ψ on a grid, and many bosons by their relative motion."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bohmdiff as bd

POINTS, PARTS = 2048, 16


class Fields(NamedTuple):
    """Moments, shape `(K, d)`, and the two velocities as functions of a time and one point."""

    ts: jax.Array
    mean: jax.Array
    std: jax.Array
    osmotic: Callable
    current: Callable

    @staticmethod
    def of(solution: bd.Solution) -> "Fields":
        """Those of a solution."""
        osmotic = bd.Velocities(solution.problem, solution.score, solution.velocity).osmotic
        return Fields(solution.ts, solution.mean(), solution.std(), osmotic, solution.velocity)


class Places(NamedTuple):
    """Points at each of K times, shape `(K, M, d)`, and the exact velocities there."""

    points: np.ndarray
    osmotic: np.ndarray
    current: np.ndarray

    @staticmethod
    def of(fields: Fields, ts: jax.Array, points: np.ndarray) -> "Places":
        return Places(points, at(fields.osmotic, ts, points), at(fields.current, ts, points))


class Reference(NamedTuple):
    """The exact moments; points that stand for the exact density at each time; and a line along the first
    coordinate at the end. It holds no ψ, which in five dimensions takes gigabytes."""

    ts: jax.Array
    mean: jax.Array
    std: jax.Array
    drawn: Places
    line: Places

    @staticmethod
    def of(fields: Fields, drawn: Places) -> "Reference":
        centre, spread = fields.mean[-1], float(fields.std[-1, 0])
        along = np.linspace(centre[0] - 3 * spread, centre[0] + 3 * spread, 121)
        line = np.tile(centre, (along.size, 1))
        line[:, 0] = along
        on_line = Places.of(fields, fields.ts[-1:], line[None])
        return Reference(fields.ts, fields.mean, fields.std, drawn, on_line)


def at(field: Callable, ts: jax.Array, points: np.ndarray) -> np.ndarray:
    """A field at many places at each time, part by part: ψ on a large grid would take too much memory."""
    values = [
        np.concatenate(
            [jax.vmap(lambda x, t=t: field(t, x))(part) for part in np.array_split(places, PARTS)]
        )
        for t, places in zip(np.asarray(ts).tolist(), points, strict=True)
    ]
    return np.stack(values)


def closed_form(problem: bd.Problem, ts: jax.Array) -> Reference:
    """A Gaussian in a quadratic potential, and Sobol points of it."""
    exact = bd.solve(problem, bd.GaussianDynamics(), ts=ts)
    normal, _ = bd.SobolPoints(POINTS)(problem.dimension, jax.random.key(7))
    widths = np.linalg.cholesky(exact.covariance())
    points = np.asarray(exact.mean())[:, None] + np.einsum("mj,kij->kmi", normal, widths)
    fields = Fields.of(exact)
    return Reference.of(fields, Places.of(fields, ts, points))


def on_a_grid(problem: bd.Problem, ts: jax.Array, points: int, reach: float) -> Reference:
    """ψ itself, and draws from its density."""
    exact = bd.solve(problem, bd.SplitOperator(points=points, lower=-reach, upper=reach), ts=ts)
    return Reference.of(Fields.of(exact), draws(exact))


def draws(exact: bd.GridSolution) -> Places:
    """Points of the grid, drawn from the density as evenly as can be."""
    axes = [np.asarray(axis) for axis in exact.grid()]
    levels = (np.arange(POINTS) + 0.5) / POINTS
    hamiltonian = exact.problem.hamiltonian
    points, velocities = [], []
    for t in np.asarray(exact.ts).tolist():
        psi = exact.wave_function_on_grid(t)
        below = np.cumsum(np.abs(psi) ** 2)
        chosen = np.unravel_index(np.searchsorted(below, levels * below[-1]), psi.shape)
        gradient = [derivative(exact, psi, i)[chosen] for i in range(psi.ndim)]
        points.append(np.stack([axis[index] for axis, index in zip(axes, chosen, strict=True)], axis=-1))
        velocities.append(np.stack(gradient, axis=-1) / np.asarray(psi[chosen])[:, None])
    complex_velocity = np.stack(velocities) * np.asarray(hamiltonian.hbar / hamiltonian.mass)
    return Places(np.stack(points), complex_velocity.real, complex_velocity.imag)


def derivative(exact: bd.GridSolution, psi: jax.Array, i: int) -> jax.Array:
    """Along coordinate `i`, exact for what a periodic grid can hold."""
    along = exact.fourier.wavenumbers(i).reshape([-1 if j == i else 1 for j in range(psi.ndim)])
    return jnp.fft.ifft(1j * along * jnp.fft.fft(psi, axis=i), axis=i)


class RelativeMotion(bd.AbstractPotential):
    """What a potential is at the places that relative coordinates stand for, with the centre of mass at rest."""

    potential: bd.AbstractPotential
    frame: jax.Array

    def __call__(self, t, x):
        return self.potential(t, self.frame[1:].T @ x)


def by_relative_motion(problem: bd.Problem, ts: jax.Array, points: int, reach: float) -> Reference:
    """Bosons that start in the ground state of a harmonic trap, whose centre of mass stays in it: ψ on a grid of
    the d - 1 other coordinates."""
    d, initial = problem.dimension, problem.initial
    variance = float(initial.covariance[0, 0])
    # An orthogonal matrix whose first row is the centre of mass; the others see differences only.
    frame = np.linalg.qr(np.column_stack([np.ones(d), np.eye(d)[:, 1:]]))[0].T
    relative = bd.Problem(
        bd.Hamiltonian(
            RelativeMotion(problem.hamiltonian.potential, jnp.asarray(frame)),
            mass=problem.hamiltonian.mass,
            hbar=problem.hamiltonian.hbar,
        ),
        bd.GaussianWavePacket(jnp.zeros(d - 1), variance),
        t1=problem.t1,
    )
    # Room for ψ at all times, which would take as long to find once more.
    grid = bd.SplitOperator(points=points, lower=-reach, upper=reach, snapshot_memory=2**33)
    exact = bd.solve(relative, grid, ts=ts, progress=True)
    inner = Fields.of(exact)
    speed = 0.5 * float(problem.hamiltonian.hbar / problem.hamiltonian.mass) / variance

    def osmotic(t, x):
        y = frame @ x
        return frame.T @ jnp.concatenate([-speed * y[:1], inner.osmotic(t, y[1:])])

    def current(t, x):
        y = frame @ x
        return frame.T @ jnp.concatenate([jnp.zeros(1), inner.current(t, y[1:])])

    # All particles are alike.
    std = np.sqrt((variance + np.sum(np.asarray(exact.std()) ** 2, axis=1)) / d)
    normal, _ = bd.SobolPoints(POINTS)(1, jax.random.key(7))
    centres = np.broadcast_to(np.sqrt(variance) * normal, (ts.size, POINTS, 1))
    drawn = draws(exact)
    fields = Fields(ts, jnp.zeros((ts.size, d)), jnp.tile(std[:, None], (1, d)), osmotic, current)
    return Reference.of(
        fields,
        Places(
            np.concatenate([centres, drawn.points], axis=-1) @ frame,
            np.concatenate([-speed * centres, drawn.osmotic], axis=-1) @ frame,
            np.concatenate([0 * centres, drawn.current], axis=-1) @ frame,
        ),
    )

"""Figures that tell whether a given score can be that of the density of its own flow."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._types import Matrix, Points, Scalar, Time, Times, Vector, Weights
from ...flow import Trajectory
from ...problem import Problem
from ...score import AbstractScore, asymmetry
from ...solution import Figure, over_time

# At most so many saved times are looked at, and so many particles that lie within so many standard deviations.
_TIMES, _TRACERS, _RADIUS = 9, 256, 2.5
_NODES = 12  # of the line integral of the score from one particle to another
_MISMATCH, _ASYMMETRY = 0.2, 0.02
_OUTWARD, _SHORTFALL = 0.99, 1e-3


class _Judged(NamedTuple):
    """The figures at one time."""

    mismatch: Scalar
    asymmetry: Scalar
    outward: Scalar
    shortfall: Scalar


def score_figures(
    problem: Problem, score: AbstractScore, x0: Points, weights: Weights, flow: Trajectory
) -> dict[str, Figure]:
    """The figures of a score and of the flow that it drives, at some of the saved times."""
    times = np.unique(np.linspace(0, flow.ts.size - 1, _TIMES).round().astype(int))
    ts, judged = _judge(problem, score, x0, weights, flow, jnp.asarray(times))
    figures = {
        "score mismatch": over_time(
            judged.mismatch,
            ts,
            limit=_MISMATCH,
            meaning="The score is not that of the density which its flow carries: between neighbouring "
            "particles, the changes of ln ρ differ by this share.",
            remedy="Check its sign and its factors, train it longer, or let SequentialScoreMatching find it.",
        ),
        "outward score": over_time(
            judged.outward,
            ts,
            limit=_OUTWARD,
            meaning="The score points away from the mean of the particles. That of a density which can be "
            "normalised points inward, and this figure is 0.",
            remedy="Check its sign.",
        ),
        "energy below the potential": over_time(
            judged.shortfall,
            ts,
            limit=_SHORTFALL,
            meaning="The mean energy is below the least potential energy of the particles, by this share of "
            "their energies. No wave function has such an energy.",
            remedy="Check the score.",
        ),
    }
    if problem.dimension > 1:
        figures["asymmetry"] = over_time(
            judged.asymmetry,
            ts,
            limit=_ASYMMETRY,
            meaning="The score is not a gradient: its Jacobian differs from its transpose by this share of its "
            "size.",
            remedy="Write the score as GradientScore(scalar), which is a gradient by construction.",
        )
    return figures


@eqx.filter_jit
def _judge(
    problem: Problem,
    score: AbstractScore,
    x0: Points,
    weights: Weights,
    flow: Trajectory,
    times: Int[Array, " T"],
) -> tuple[Times, _Judged]:
    tracers = np.arange(0, x0.shape[0], -(-x0.shape[0] // _TRACERS))
    mean, std = _moments(x0, weights)
    square = jnp.sum(((x0[tracers] - mean) / std) ** 2, axis=1)
    shares = jnp.where(square < max(_RADIUS**2, problem.dimension), weights[tracers], 0)
    shares = jnp.where(jnp.sum(shares) > 0, shares, weights[tracers])
    shares = shares / jnp.sum(shares)
    assert flow.log_density is not None

    def at(here: tuple[Scalar, Points, Weights, Weights]) -> _Judged:
        t, x, log_density, energy = here
        return _Judged(
            _mismatch(score, t, x[tracers], log_density[tracers], shares),
            _asymmetry(score, t, x[tracers], shares),
            _outward(score, t, x, weights),
            _shortfall(problem, t, x, energy, weights),
        )

    arrays = (
        jnp.moveaxis(array[:, times], 1, 0) for array in (flow.position, flow.log_density, flow.energy)
    )
    ts = flow.ts[times]
    return ts, jax.lax.map(at, (ts, *arrays))


def _moments(x: Points, weights: Weights) -> tuple[Vector, Vector]:
    mean = weights @ x
    std = jnp.sqrt(weights @ (x - mean) ** 2)
    return mean, jnp.where(std > 0, std, 1)


def _mismatch(score: AbstractScore, t: Time, x: Points, log_density: Weights, shares: Weights) -> Scalar:
    r"""How much $\int s\cdot dx$ from each particle to its neighbour differs from the change of $\ln\rho$,
    which the flow carries."""
    if x.shape[0] == 1:
        return jnp.zeros((), x.dtype)
    _, std = _moments(x, shares)
    changes = log_density - log_density[:, None]
    # Where the flow folds, its density is infinite.
    changes = jnp.where(jnp.isfinite(changes), changes, 0)
    distance = jnp.sum(((x[:, None] - x) / std) ** 2, axis=2)
    distance = distance + jnp.diag(jnp.full(x.shape[0], jnp.inf, x.dtype))
    # The nearest one, and one where ln ρ changes: mirror images have equal densities.
    steep = distance / jnp.maximum(jnp.abs(changes), jnp.finfo(x.dtype).eps)
    neighbour = jnp.concatenate([jnp.argmin(distance, axis=1), jnp.argmin(steep, axis=1)])
    x, log_density, shares = jnp.tile(x, (2, 1)), jnp.tile(log_density, 2), 0.5 * jnp.tile(shares, 2)
    nodes, parts = np.polynomial.legendre.leggauss(_NODES)
    nodes, parts = jnp.asarray(0.5 * (nodes + 1), x.dtype), jnp.asarray(0.5 * parts, x.dtype)

    def along(start: Vector, way: Vector) -> tuple[Scalar, Scalar]:
        """The change of ln ρ by the score, and the square of that along each coordinate, whatever its sign."""
        changes = jax.vmap(lambda u: score(t, start + u * way) * way)(nodes)
        return parts @ jnp.sum(changes, axis=1), parts @ jnp.sum(changes**2, axis=1)

    by_score, squares = jax.vmap(along)(x, x[neighbour] - x)
    by_flow = log_density[neighbour] - log_density
    known = jnp.isfinite(by_flow)
    error = jnp.where(known, by_score - by_flow, 1)
    size = 0.5 * (shares @ jnp.where(known, by_flow, 1) ** 2 + shares @ squares)
    return jnp.sqrt((shares @ error**2) / jnp.where(size > 0, size, 1))


def _asymmetry(score: AbstractScore, t: Time, x: Points, shares: Weights) -> Scalar:
    return shares @ jax.vmap(lambda y: asymmetry(score, t, y))(x)


def _outward(score: AbstractScore, t: Time, x: Points, weights: Weights) -> Scalar:
    r"""One more than the largest mean of $(s\cdot e)(x - \bar x)\cdot e$ over directions $e$, in units of the
    widths. For any ρ that can be normalised, $E_\rho[s (x - \bar x)^\top] = -1$."""
    if x.shape[0] <= x.shape[1]:
        return jnp.zeros((), x.dtype)  # too few particles to have a width in each direction
    mean, std = _moments(x, weights)
    s = jax.vmap(lambda y: score(t, y))(x)
    matrix: Matrix = (s * std).T @ (weights[:, None] * (x - mean) / std)
    return 1 + jnp.max(jnp.linalg.eigvalsh(0.5 * (matrix + matrix.T)))


def _shortfall(problem: Problem, t: Time, x: Points, energy: Weights, weights: Weights) -> Float[Array, ""]:
    potential = jax.vmap(lambda y: problem.hamiltonian.potential(t, y))(x)
    least = jnp.min(jnp.where(weights > 0, potential, jnp.inf))
    rounding = jnp.finfo(x.dtype).eps / _SHORTFALL * jnp.max(jnp.abs(potential))
    size = weights @ (jnp.abs(energy - potential) + potential - least) + rounding
    return (least - weights @ energy) / jnp.where(size > 0, size, 1)

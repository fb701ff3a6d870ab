"""The flux of probability through a surface."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._check import as_real_array, describe, is_concrete, is_whole_number, warn
from .._precision import in_full_precision
from .._types import Numbers, Points, Scalar, Times
from .solution import Solution, as_solution

# The other coordinates: how many points along each, by their number, within how many standard deviations.
_POINTS = {0: 1, 1: 256, 2: 64, 3: 32}
_DEVIATIONS = 8.0
# The largest differences, in probability, between two sums over the surface and between two rules for the time.
_TOLERANCE = 1e-3


class Flux(eqx.Module):
    r"""What [`flux`][bohmdiff.flux] returns.

    ```python
    through = bd.flux(exact, position=0.5)
    through.rate, through.passed[-1]
    ```

    - `ts`: the saved times, shape `(K,)`.
    - `rate`: the probability that passes in unit time towards larger $x_i$, less that which comes back, shape
        `(K,)`.
    - `passed`: its integral since the first saved time, shape `(K,)`.
    """

    ts: Times
    rate: Times
    passed: Times


@in_full_precision
def flux(solution: Solution, position: Numbers, coordinate: int = 0) -> Flux:
    r"""The probability that passes through the plane $x_i = $ `position`.

    ```python
    barrier = bd.Hamiltonian(bd.Eckart(height=6.0, width=0.5))
    incoming = bd.GaussianWavePacket([-6.0], 1.0, momentum=[3.0])
    grid = bd.SplitOperator(
        points=512,
        lower=-24.0,
        upper=24.0,
        absorber=bd.ComplexAbsorber(width=10.0),
    )
    scattered = bd.solve(bd.Problem(barrier, incoming, t1=10.0), grid)
    transmission = bd.flux(scattered, position=6.0).passed[-1]
    ```

    The rate is $\int_{x_i = s}\rho\, v_i$, with the density and the velocity of the solution, for $\psi$ the same
    as $\frac{\hbar}{m_i}\int_{x_i = s}\operatorname{Im}(\psi^*\partial_i\psi)$. In more dimensions the
    integral is a sum over equally spaced points within eight standard deviations of the other coordinates.
    The integral over time is that of cubic polynomials through the rates at four saved times.

    **Arguments:**

    - `solution`: any solution, of up to four coordinates. With a
        [`ComplexAbsorber`][bohmdiff.ComplexAbsorber], put the plane between its layers.
    - `position`: where the plane lies, a number.
    - `coordinate`: $i$, the index of the coordinate that crosses it.

    **Units:** `position` in lengths, `rate` in 1 / time.

    **Returns:** a [`Flux`][bohmdiff.Flux] with arrays of shape `(K,)`. It warns if the points or the saved
    times are too few for an accuracy of 1e-3 in `passed`.

    **Raises:** `ValueError` for a position that is no number, a coordinate that does not exist, more than four
    coordinates or a single saved time.
    """
    solution = as_solution(solution, "solution")
    d, ts = solution.problem.dimension, solution.ts
    s = as_real_array(position, "position").astype(ts.dtype)
    if s.ndim:
        raise ValueError(f"position must be one number, but shape {s.shape} was given.")
    if not is_whole_number(coordinate) or not 0 <= coordinate < d:
        raise ValueError(
            f"coordinate must be the index of a coordinate, 0 to {d - 1}, but {coordinate!r} was given."
        )
    if d - 1 not in _POINTS:
        raise ValueError(
            f"flux sums over a plane in up to {max(_POINTS) + 1} coordinates, but the solution has {d}. Estimate "
            "the rate from solution.sample and solution.velocity."
        )
    if ts.size < 2:
        raise ValueError(
            "flux needs at least two saved times, but the solution has one. Pass ts=jnp.linspace(t0, t1, 101) to "
            "solve."
        )
    rate, coarser = _rates(solution, s, int(coordinate))
    passed, lower = _integral(ts, rate, 4), _integral(ts, rate, 3)
    _judge(ts, d, passed, lower, _integral(ts, coarser, 4))
    return Flux(ts, rate, passed)


def _judge(ts: Times, d: int, passed: Times, lower: Times, coarser: Times) -> None:
    if not is_concrete(passed):
        return
    if not np.all(np.isfinite(np.asarray(passed))):
        wrong = int(np.argmin(np.isfinite(np.asarray(passed))))
        warn(f"The flux is not finite at t = {describe(ts[wrong])}: the solution is not, there or before.")
        return
    missed = float(jnp.max(jnp.abs(passed - lower)))
    if missed > _TOLERANCE:
        warn(
            f"The integral of the flux over time may be wrong by {missed:.1e}: the saved times are too far "
            "apart. Pass more ts to solve."
        )
    missed = float(jnp.max(jnp.abs(passed - coarser)))
    if d > 1 and missed > _TOLERANCE:
        points = _POINTS[d - 1]
        warn(
            f"The flux may be wrong by {missed:.1e}: it changes quickly along the plane, which {points} points "
            "along each coordinate do not resolve. Use solution.probability instead."
        )


@eqx.filter_jit
def _rates(solution: Solution, s: Scalar, i: int) -> tuple[Times, Times]:
    """The rate at each saved time, from all points of the plane and from every second one."""
    d, ts = solution.problem.dimension, solution.ts
    n = _POINTS[d - 1]
    # Sums of a function that vanishes at both ends are exact to all orders of the spacing.
    index = np.array(list(itertools.product(range(n), repeat=d - 1)), int)
    normal, second = _DEVIATIONS * (2 * index / n - 1), np.all(index % 2 == 0, axis=1)
    others = [j for j in range(d) if j != i]

    def at(here: tuple[Scalar, Array, Array]) -> tuple[Scalar, Scalar]:
        t, mean, std = here
        places = mean[None] + std[None] * jnp.asarray(normal, ts.dtype)
        x: Points = jnp.insert(places, i, s, axis=1)

        def current(y: Float[Array, " d"]) -> Scalar:
            return jnp.exp(solution.log_density(t, y)) * solution.velocity(t, y)[i]

        currents = jax.vmap(current)(x)
        spacing = 2 * _DEVIATIONS / n
        cell = jnp.prod(std * spacing)
        return cell * jnp.sum(currents), 2 ** (d - 1) * cell * jnp.sum(jnp.where(second, currents, 0))

    moments = solution.mean()[:, others], solution.std()[:, others]
    return jax.lax.map(at, (ts, *moments))


def _integral(ts: Times, rate: Times, points: int) -> Times:
    """The integral from the first time to each, of polynomials through so many neighbouring values."""
    count = min(points, ts.size)
    first = np.clip(np.arange(ts.size - 1) - (count - 1) // 2, 0, ts.size - count)
    near = first[:, None] + np.arange(count)

    def part(start: Scalar, end: Scalar, times: Array, values: Array) -> Scalar:
        unit, powers = end - start, jnp.arange(count)
        scaled = (times - start) / unit
        # ∫₀¹ of the monomials, as a sum of values at the times.
        exact = (1 / (1 + powers)).astype(values.dtype)
        weights = jnp.linalg.solve((scaled[:, None] ** powers[None, :]).T, exact)
        return unit * jnp.sum(weights * values)

    parts = jax.vmap(part)(ts[:-1], ts[1:], ts[near], rate[near])
    return jnp.concatenate([jnp.zeros_like(parts[:1]), jnp.cumsum(parts)])

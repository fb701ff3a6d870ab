"""Nelson's process, and the family between it and the Bohmian flow."""

import math
from functools import partial
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Int

from .._check import (
    as_flag,
    as_float,
    as_key,
    as_positive_integer,
    as_real_array,
    cast_floats,
    check_output,
    is_concrete,
    is_whole_number,
)
from .._precision import in_full_precision
from .._types import Field, Key, Numbers, Paths, Points, Scalar, Times
from ..flow import require_finite_paths
from ..hamiltonian import Hamiltonian
from ..problem import Problem, saved_times
from ..solution import Solution
from ..wavepacket import RandomPoints
from .velocity import Velocities


@in_full_precision
def nelson_process(
    source: Solution | Velocities,
    start: int | Numbers,
    *,
    key: Key,
    ts: Numbers | None = None,
    noise: float | int = 1.0,
    backward: bool = False,
    steps: int = 256,
    solver: diffrax.AbstractSolver = diffrax.ShARK(),  # noqa: B008
) -> Paths:
    r"""Paths of a diffusion whose density is $|\psi|^2$ at all times.

    With the current velocity $v_i = \partial_i S/m_i$ and the osmotic velocity
    $u_i = \tfrac{\hbar}{2m_i}\,\partial_i\ln\rho$ every process of the family

    $$dX = (v + \nu u)\,dt + \sqrt{\nu\hbar/m}\;dW$$

    has the density $\rho(t)$ for any noise scale $\nu \ge 0$: 0 is the Bohmian flow, 1 is Nelson's process,
    and larger values are noisier. Backward in time it is
    $dX = (v - \nu u)\,dt + \sqrt{\nu\hbar/m}\;dW_*$, with increments of $W_*$ that do not depend on the future.

    ```python
    paths = bd.nelson_process(solution, 1000, key=jax.random.key(0))
    (
        paths.mean(axis=0),
        paths.std(axis=0),
    )  # solution.mean() and solution.std(), up to 1 / sqrt(1000)
    ```

    **Arguments:**

    - `source`: a solution by any method, or [`Velocities`][bohmdiff.Velocities] of any score and velocity field.
    - `start`: a number of random draws from the density at the start, or positions there, shape `(M, d)`. The
        start is `t0`; backward it is `t1`, and the flow moves random points of $\rho_0$ there.
    - `key`: for the Wiener process, and all other random choices.
    - `ts`: increasing times in `[t0, t1]` to save at, shape `(K,)`; 101 equally spaced ones if not given.
    - `noise`: $\nu$, not negative.
    - `backward`: whether the process runs from `t1` to `t0`.
    - `steps`: the minimum number of steps from `t0` to `t1`; every saved time is the end of a step.
    - `solver`: a Diffrax solver for additive noise, in the Stratonovich or Itô sense, which agree here.
        `ShARK` is of order 1.5 (strong) and takes two evaluations a step; `diffrax.Euler()` is the simplest.

    **Units:** those of the problem; `noise` has none.

    **Returns:** positions at the saved times, in rising order of time, shape `(M, K, d)`.

    **Raises:** `ValueError` for bad input, and if a path becomes non-finite, for example at a node of ψ.

    ??? cite "References"

        E. Nelson, *Derivation of the Schrödinger equation from Newtonian mechanics*, Phys. Rev. 150, 1079
        (1966). Y. Song et al., *Score-based generative modeling through stochastic differential equations*,
        ICLR 2021, for the flow with the same marginals. J. M. Foster, G. dos Reis and C. Strange,
        *High order splitting methods for SDEs satisfying a commutativity condition*, SIAM J. Numer. Anal. 62,
        500 (2024), for the solver.
    """
    key, backward = as_key(key), as_flag(backward, "backward")
    start_key, flow_key, noise_key = jax.random.split(key, 3)
    if not isinstance(source, Solution | Velocities):
        raise ValueError(
            f"source must be a solution, as solve returns, or Velocities, but {type(source).__name__} was given."
        )
    velocities = Velocities(source.problem, source.score, source.velocity)
    dtype = velocities.problem.dtype
    velocities = cast_floats(velocities, dtype)
    problem = velocities.problem
    if isinstance(source, Velocities):
        point = (problem.t0, jnp.zeros(problem.dimension, dtype))
        for name, field in (("score", velocities.score), ("velocity", velocities.velocity)):
            check_output(field, point, point[1].shape, name)
    steps = as_positive_integer(steps, "steps", "Pass the number of steps from t0 to t1.")
    scale = as_float(noise, "noise")
    if not 0 <= scale < math.inf:
        raise ValueError(
            f"noise must not be negative, but {noise!r} was given: 0 is the flow, 1 Nelson's process."
        )
    if not isinstance(solver, diffrax.AbstractSolver):
        raise ValueError(f"solver must be one of Diffrax, such as ShARK(), but {solver!r} was given.")
    times = saved_times(problem, ts)
    if not is_concrete((times, problem.t0, problem.t1)):
        raise ValueError(
            "ts, t0 and t1 must be known, as steps are to end at them, but they are traced by jit, vmap or "
            "grad."
        )
    move = partial(
        process_paths, problem.hamiltonian, velocities.osmotic, velocities.velocity, solver=solver
    )
    if is_whole_number(start):
        number = as_positive_integer(start, "start", "Pass a number of draws, or positions.")
        x = problem.initial.particles(RandomPoints(number), start_key)[0].astype(dtype)
        if backward:
            grid, saved = _grid(problem, jnp.asarray([problem.t1], dtype), steps)
            x = move(x, grid, saved, jnp.zeros((), dtype), False, flow_key)[:, -1]
    else:
        x = as_real_array(start, "start").astype(dtype)
        if x.ndim != 2 or x.shape[1] != problem.dimension or x.shape[0] == 0:
            raise ValueError(
                f"start must be a number, or positions of shape (M, {problem.dimension}), but shape {x.shape} "
                "was given."
            )
    grid, saved = _grid(problem, times, steps)
    paths = move(x, grid, saved, jnp.asarray(scale, dtype), backward, noise_key)
    return require_finite_paths(paths, times)


def _grid(problem: Problem, ts: Times, steps: int) -> tuple[Float[Array, " N"], Int[Array, " K"]]:
    """The ends of nearly equal steps, all of `ts` among them, and the indices of `ts`."""
    t0, t1 = float(problem.t0), float(problem.t1)
    knots = np.unique(np.concatenate([[t0], np.asarray(ts, float), [t1]]))
    counts = np.ceil(np.diff(knots) / (t1 - t0) * steps * (1 - 1e-9)).astype(int)
    counts = np.maximum(counts, 1)
    pieces = [
        np.linspace(a, b, n, endpoint=False) for a, b, n in zip(knots[:-1], knots[1:], counts, strict=True)
    ]
    ends = np.concatenate([[0], np.cumsum(counts)])
    grid = np.concatenate([*pieces, knots[-1:]])
    saved = ends[np.searchsorted(knots, np.asarray(ts, float))]
    return jnp.asarray(grid, problem.dtype), jnp.asarray(saved)


@eqx.filter_jit
def process_paths(
    hamiltonian: Hamiltonian,
    osmotic: Field,
    current: Field,
    x: Points,
    grid: Float[Array, " N"],
    saved: Int[Array, " K"],
    noise: Scalar,
    backward: bool,
    key: Key,
    *,
    solver: diffrax.AbstractSolver,
) -> Paths:
    """Paths from `x` with the steps of `grid`, at its points with the indices `saved`."""
    sign = -1.0 if backward else 1.0

    def drift(t: Any, x: Points, args: Any) -> Points:
        def of_one(x):
            return sign * current(t, x) + noise * osmotic(t, x)

        return jax.vmap(of_one)(x)

    scale = jnp.sqrt(noise * hamiltonian.hbar / hamiltonian.mass)
    diffusion = lx.DiagonalLinearOperator(jnp.broadcast_to(scale, x.shape).astype(x.dtype))
    # Time runs from zero, in the direction of the process.
    steps = grid.size - 1
    elapsed = grid[-1] - grid[::-1] if backward else grid - grid[0]
    origin = grid[-1] if backward else grid[0]
    saved = steps - saved[::-1] if backward else saved
    # Independent increments, which are safe because steps are never rejected.
    wiener = diffrax.UnsafeBrownianPath(
        jax.ShapeDtypeStruct(x.shape, x.dtype), key, levy_area=diffrax.SpaceTimeLevyArea
    )
    terms = diffrax.MultiTerm(
        diffrax.ODETerm(lambda s, x, args: drift(origin + sign * s, x, args)),
        diffrax.ControlTerm(lambda s, x, args: diffusion, wiener),
    )
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        elapsed[0],
        elapsed[-1],
        None,
        x,
        # Saved times are ends of steps: interpolation in between would have to be random as well.
        saveat=diffrax.SaveAt(ts=elapsed[saved]),
        stepsize_controller=diffrax.StepTo(ts=elapsed),
        adjoint=diffrax.ForwardMode(),
        max_steps=steps,
        throw=False,  # the caller reports failures
    )
    assert solution.ys is not None
    paths = jnp.moveaxis(solution.ys, 0, 1)
    return paths[:, ::-1] if backward else paths

"""The law for solutions."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._errors import UnavailableError
from .._types import Key
from ..solution import Solution, as_solution
from ..wavepacket import SobolPoints
from .law import as_code, fail

_LAW = "check_solution"
_PLACES, _POINTS, _DRAWS = 3, 4096, 2000
_WIDER = 1.3
_FIELDS = ("score", "velocity", "log_density", "wave_function")


def check_solution(
    solution: Solution,
    again: Solution | None = None,
    *,
    tolerance: float = 1e-2,
    key: Key | None = None,
) -> None:
    r"""Raises unless a solution is consistent with itself, and works under `jax.jit` and `jax.vmap`.

    - It is a pytree of arrays; a second solve, `again`, has the same structure and is not traced again.
    - Outside its span, fields raise a `ValueError` for a concrete time and are NaN for a traced one.
    - Fields have the same values under `jax.jit` and `jax.vmap` as in direct calls.
    - The score is the gradient of the log density; a wave function has that density.
    - Velocities match the trajectories.
    - The density is normalised; draws and `expectation` reproduce the moments; probabilities add up to one.

    Quantities that a solution does not provide (`UnavailableError`) are skipped.

    ```python
    solve = lambda: bd.solve(
        problem, bd.GaussianDynamics(steps=50), ts=jnp.linspace(0, 1, 21)
    )
    bohmdiff.testing.check_solution(solve(), solve())
    ```

    **Arguments:**

    - `solution`: a solution by any method, with at least three equally spaced saved times.
    - `again`: the same problem, solved once more by an equal method.
    - `tolerance`: for scores and velocities relative to their size, and for the norm; moments must agree within
        five standard errors.
    - `key`: for the draws, which have the shape `(n, K, d)`; `jax.random.key(0)` if not given.

    **Raises:** [`LawError`][bohmdiff.testing.LawError], whose message has code that reproduces the failure.
    """
    solution = as_solution(solution, "solution")
    key = jax.random.key(0) if key is None else key
    if solution.ts.size < 3:
        raise ValueError(f"solution must have at least three saved times, but it has {solution.ts.size}.")
    _check_value(solution, again)
    available = [name for name in _FIELDS if _has(solution, name)]
    for name in available:
        _check_field(solution, name)
    if "log_density" in available:
        _check_density(solution, tolerance, "wave_function" in available)
    if "velocity" in available:
        _check_velocity(solution, tolerance)
    _check_moments(solution, key)


def _field(solution: Solution, name: str) -> Any:
    """A method of the solution by its name."""
    methods = {
        "score": solution.score,
        "velocity": solution.velocity,
        "log_density": solution.log_density,
        "wave_function": solution.wave_function,
    }
    return methods[name]


def _has(solution: Solution, name: str) -> bool:
    try:
        _field(solution, name)(solution.ts[-1], solution.mean()[-1])
    except UnavailableError:
        return False
    return True


def _places(solution: Solution, k: int) -> jax.Array:
    """Places near the mean at one saved time, within a width."""
    mean, std = solution.mean()[k], solution.std()[k]
    shares = jnp.linspace(-0.6, 0.8, _PLACES, dtype=mean.dtype)
    signs = jnp.where(jnp.arange(mean.size) % 2 == 0, 1.0, -0.5).astype(mean.dtype)
    return mean + shares[:, None] * std * signs


def _check_value(solution: Solution, again: Solution | None) -> None:
    others = [leaf for leaf in jax.tree.leaves(solution) if not eqx.is_array(leaf)]
    if others:
        fail(
            _LAW,
            "a solution must be a pytree of arrays, with everything else in static fields",
            "jax.tree.leaves(solution)",
            other_leaves=str([type(leaf).__name__ for leaf in others]),
        )
    traced = []

    @jax.jit
    def mean(one: Solution) -> jax.Array:
        traced.append(True)
        return one.mean()

    direct = np.asarray(solution.mean())
    if not np.allclose(np.asarray(mean(solution)), direct, rtol=1e-5, atol=1e-8, equal_nan=True):
        fail(
            _LAW,
            "mean() under jax.jit differs from a direct call",
            "jax.jit(lambda s: s.mean())(solution)",
        )
    if again is not None:
        mean(again)
        if len(traced) > 1:
            fail(
                _LAW,
                "two solves of one problem by equal methods are traced twice, so their static parts differ",
                "jax.tree.structure(solution) == jax.tree.structure(again)",
            )


def _check_field(solution: Solution, name: str) -> None:
    field, start, end = _field(solution, name), solution.problem.t0, solution.problem.t1
    x = _places(solution, -1)
    late = float(end + 0.1 * (end - start))
    see = f"solution.{name}({late}, jnp.array({as_code(x[0])}))"
    try:
        value = field(late, x[0])
    except ValueError:
        pass
    else:
        fail(_LAW, f"{name} after the end of the span must raise a ValueError", see, value=str(value))
    # Not jax.jit(field): a bound method of a module cannot be hashed.
    traced = jax.jit(lambda t, y: field(t, y))
    outside = np.asarray(traced(late, x[0]))
    if not np.all(np.isnan(outside)):
        fail(
            _LAW,
            f"{name} after the end of the span must be NaN if t is traced",
            f"jax.jit(lambda t, x: solution.{name}(t, x))({late}, jnp.array({as_code(x[0])}))",
        )
    t = 0.5 * (start + end)
    direct = np.stack([np.asarray(field(t, y)) for y in x])
    if not np.all(np.isfinite(direct)):
        fail(_LAW, f"{name} is not finite", f"solution.{name}({as_code(t)}, x)", value=str(direct))
    ways = {
        "jax.vmap": jax.vmap(lambda y: field(t, y))(x),
        "jax.jit, with a traced time": jnp.stack([traced(t, y) for y in x]),
        "jax.jit of the solution": jnp.stack(
            [jax.jit(lambda s, y: _field(s, name)(t, y))(solution, y) for y in x]
        ),
    }
    scale = 1 + np.max(np.abs(direct))
    rounding = 1e-6 if solution.ts.dtype == jnp.float64 else 1e-3
    for way, values in ways.items():
        error = np.max(np.abs(np.asarray(values) - direct)) / scale
        if not error <= rounding:
            fail(
                _LAW, f"{name} under {way} differs by {error:.1e}", f"solution.{name}({as_code(t)}, x)", x=x
            )


def _check_density(solution: Solution, tolerance: float, has_psi: bool) -> None:
    for k in (0, -1):
        t, x = solution.ts[k], _places(solution, k)
        slope = jax.vmap(jax.grad(lambda y, t=t: solution.log_density(t, y)))(x)
        score = jax.vmap(lambda y, t=t: solution.score(t, y))(x)
        error = jnp.max(jnp.abs(slope - score) * solution.std()[k])
        if not error <= tolerance:
            fail(
                _LAW,
                f"the score is not the gradient of log_density: they differ by {float(error):.1e} over a width",
                f"t = {as_code(t)}\njax.grad(lambda x: solution.log_density(t, x))(x), solution.score(t, x)",
                x=x,
                gradient=slope,
                score=score,
            )
        if has_psi:
            psi = jax.vmap(lambda y, t=t: solution.wave_function(t, y))(x)
            density = jax.vmap(lambda y, t=t: solution.log_density(t, y))(x)
            error = jnp.max(jnp.abs(2 * jnp.log(jnp.abs(psi)) - density))
            if not error <= tolerance:
                fail(_LAW, f"|ψ|² is not the density: its logarithm is off by {float(error):.1e}", "", x=x)
    norm = float(_norm(solution))
    if not abs(norm - 1) <= max(5 * tolerance, 0.02):
        fail(
            _LAW,
            f"the density at the last saved time integrates to {norm:.4g}, not to 1",
            "jnp.exp(solution.log_density(solution.ts[-1], x))",
        )


def _norm(solution: Solution) -> jax.Array:
    """∫ρ at the last saved time, by importance sampling from a wider Gaussian."""
    t, mean, covariance = solution.ts[-1], solution.mean()[-1], solution.covariance()[-1]
    normal, _ = SobolPoints(_POINTS)(mean.size, jax.random.key(0))
    normal = jnp.asarray(normal, mean.dtype)
    cholesky = _WIDER * jnp.linalg.cholesky(covariance)
    log_density = jax.vmap(lambda y: solution.log_density(t, y))(mean + normal @ cholesky.T)
    log_normal = -0.5 * jnp.sum(normal**2 + jnp.log(2 * jnp.pi), axis=1) - jnp.sum(
        jnp.log(jnp.diag(cholesky))
    )
    return jnp.mean(jnp.exp(log_density - log_normal))


def _check_velocity(solution: Solution, tolerance: float) -> None:
    x0 = (
        _places(solution, 0)
        if solution.ts[0] == solution.problem.t0
        else solution.problem.initial.particles(SobolPoints(4), jax.random.key(0))[0]
    )
    paths = solution.trajectories(x0)
    ts = np.asarray(solution.ts)
    for k in range(0, ts.size - 2, max((ts.size - 2) // 4, 1)):
        h, other = ts[k + 1] - ts[k], ts[k + 2] - ts[k + 1]
        if abs(h - other) > 1e-6 * h:
            continue
        v = [jax.vmap(lambda y, t=ts[i]: solution.velocity(t, y))(paths[:, i]) for i in (k, k + 1, k + 2)]
        # Simpson's rule along the path.
        moved = h / 3 * (v[0] + 4 * v[1] + v[2])
        found = paths[:, k + 2] - paths[:, k]
        error = float(jnp.max(jnp.abs(moved - found) / solution.std()[k]))
        if not error <= tolerance:
            fail(
                _LAW,
                f"velocities do not match the trajectories: between t = {ts[k]:.4g} and {ts[k + 2]:.4g} they "
                f"differ by {error:.1e} of a width",
                "solution.trajectories(x0), solution.velocity(t, x)",
                moved=moved,
                trajectories=found,
            )


def _check_moments(solution: Solution, key: Key) -> None:
    mean, std = np.asarray(solution.mean()), np.asarray(solution.std())
    found = np.asarray(solution.expectation(lambda x: x))
    if not np.max(np.abs(found - mean) / std) <= 1e-3:
        fail(
            _LAW,
            "expectation(lambda x: x) is not the mean",
            "solution.expectation(lambda x: x), solution.mean()",
        )
    draws = np.asarray(solution.sample(key, _DRAWS))
    error = np.abs(draws.mean(axis=0) - mean) / std * _DRAWS**0.5
    if not np.max(error) <= 5:
        fail(
            _LAW,
            f"the mean of {_DRAWS} draws is {np.max(error):.1f} standard errors off",
            "solution.sample(key, n)",
        )
    ratio = np.abs(draws.std(axis=0) / std - 1) * _DRAWS**0.5
    if not np.max(ratio) <= 6:
        fail(
            _LAW,
            f"the width of {_DRAWS} draws is off by {np.max(ratio):.1f} standard errors",
            "solution.sample(key, n)",
        )
    middle = jnp.asarray(mean[-1, 0])
    left = np.asarray(solution.probability(lambda x: x[0] < middle))
    right = np.asarray(solution.probability(lambda x: x[0] >= middle))
    if not np.max(np.abs(left + right - 1)) <= 1e-3:
        fail(
            _LAW,
            "the probabilities of two halves of space do not add up to one",
            "solution.probability(...)",
        )

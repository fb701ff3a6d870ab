"""The law for symplectic solvers."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .law import fail

_LAW = "check_solver"
_SPAN = 2.0
_START = (np.array([0.7, -0.6]), np.array([0.3, 0.8]))
_MASSES = np.array([1.0, 1.7])
# The coarsest number of steps for each order, doubled twice: errors converge, and exceed round-off.
_COARSEST = {2: 40, 4: 20, 6: 7}
_SEE = """import diffrax
t, q, p = 0.3, jnp.array([0.7, -0.6]), jnp.array([0.3, 0.8])
V0 = lambda t, q: -jnp.sum(jnp.cos(q)) * (1 + jnp.cos(2 * t) / 2) + 0.3 * jnp.sin(3 * t) * q[0]
V = lambda t, q: V0(t, q) + q[0]**2 * q[1] / 5
drift = diffrax.ODETerm(lambda t, p, args: p / jnp.array([1.0, 1.7]))
kick = diffrax.ODETerm(lambda t, q, args: -jax.grad(V, argnums=1)(t, q))
"""


def check_solver(solver: diffrax.AbstractSolver, order: int | None = None) -> None:
    r"""Raises unless a solver for $\dot q = v(p)$, $\dot p = f(t, q)$ has its stated order, is symplectic and
    reversible, and can be differentiated.

    All checks use two coupled coordinates of unequal masses in a nonlinear potential that depends on time.

    ```python
    bohmdiff.testing.check_solver(bd.BlanesMoan4())
    ```

    **Arguments:**

    - `solver`: any Diffrax solver of a pair of terms (drift, kick); see
        [`AbstractSymplecticSolver`][bohmdiff.AbstractSymplecticSolver].
    - `order`: 2, 4 or 6; the result of the solver's own method `order` if not given.

    **Raises:** [`LawError`][bohmdiff.testing.LawError]; `RuntimeError` without 64 bits, where round-off
    hides the order: `jax.config.update("jax_enable_x64", True)`.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise RuntimeError(
            'check_solver needs double precision: call jax.config.update("jax_enable_x64", True) first.'
        )
    stated = solver.order(_terms(1.0)) if order is None else order
    if stated not in _COARSEST:
        raise ValueError(f"order must be one of {sorted(_COARSEST)}, but {stated!r} was given.")
    _check_order(solver, stated)
    _check_symplectic(solver)
    _check_reversible(solver)
    _check_adjoint(solver)


def _potential(t: Any, q: jax.Array, strength: Any) -> jax.Array:
    return (
        -jnp.sum(jnp.cos(q)) * (1 + 0.5 * jnp.cos(2 * t))
        + 0.2 * strength * q[0] ** 2 * q[1]
        + 0.3 * jnp.sin(3 * t) * q[0]
    )


def _terms(strength: Any) -> tuple[diffrax.ODETerm, diffrax.ODETerm]:
    return (
        diffrax.ODETerm(lambda t, p, args: p / _MASSES),
        diffrax.ODETerm(lambda t, q, args: -jax.grad(_potential, argnums=1)(t, q, strength)),
    )


@eqx.filter_jit
def _solve(
    solver: diffrax.AbstractSolver,
    steps: int,
    y0: Any = _START,
    t0: float = 0.0,
    t1: float = _SPAN,
    strength: Any = 1.0,
    adjoint: Any = None,
) -> Any:
    """Position and momentum at the end."""
    y0 = jax.tree.map(jnp.asarray, y0)
    solution = diffrax.diffeqsolve(
        _terms(strength),
        solver,
        t0,
        t1,
        None,
        y0,
        stepsize_controller=diffrax.StepTo(ts=jnp.linspace(t0, t1, steps + 1)),
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps=steps,
    )
    assert solution.ys is not None
    return jax.tree.map(lambda leaf: leaf[-1], solution.ys)


def _distance(one: Any, other: Any) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


def _exact() -> Any:
    """The same by a solver of another kind, with a tight tolerance."""

    def field(t: Any, y: Any, args: Any) -> Any:
        drift, kick = _terms(1.0)
        return drift.vf(t, y[1], None), kick.vf(t, y[0], None)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri8(),
        0.0,
        _SPAN,
        1e-3,
        jax.tree.map(jnp.asarray, _START),
        stepsize_controller=diffrax.PIDController(rtol=1e-13, atol=1e-14),
    )
    assert solution.ys is not None
    return jax.tree.map(lambda leaf: leaf[-1], solution.ys)


def _check_order(solver: diffrax.AbstractSolver, order: int) -> None:
    exact = _exact()
    steps = [_COARSEST[order] * 2**k for k in range(3)]
    errors = [_distance(_solve(solver, n), exact) for n in steps]
    slope = -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])
    # An order higher than stated is accepted.
    if not slope > order - 0.25:
        fail(
            _LAW,
            f"the solver is not of order {order}",
            f"{_SEE}# errors at t = 2, by steps from t = 0",
            steps=steps,
            errors=errors,
            observed_order=slope,
        )


def _flat_step(solver: diffrax.AbstractSolver) -> tuple[Any, jax.Array]:
    terms, t0, t1 = _terms(1.0), jnp.asarray(0.3), jnp.asarray(0.9)

    def step(flat: jax.Array) -> jax.Array:
        y = flat[:2], flat[2:]
        state = solver.init(terms, t0, t1, y, None)
        return jnp.concatenate(solver.step(terms, t0, t1, y, None, state, False)[0])

    return step, jnp.concatenate([jnp.asarray(half) for half in _START])


def _check_symplectic(solver: diffrax.AbstractSolver) -> None:
    step, start = _flat_step(solver)
    jacobian = np.asarray(jax.jit(jax.jacfwd(step))(start))
    zero, one = np.zeros((2, 2)), np.eye(2)
    omega = np.block([[zero, one], [-one, zero]])
    defect = np.abs(jacobian.T @ omega @ jacobian - omega).max()
    if not defect < 1e-12:
        fail(
            _LAW,
            "a step is not symplectic: with its Jacobian J, Jᵀ Ω J is not Ω",
            f"{_SEE}# one step from t = 0.3 to 0.9",
            defect=defect,
            jacobian=jacobian,
        )


def _check_reversible(solver: diffrax.AbstractSolver) -> None:
    there = _solve(solver, 7)
    back = _solve(solver, 7, there, _SPAN, 0.0)
    error = _distance(back, _START)
    if not error < 1e-12:
        fail(
            _LAW,
            "steps backwards in time do not undo steps forwards",
            f"{_SEE}# 7 steps from t = 0 to 2, and 7 back",
            start=np.concatenate(_START),
            after_there_and_back=np.concatenate([np.asarray(half) for half in back]),
        )


def _check_adjoint(solver: diffrax.AbstractSolver) -> None:
    def total(strength: Any, adjoint: Any = None) -> jax.Array:
        q, p = _solve(solver, 5, strength=strength, adjoint=adjoint)
        return jnp.sum(q**2) + jnp.sum(jnp.sin(p))

    reverse = float(jax.grad(total)(1.0))
    direct = float(jax.grad(lambda s: total(s, diffrax.DirectAdjoint()))(1.0))
    h = 1e-3
    values = [float(total(1.0 + k * h)) for k in (-2, -1, 1, 2)]
    quotient = float(np.dot([1, -8, 8, -1], values) / (12 * h))
    if not max(abs(reverse - direct), abs(reverse - quotient)) < 1e-8 * (1 + abs(quotient)):
        fail(
            _LAW,
            "the gradient through the steps is wrong",
            f"{_SEE}# 5 steps from t = 0 to 2; the coefficient of q[0]**2 * q[1] / 5 is differentiated",
            recursive_checkpoints=reverse,
            direct=direct,
            finite_differences=quotient,
        )

"""Symplectic solvers for Diffrax of the form kick, drift, kick, ..., drift, kick."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

from .interpolation import CubicHermite, QuinticHermite
from .tableau import SymplecticTableau, mirrored


class AbstractSymplecticSolver(diffrax.AbstractSolver):
    r"""A symmetric kick–drift–kick composition for $\dot q = v(p)$, $\dot p = f(t, q)$.

    ```python
    terms = (
        diffrax.ODETerm(lambda t, p, args: p),
        diffrax.ODETerm(lambda t, q, args: -q),
    )
    controller = diffrax.StepTo(ts=jnp.linspace(0.0, 10.0, 101))
    start = jnp.array(1.0), jnp.array(0.0)
    diffrax.diffeqsolve(
        terms,
        bd.BlanesMoan4(),
        0.0,
        10.0,
        None,
        start,
        stepsize_controller=controller,
        max_steps=100,
    )
    ```

    As in `diffrax.SemiImplicitEuler`, the terms are a 2-tuple (drift, kick) and the state is a 2-tuple
    `(q, p)` of pytrees of the same structure and shapes. The force may depend on time, which advances with
    the drifts. A time-dependent drift is evaluated at the middle of each stage, which reduces the order to 2.
    For Verlet and Yoshida the drift may be any function of `p`. The Runge–Kutta–Nyström schemes of Blanes and
    Moan keep their order if the drift is at most quadratic in `p`. This holds for velocities, the tangents of
    a flow and the kinetic part of an action.

    The last force of a step is reused as the first of the next step, so `s` stages cost `s` forces. The
    stages are scanned, so the force is compiled once for any number of stages.

    Steps must not be adapted to the solution, since that destroys symplecticity: there is no error
    estimate, and `diffrax.StepTo` is the controller to use. Diffrax promotes a state to the precision of
    the times, so pass times in the precision of the state.

    `SaveAt(ts=...)` and `SaveAt(dense=True)` interpolate with the order of the solver: cubic Hermite up to
    order 4, otherwise quintic Hermite, which differentiates the vector fields once in forward mode. XLA
    removes this work if no interpolation is requested.

    To write your own, subclass this and define the class attribute `tableau`, a
    [`SymplecticTableau`][bohmdiff.SymplecticTableau].
    """

    term_structure: ClassVar = (diffrax.AbstractTerm, diffrax.AbstractTerm)
    tableau: eqx.AbstractClassVar[SymplecticTableau]

    @property
    def interpolation_cls(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
    ) -> Callable[..., diffrax.AbstractLocalInterpolation]:
        return CubicHermite if self.tableau.order <= 4 else QuinticHermite

    def order(self, terms: PyTree) -> int:
        return self.tableau.order

    def init(self, terms: PyTree, t0: Any, t1: Any, y0: PyTree, args: PyTree) -> PyTree:
        _, kick = terms
        q, _ = y0
        return kick.vf(_as_time(t0, y0), q, args)

    def step(
        self,
        terms: PyTree,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: PyTree,
        solver_state: PyTree,
        made_jump: Any,
    ) -> tuple[PyTree, None, dict, PyTree, diffrax.RESULTS]:
        drift, kick = terms
        q0, p0 = y0
        # One control for the whole step, and each stage takes a fraction of it: the difference of two
        # times inside a step would lose digits.
        t0, t1 = _as_time(t0, y0), _as_time(t1, y0)
        drift_control, kick_control = drift.contr(t0, t1), kick.contr(t0, t1)

        force0 = solver_state
        if not (isinstance(made_jump, bool | np.bool_) and not made_jump):
            # The force jumped at t0, so the force from the end of the last step belongs to the wrong side.
            force0 = lax.cond(made_jump, lambda: kick.vf(t0, q0, args), lambda: solver_state)

        def stage(carry, coefficients):
            q, p, force = carry
            a, b, middle, end = coefficients
            velocity = drift.vf(_between(t0, middle, t1), p, args)
            q = _add(q, drift.prod(velocity, _scale(a, drift_control)))
            force = kick.vf(_between(t0, end, t1), q, args)
            p = _add(p, kick.prod(force, _scale(b, kick_control)))
            return (q, p, force), None

        ends = np.asarray(self.tableau.nodes)
        middles = ends - 0.5 * np.asarray(self.tableau.drifts)
        coefficients = [
            jnp.asarray(c, t0.dtype) for c in (self.tableau.drifts, self.tableau.kicks[1:], middles, ends)
        ]
        first = jnp.asarray(self.tableau.kicks[0], t0.dtype)
        carry = (q0, _add(p0, kick.prod(force0, _scale(first, kick_control))), force0)
        if self.tableau.stages == 1:
            carry, _ = stage(carry, [c[0] for c in coefficients])
        else:
            carry, _ = lax.scan(jax.checkpoint(stage, prevent_cse=False), carry, coefficients)
        q1, p1, force1 = carry
        y1 = (q1, p1)

        k0 = (drift.prod(drift.vf(t0, p0, args), drift_control), kick.prod(force0, kick_control))
        k1 = (drift.prod(drift.vf(t1, p1, args), drift_control), kick.prod(force1, kick_control))
        dense_info = {"y0": y0, "y1": y1, "k0": k0, "k1": k1}
        if self.interpolation_cls is QuinticHermite:

            def derivative(t, y):
                q, p = y
                return drift.vf_prod(t, p, args, drift_control), kick.vf_prod(t, q, args, kick_control)

            def second_derivative(t, y, k):
                k = jax.tree.map(lambda tangent, leaf: tangent.astype(leaf.dtype), k, y)
                return jax.jvp(derivative, (t, y), (t1 - t0, k))[1]

            # Both ends in one call, so that the differentiated force is traced once.
            ends = jax.tree.map(lambda *leaves: jnp.stack(leaves), (t0, y0, k0), (t1, y1, k1))
            c = jax.vmap(second_derivative)(*ends)
            dense_info["c0"], dense_info["c1"] = (
                jax.tree.map(lambda leaf, i=i: leaf[i], c) for i in (0, 1)
            )
        return y1, None, dense_info, force1, diffrax.RESULTS.successful

    def func(self, terms: PyTree, t0: Any, y0: PyTree, args: PyTree) -> PyTree:
        drift, kick = terms
        q, p = y0
        return drift.vf(t0, p, args), kick.vf(t0, q, args)


class VelocityVerlet(AbstractSymplecticSolver):
    r"""Velocity Verlet (leapfrog, Störmer–Verlet): order 2, one force per step.

    ```python
    flow = bd.propagate(problem, score, x0, solver=bd.VelocityVerlet())
    ```

    **Arguments:** none.

    ??? cite "Reference"

        Verlet, Computer "experiments" on classical fluids. I, Phys. Rev. 159 (1967) 98.
    """

    tableau: ClassVar[SymplecticTableau] = SymplecticTableau(kicks=(0.5, 0.5), drifts=(1.0,), order=2)


_OUTER = 1 / (2 - 2 ** (1 / 3))


class Yoshida4(AbstractSymplecticSolver):
    r"""The triple jump of Forest, Ruth and Yoshida: order 4, three forces per step.

    The drift may be any function of `p`. If it is at most quadratic in `p`,
    [`BlanesMoan4`][bohmdiff.BlanesMoan4] is far more accurate at the same cost.

    ```python
    flow = bd.propagate(problem, score, x0, solver=bd.Yoshida4(), steps=32)
    ```

    **Arguments:** none.

    ??? cite "Reference"

        Yoshida, Construction of higher order symplectic integrators, Phys. Lett. A 150 (1990) 262.
    """

    tableau: ClassVar[SymplecticTableau] = SymplecticTableau(
        kicks=mirrored((_OUTER / 2,), number=4),
        drifts=mirrored((_OUTER,), number=3),
        order=4,
    )


class BlanesMoan4(AbstractSymplecticSolver):
    r"""The Runge–Kutta–Nyström scheme SRKN-6b of Blanes and Moan: order 4, six forces per step.

    ```python
    flow = bd.propagate(problem, score, x0, solver=bd.BlanesMoan4(), steps=32)
    ```

    **Arguments:** none.

    ??? cite "Reference"

        Blanes and Moan, Practical symplectic partitioned Runge–Kutta and Runge–Kutta–Nyström methods,
        J. Comput. Appl. Math. 142 (2002) 313.
    """

    tableau: ClassVar[SymplecticTableau] = SymplecticTableau(
        kicks=mirrored((0.0829844064174052, 0.396309801498368, -0.0390563049223486), number=7),
        drifts=mirrored((0.245298957184271, 0.604872665711080), number=6),
        order=4,
    )


class BlanesMoan6(AbstractSymplecticSolver):
    r"""The Runge–Kutta–Nyström scheme SRKN-11b of Blanes and Moan: order 6, eleven forces per step.

    Recommended for an accuracy of ten digits. Dense output requires vector fields that allow forward-mode
    differentiation (`jax.jvp`).

    ```python
    flow = bd.propagate(problem, score, x0, solver=bd.BlanesMoan6(), steps=32)
    ```

    **Arguments:** none.

    ??? cite "Reference"

        Blanes and Moan, Practical symplectic partitioned Runge–Kutta and Runge–Kutta–Nyström methods,
        J. Comput. Appl. Math. 142 (2002) 313.
    """

    tableau: ClassVar[SymplecticTableau] = SymplecticTableau(
        kicks=mirrored(
            (
                0.0414649985182624,
                0.198128671918067,
                -0.0400061921041533,
                0.0752539843015807,
                -0.0115113874206879,
            ),
            number=12,
        ),
        drifts=mirrored(
            (
                0.123229775946271,
                0.290553797799558,
                -0.127049212625417,
                -0.246331761062075,
                0.357208872795928,
            ),
            number=11,
        ),
        order=6,
    )


def _as_time(t: Any, y: PyTree) -> Array:
    """`t` in the precision of the state: a time of higher precision would promote the state."""
    dtype = jnp.result_type(*jax.tree.leaves(y))
    return jnp.asarray(t, jnp.finfo(dtype).dtype)


def _between(t0: Array, fraction: Array, t1: Array) -> Array:
    # Not t0 + fraction * (t1 - t0): a fraction of one must give exactly t1.
    return (1 - fraction) * t0 + fraction * t1


def _scale(coefficient: Array, control: PyTree) -> PyTree:
    return jax.tree.map(lambda c: coefficient * c, control)


def _add(y: PyTree, increment: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), y, increment)

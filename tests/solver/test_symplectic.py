import math
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd
from bohmdiff.solver import CubicHermite, QuinticHermite

SOLVERS = [bd.VelocityVerlet(), bd.Yoshida4(), bd.BlanesMoan4(), bd.BlanesMoan6()]
each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
# What does not depend on the coefficients: one without a scan and with cubic output, one with the rest.
each_path = pytest.mark.parametrize(
    "solver", [bd.VelocityVerlet(), bd.BlanesMoan6()], ids=lambda s: type(s).__name__
)
EPS = np.finfo(float).eps


def potential(t, q, strength=1.0):
    """Nonlinear, coupled and time-dependent."""
    return (
        -jnp.sum(jnp.cos(q)) * (1 + 0.5 * jnp.cos(2 * t))
        + 0.2 * strength * q[0] ** 2 * q[1]
        + 0.3 * jnp.sin(3 * t) * q[0]
    )


def force(t, q, args):
    return -jax.grad(potential, argnums=1)(t, q, 1.0 if args is None else args)


def drift(t, p, args):
    return p / jnp.array([1.0, 1.7], p.dtype)


TERMS = (diffrax.ODETerm(drift), diffrax.ODETerm(force))
Y0 = (jnp.array([0.7, -0.6]), jnp.array([0.3, 0.8]))


@eqx.filter_jit
def solve(solver, steps, *, terms=TERMS, y0=Y0, t0=0.0, t1=2.0, saveat=None, args=None, adjoint=None):
    dtype = jax.tree.leaves(y0)[0].dtype
    return diffrax.diffeqsolve(
        terms,
        solver,
        jnp.asarray(t0, dtype),
        jnp.asarray(t1, dtype),
        None,
        y0,
        args=args,
        saveat=diffrax.SaveAt(t1=True) if saveat is None else saveat,
        stepsize_controller=diffrax.StepTo(ts=jnp.linspace(t0, t1, steps + 1, dtype=dtype)),
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps=steps,
    )


def end(solution):
    return jax.tree.map(lambda leaf: leaf[-1], solution.ys)


def distance(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def one_step(solver, y, t0, t1, terms=TERMS):
    state = solver.init(terms, t0, t1, y, None)
    return solver.step(terms, t0, t1, y, None, state, False)[0]


def slope(steps, errors):
    """Of log(error) against log(1 / steps): the observed order."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


# No multiples of a step, and many, so that an order is not an accident of where they fall.
TIMES = np.append(np.sort(np.random.default_rng(0).uniform(0.02, 1.98, 60)), 2.0)

# Fine enough for the asymptotic regime, coarse enough to stay above round-off.
STEPS = {
    "VelocityVerlet": (40, 80, 160),
    "Yoshida4": (40, 80, 160),
    "BlanesMoan4": (20, 40, 80),
    "BlanesMoan6": (7, 14, 28),
}


# The action on the way: its kinetic half in the drift, which is then not linear in p, and minus the
# potential in the kick.
def lifted_drift(t, y, args):
    v = drift(t, y["x"], args)
    return {"x": v, "action": 0.5 * jnp.sum(y["x"] * v)}


def lifted_force(t, y, args):
    return {"x": force(t, y["x"], args), "action": -potential(t, y["x"])}


LIFTED = (diffrax.ODETerm(lifted_drift), diffrax.ODETerm(lifted_force))
LIFTED_Y0 = tuple({"x": half, "action": jnp.zeros(())} for half in Y0)


@pytest.fixture(scope="module")
def reference():
    """By a solver of another kind, at a tight tolerance."""
    return diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: (lifted_drift(t, y[1], args), lifted_force(t, y[0], args))),
        diffrax.Dopri8(),
        0.0,
        2.0,
        1e-3,
        LIFTED_Y0,
        saveat=diffrax.SaveAt(ts=TIMES),
        stepsize_controller=diffrax.PIDController(rtol=1e-13, atol=1e-14, dtmax=0.01),
    ).ys


@each_solver
def test_converges_with_its_order(solver, reference):
    """At the end and, by interpolation, at times between the steps, in every part of the state."""

    @jax.jit
    def errors(dt0):
        # The step is not static, so that one compilation does for all.
        ys = diffrax.diffeqsolve(
            LIFTED, solver, 0.0, 2.0, dt0, LIFTED_Y0, saveat=diffrax.SaveAt(ts=TIMES), max_steps=200
        ).ys
        return jax.tree.map(jnp.subtract, ys, reference)

    order, steps = solver.tableau.order, STEPS[type(solver).__name__]
    runs = [errors(2.0 / n) for n in steps]
    assert solver.order(LIFTED) == order
    last = [float(np.linalg.norm([run[0]["x"][-1], run[1]["x"][-1]])) for run in runs]
    action = [abs(float(run[0]["action"][-1] + run[1]["action"][-1])) for run in runs]
    assert min(last + action) > 1e-13
    assert slope(steps, last) == pytest.approx(order, abs=0.15)
    assert slope(steps, action) == pytest.approx(order, abs=0.25)
    for leaves in zip(*map(jax.tree.leaves, runs), strict=True):
        assert slope(steps, [np.linalg.norm(leaf) for leaf in leaves]) > order - 0.15


@each_path
def test_dense_output_meets_the_steps(solver):
    every = solve(solver, 8, saveat=diffrax.SaveAt(steps=True, t0=True, dense=True))
    between = jax.vmap(every.evaluate)(every.ts)
    assert distance(between, every.ys) <= 8 * EPS
    # and its slope is the vector field, on either side of a step
    for left in (True, False):
        q_dot, p_dot = every.derivative(every.ts[3], left=left)
        q, p = jax.tree.map(lambda y: y[3], every.ys)
        assert distance(q_dot, drift(every.ts[3], p, None)) < 1e-12
        assert distance(p_dot, force(every.ts[3], q, None)) < 1e-12


@pytest.mark.parametrize(("interpolation", "degree"), [(CubicHermite, 3), (QuinticHermite, 5)])
def test_interpolation_reproduces_polynomials(interpolation, degree):
    polynomial = np.polynomial.Polynomial(np.random.default_rng(degree).normal(size=degree + 1))
    t0, t1 = -0.3, 0.9
    data = {}
    for name, t in (("0", t0), ("1", t1)):
        for key, order in (("y", 0), ("k", 1), ("c", 2)):
            value = polynomial.deriv(order)(t) if order else polynomial(t)
            data[key + name] = {"leaf": jnp.asarray([(t1 - t0) ** order * value])}
    if degree == 3:
        del data["c0"], data["c1"]
    local = interpolation(t0=t0, t1=t1, **data)
    for t in (t0, 0.0, 0.41, t1):
        np.testing.assert_allclose(local.evaluate(jnp.asarray(t))["leaf"][0], polynomial(t), atol=1e-14)
    increment = local.evaluate(jnp.asarray(0.1), jnp.asarray(0.5))["leaf"][0]
    np.testing.assert_allclose(increment, polynomial(0.5) - polynomial(0.1), atol=1e-14)


@each_path
def test_reversed_momenta_return(solver):
    autonomous = (TERMS[0], diffrax.ODETerm(lambda t, q, args: force(0.4, q, args)))
    q, p = end(solve(solver, 7, terms=autonomous))
    q, p = end(solve(solver, 7, terms=autonomous, y0=(q, -p)))
    assert distance((q, -p), Y0) < 100 * EPS


@each_solver
def test_energy_of_a_pendulum_does_not_drift(solver):
    pendulum = (diffrax.ODETerm(lambda t, p, args: p), diffrax.ODETerm(lambda t, q, args: -jnp.sin(q)))
    steps = 10_000
    saveat = diffrax.SaveAt(steps=True, fn=lambda t, y, args: 0.5 * y[1] ** 2 - jnp.cos(y[0]))
    y0 = (jnp.array([2.0]), jnp.array([0.0]))
    energy = solve(solver, steps, terms=pendulum, y0=y0, t1=0.3 * steps, saveat=saveat).ys[:, 0]
    error = np.abs(np.asarray(energy) + np.cos(2.0)).reshape(10, -1).max(1)
    assert error[0] < 3e-2
    # Round-off walks at random, by about 1e-14 in all of these steps.
    assert error[-1] < 1.1 * error[0] + 1e-13


@each_path
def test_lifted_tangents_are_the_derivative_of_the_discrete_map(solver):
    """F and G in the state, built by jvp in the vector fields, against jacfwd of the whole solve."""

    def lift(field):
        def vf(t, y, args):
            y, tangents = y

            def push(v):
                return jax.jvp(lambda z: field(t, z, args), (y,), (v,))[1]

            return field(t, y, args), jax.vmap(push, in_axes=1, out_axes=1)(tangents)

        return diffrax.ODETerm(vf)

    def plain(q0):
        return end(solve(solver, 9, y0=(q0, Y0[1]), adjoint=diffrax.DirectAdjoint()))

    lifted = ((Y0[0], jnp.eye(2)), (Y0[1], jnp.zeros((2, 2))))
    (_, F), (_, G) = end(solve(solver, 9, terms=(lift(drift), lift(force)), y0=lifted))
    assert distance((F, G), jax.jacfwd(plain)(Y0[0])) < 20 * EPS


@pytest.mark.slow
def test_any_drift_keeps_the_order_of_a_general_splitting():
    solver = bd.Yoshida4()
    relativistic = (diffrax.ODETerm(lambda t, p, args: p / jnp.sqrt(1 + p**2)), TERMS[1])
    exact = end(solve(solver, 1000, terms=relativistic))
    steps = (20, 40, 80)
    errors = [distance(end(solve(solver, n, terms=relativistic)), exact) for n in steps]
    assert slope(steps, errors) == pytest.approx(solver.tableau.order, abs=0.15)


@each_solver
def test_a_drift_that_depends_on_time_is_taken_in_the_middle_of_its_stage(solver):
    def moving(t, p, args):
        return (1 + 0.5 * jnp.sin(3 * t)) * p

    at_rest = (diffrax.ODETerm(moving), diffrax.ODETerm(lambda t, q, args: 0.0 * q))
    t0, h, (q0, p0) = 0.3, 0.8, Y0
    q, p = jax.jit(lambda: one_step(solver, Y0, jnp.asarray(t0), jnp.asarray(t0 + h), at_rest))()
    ends = np.cumsum(solver.tableau.drifts)
    middles = t0 + h * (ends - np.array(solver.tableau.drifts) / 2)
    expected = q0 + h * sum(
        a * moving(t, p0, None) for a, t in zip(solver.tableau.drifts, middles, strict=True)
    )
    np.testing.assert_array_equal(p, p0)
    np.testing.assert_allclose(q, expected, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "saveat"),
    [(bd.VelocityVerlet(), diffrax.SaveAt(t1=True)), (bd.BlanesMoan6(), diffrax.SaveAt(ts=[0.7, 2.0]))],
)
def test_gradients_agree(solver, saveat):
    def loss(both, adjoint):
        strength, q0 = both
        q, p = solve(solver, 5, y0=(q0, Y0[1]), args=strength, saveat=saveat, adjoint=adjoint).ys
        return jnp.sum(q**2) + jnp.sum(jnp.sin(p))

    at = (1.0, Y0[0])
    checkpointed = jax.grad(loss)(at, diffrax.RecursiveCheckpointAdjoint())
    assert distance(checkpointed, jax.grad(loss)(at, diffrax.DirectAdjoint())) < 50 * EPS
    h = 1e-3
    value = jax.jit(lambda step: loss((1.0 + step, Y0[0] + step), diffrax.RecursiveCheckpointAdjoint()))
    quotient = np.dot([1, -8, 8, -1], [value(k * h) for k in (-2, -1, 1, 2)]) / (12 * h)
    np.testing.assert_allclose(checkpointed[0] + checkpointed[1].sum(), quotient, rtol=1e-8)


@each_path
def test_vmap_equals_a_loop(solver):
    q0 = Y0[0] + jnp.linspace(-0.5, 0.5, 5)[:, None]

    def run(q):
        return end(solve(solver, 5, y0=(q, Y0[1])))

    together = jax.vmap(run)(q0)
    one_by_one = [run(q) for q in q0]
    assert distance(together, tuple(jnp.stack(half) for half in zip(*one_by_one, strict=True))) < 20 * EPS


@each_path
def test_single_precision_stays_single(solver):
    single = jax.tree.map(lambda y: y.astype(jnp.float32), Y0)
    times = jnp.array([0.5, 1.3, 2.0], jnp.float32)
    solution = solve(solver, 20, y0=single, saveat=diffrax.SaveAt(ts=times, dense=True))
    assert {leaf.dtype for leaf in jax.tree.leaves(solution.ys)} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(solution.evaluate(0.3))} == {jnp.dtype("float32")}
    double = solve(solver, 20, saveat=diffrax.SaveAt(ts=times.astype(float))).ys
    assert 1e-9 < distance(solution.ys, double) < 5e-6
    # A step taken by hand with times in double precision.
    y1 = one_step(solver, single, jnp.asarray(0.1), jnp.asarray(0.2))
    assert {leaf.dtype for leaf in jax.tree.leaves(y1)} == {jnp.dtype("float32")}
    assert distance(y1, one_step(solver, Y0, jnp.asarray(0.1), jnp.asarray(0.2))) < 1e-6


@each_path
def test_all_ways_of_saving_agree(solver):
    steps = solve(solver, 4, saveat=diffrax.SaveAt(t0=True, steps=True))
    np.testing.assert_allclose(steps.ts, [0, 0.5, 1, 1.5, 2])
    times = solve(solver, 4, saveat=diffrax.SaveAt(ts=steps.ts))
    assert distance(times.ys, steps.ys) < 8 * EPS
    assert distance(solve(solver, 4).ys, jax.tree.map(lambda y: y[-1:], steps.ys)) == 0


@each_path
def test_any_pytree(solver):
    """The state may be any pytree; its leaves do not know of each other here, so they agree."""
    split = ([Y0[0][:1], {"b": Y0[0][1:]}], [Y0[1][:1], {"b": Y0[1][1:]}])

    def join(half):
        return jnp.concatenate([half[0], half[1]["b"]])

    def part(x):
        return [x[:1], {"b": x[1:]}]

    terms = (
        diffrax.ODETerm(lambda t, p, args: part(drift(t, join(p), args))),
        diffrax.ODETerm(lambda t, q, args: part(force(t, join(q), args))),
    )
    q, p = end(solve(solver, 5, terms=terms, y0=split))
    assert distance((join(q), join(p)), end(solve(solver, 5))) < 20 * EPS


@each_path
def test_a_constant_force_of_weak_type(solver):
    terms = (diffrax.ODETerm(lambda t, p, args: p), diffrax.ODETerm(lambda t, q, args: 2.0))
    q, p = end(solve(solver, 3, terms=terms, y0=(jnp.zeros(1), jnp.ones(1))))
    np.testing.assert_allclose((q[0], p[0]), (2 + 4, 5), rtol=1e-14)


@each_path
def test_a_jump_renews_the_carried_force(solver):
    y, t0, t1 = Y0, jnp.asarray(0.0), jnp.asarray(0.1)
    right = solver.init(TERMS, t0, t1, y, None)
    wrong = right + 1.0
    step = jax.jit(lambda state, jump: solver.step(TERMS, t0, t1, y, None, state, jump)[0])
    expected = step(right, False)
    assert distance(step(wrong, jnp.asarray(True)), expected) == 0
    assert distance(solver.step(TERMS, t0, t1, y, None, wrong, True)[0], expected) < EPS
    assert distance(step(wrong, jnp.asarray(False)), expected) > 1e-3


@each_path
def test_the_force_is_traced_a_few_times_whatever_the_stages(solver):
    count = [0]

    def counted(t, q, args):
        count[0] += 1
        return force(t, q, args)

    terms = (TERMS[0], diffrax.ODETerm(counted))
    run = jax.jit(lambda q0: end(solve(solver, 50, terms=terms, y0=(q0, Y0[1]))))
    run(Y0[0])
    assert count[0] <= 8
    before = count[0]
    run(Y0[0] + 1)
    assert count[0] == before


@pytest.mark.parametrize("solver", SOLVERS[:3], ids=lambda s: type(s).__name__)
def test_one_force_per_stage(solver):
    """Counted while running: s stages cost s forces, and one to start."""
    calls = []

    def counted(t, q, args):
        jax.debug.callback(lambda: calls.append(0))
        return force(t, q, args)

    jax.block_until_ready(end(solve(solver, 5, terms=(TERMS[0], diffrax.ODETerm(counted)))))
    jax.effects_barrier()
    assert len(calls) == 5 * solver.tableau.stages + 1


def test_adaptive_steps_are_refused():
    with pytest.raises(Exception, match="error"):
        diffrax.diffeqsolve(
            TERMS, bd.BlanesMoan4(), 0.0, 1.0, 0.1, Y0,
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
        )  # fmt: skip


def test_a_solver_of_ones_own():
    class McLachlan(bd.AbstractSymplecticSolver):
        """Two-stage, order 2: McLachlan, SIAM J. Sci. Comput. 16 (1995) 151."""

        tableau: ClassVar = bd.SymplecticTableau(
            kicks=(0.1931833275037836, 1 - 2 * 0.1931833275037836, 0.1931833275037836),
            drifts=(0.5, 0.5),
            order=2,
        )

    exact = end(solve(bd.BlanesMoan6(), 200))
    steps = (20, 40, 80)
    errors = [distance(end(solve(McLachlan(), n)), exact) for n in steps]
    assert slope(steps, errors) == pytest.approx(2, abs=0.15)


def test_order_conditions():
    """Those on kicks and drifts that linear and quadratic forces give, in rational form."""
    for solver in SOLVERS:
        table = solver.tableau
        b, c = np.asarray(table.kicks), np.concatenate([[0.0], table.nodes])
        # A quadrature of the force along a known path: sum b c^k = 1 / (k + 1) up to the order.
        for k in range(table.order):
            assert b @ c**k == pytest.approx(1 / (k + 1), abs=1e-13), (type(solver).__name__, k)
        # Position from such a force: sum b (1 - c) c^k = 1 / ((k + 1) (k + 2)).
        for k in range(table.order - 1):
            assert b @ ((1 - c) * c**k) == pytest.approx(1 / ((k + 1) * (k + 2)), abs=1e-13)
        # The tallest Nyström tree: q'' = lambda q, so that p(1) has lambda^n / (2 n - 1)! of q(0).
        chain = np.ones_like(c)
        for n in range(1, table.order // 2 + 1):
            assert b @ chain == pytest.approx(1 / math.factorial(2 * n - 1), abs=1e-13)
            chain = np.array(
                [sum(b[j] * (c[i] - c[j]) * chain[j] for j in range(i)) for i in range(c.size)]
            )


def test_nodes_end_at_one():
    for solver in SOLVERS:
        assert solver.tableau.nodes[-1] == 1.0
        assert len(solver.tableau.nodes) == solver.tableau.stages == len(solver.tableau.drifts)


@pytest.mark.parametrize(
    ("kicks", "drifts", "order", "match"),
    [
        ((0.5, 0.5), (0.5, 0.5), 2, "one more kick than drifts"),
        ((1.0,), (), 2, "at least one drift"),
        ((0.5, 0.4), (1.0,), 2, "kicks must sum to 1"),
        ((0.5, 0.5), (0.9,), 2, "drifts must sum to 1"),
        ((0.5, math.nan), (1.0,), 2, "kicks must sum to 1"),
        ((0.4, 0.6), (1.0,), 2, "kicks must read the same backwards"),
        ((0.25, 0.5, 0.25), (0.4, 0.6), 2, "drifts must read the same backwards"),
        ((0.5, 0.5), (1.0,), 3, "even order"),
        ((0.5, 0.5), (1.0,), 0, "even order"),
    ],
)
def test_a_wrong_tableau_is_refused(kicks, drifts, order, match):
    with pytest.raises(ValueError, match=match):
        bd.SymplecticTableau(kicks=kicks, drifts=drifts, order=order)

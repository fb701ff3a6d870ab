"""The flow under scores that are nobody's exact one: derivatives, precision, and bad input."""

import math

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.flow import HalfState, bohmian_terms, hermite_force, initial_halves

SOLVER = bd.VelocityVerlet()


class LogDensity(eqx.Module):
    """ln ρ of something that is no Gaussian, up to a constant."""

    strength: jax.Array

    def __call__(self, t, x):
        y = x - 0.1 * t
        return -0.5 * jnp.sum(y**2) + self.strength * (jnp.sin(y[0] * y[-1]) - 0.1 * jnp.sum(y**4))


class Nonlinear(eqx.Module):
    """A score that is nobody's gradient: the discrete map does not ask for one."""

    strength: jax.Array

    def __call__(self, t, x):
        return -(x - 0.1 * t) + self.strength * jnp.sin(x * x[::-1] + jnp.arange(1.0, 3.0, dtype=x.dtype))


class Anharmonic(eqx.Module):
    stiffness: jax.Array

    def __call__(self, t, x):
        return 0.5 * self.stiffness * jnp.sum(x**2) + 0.1 * jnp.sum(jnp.cos(x)) * x[0] + 0.1 * t * x[-1]


def setting(strength=0.3, stiffness=1.2, dtype=float):
    score = Nonlinear(jnp.asarray(strength, dtype))
    problem = bd.Problem(
        bd.Hamiltonian(
            Anharmonic(jnp.asarray(stiffness, dtype)), jnp.array([1.0, 2.5], dtype), jnp.asarray(0.8, dtype)
        ),
        bd.GaussianWavePacket(
            jnp.array([0.3, -0.2], dtype),
            0.4,
            jnp.array([0.5, -0.4], dtype),
            jnp.array([[0.1, 0.05], [0.05, -0.2]], dtype),
        ),
        t1=0.7,
    )
    return problem, score


X0 = jnp.array([[0.5, 0.1], [-0.3, -0.6], [0.9, -0.5]])
TS = jnp.array([0.0, 0.308, 0.7])  # no multiple of the step


def propagate(problem, score, x0, ts=TS, steps=5, tolerance=1e-2, **options):
    return bd.propagate(
        problem, score, x0, ts=ts, solver=SOLVER, steps=steps, tolerance=tolerance, **options
    )


@eqx.filter_jit
def quantum_potential_by_definition(hamiltonian, log_density, t, x):
    """−ħ²/2m ∇²√ρ / √ρ."""

    def amplitude(y):
        return jnp.exp(0.5 * log_density(t, y))

    def definition(y):
        kinetic = jnp.diag(jax.hessian(amplitude)(y)) / (2 * hamiltonian.mass)
        return -(hamiltonian.hbar**2) * jnp.sum(kinetic) / amplitude(y)

    force = -jax.grad(lambda y: definition(y) + hamiltonian.potential(t, y))(x)
    return definition(x), force / hamiltonian.mass


@eqx.filter_jit
def ours(hamiltonian, log_density, t, x):
    score = bd.GradientScore(log_density)
    return bd.quantum_potential(hamiltonian, score, t, x), bd.acceleration(hamiltonian, score, t, x)


@settings(max_examples=8)
@given(
    arrays(float, 2, elements=st.floats(-1, 1)),
    arrays(float, 2, elements=st.floats(0.3, 3)),
    st.floats(0.2, 2),
    st.floats(-0.5, 0.5),
)
def test_quantum_potential_and_acceleration(x, mass, hbar, strength):
    hamiltonian = bd.Hamiltonian(Anharmonic(jnp.asarray(1.2)), mass, hbar)
    log_density = LogDensity(jnp.asarray(strength))
    here = jnp.asarray(0.4), jnp.asarray(x)
    for got, exact in zip(
        ours(hamiltonian, log_density, *here),
        quantum_potential_by_definition(hamiltonian, log_density, *here),
        strict=True,
    ):
        np.testing.assert_allclose(got, exact, rtol=1e-10, atol=1e-10)


def test_acceleration_of_an_ensemble_under_a_polynomial():
    problem, _ = setting()
    coefficients = 0.1 * np.random.default_rng(0).normal(size=9)  # degree 3
    cholesky = jnp.array([[0.9, 0.0], [0.2, 0.7]])
    expansion = bd.HermiteExpansion(
        jnp.array([0.1, -0.3]),
        cholesky,
        jnp.asarray(coefficients),
        jnp.zeros(()),
        degree=3,
        window=6.0,
    )

    @jax.jit
    def one_by_one(t, x):
        log_density = bd.GradientScore(lambda t, y: expansion.log_density(y))
        return jax.vmap(lambda y: bd.acceleration(problem.hamiltonian, log_density, t, y))(x)

    t = jnp.asarray(0.4)
    ours_ = jax.jit(lambda t, x: hermite_force(problem.hamiltonian, expansion, t, x)[1])(t, X0)
    np.testing.assert_allclose(ours_, one_by_one(t, X0), rtol=1e-10)


@eqx.filter_jit
def rates_by_definition(hamiltonian, log_density, t, position, directions):
    """Of the velocities: the force over the mass, and its derivatives along with x and F."""
    x, tangent, second = position.motion, position.tangent, position.second

    def acceleration(y):
        return quantum_potential_by_definition(hamiltonian, log_density, t, y)[1]

    def slope_times(y, f):
        return jax.jacfwd(acceleration)(y) @ f

    along = [
        jax.jvp(slope_times, (x, tangent), (tangent @ direction, second[..., n]))[1]
        for n, direction in enumerate(directions)
    ]
    quantum = quantum_potential_by_definition(hamiltonian, log_density, t, x)[0]
    action = -(quantum + hamiltonian.potential(t, x))
    return HalfState(acceleration(x), action, slope_times(x, tangent), jnp.stack(along, axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "directions",
    [np.eye(2), np.array([[0.7, -1.2]]), np.array([[[0.7, -1.2]], [[0.4, 0.1]]])],
    ids=["all", "one", "one of its own"],
)
def test_terms_by_definition(directions):
    problem, _ = setting()
    log_density, directions = LogDensity(jnp.asarray(0.3)), jnp.asarray(directions)
    draws = np.random.default_rng(0)
    parts = (2,), (), (2, 2), (2, 2, directions.shape[-2])
    position, velocity = (HalfState(*(jnp.asarray(draws.normal(size=s)) for s in parts)) for _ in range(2))
    ensemble, others = (
        jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), half) for half in (position, velocity)
    )
    drift, kick = bohmian_terms(problem, bd.GradientScore(log_density), directions)

    moved = drift.vf(0.4, others, None)
    assert jnp.array_equal(moved.motion, others.motion)
    assert jnp.array_equal(moved.tangent, others.tangent)
    assert jnp.array_equal(moved.second, others.second)
    kinetic = 0.5 * jnp.sum(problem.hamiltonian.mass * velocity.motion**2)
    np.testing.assert_allclose(moved.action, [kinetic, kinetic], rtol=1e-12)

    here = jnp.asarray(0.4), position, directions if directions.ndim == 2 else directions[0]
    exact = rates_by_definition(problem.hamiltonian, log_density, *here)
    for kept in (4, 3, 2):  # without second tangents, without any
        some = HalfState(*ensemble[:kept], *[None] * (4 - kept))
        got = jax.jit(kick.vf)(0.4, some, None)
        for ours_, theirs in zip(got[:kept], exact[:kept], strict=True):
            np.testing.assert_allclose(ours_[0], theirs, rtol=1e-9)
        assert got[kept:] == (None,) * (4 - kept)


def test_initial_state():
    problem, _ = setting()
    state = bd.FlowState.initial(problem, X0[0])
    mass, packet = problem.hamiltonian.mass, problem.initial
    velocity = (packet.momentum + packet.chirp @ (X0[0] - packet.mean)) / mass
    np.testing.assert_allclose(state.position, X0[0])
    np.testing.assert_allclose(state.velocity, velocity, rtol=1e-12)
    np.testing.assert_array_equal(state.deformation, np.eye(2))
    np.testing.assert_allclose(state.deformation_rate, packet.chirp / mass[:, None], rtol=1e-12)
    np.testing.assert_allclose(state.velocity_gradient(), packet.chirp / mass[:, None], rtol=1e-12)


def test_velocity_gradient():
    deformation, rate = np.array([[1.0, 0.4], [-0.2, 0.7]]), np.array([[0.3, -1.0], [0.5, 0.9]])
    state = bd.FlowState(*(jnp.asarray(a) for a in (rate[0], rate[1], deformation, rate)))
    np.testing.assert_allclose(state.velocity_gradient(), rate @ np.linalg.inv(deformation), rtol=1e-12)


@eqx.filter_jit
def final_halves(problem, score, x0, directions=None, tangents=True):
    return diffrax.diffeqsolve(
        bohmian_terms(problem, score, directions),
        SOLVER,
        problem.t0,
        problem.t1,
        None,
        initial_halves(problem, x0, tangents=tangents, directions=directions),
        stepsize_controller=diffrax.StepTo(ts=jnp.linspace(problem.t0, problem.t1, 4)),
        max_steps=3,
        adjoint=diffrax.ForwardMode(),  # so that the oracle can differentiate it
    ).ys


@eqx.filter_jit
def derivatives_of_the_discrete_map(problem, score, x0):
    def end(x):
        position, velocity = final_halves(problem, score, x[None], None, False)
        return position.motion[0, 0], velocity.motion[0, 0]

    return jax.vmap(jax.jacfwd(end))(x0), jax.vmap(jax.jacfwd(jax.jacfwd(end)))(x0)


@pytest.mark.slow
def test_tangents_in_the_state_are_those_of_the_discrete_map():
    problem, score = setting()
    first, second = derivatives_of_the_discrete_map(problem, score, X0)
    along = jnp.array([[0.6, -1.3]])
    runs = [final_halves(problem, score, X0, n) for n in (None, jnp.eye(2), along)]
    for halves in runs:
        for half, exact in zip(halves, first, strict=True):
            np.testing.assert_allclose(half.tangent[0], exact, rtol=1e-11, atol=1e-12)
    full, one = runs[1:]
    for half, directed, exact in zip(full, one, second, strict=True):
        np.testing.assert_allclose(half.second[0], exact, rtol=1e-10, atol=1e-11)
        expected = np.einsum("mijk,nk->mijn", exact, along)
        np.testing.assert_allclose(directed.second[0], expected, rtol=1e-10, atol=1e-11)
    assert float(np.max(np.abs(second[0]))) > 0.01
    assert runs[0][0].second is None


def leaves_close(got, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.long
def test_vmap_and_ensemble_and_loop_agree():
    problem, score = setting()
    together = propagate(problem, score, X0)
    mapped = jax.vmap(lambda x: propagate(problem, score, x[None], tangents=False))(X0)
    for i, x in enumerate(X0):
        alone = propagate(problem, score, x[None])
        for field in ("position", "velocity", "phase", "energy", "deformation", "log_density"):
            single = getattr(alone, field)[0]
            np.testing.assert_allclose(getattr(together, field)[i], single, rtol=1e-12, atol=1e-13)
            if getattr(mapped, field) is not None:
                np.testing.assert_allclose(getattr(mapped, field)[i, 0], single, rtol=1e-12, atol=1e-13)


def test_shapes_start_and_definitions():
    problem, score = setting()
    flow = propagate(problem, score, X0)
    assert flow.position.shape == flow.velocity.shape == (3, 3, 2)
    assert flow.deformation.shape == flow.deformation_rate.shape == (3, 3, 2, 2)
    assert flow.phase.shape == flow.energy.shape == flow.log_density.shape == (3, 3)
    np.testing.assert_array_equal(flow.ts, TS)
    np.testing.assert_array_equal(flow.position[:, 0], X0)
    np.testing.assert_allclose(flow.phase[:, 0], [problem.initial.phase(x) for x in X0], rtol=1e-12)
    initial = np.array([problem.initial.log_density(x) for x in X0])
    volume = np.abs(np.linalg.det(flow.deformation))
    np.testing.assert_allclose(flow.log_density, initial[:, None] - np.log(volume), rtol=1e-12)
    for m, k in ((0, 0), (2, 2)):
        x, v, t = flow.position[m, k], flow.velocity[m, k], TS[k]
        quantum = bd.quantum_potential(problem.hamiltonian, score, t, x)
        kinetic = 0.5 * float(problem.hamiltonian.mass @ v**2)
        energy = kinetic + problem.hamiltonian.potential(t, x) + quantum
        np.testing.assert_allclose(flow.energy[m, k], energy, rtol=1e-11)


def test_default_times_without_tangents_and_off_the_step_grid():
    problem, score = setting()
    flow = propagate(problem, score, X0, ts=None, steps=16, tangents=False)
    assert flow.deformation is flow.deformation_rate is flow.log_density is None
    np.testing.assert_allclose(flow.ts, np.linspace(0, 0.7, 101), rtol=1e-12)
    coarse = propagate(problem, score, X0)
    for field in ("position", "velocity", "phase", "energy"):
        np.testing.assert_allclose(getattr(coarse, field), getattr(flow, field)[:, [0, 44, 100]], atol=2e-3)
    # The phase is ∫ (½ m v² − V − Q) dt, here by Simpson's rule.
    kinetic = 0.5 * np.asarray(flow.velocity**2 @ problem.hamiltonian.mass)
    lagrangian = 2 * kinetic - np.asarray(flow.energy)
    weights = np.array([1, *[4, 2] * 49, 4, 1]) * 0.007 / 3
    np.testing.assert_allclose(flow.phase[:, -1] - flow.phase[:, 0], lagrangian @ weights, atol=2e-4)


def test_single_precision():
    """With x64 switched on, as it is here, and for a score whose parameters are double."""
    problem, _ = setting(dtype=jnp.float32)
    _, score = setting()
    flow, exact = propagate(problem, score, X0.astype(jnp.float32)), propagate(*setting(), X0)
    for leaf, other in zip(jax.tree.leaves(flow), jax.tree.leaves(exact), strict=True):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, other, atol=2e-5)


@eqx.filter_jit
@jax.value_and_grad
def some_number(parameters):
    problem, score = setting(*parameters)
    flow = propagate(problem, score, X0)
    return jnp.sum(flow.log_density[:, -1]) + jnp.sum(flow.position[:, 1] ** 2)


@pytest.mark.long
def test_gradients_against_finite_differences():
    at = jnp.array([0.3, 1.2])
    _, gradient = some_number(at)
    for i, unit in enumerate(np.eye(2)):
        step = 1e-4 * unit
        slope = (some_number(at + step)[0] - some_number(at - step)[0]) / 2e-4
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-6)


@pytest.mark.parametrize(
    ("x0", "match"),
    [
        (jnp.zeros(2), r"x0 must have shape \(M, 2\), one row per particle, but shape \(2,\)"),
        (jnp.zeros((3, 1)), r"shape \(3, 1\) was given"),
        (jnp.zeros((0, 2)), r"shape \(0, 2\) was given"),
        (jnp.array([[0.0, jnp.nan]]), "x0 must be finite"),
        ("here", "x0 must be a real number or an array"),
    ],
)
def test_bad_particles(x0, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        propagate(*setting(), x0)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "many"])
def test_bad_steps(steps):
    with (
        unchecked_types(),
        pytest.raises(ValueError, match=f"steps must be an integer of at least 1, but {steps!r}.*Pass the"),
    ):
        propagate(*setting(), X0, steps=steps)


def spreading(number):
    """A packet that breathes for six periods, its score, and some particles with their places at the end."""
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic([[1.0]])), bd.GaussianWavePacket([1.0], 0.2), t1=12 * math.pi + 0.5
    )
    x0 = 1 + jnp.linspace(-1.0, 1.0, number)[:, None]
    exact = bd.solve(problem, bd.GaussianDynamics(steps=1000), ts=[problem.t1])
    return problem, exact.fitted, x0, exact


# More particles than take part in the comparison, a few, and one alone, which has no spread.
@pytest.mark.parametrize(
    "number", [5, pytest.param(1, marks=pytest.mark.slow), pytest.param(600, marks=pytest.mark.slow)]
)
def test_steps_are_chosen_or_checked(number):
    problem, score, x0, exact = spreading(number)
    right, width = exact.trajectories(x0)[:, 0], float(exact.std()[0, 0])

    def error(steps, ts=None):
        flow = bd.propagate(problem, score, x0, ts=ts, solver=bd.BlanesMoan4(), steps=steps, tangents=False)
        return np.sqrt(np.mean((flow.position[:, -1] - right) ** 2)) / width

    assert error(None, ts=[problem.t1]) < 1e-3
    assert error(None, ts=[3.0]) > 0.1  # another time
    with pytest.warns(
        UserWarning, match="length of the 40 time steps causes an error of .* Pass more"
    ) as told:
        assert error(40, ts=[problem.t1]) > 1e-2
    assert [warning.filename for warning in told] == [__file__]
    assert error(400, ts=[problem.t1]) < 1e-4


@pytest.mark.slow
def test_the_choice_does_not_depend_on_the_saved_times():
    problem, score, x0, _ = spreading(4)
    last, many = (
        bd.propagate(problem, score, x0, ts=ts, solver=bd.BlanesMoan4(), tangents=False)
        for ts in ([problem.t1], None)
    )
    np.testing.assert_allclose(last.position[:, -1], many.position[:, -1], rtol=1e-12)


def test_another_number_of_steps_compiles_nothing():
    traces = 0

    def score(t, x):
        nonlocal traces
        traces += 1
        return -x / 0.3

    problem, _ = setting()
    propagate(problem, score, X0, steps=300, tangents=False)
    before = traces
    for steps in (200, 301, None):
        propagate(problem, score, X0, steps=steps, tangents=False)
    # Each call looks at the shape of the score, which compiles nothing.
    looked = traces - before
    propagate(problem, score, X0, steps=777, tangents=False)
    assert traces - before == looked / 3 * 4


def test_under_a_transformation_steps_must_be_given():
    problem, score = setting()
    with pytest.raises(
        ValueError, match=r"jit, grad or vmap. Pass a number: propagate\(\.\.\., steps=64\)\."
    ):
        jax.jit(lambda x0: propagate(problem, score, x0, steps=None).position)(X0)


@pytest.mark.parametrize("tolerance", [0.0, -1, "small"])
def test_bad_tolerance(tolerance):
    with unchecked_types(), pytest.raises(ValueError, match="tolerance must be"):
        propagate(*setting(), X0, tolerance=tolerance)


@pytest.mark.parametrize("solver", [bd.BlanesMoan4, None, "verlet"])
def test_bad_solver(solver):
    problem, score = setting()
    with unchecked_types(), pytest.raises(ValueError, match="solver must be a solver such as BlanesMoan4"):
        bd.propagate(problem, score, X0, solver=solver, steps=5)


@pytest.mark.parametrize(
    ("ts", "match"),
    [
        ([0.0, 0.8], r"ts must lie in \[t0, t1\] = \[0.*0\.7\], but \[0\. , 0\.8\]"),
        ([0.5, 0.5], "ts must increase strictly"),
        (0.5, r"shape \(K,\) with K >= 1, but shape \(\)"),
    ],
)
def test_bad_times(ts, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        propagate(*setting(), X0, ts=ts)


class Growing(bd.AbstractScore):
    rate: jax.Array

    def __call__(self, t, x):
        return -(1 + self.rate * t) * x


@pytest.mark.slow
def test_whatever_is_meant_as_a_score_moves_particles():
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(1.3), mass=0.8), bd.GaussianWavePacket([0.4], 0.3), t1=0.7
    )
    solution = bd.solve(problem, bd.GaussianDynamics(steps=32))
    rate = 0.3
    same = {
        "a score": [Growing(jnp.asarray(rate)), lambda t, x: -(1 + rate * t) * x],
        "a solution": [solution.fitted, solution, solution.score],
    }
    for name, (first, *others) in same.items():
        expected = propagate(problem, first, X0[:, :1], tangents=False).position
        for other in others:
            moved = propagate(problem, other, X0[:, :1], tangents=False).position
            np.testing.assert_allclose(moved, expected, rtol=1e-5, err_msg=f"{name}: {other!r}")


@pytest.mark.parametrize(
    ("score", "match"),
    [
        (
            lambda t, x: jnp.sum(x),
            r"score\(t, x\) must return a real array of shape \(2,\) .* but it returned shape \(\).*vmap",
        ),
        (lambda t, x: x[None], r"returned shape \(1, 2\)"),
        (lambda t, x: (x, x), "returned tuple"),
        (lambda t, x: 1j * x, "dtype complex128"),
        (lambda x: x, "score could not be evaluated as score.t, x. .* TypeError"),
        (
            lambda t, x: jnp.log(x),
            r"score\(t, x\) must be finite at the initial points, but at t = 0\.?0* it is not: 3 of them, "
            r"the first at x = \[ 0.5, -0.1\]. Change the score, or choose",
        ),
    ],
)
def test_bad_score(score, match):
    problem, _ = setting()
    with unchecked_types(), pytest.raises(ValueError, match=match):
        propagate(problem, score, X0 * jnp.array([1.0, -1.0]) * jnp.array([[1.0], [1.0], [-1.0]]))


def test_bad_potential():
    problem, score = setting()
    problem = eqx.tree_at(lambda p: p.hamiltonian.potential, problem, lambda t, x: jnp.sqrt(x[0]))
    with pytest.raises(ValueError, match=r"potential\(t, x\) must be finite.*1 of them.*\[-0.3, -0.6\]"):
        propagate(problem, score, X0)


def test_particles_that_escape_are_an_error():
    """A potential with no lower bound: x'' = 4 x³ arrives at infinity."""
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: -jnp.sum(x**4)), bd.GaussianWavePacket([0.0, 0.0], 1.0), t1=6.0
    )
    run = eqx.Partial(
        propagate, problem, lambda t, x: -x, ts=jnp.array([0.0, 0.01, 6.0]), steps=16, tangents=False
    )
    starts = jnp.array([[0.0, 0.0], [0.0, 0.0], [0.7, 0.7]])
    message = r"became non-finite \(1 of 3, the first by t = 3\.1875\)\. The score drives.*take more steps"
    with pytest.raises(bd.ParticlesLostError, match=message):
        run(starts)
    assert np.all(np.isnan(eqx.filter_jit(run)(starts).position))


def test_phase_has_the_units_of_hbar_and_ignores_it_at_rest():
    """A uniform potential alone: S = S0 − V t, and straight paths."""
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: jnp.asarray(2.0)), bd.GaussianWavePacket([0.0, 0.0], 1.0), t1=0.7
    )
    flow = propagate(problem, lambda t, x: jnp.zeros_like(x), X0)
    np.testing.assert_allclose(flow.phase, -2.0 * np.broadcast_to(TS, (3, 3)), atol=1e-12)
    np.testing.assert_allclose(flow.deformation, np.broadcast_to(np.eye(2), (3, 3, 2, 2)), atol=1e-12)
    assert math.isclose(float(flow.energy[0, -1]), 2.0)

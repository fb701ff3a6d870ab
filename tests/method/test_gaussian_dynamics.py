"""Against closed forms that share no code with the method, and against Schrödinger's equation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Array
from scipy.linalg import expm

import bohmdiff as bd

KEY = jax.random.key(0)


class Driven(eqx.Module):
    """½ (x−c)ᵀ K (x−c) (1 + ε sin 2t) + b·x cos 3t + offset: all that an exact Gaussian can meet."""

    K: Array
    centre: Array
    modulation: Array
    drive: Array
    offset: Array

    def __call__(self, t, x):
        y = x - self.centre
        quadratic = 0.5 * y @ self.K @ y * (1 + self.modulation * jnp.sin(2 * t))
        return quadratic + self.drive @ x * jnp.cos(3 * t) + self.offset


class Quartic(eqx.Module):
    """D (x²/a² − 1)², summed over coordinates: a double well with a = 2."""

    depth: Array

    def __call__(self, t, x):
        return self.depth * jnp.sum((x**2 / 4 - 1) ** 2)


def static(K):
    K = jnp.asarray(K, float)
    zero = jnp.zeros(K.shape[0])
    return Driven(K, zero, jnp.zeros(()), zero, jnp.zeros(()))


def solve(potential, packet, *, t1, mass=1.0, hbar=1.0, ts=None, **options):
    problem = bd.Problem(bd.Hamiltonian(potential, mass, hbar), packet, t1=t1)
    return bd.solve(problem, bd.GaussianDynamics(**options), ts=ts)


def mobius(K, mass, hbar, packet, t):
    """q, p, A at time t from the matrix exponential of the linear flow."""
    d, mass = len(packet.mean), np.broadcast_to(mass, len(packet.mean))
    zero = np.zeros((d, d))
    flow = expm(t * np.block([[zero, np.diag(1 / mass)], [-np.asarray(K), zero]]))
    a, b, c, e = flow[:d, :d], flow[:d, d:], flow[d:, :d], flow[d:, d:]
    A0 = packet.chirp + 0.5j * hbar * np.linalg.inv(packet.covariance)
    q, p = a @ packet.mean + b @ packet.momentum, c @ packet.mean + e @ packet.momentum
    return q, p, (c + e @ A0) @ np.linalg.inv(a + b @ A0)


@pytest.mark.long
def test_free_packet_spreads():
    m, hbar, C0, p, chirp = 1.7, 0.6, 0.3, 0.9, 0.4
    packet = bd.GaussianWavePacket([0.5], C0, [p], [[chirp]])
    solution = solve(static([[0.0]]), packet, t1=3.0, mass=m, hbar=hbar)
    t = solution.ts
    np.testing.assert_allclose(solution.mean()[:, 0], 0.5 + p * t / m, rtol=1e-13)
    variance = C0 * (1 + chirp * t / m) ** 2 + (hbar * t / (2 * m)) ** 2 / C0
    np.testing.assert_allclose(solution.std()[:, 0], jnp.sqrt(variance), rtol=1e-12)
    energy = p**2 / (2 * m) + chirp**2 * C0 / (2 * m) + hbar**2 / (8 * m * C0)
    np.testing.assert_allclose(solution.energy(), energy, rtol=1e-12)


@pytest.mark.slow
def test_coherent_state_has_its_textbook_wave_function():
    """Three periods; the phase of the closed form carries no logarithm that could hide a branch."""
    m, hbar, w, x0 = 1.3, 0.7, 1.9, 0.8
    packet = bd.GaussianWavePacket([x0], hbar / (2 * m * w))
    solution = solve(static([[m * w**2]]), packet, t1=6 * np.pi / w, mass=m, hbar=hbar)

    def exact(t, x):
        q, p = x0 * np.cos(w * t), -m * w * x0 * np.sin(w * t)
        gaussian = (m * w / (np.pi * hbar)) ** 0.25 * np.exp(-m * w / (2 * hbar) * (x - q) ** 2)
        return gaussian * np.exp(1j / hbar * (p * (x - q) + p * q / 2) - 0.5j * w * t)

    for t in solution.ts[::9]:
        for x in (-0.5, 0.9):
            psi = solution.wave_function(t, jnp.array([x]))
            np.testing.assert_allclose(psi, exact(float(t), x), atol=2e-12)
    np.testing.assert_allclose(solution.std(), np.sqrt(hbar / (2 * m * w)), rtol=1e-12)
    np.testing.assert_allclose(solution.mean()[:, 0], x0 * jnp.cos(w * solution.ts), atol=1e-12)
    np.testing.assert_allclose(solution.energy(), 0.5 * m * w**2 * x0**2 + 0.5 * hbar * w, rtol=1e-12)


@pytest.mark.parametrize("curvature", [2.3, -1.1], ids=["squeezed", "inverted"])
def test_squeezed_and_inverted_oscillators(curvature):
    m, hbar, C0 = 0.8, 1.4, 0.2
    packet = bd.GaussianWavePacket([0.3], C0, [-0.5])
    solution = solve(static([[curvature]]), packet, t1=4.0, mass=m, hbar=hbar)
    w, t = np.sqrt(complex(curvature / m)), np.asarray(solution.ts)
    cos, sin = np.cos(w * t).real, (np.sin(w * t) / w).real
    # On the barrier numbers grow by a hundred.
    np.testing.assert_allclose(solution.mean()[:, 0], 0.3 * cos - 0.5 / m * sin, rtol=1e-11, atol=1e-12)
    variance = C0 * cos**2 + (hbar / (2 * m)) ** 2 / C0 * sin**2
    np.testing.assert_allclose(solution.std()[:, 0] ** 2, variance, rtol=1e-11)


COUPLED = np.array([[1.5, 0.4], [0.4, -0.3]])
UNEQUAL = np.array([1.0, 2.6])
TURNED = bd.GaussianWavePacket(
    [0.4, -0.7], [[0.5, 0.15], [0.15, 0.3]], [0.2, 1.1], [[0.3, -0.2], [-0.2, 0.1]]
)


@pytest.fixture(scope="module")
def coupled():
    return solve(static(COUPLED), TURNED, t1=3.0, mass=UNEQUAL, hbar=0.8)


def test_coupled_oscillators_of_unequal_masses(coupled):
    for k in (0, 37, 100):
        q, p, A = mobius(COUPLED, UNEQUAL, 0.8, TURNED, float(coupled.ts[k]))
        np.testing.assert_allclose(coupled.mean()[k], q, atol=1e-12)
        C = 0.4 * np.linalg.inv(A.imag)
        np.testing.assert_allclose(coupled.covariance()[k], C, atol=1e-12)
        np.testing.assert_allclose(coupled.std()[k], np.sqrt(np.diag(C)), atol=1e-12)
        x = jnp.array([0.9, -0.1])
        t = coupled.ts[k]
        np.testing.assert_allclose(coupled.score(t, x), -np.linalg.solve(C, x - q), atol=1e-11)
        np.testing.assert_allclose(coupled.velocity(t, x), (p + A.real @ (x - q)) / UNEQUAL, atol=1e-11)
        np.testing.assert_allclose(jax.grad(coupled.log_density, 1)(t, x), coupled.score(t, x), atol=1e-12)


def test_trajectories_follow_the_velocity_field(coupled):
    """F is not the real part of Q, nor a root of the covariance: integrate the velocity itself."""
    paths = coupled.sample(KEY, 5)
    assert paths.shape == (5, 101, 2)
    h = coupled.ts[1] - coupled.ts[0]
    velocity = jax.jit(jax.vmap(coupled.velocity, (None, 0)))
    x = paths[:, 0]
    for k, t in enumerate(coupled.ts[:-1]):
        np.testing.assert_allclose(x, paths[:, k], atol=2e-8)
        k1 = velocity(t, x)
        k2 = velocity(t + h / 2, x + h / 2 * k1)
        k3 = velocity(t + h / 2, x + h / 2 * k2)
        # The last time is met exactly.
        k4 = velocity(jnp.minimum(t + h, coupled.ts[-1]), x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    np.testing.assert_allclose(x, paths[:, -1], atol=2e-8)


def test_flow_carries_the_covariance(coupled):
    F = coupled._saved().flow
    pushed = jnp.einsum("kij,jl,kml->kim", F, TURNED.covariance, F)
    np.testing.assert_allclose(pushed, coupled.covariance(), atol=1e-12)


def test_samples_have_the_moments(coupled):
    paths = coupled.sample(KEY, 20_000)
    np.testing.assert_allclose(paths.mean(0), coupled.mean(), atol=0.05)
    np.testing.assert_allclose(paths.std(0), coupled.std(), rtol=0.03)


def test_energy_is_conserved(coupled):
    energy = coupled.energy()
    np.testing.assert_allclose(energy, energy[0], rtol=1e-12)


def test_starts_as_the_initial_state(coupled):
    x = jnp.array([0.6, -0.2])
    psi0 = jnp.exp(0.5 * TURNED.log_density(x) + 1j * TURNED.phase(x) / 0.8)
    np.testing.assert_allclose(coupled.wave_function(0.0, x), psi0, rtol=1e-13)
    np.testing.assert_allclose(coupled.sample(KEY, 3)[:, 0].shape, (3, 2))


def test_norm_is_one(coupled):
    grid = jnp.linspace(-12, 12, 121)
    x = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(-1, 2)
    for t in (0.0, 1.234, 3.0):
        psi = jax.vmap(coupled.wave_function, (None, 0))(t, x)
        assert float(jnp.sum(jnp.abs(psi) ** 2) * 0.04) == pytest.approx(1, abs=1e-10)


@eqx.filter_jit
def residual(solution, t, x):
    """|iħ ∂ψ/∂t − Hψ| over |Hψ| + |ψ|, by automatic differentiation of ψ alone."""
    hamiltonian = solution.problem.hamiltonian
    psi, psi_t = jax.jvp(lambda t: solution.wave_function(t, x), (t,), (jnp.ones_like(t),))

    def parts(x):
        psi = solution.wave_function(t, x)
        return jnp.array([psi.real, psi.imag])

    real, imaginary = jnp.diagonal(jax.hessian(parts)(x), axis1=1, axis2=2)
    laplacian = jnp.sum((real + 1j * imaginary) / hamiltonian.mass)
    H_psi = -0.5 * hamiltonian.hbar**2 * laplacian + hamiltonian.potential(t, x) * psi
    return jnp.abs(1j * hamiltonian.hbar * psi_t - H_psi) / (jnp.abs(H_psi) + jnp.abs(psi))


unit = st.floats(-1, 1)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(unit, min_size=20, max_size=20), st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0.3, 2))
def test_obeys_the_schroedinger_equation(draws, m1, m2, hbar):
    r = np.array(draws)
    potential = Driven(
        K=jnp.array([[2 * r[0], r[1]], [r[1], 2 * r[2]]]),
        centre=jnp.asarray(r[3:5]),
        modulation=jnp.asarray(0.5 * r[5]),
        drive=jnp.asarray(r[6:8]),
        offset=jnp.asarray(r[8]),
    )
    root = np.array([[0.7 + 0.3 * r[9], 0.0], [0.4 * r[10], 0.7 + 0.3 * r[11]]])
    packet = bd.GaussianWavePacket(
        r[12:14], root @ root.T, r[14:16], [[r[16], 0.5 * r[17]], [0.5 * r[17], r[18]]]
    )
    solution = solve(potential, packet, t1=1.5, mass=[m1, m2], hbar=hbar, ts=[0.0, 1.5])
    for t, side in ((0.0, 1.0), (0.77, -0.6), (1.5, 0.3)):
        # Within a standard deviation, so that the test is not one of relative errors in the tails.
        packet_now = solution._at(t)
        x = packet_now.mean + side * jnp.linalg.cholesky(packet_now.covariance) @ jnp.array([0.8, -0.5])
        assert residual(solution, jnp.asarray(t), x) < 1e-8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The solution by GaussianDynamics may be wrong")
def test_thawed_gaussian_leaves_the_top_of_a_barrier():
    packet = bd.GaussianWavePacket([0.0], 0.25)
    solution = solve(Quartic(jnp.asarray(1.0)), packet, t1=1.0)
    # V'' = −D there, so the spreading is that of an inverted oscillator.
    t = np.asarray(solution.ts)
    np.testing.assert_allclose(
        solution.std()[:, 0] ** 2, 0.25 * np.cosh(t) ** 2 + np.sinh(t) ** 2, rtol=1e-11
    )
    # ⟨V⟩ of the full potential: E x⁴ = 3 C² about a centre at rest.
    C = solution.std()[:, 0] ** 2
    potential = 3 * C**2 / 16 - C / 2 + 1
    chirp = solution._saved().chirp[:, 0, 0]
    kinetic = 0.5 * (chirp**2 * C + 0.25 / C)
    np.testing.assert_allclose(solution.energy(), kinetic + potential, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The solution by GaussianDynamics may be wrong")
def test_thawed_gaussian_becomes_exact_for_small_hbar():
    """The exact mean differs from the classical centre by O(ħ)."""
    from scipy.integrate import solve_ivp

    run = solve_ivp(
        lambda t, y: [y[1], -(y[0] ** 2 / 4 - 1) * y[0]], (0, 2), [1.0, 0.5], rtol=1e-11, atol=1e-12
    )
    solution = solve(
        Quartic(jnp.asarray(1.0)), bd.GaussianWavePacket([1.0], 0.01, [0.5]), t1=2.0, hbar=0.01
    )
    np.testing.assert_allclose(solution.mean()[-1, 0], run.y[0, -1], atol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("d", [2, 5, 10])
def test_energy_in_many_dimensions(d):
    """Beyond three coordinates with fewer nodes, from ten with Sobol points."""
    packet = bd.GaussianWavePacket(jnp.zeros(d), 0.25)
    solution = solve(Quartic(jnp.asarray(1.0)), packet, t1=0.1, ts=[0.0], steps=2, solver=bd.BlanesMoan4())
    exact = d * (3 * 0.25**2 / 16 - 0.25 / 2 + 1 + 0.5)
    np.testing.assert_allclose(solution.energy()[0], exact, rtol=1e-12 if d < 10 else 1e-4)


@pytest.mark.long
def test_single_precision():
    packet = bd.GaussianWavePacket(jnp.array([0.5, 0.1], jnp.float32), 0.3)
    solution = solve(static(COUPLED), packet, t1=2.0, mass=UNEQUAL, steps=50)
    x = jnp.zeros(2, jnp.float32)
    values = [solution.mean(), solution.std(), solution.energy(), solution.sample(KEY, 2)]
    values += [solution.score(0.5, x), solution.log_density(0.5, x), solution.velocity(0.5, x)]
    assert {v.dtype for v in values} == {jnp.dtype("float32")}
    assert solution.wave_function(0.5, x).dtype == jnp.dtype("complex64")
    q, _, A = mobius(COUPLED, UNEQUAL, 1.0, packet, 2.0)
    np.testing.assert_allclose(solution.mean()[-1], q, atol=2e-5)
    np.testing.assert_allclose(solution.covariance()[-1], 0.5 * np.linalg.inv(A.imag), rtol=1e-4)


@pytest.mark.long
def test_gradient_in_a_parameter_of_the_potential():
    def loss(depth):
        packet = bd.GaussianWavePacket([0.6], 0.25, [0.3])
        solution = solve(Quartic(depth), packet, t1=1.0, ts=[0.5, 1.0], steps=20, solver=bd.BlanesMoan4())
        psi = solution.wave_function(0.7, jnp.array([0.9]))
        return jnp.sum(solution.std()) + solution.energy()[-1] + jnp.real(psi) + jnp.imag(psi)

    value, h = jax.jit(loss), 1e-3
    quotient = np.dot([1, -8, 8, -1], [value(1.0 + k * h) for k in (-2, -1, 1, 2)]) / (12 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(1.0), quotient, rtol=1e-8)


def test_vmap_equals_a_loop(coupled):
    x = jax.random.normal(KEY, (4, 2))
    t = jnp.linspace(0, 3, 4)
    together = jax.vmap(coupled.wave_function)(t, x)
    alone = jnp.stack([coupled.wave_function(*at) for at in zip(t, x, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)


def test_times_outside_are_refused(coupled):
    x = jnp.zeros(2)
    for t in (-0.1, 3.1):
        with pytest.raises(ValueError, match=r"t must lie in \[t0, t1\] = \[0\., 3\.\]"):
            coupled.score(t, x)
        assert np.all(np.isnan(jax.jit(lambda t: coupled.score(t, x))(t)))
    assert np.all(np.isfinite(jax.jit(lambda t: coupled.score(t, x))(3.0)))
    assert jnp.all(jnp.isfinite(coupled.score(3.0, x)))


def test_bad_options_are_refused():
    for steps in (0, -3, 1.5, True):
        with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
            bd.GaussianDynamics(steps=steps)
    import diffrax

    with pytest.raises(Exception, match="solver"):
        bd.GaussianDynamics(solver=diffrax.Tsit5())


def test_other_initial_states_are_refused():
    class Other(bd.AbstractInitialState):
        inner: bd.GaussianWavePacket
        dimension = property(lambda self: self.inner.dimension)
        dtype = property(lambda self: self.inner.dtype)

        def log_density(self, x):
            return self.inner.log_density(x)

        def phase(self, x):
            return self.inner.phase(x)

        def particles(self, design, key=None):
            return self.inner.particles(design, key)

    with pytest.raises(ValueError, match="needs a GaussianWavePacket as initial state, but Other"):
        solve(static([[1.0]]), Other(bd.GaussianWavePacket([0.0], 0.5)), t1=1.0)


def test_a_solution_that_does_not_stay_finite_is_refused():
    with pytest.raises(bd.NotFiniteError, match="not finite"):
        solve(lambda t, x: -jnp.sum(x**6), bd.GaussianWavePacket([1.0], 0.5), t1=50.0, steps=20)

"""The Fisher divergence against an oracle that shares nothing with the library: leapfrog by hand, and
nested derivatives of the whole path."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.unchecked import unchecked_types

import bohmdiff as bd

STEPS = 8
MASS, HBAR, T1 = jnp.array([0.8, 1.7]), jnp.asarray(0.9), 0.6


def potential(t, x):
    return 0.5 * jnp.sum(x**2) + 0.1 * jnp.sum(x**4) * (1 + t) + 0.2 * x[0] * x[-1]


class Score(eqx.Module):
    strength: jax.Array

    def __call__(self, t, x):
        return -(1.5 - 0.2 * t) * x + self.strength * jnp.sin(x + x[::-1])


def setting(d, potential=potential, t1=T1):
    problem = bd.Problem(
        bd.Hamiltonian(potential, MASS[:d], HBAR),
        bd.GaussianWavePacket([0.4, -0.3][:d], 0.6, [0.3, 0.5][:d]),
        t1=t1,
    )
    x0 = jnp.array([[0.1, 0.4], [0.9, -0.8], [-0.7, -0.2]])[:, :d]
    return problem, x0


@eqx.filter_jit
def oracle(score, x0, potential, t1, steps):
    """|s − s_ρ|² and |det F| of every particle at every step: (M, N + 1)."""
    d = x0.shape[1]
    mass, momentum = MASS[:d], jnp.array([0.3, 0.5])[:d]
    h = t1 / steps

    def acceleration(t, x):
        def total(y):
            s, slopes = score(t, y), jnp.diag(jax.jacfwd(lambda z: score(t, z))(y))
            return potential(t, y) - jnp.sum(HBAR**2 / (4 * mass) * (slopes + 0.5 * s**2))

        return -jax.grad(total)(x) / mass

    def path(x):
        def step(state, k):
            x, v = state
            v = v + 0.5 * h * acceleration(k * h, x)
            x = x + h * v
            v = v + 0.5 * h * acceleration((k + 1) * h, x)
            return (x, v), x

        _, xs = jax.lax.scan(step, (x, momentum / mass), jnp.arange(steps))
        return jnp.concatenate([x[None], xs])

    def deformation(x):
        return jax.jacfwd(path)(x)

    def residual(x):
        f = deformation(x)
        slope = jax.jacfwd(lambda y: jnp.linalg.slogdet(deformation(y))[1])(x)
        initial = -(x - jnp.array([0.4, -0.3])[:d]) / 0.6
        own = jax.vmap(lambda a, b: jnp.linalg.solve(a.T, initial - b))(f, slope)
        ours = jax.vmap(score)(jnp.arange(steps + 1) * h, path(x))
        return jnp.sum((ours - own) ** 2, axis=1), jnp.abs(jnp.linalg.det(f))

    return jax.vmap(residual)(x0)


def trapezoid(values):
    return np.sum(0.5 * (values[1:] + values[:-1])) / (len(values) - 1)


def divergence(problem, score, x0, **options):
    options = {"steps": STEPS, "solver": bd.VelocityVerlet(), **options}
    return bd.fisher_divergence(problem, score, x0, **options)


@pytest.mark.parametrize("d", [1, 2])
def test_value_against_the_oracle(d):
    problem, x0 = setting(d)
    score = Score(jnp.asarray(0.3))
    square, determinant = oracle(score, x0, potential, T1, STEPS)
    report = divergence(problem, score, x0)
    np.testing.assert_allclose(report.ts, np.linspace(0, T1, STEPS + 1), rtol=1e-12)
    np.testing.assert_allclose(report.per_time, np.mean(square, axis=0), rtol=1e-9)
    np.testing.assert_allclose(report.value, trapezoid(np.mean(square, axis=0)), rtol=1e-9)
    np.testing.assert_allclose(report.minimum_determinant, np.min(determinant), rtol=1e-9)
    assert float(report.masked_fraction) == 0
    # Weights need no normalisation.
    weights = np.array([2.0, 0.5, 1.5])
    weighted = divergence(problem, score, x0, weights=weights)
    np.testing.assert_allclose(weighted.per_time, weights @ np.asarray(square) / 4, rtol=1e-9)
    equal = divergence(problem, score, x0, weights=7 * np.ones(3))
    np.testing.assert_allclose(equal.per_time, report.per_time, rtol=1e-12)


def no_score(t, x):
    return jnp.zeros_like(x)


def test_masks_particles_at_a_caustic():
    """Classical motion in a quartic well: particles are focused, each at a time of its own."""
    problem, x0 = setting(1, t1=3.0)
    weights = np.array([0.5, 0.2, 0.3])
    square, determinant = (np.asarray(a) for a in oracle(no_score, x0, potential, 3.0, STEPS))
    threshold = 0.4
    kept = determinant >= threshold
    assert not np.all(kept)
    assert np.all(np.any(kept, axis=0))
    report = divergence(problem, no_score, x0, weights=weights, smallest_determinant=threshold)
    share = weights @ kept
    np.testing.assert_allclose(report.per_time, weights @ (kept * square) / share, rtol=1e-9)
    np.testing.assert_allclose(report.masked_fraction, trapezoid(1 - share), rtol=1e-12)
    np.testing.assert_allclose(report.minimum_determinant, np.min(determinant), rtol=1e-9)


def oscillator(t, x):
    return 0.5 * MASS[0] * x[0] ** 2


def test_caustic_of_the_classical_oscillator():
    """F = cos t for all particles at once: nothing is left at t = π/2."""
    problem, x0 = setting(1, oscillator, t1=np.pi / 2 - 0.02)

    def run(threshold):
        return divergence(
            problem, no_score, x0, steps=20, solver=bd.BlanesMoan6(), smallest_determinant=threshold
        )

    report = run(0.0)
    np.testing.assert_allclose(report.minimum_determinant, np.sin(0.02), rtol=1e-6)
    own = (np.asarray(x0)[:, 0] - 0.4) / 0.6
    np.testing.assert_allclose(report.per_time, np.mean(own**2) / np.cos(report.ts) ** 2, rtol=1e-5)
    with pytest.raises(ValueError, match=r"not finite: .* every particle is masked .* Take more steps"):
        run(0.1)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, but 0"),
        ({"solver": bd.VelocityVerlet}, "solver must be a solver such as"),
        ({"weights": [1.0, 2.0]}, r"weights must have shape \(3,\), one per particle, but shape \(2,\)"),
        ({"weights": [1.0, -1.0, 1.0]}, r"weights must not be negative .* but \[ 1., -1.,  1.\]"),
        ({"weights": [0.0, 0.0, 0.0]}, "not all be zero"),
        ({"weights": [1.0, np.nan, 1.0]}, "weights must be finite"),
        ({"smallest_determinant": -0.1}, "smallest_determinant must not be negative, but -0.1"),
        ({"smallest_determinant": np.nan}, "smallest_determinant must not be negative, but nan"),
    ],
)
def test_bad_options(options, match):
    problem, x0 = setting(2)
    with unchecked_types(), pytest.raises(ValueError, match=match):
        divergence(problem, Score(jnp.asarray(0.3)), x0, **options)


@pytest.mark.parametrize(
    ("score", "x0", "match"),
    [
        (lambda t, x: x[0], jnp.zeros((3, 2)), r"score\(t, x\) must return a real array of shape \(2,\)"),
        (lambda t, x: x / x, jnp.zeros((3, 2)), r"score\(t, x\) must be finite .* 3 of them"),
        (lambda t, x: x, jnp.zeros((3, 3)), r"x0 must have shape \(M, 2\).* shape \(3, 3\)"),
    ],
)
def test_bad_score_and_particles(score, x0, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        divergence(setting(2)[0], score, x0)

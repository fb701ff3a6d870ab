"""Sums, blends, frozen scores, scalars and vectors of one's own, and the score of a coherent state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.network import trainable
from bohmdiff.score import asymmetry, hermite_polynomials
from bohmdiff.score._polynomials import expand, hermite_basis
from bohmdiff.testing import DrivenGaussian

X = jnp.array([0.4, -0.7])


class Scalar(eqx.Module):
    """A user's own, with nothing of the library in it."""

    strength: jax.Array

    def __call__(self, t, x):
        return -0.5 * (1.2 + 0.3 * t) * jnp.sum(x**2) + self.strength * jnp.sin(x[0] * x[1])


class Vector(eqx.Module):
    """Its gradient, written by hand, and no scalar."""

    strength: jax.Array

    def __call__(self, t, x):
        return -(1.2 + 0.3 * t) * x + self.strength * jnp.cos(x[0] * x[1]) * x[::-1]


STRENGTH = jnp.asarray(0.3)


def quartic(t, x):
    return -0.1 * jnp.sum(x**4)


def rotation(t, x):
    return jnp.array([-x[1], x[0]])


def test_gradient_score_has_the_log_density_it_was_given():
    score = bd.GradientScore(Scalar(STRENGTH))
    assert float(score.log_density(0.7, X)) == float(Scalar(STRENGTH)(0.7, X))
    np.testing.assert_allclose(score(0.7, X), Vector(STRENGTH)(0.7, X), rtol=1e-12)


def test_asymmetry_is_that_of_the_jacobian():
    # Of a pure rotation J − Jᵀ is 2 J.
    np.testing.assert_allclose(asymmetry(rotation, 0.0, X), 2.0, rtol=1e-12)
    assert float(asymmetry(Vector(STRENGTH), 0.7, X)) < 1e-12
    assert float(asymmetry(lambda t, x: jnp.ones(2), 0.0, X)) == 0


def test_sums():
    first, second, third = bd.GradientScore(Scalar(STRENGTH)), bd.GradientScore(quartic), rotation
    total = first + second
    assert isinstance(total, bd.ScoreSum)
    np.testing.assert_allclose(total(0.7, X), first(0.7, X) + second(0.7, X), rtol=1e-12)
    np.testing.assert_allclose(
        total.log_density(0.7, X), Scalar(STRENGTH)(0.7, X) + quartic(0.7, X), rtol=1e-12
    )
    assert total.terms == (first, second)
    # A sum of sums is one sum, on either side.
    assert (total + third).terms == (first, second, third)
    assert (second + total).terms == (second, first, second)
    assert bd.ScoreSum(total, total).terms == (first, second, first, second)
    np.testing.assert_allclose((total + third)(0.7, X), total(0.7, X) + rotation(0.7, X), rtol=1e-12)
    with pytest.raises(ValueError, match=r"vector field without the scalar .* GradientScore\(scalar\)"):
        (total + third).log_density(0.7, X)


def test_bad_terms():
    with pytest.raises(ValueError, match=r"A sum needs scores, .* but \(\) was given"):
        bd.ScoreSum()
    with unchecked_types(), pytest.raises(ValueError, match=r"pass FrozenScore\(solution\)"):
        bd.GradientScore(quartic) + Solved(STRENGTH)


def test_blended_score_changes_from_one_to_the_other():
    first, second = bd.GradientScore(Scalar(STRENGTH)), bd.GradientScore(quartic)
    blended = bd.BlendedScore(first, second, start=0.5, end=1.5)

    def parts(score, t):
        return score(t, X), score.log_density(t, X)

    for t in (-1.0, 0.5):
        jax.tree.map(np.testing.assert_array_equal, parts(blended, t), parts(first, t))
    for t in (1.5, 7.0):
        jax.tree.map(np.testing.assert_array_equal, parts(blended, t), parts(second, t))
    # A quarter of the way 1/64 (10 - 15/4 + 6/16) has changed, and it is the same from the other end.
    for t, late in ((0.75, 0.103515625), (1.0, 0.5), (1.25, 1 - 0.103515625)):
        for got, a, b in zip(parts(blended, t), parts(first, t), parts(second, t), strict=True):
            np.testing.assert_allclose(got, (1 - late) * a + late * b, rtol=1e-12)
    # It sets in, and ends, without a jump in its rate or in the change of that.
    switch = bd.BlendedScore(lambda t, x: 0 * x, lambda t, x: x, start=0.5, end=1.5)
    rate = jax.jacfwd(lambda t: switch(t, X))
    for t in (0.5 + 1e-6, 1.5 - 1e-6):
        np.testing.assert_allclose(rate(t), 0, atol=1e-10)
        np.testing.assert_allclose(jax.jacfwd(rate)(t), 0, atol=1e-4)
    # It is the score of its log density, and single precision stays single.
    np.testing.assert_allclose(
        jax.grad(blended.log_density, argnums=1)(1.1, X), blended(1.1, X), rtol=1e-12
    )
    single = bd.BlendedScore(lambda t, x: x, lambda t, x: -x, 0.0, 1.0)
    assert single(jnp.float32(0.3), X.astype("float32")).dtype == "float32"


def test_bad_blends():
    first = bd.GradientScore(quartic)
    for start, end in ((1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)):
        with pytest.raises(ValueError, match=f"start must be before end, .* start={start} and end={end}"):
            bd.BlendedScore(first, first, start, end)
    with unchecked_types(), pytest.raises(ValueError, match="end must be a number, but 'late' was given"):
        bd.BlendedScore(first, first, 0.0, "late")
    with unchecked_types(), pytest.raises(ValueError, match=r"pass FrozenScore\(solution\)"):
        bd.BlendedScore(first, Solved(STRENGTH), 0.0, 1.0)
    with pytest.raises(ValueError, match="is a vector field without the scalar"):
        bd.BlendedScore(first, rotation, 0.0, 1.0).log_density(0.7, X)


class Solved(eqx.Module):
    """As solutions are: not to be called, but with a score."""

    strength: jax.Array

    def score(self, t, x):
        return Vector(self.strength)(t, x)

    def log_density(self, t, x):
        return Scalar(self.strength)(t, x)


def test_frozen_score_of_a_solution():
    solution = Solved(STRENGTH)
    frozen = bd.FrozenScore(solution)
    np.testing.assert_allclose(frozen(0.7, X), solution.score(0.7, X), rtol=1e-12)
    np.testing.assert_allclose(frozen.log_density(0.7, X), solution.log_density(0.7, X), rtol=1e-12)
    assert float(eqx.filter_grad(lambda f: f.log_density(0.7, X))(frozen).source.strength) == 0
    assert not any(jax.tree.leaves(trainable(frozen)))
    assert all(jax.tree.leaves(trainable(solution)))


def test_frozen_score_of_a_score():
    field = Vector(STRENGTH)
    frozen = bd.FrozenScore(field)
    np.testing.assert_array_equal(frozen(0.7, X), field(0.7, X))

    def value(score):
        return jnp.sum(score(0.7, X) ** 2)

    assert float(eqx.filter_grad(value)(frozen).source.strength) == 0
    assert float(eqx.filter_grad(value)(field).strength) != 0
    # What it is a function of goes on.
    np.testing.assert_allclose(
        jax.jacfwd(frozen, argnums=1)(0.7, X), jax.jacfwd(field, argnums=1)(0.7, X), rtol=1e-12
    )
    with pytest.raises(ValueError, match="Vector is a vector field without the scalar"):
        frozen.log_density(0.7, X)
    with pytest.raises(ValueError, match=r"A score s\(t, x\) or a solution .* but 3.0 was given"):
        bd.FrozenScore(3.0)


MASS, HBAR, T0, CENTRE = np.array([0.7, 2.1]), 0.8, 0.4, np.array([0.2, -0.1])
STIFFNESS = np.array([[1.4, 0.5], [0.5, 2.3]])


def trap(stiffness=STIFFNESS):
    """A coherent state of a coupled trap: the covariance of the ground state, by scipy's square root."""
    root = np.diag(np.sqrt(MASS))
    omega = root @ sqrtm(np.linalg.inv(root) @ STIFFNESS @ np.linalg.inv(root)).real @ root
    hamiltonian = bd.Hamiltonian(bd.Quadratic(stiffness, CENTRE), MASS, HBAR)
    packet = bd.GaussianWavePacket([0.9, -0.4], 0.5 * HBAR * np.linalg.inv(omega), [0.6, -0.8])
    return bd.Problem(hamiltonian, packet, t1=T0 + 1.5, t0=T0)


@pytest.mark.long
def test_harmonic_score_is_exact_for_a_coherent_state():
    problem = trap()
    score = bd.HarmonicScore(problem)
    x0, weights = problem.initial.particles(bd.GaussHermitePoints(2, discard=0.0))
    report = bd.fisher_divergence(problem, score, x0, weights=weights, steps=24, solver=bd.BlanesMoan4())
    assert float(report.value) < 1e-8
    packet = problem.initial
    case = DrivenGaussian(
        mass=jnp.asarray(MASS),
        hbar=jnp.asarray(HBAR),
        stiffness=jnp.asarray(STIFFNESS),
        centre=jnp.asarray(CENTRE),
        drive=jnp.zeros(2),
        frequency=1.0,
        mean=packet.mean,
        covariance=packet.covariance,
        momentum=packet.momentum,
        chirp=packet.chirp,
        t1=jnp.asarray(1.5),
    )
    for since in (0.0, 0.7, 1.5):
        np.testing.assert_allclose(score.mean(T0 + since), case.centre_at(since)[0], rtol=1e-10)
        np.testing.assert_allclose(score(T0 + since, X), case(since, X), rtol=1e-9)
    gradient = jax.grad(score.log_density, 1)(T0 + 0.7, X)
    np.testing.assert_allclose(gradient, score(T0 + 0.7, X), rtol=1e-12)


def test_harmonic_score_needs_a_bound_potential():
    saddle = np.array([[1.4, 0.5], [0.5, -0.3]])
    with pytest.raises(ValueError, match=r"bound in every direction .* use GaussianDynamics\(\)"):
        bd.HarmonicScore(trap(saddle))


@pytest.mark.long
def test_scalars_and_vectors_of_ones_own():
    potential = bd.Quadratic(STIFFNESS, CENTRE)
    problem = bd.Problem(
        bd.Hamiltonian(potential, MASS, HBAR), bd.GaussianWavePacket([0.1, 0.2], 0.7), t1=0.5
    )
    x0 = jnp.array([[0.3, 0.1], [-0.6, 0.8]])
    options = {"steps": 4, "solver": bd.VelocityVerlet()}

    def both(score):
        flow = bd.propagate(problem, score, x0, ts=[0.2, 0.5], tangents=False, **options)
        report = bd.fisher_divergence(problem, score, x0, **options)
        return flow.position, flow.energy, report.per_time

    for scalar, vector in zip(
        both(bd.GradientScore(Scalar(STRENGTH))), both(Vector(STRENGTH)), strict=True
    ):
        np.testing.assert_allclose(scalar, vector, rtol=1e-10)
    # At t0 the flow has made nothing of its own yet.
    expected = [np.sum((Vector(STRENGTH)(0.0, x) - problem.initial.score(x)) ** 2) for x in x0]
    np.testing.assert_allclose(vector[0], np.mean(expected), rtol=1e-10)


@pytest.mark.parametrize(
    ("d", "degree"),
    [pytest.param(1, 5, marks=pytest.mark.slow), pytest.param(2, 4, marks=pytest.mark.slow), (2, 2)],
)
def test_derivatives_of_expansions(d, degree):
    """The derivative that is written down, against differentiation of the basis."""
    rng = np.random.default_rng(4)
    xi = jnp.asarray(rng.normal(size=d))
    polynomials = hermite_polynomials(d, degree)
    coefficients = jnp.asarray(rng.normal(size=(2, polynomials.size)))

    def ours(xi, coefficients):
        return expand(xi[None], coefficients, polynomials)[0]

    def plain(xi, coefficients):
        return (hermite_basis(xi[None], polynomials) @ coefficients.T)[0]

    def forwards(function, order):
        for _ in range(order):
            function = jax.jacfwd(function)
        return function

    @jax.jit
    def compare(xi, coefficients):
        def derivatives(function):
            return (
                [forwards(function, order)(xi, coefficients) for order in range(5)],
                jax.jacrev(function)(xi, coefficients),
                jax.jacrev(jax.jacfwd(jax.jacfwd(function)))(xi, coefficients),
                # With respect to the coefficients, after derivatives in ξ, as training does.
                [jax.jacrev(forwards(function, order), 1)(xi, coefficients) for order in range(3)],
                jax.jacfwd(forwards(function, 2), 1)(xi, coefficients),
            )

        return derivatives(ours), derivatives(plain)

    got, expected = compare(xi, coefficients)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
    assert np.any(expected[0][min(4, degree)] != 0)

"""How anything becomes a score; sums, blends and frozen scores; and the score of a coherent state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.network import trainable
from bohmdiff.score import (
    AbstractScoreSource,
    as_score,
    asymmetry,
    has_log_density,
    hermite_polynomials,
    scalar_of,
)
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


class Declared(bd.AbstractGradientScore):
    """Both."""

    strength: jax.Array

    def __call__(self, t, x):
        return Vector(self.strength)(t, x)

    def log_density(self, t, x):
        return Scalar(self.strength)(t, x)


class Undeclared(bd.AbstractScore):
    """Both, but nobody is told."""

    strength: jax.Array

    def __call__(self, t, x):
        return Vector(self.strength)(t, x)

    def log_density(self, t, x):
        return Scalar(self.strength)(t, x)


class Network(bd.AbstractScore):
    """A module of Equinox, whose activations are leaves."""

    layers: eqx.nn.MLP

    def __call__(self, t, x):
        return self.layers(x)


class Solved(AbstractScoreSource):
    """As solutions are: it cannot be called, but it has a score."""

    strength: jax.Array

    def as_score(self):
        return Declared(self.strength)

    def score(self, t, x):
        return Vector(self.strength)(t, x)


STRENGTH = jnp.asarray(0.3)


def quartic(t, x):
    return -0.1 * jnp.sum(x**4)


def rotation(t, x):
    return jnp.array([-x[1], x[0]])


def no_gradient(name):
    return pytest.raises(
        ValueError, match=rf"{name} is a vector field without log_density\(t, x\).* GradientScore\(scalar\)"
    )


def test_what_is_a_score_stays_as_it_is():
    for score in (Declared(STRENGTH), bd.GradientScore(quartic), bd.FrozenScore(rotation)):
        assert as_score(score) is score


def test_functions_and_modules_become_scores():
    function, module = as_score(rotation), as_score(Vector(STRENGTH))
    assert type(function) is type(module) is bd.FunctionScore
    np.testing.assert_array_equal(function(0.7, X), rotation(0.7, X))
    np.testing.assert_array_equal(module(0.7, X), Vector(STRENGTH)(0.7, X))
    assert jax.tree.structure(function) == jax.tree.structure(as_score(rotation))


def test_modules_have_parameters_and_functions_do_not():
    module = as_score(Vector(STRENGTH))
    assert jax.tree.leaves(module) == [STRENGTH]
    assert sum(jax.tree.leaves(trainable(module))) == 1
    # The gradients of JAX lead uphill in an imaginary part.
    assert not any(jax.tree.leaves(trainable(Vector(1j * STRENGTH))))
    for score in (as_score(lambda t, x: -0.4 * STRENGTH * x), quadratic_of(STRENGTH)):
        assert jax.tree.leaves(score)
        assert not any(jax.tree.leaves(trainable(score)))


def test_solutions_and_their_methods_become_scores():
    solution = Solved(STRENGTH)
    assert as_score(solution) == Declared(STRENGTH)
    method = as_score(solution.score)
    np.testing.assert_array_equal(method(0.7, X), solution.score(0.7, X))

    @jax.jit
    def change(strength):
        return as_score(Solved(strength).score)(0.7, X)

    np.testing.assert_allclose(change(0.9), Vector(0.9)(0.7, X), rtol=1e-12)
    # The solution that a method belongs to is data, not a constant of the program.
    assert jax.tree.leaves(method) == [STRENGTH]


def test_what_is_no_score():
    for value in (3.0, None, X, "harmonic"):
        with pytest.raises(
            ValueError, match=r"baseline must be a callable s\(t, x\) .* or a solution, but "
        ):
            as_score(value, "baseline")
    with unchecked_types():
        for make in (bd.FunctionScore, bd.GradientScore, bd.FrozenScore, bd.ScoreSum):
            with pytest.raises(ValueError, match=r"must be a callable .* but 3.0 was given"):
                make(3.0)


def test_only_a_declared_scalar_counts():
    exact = bd.GradientScore(Scalar(STRENGTH))
    for score in (Declared(STRENGTH), exact, exact + Declared(STRENGTH), bd.FrozenScore(exact)):
        assert has_log_density(score)
        expected = score.log_density(0.7, X)
        np.testing.assert_allclose(scalar_of(score)(0.7, X), expected, rtol=0)
    np.testing.assert_allclose(scalar_of(Solved(STRENGTH))(0.7, X), Scalar(STRENGTH)(0.7, X), rtol=1e-12)
    for score in (
        Undeclared(STRENGTH),
        exact + Undeclared(STRENGTH),
        bd.BlendedScore(exact, bd.FrozenScore(Undeclared(STRENGTH)), 0.0, 1.0),
    ):
        assert not has_log_density(score)
        with no_gradient("Undeclared"):
            scalar_of(score)
    with no_gradient("rotation"):
        scalar_of(rotation)


def scores():
    problem = trap()
    network = bd.NeuralScore(
        problem, baseline=rotation, exact_start=True, width=3, activation=jnp.tanh, key=jax.random.key(0)
    )
    own = bd.NeuralScore(problem, network=lambda features, z: jnp.sum(z**2), key=jax.random.key(0))
    harmonic = bd.HarmonicScore(problem)
    blended = bd.BlendedScore(harmonic, Solved(STRENGTH), 0.5, 1.0)
    summed = harmonic + quadratic_of(STRENGTH)
    layers = Network(eqx.nn.MLP(2, 2, 3, 1, jnp.tanh, key=jax.random.key(0)))
    parts = (rotation, Vector(STRENGTH), layers, bd.GradientScore(quartic), Declared(STRENGTH))
    parts = (*parts, harmonic, network, own)
    return {
        type(score).__name__ + str(index): score
        for index, score in enumerate([*map(as_score, parts), blended, summed, bd.FrozenScore(network)])
    }


def quadratic_of(strength):
    return bd.GradientScore(lambda t, x: -strength * x @ x)


def test_scores_are_arrays_and_static_options():
    """They pass through the transformations of JAX itself."""
    for name, score in scores().items():
        leaves = jax.tree.leaves(score)
        assert all(isinstance(leaf, jax.Array) for leaf in leaves), name
        np.testing.assert_allclose(
            jax.jit(lambda s, x: s(0.7, x))(score, X), score(0.7, X), rtol=1e-10, err_msg=name
        )


def test_equal_scores_are_traced_once():
    traced = []

    @jax.jit
    def look(score, x):
        traced.append(type(score).__name__)
        return score(0.7, x)

    for _ in range(2):
        for score in scores().values():
            look(score, X)
    assert len(traced) == len(scores())


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
    first, second = bd.GradientScore(Scalar(STRENGTH)), bd.GradientScore(quartic)
    third = as_score(rotation)
    total = first + second
    assert isinstance(total, bd.ScoreSum)
    np.testing.assert_allclose(total(0.7, X), first(0.7, X) + second(0.7, X), rtol=1e-12)
    np.testing.assert_allclose(
        total.log_density(0.7, X), Scalar(STRENGTH)(0.7, X) + quartic(0.7, X), rtol=1e-12
    )
    assert total.terms == (first, second)
    # A sum of sums is one sum, on either side.
    assert (total + rotation).terms == (first, second, third)
    assert (second + total).terms == (second, first, second)
    assert bd.ScoreSum(total, total).terms == (first, second, first, second)
    np.testing.assert_allclose((total + third)(0.7, X), total(0.7, X) + rotation(0.7, X), rtol=1e-12)
    with no_gradient("rotation"):
        (total + third).log_density(0.7, X)
    solved = first + Solved(STRENGTH)
    np.testing.assert_allclose(solved(0.7, X), 2 * first(0.7, X), rtol=1e-12)
    np.testing.assert_allclose(solved.log_density(0.7, X), 2 * first.log_density(0.7, X), rtol=1e-12)


def test_bad_terms():
    with pytest.raises(ValueError, match="at least one score, but none was given"):
        bd.ScoreSum()
    with (
        unchecked_types(),
        pytest.raises(ValueError, match=r"A term of a sum must be a callable s\(t, x\)"),
    ):
        bd.GradientScore(quartic) + 3.0
    scalar = bd.ScoreSum(quartic, rotation)
    with pytest.raises(
        ValueError, match=r"must return shape \(2,\) .* returned \(\)\. GradientScore makes"
    ):
        scalar(0.7, X)


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
    with (
        unchecked_types(),
        pytest.raises(ValueError, match=r"late must be a callable .* or a solution, but 3.0"),
    ):
        bd.BlendedScore(first, 3.0, 0.0, 1.0)
    with no_gradient("rotation"):
        bd.BlendedScore(first, rotation, 0.0, 1.0).log_density(0.7, X)


def test_frozen_score_of_a_solution():
    solution = Solved(STRENGTH)
    frozen = bd.FrozenScore(solution)
    np.testing.assert_allclose(frozen(0.7, X), solution.score(0.7, X), rtol=1e-12)
    np.testing.assert_allclose(frozen.log_density(0.7, X), Scalar(STRENGTH)(0.7, X), rtol=1e-12)
    assert float(eqx.filter_grad(lambda f: f.log_density(0.7, X))(frozen).source.strength) == 0
    assert not any(jax.tree.leaves(trainable(frozen)))
    assert all(jax.tree.leaves(trainable(solution)))


def test_frozen_score_of_a_score():
    field = Vector(STRENGTH)
    frozen = bd.FrozenScore(field)
    np.testing.assert_array_equal(frozen(0.7, X), field(0.7, X))

    def value(score):
        return jnp.sum(score(0.7, X) ** 2)

    assert float(eqx.filter_grad(value)(frozen).source.function.strength) == 0
    assert float(eqx.filter_grad(value)(field).strength) != 0
    # What it is a function of goes on.
    np.testing.assert_allclose(
        jax.jacfwd(frozen, argnums=1)(0.7, X), jax.jacfwd(field, argnums=1)(0.7, X), rtol=1e-12
    )
    with no_gradient("Vector"):
        frozen.log_density(0.7, X)


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


def test_harmonic_score_follows_a_gaussian():
    mixture = bd.GaussianMixture([0.5, 0.5], [[0.1, 0.0], [-0.1, 0.0]], [0.5, 0.5])
    problem = bd.Problem(bd.Hamiltonian(bd.Quadratic(1.0)), mixture, t1=1.0)
    with pytest.raises(
        ValueError, match=r"momentum of a GaussianWavePacket, .* is a GaussianMixture\. Use"
    ):
        bd.HarmonicScore(problem)


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

"""What the quantum force is made of, in closed form and by nested differentiation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd
from bohmdiff.network import LocalScore, ladder, local_derivatives, pullback
from bohmdiff.network.derivatives import differentiated
from bohmdiff.score import HermiteExpansion, cubic_path, hermite_polynomials

KEY = jax.random.key(3)
MASS = jnp.array([1.0, 0.7, 1.6])
X = jnp.array([0.3, -0.4, 0.6])


def problem(d=3):
    hamiltonian = bd.Hamiltonian(bd.MorseChain(depth=12.5, width=0.2, coupling=0.3), MASS[:d], hbar=0.8)
    initial = bd.GaussianWavePacket(jnp.zeros(d).at[0].set(1.0), jnp.array([0.5, 0.4, 0.3])[:d])
    return bd.Problem(hamiltonian, initial, t1=2.0)


@pytest.fixture(scope="module")
def hermite():
    """A polynomial of degree 4 that moves, turns and changes."""
    rng = np.random.default_rng(1)

    def at(t):
        shape = np.array([[0.7, 0.0, 0.0], [0.1, 0.6, 0.0], [-0.2, 0.1, 0.5]]) * (1 + 0.2 * t)
        coefficients = 0.1 * rng.normal(size=hermite_polynomials(3, 4).size - 1)
        arrays = (jnp.asarray(a) for a in (X - 0.3 * t, shape, coefficients, 0.0))
        return HermiteExpansion(*arrays, degree=4, window=6.0)

    expansions = jax.tree.map(lambda *leaves: jnp.stack(leaves), at(0.0), at(1.0))
    return bd.HermiteScore(
        cubic_path(jnp.array([0.0, 1.0]), expansions, jax.tree.map(jnp.zeros_like, expansions))
    )


class Cubic(bd.AbstractScore):
    """A vector field that is not a gradient."""

    def __call__(self, t, x):
        return -x + 0.1 * (1 + t) * jnp.roll(x, 1) * x**2


def assert_same(one, other, rtol=1e-11):
    for (path, a), b in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        scale = np.max(np.abs(b), initial=1e-3)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=jax.tree_util.keystr(path))


@eqx.filter_jit
def in_both_ways(score, t, x, order):
    inverse_mass = 1 / MASS[: x.shape[0]]
    return [find(score, t, x, inverse_mass, order) for find in (local_derivatives, differentiated)]


@eqx.filter_jit
def force_in_both_ways(score, t, x):
    """With a direction that is not the score, whose derivative would show."""
    inverse_mass, direction = 1 / MASS[: x.shape[0]], jnp.array([0.4, -1.2, 0.7])[: x.shape[0]]
    ours = pullback(score, t, x, inverse_mass)
    (local,) = differentiated(score, t, x, inverse_mass, 0)
    pull = local.divergence_gradient + (inverse_mass * direction) @ local.jacobian
    own = ours.score, ours.divergence, ours.pull(direction)
    return own, (local.score, inverse_mass @ jnp.diagonal(local.jacobian), pull)


def check(score, x=X, orders=(2,)):
    assert isinstance(score, bd.AbstractWithDerivatives)
    assert_same(*force_in_both_ways(score, 0.7, x))
    for order in orders:
        ours, expected = in_both_ways(score, 0.7, x, order)
        assert len(ours) == order + 1
        assert_same(ours, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 1, "width": 6},
        {"depth": 1, "width": 6, "conditioning": "concat"},
        {"depth": 2, "width": (5, 6), "conditioning": "concat"},
        pytest.param(
            {"depth": 3, "width": (6, 4, 5), "activation": jnp.tanh, "fade_in": 1}, marks=pytest.mark.long
        ),
        {"network": lambda features, z: jnp.sin(features @ features * jnp.sum(z**3))},
    ],
    ids=["shallow", "shallow concat", "concat", "deep tanh", "own"],
)
def test_networks(options):
    check(bd.NeuralScore(problem(), output_scale=1.0, key=KEY, **options))


def test_vector_fields_without_them():
    assert_same(*force_in_both_ways(Cubic(), 0.7, X))


@pytest.mark.slow
def test_one_dimension():
    check(bd.NeuralScore(problem(1), output_scale=1.0, width=5, key=KEY), X[:1], orders=(0, 1, 2))


@pytest.mark.long
def test_sums_baselines_and_exact_starts(hermite):
    score = bd.NeuralScore(
        problem(2),
        baseline=bd.HarmonicScore(problem(2)),
        output_scale=1.0,
        width=4,
        exact_start=True,
        key=KEY,
    )
    assert score.initial is not None
    check(score + Cubic(), X[:2])
    check(bd.BlendedScore(score, Cubic(), 0.5, 1.0), X[:2])
    frozen = bd.FrozenScore(hermite).derivatives(0.7, X, 1 / MASS, 1)
    assert_same(frozen, hermite.derivatives(0.7, X, 1 / MASS, 1), rtol=0)


@pytest.mark.slow
def test_hermite_expansion(hermite):
    check(hermite, orders=(0, 1, 2))


@pytest.mark.slow
def test_beyond_the_window(hermite):
    """The parts of the force go on as the score does: each with the polynomial's part as it is there."""
    far = jnp.array([6.0, -6.0, 5.0])
    expansion = hermite.at(0.7)
    xi = jnp.linalg.solve(expansion.cholesky, far - expansion.mean)
    assert jnp.linalg.norm(xi) > expansion.window
    near = expansion.mean + expansion.cholesky @ xi * expansion.window / jnp.linalg.norm(xi)

    @eqx.filter_jit
    def look(score, far, near):
        local, *slopes = score.derivatives(0.7, far, 1 / MASS, 2)
        (there,) = score.derivatives(0.7, near, 1 / MASS, 0)
        along = jax.jacfwd(lambda x: score.derivatives(0.7, x, 1 / MASS, 1))(far)
        return local, slopes, there, along

    local, slopes, there, along = look(hermite, far, near)
    np.testing.assert_allclose(local.score, hermite(0.7, far), rtol=1e-12)
    np.testing.assert_allclose(local.jacobian, there.jacobian, rtol=1e-10)
    np.testing.assert_allclose(local.divergence_gradient, there.divergence_gradient, rtol=1e-10)
    assert_same(slopes, list(along))


class Undeclared(bd.AbstractScore):
    """It has the methods, but says nothing about them."""

    def __call__(self, t, x):
        return -(x**2)

    def derivatives(self, t, x, inverse_mass, order):
        raise AssertionError("derivatives were not declared")

    def pullback(self, t, x, inverse_mass):
        raise AssertionError("a pullback was not declared")


class Marked(bd.AbstractScore, bd.AbstractWithDerivatives):
    """Its divergence says where it comes from."""

    def __call__(self, t, x):
        return -(x**2)

    def derivatives(self, t, x, inverse_mass, order):
        return ladder(lambda y: LocalScore(-(y**2), jnp.diag(-2 * y), 7.0 * jnp.sin(y)), x, order)


class MarkedTwice(bd.AbstractScore, bd.AbstractWithDerivatives, bd.AbstractWithPullback):
    """Its divergence says which of the two it comes from."""

    def __call__(self, t, x):
        return -(x**2)

    def derivatives(self, t, x, inverse_mass, order):
        return Marked().derivatives(t, x, inverse_mass, order)

    def pullback(self, t, x, inverse_mass):
        return bd.Pullback(self(t, x), jnp.asarray(11.0), lambda u: 13.0 * u)


def test_what_is_declared_is_used():
    inverse_mass, direction = 1 / MASS, jnp.array([0.4, -1.2, 0.7])
    for order in (0, 1, 2):
        for score in (Marked(), MarkedTwice(), bd.FrozenScore(Marked())):
            found = local_derivatives(score, 0.0, X, inverse_mass, order)
            assert_same(found, Marked().derivatives(0.0, X, inverse_mass, order), rtol=0)
    np.testing.assert_allclose(found[2].divergence_gradient[1, 1, 1], -7 * jnp.sin(X[1]), rtol=1e-12)
    ours = pullback(Marked(), 0.0, X, inverse_mass)
    np.testing.assert_allclose(ours.divergence, -2 * jnp.sum(X / MASS), rtol=1e-12)
    np.testing.assert_allclose(
        ours.pull(direction), 7 * jnp.sin(X) - 2 * X * inverse_mass * direction, rtol=1e-12
    )
    for score in (MarkedTwice(), bd.FrozenScore(MarkedTwice())):
        ours = pullback(score, 0.0, X, inverse_mass)
        assert float(ours.divergence) == 11
        np.testing.assert_array_equal(ours.pull(direction), 13 * direction)


def test_what_is_not_declared_is_not_used():
    inverse_mass = 1 / MASS
    (here,) = local_derivatives(Undeclared(), 0.0, X, inverse_mass, 0)
    np.testing.assert_allclose(here.divergence_gradient, -2 * inverse_mass, rtol=1e-12)
    ours = pullback(Undeclared(), 0.0, X, inverse_mass)
    np.testing.assert_allclose(ours.divergence, -2 * jnp.sum(X / MASS), rtol=1e-12)


@pytest.mark.long
def test_they_can_be_differentiated_once_more(hermite):
    """The Fisher divergence differentiates them along the particles' starts, training with respect to
    parameters."""
    score = bd.NeuralScore(problem(), baseline=hermite, output_scale=1.0, width=4, depth=1, key=KEY)
    along = jnp.array([0.3, 1.0, -0.6])

    @eqx.filter_jit
    def differentiate(find, score):
        def total(score, x):
            leaves = jax.tree.leaves(find(score, 0.7, x, 1 / MASS, 1))
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves)

        slope = jax.jvp(lambda x: total(score, x), (X,), (along,))[1]
        return slope, eqx.filter_grad(total)(score, X).network.hidden[0].weight

    (slope, gradient), expected = (differentiate(f, score) for f in (local_derivatives, differentiated))
    assert float(jnp.max(jnp.abs(gradient))) > 1e-3
    np.testing.assert_allclose(slope, expected[0], rtol=1e-10)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-9, atol=1e-12)

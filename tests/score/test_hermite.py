"""Against scipy's polynomials, automatic differentiation, and densities that are known."""

import math
from dataclasses import replace
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import eval_hermitenorm, roots_hermitenorm

import bohmdiff as bd
from bohmdiff.score import cubic_path, fit_hermite, hermite_polynomials, smooth_path
from bohmdiff.score._polynomials import differentiate, expected_gradients, hermite_basis
from bohmdiff.score.hermite import FrameForce

DEGREES = [(1, 5), (2, 4), (3, 3)]
few = settings(max_examples=5)
RADIUS = 3.0

# Some of which leave out polynomials.
BASES = [
    *(hermite_polynomials(*size) for size in DEGREES),
    hermite_polynomials(3, 4, bd.Interactions(2, reach=1)),
    hermite_polynomials(3, 5, bd.HyperbolicCross()),
]
each_basis = pytest.mark.parametrize(
    "polynomials", BASES, ids=lambda b: f"{b.dimension}-{b.degree}-{b.basis}"
)

basis = eqx.filter_jit(hermite_basis)
fit = eqx.filter_jit(fit_hermite)


@eqx.filter_jit
def score_and_log_density(expansion, x):
    return expansion.score(x), jax.vmap(expansion.log_density)(x)


def numbers(low, high, *shape):
    return arrays(float, shape, elements=st.floats(low, high))


def frames(d):
    """A centre and a lower triangular factor."""
    lower = st.builds(
        lambda a, b: np.tril(a, -1) + np.diag(b), numbers(-0.5, 0.5, d, d), numbers(0.4, 1.5, d)
    )
    return st.tuples(numbers(-1, 1, d), lower)


def expansion_of(mean, cholesky, coefficients, degree, window, basis=bd.TotalDegree()):  # noqa: B008
    arrays = (jnp.asarray(a) for a in (mean, cholesky, coefficients, 0.0))
    return bd.HermiteExpansion(*arrays, degree, window, basis)


def expansions(d, degree, window, basis=bd.TotalDegree()):  # noqa: B008
    return st.builds(
        lambda frame, c: expansion_of(*frame, c, degree, window, basis),
        frames(d),
        numbers(-0.3, 0.3, hermite_polynomials(d, degree, basis).size - 1),
    )


def quadrature(d, number):
    nodes, weights = roots_hermitenorm(number)
    grid = np.stack(np.meshgrid(*[nodes] * d, indexing="ij"), -1).reshape(-1, d)
    weight = math.prod(np.meshgrid(*[weights / weights.sum()] * d, indexing="ij")).ravel()
    return jnp.asarray(grid), jnp.asarray(weight)


def scattered(d, number=40, seed=0):
    """Particles without any symmetry, of unequal weight."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, d)) + 0.3 * rng.normal(size=(number, d)) ** 2
    weights = rng.uniform(0.5, 1.5, number)
    return jnp.asarray(x), jnp.asarray(weights / weights.sum())


@each_basis
def test_basis_is_orthonormal(polynomials):
    xi, weights = quadrature(polynomials.dimension, polynomials.degree + 1)
    values = basis(xi, polynomials)
    assert values.shape == (len(xi), polynomials.size)
    np.testing.assert_array_equal(values[:, 0], 1)
    np.testing.assert_allclose((values.T * weights) @ values, np.eye(values.shape[1]), atol=1e-12)


def allowed(polynomials):
    """The degrees of each polynomial, from what the documentation says of the rules."""
    d, degree, basis, _ = polynomials
    every = [alpha for alpha in product(range(degree + 1), repeat=d) if sum(alpha) <= degree]
    if isinstance(basis, bd.HyperbolicCross):
        return [alpha for alpha in every if math.prod(a + 1 for a in alpha) <= degree + 1]
    if isinstance(basis, bd.Interactions):
        places = [[i for i, a in enumerate(alpha) if a] for alpha in every]
        return [
            alpha
            for alpha, at in zip(every, places, strict=True)
            if len(at) <= basis.order and (len(at) < 2 or at[-1] - at[0] <= basis.reach)
        ]
    return every


@each_basis
def test_basis_is_products_of_scipy_polynomials(polynomials):
    xi, _ = scattered(polynomials.dimension)
    values = basis(xi, polynomials)
    exponents = allowed(polynomials)
    expected = np.stack(
        [
            math.prod(
                eval_hermitenorm(k, np.asarray(xi[:, i])) / math.sqrt(math.factorial(k))
                for i, k in enumerate(alpha)
            )
            for alpha in exponents
        ],
        axis=1,
    )
    same = np.max(np.abs(np.asarray(values)[:, :, None] - expected[:, None, :]), axis=0) < 1e-9
    np.testing.assert_array_equal(same.sum(0), 1)
    np.testing.assert_array_equal(same.sum(1), 1)
    # By rising total degree, so that a lower degree is a leading part.
    totals = [sum(exponents[j]) for j in same.argmax(1)]
    assert totals == sorted(totals)
    lower = basis(xi, polynomials.lower)
    assert lower.shape[1] == totals.index(polynomials.degree)
    np.testing.assert_allclose(lower, values[:, : lower.shape[1]], atol=1e-12)


@eqx.filter_jit
def by_differentiation(xi, polynomials):
    """∂_i h_α and ∂_i ∂_j h_α at every point: (M, n, d) and (M, n, d, d)."""

    def one(y):
        return hermite_basis(y[None], polynomials)[0]

    return jax.vmap(jax.jacfwd(one))(xi), jax.vmap(jax.hessian(one))(xi)


@each_basis
def test_derivatives_of_coefficients(polynomials):
    xi, _ = scattered(polynomials.dimension)
    c = jnp.asarray(np.random.default_rng(1).normal(size=(2, polynomials.size)))
    slopes, _ = by_differentiation(xi, polynomials)
    mapped = differentiate(c, polynomials)
    assert mapped.shape == (2, polynomials.dimension, polynomials.size)
    np.testing.assert_array_equal(mapped[..., polynomials.lower.size :], 0)
    for i in range(polynomials.dimension):
        np.testing.assert_allclose(
            basis(xi, polynomials) @ mapped[:, i].T, slopes[..., i] @ c.T, atol=1e-10
        )


@each_basis
def test_expected_gradients_are_sums_over_points(polynomials):
    d = polynomials.dimension
    xi, weights = scattered(d)
    factor = np.random.default_rng(2).normal(size=(d, d))
    metric = jnp.asarray(factor @ factor.T)
    low = basis(xi, polynomials.lower)
    gradients, linear, laplacian = eqx.filter_jit(expected_gradients)(
        (low.T * weights) @ low, metric, polynomials
    )
    slopes, curvatures = by_differentiation(xi, polynomials)
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(
        gradients, np.einsum("m,mai,ij,mbj->ab", weights, slopes, metric, slopes), **close
    )
    np.testing.assert_allclose(linear, np.einsum("m,mi,ij,maj->a", weights, xi, metric, slopes), **close)
    np.testing.assert_allclose(laplacian, np.einsum("m,ij,maij->a", weights, metric, curvatures), **close)


class Gap(bd.AbstractBasis):
    """Leaves out one degree in the first coordinate, alone."""

    degree: int

    def allows(self, places, degrees, degree):
        return not (list(places) == [0] and degrees[0] == self.degree)


def test_what_a_rule_leaves_out():
    """Without the cube of the first coordinate nothing that has it as a factor."""
    products = hermite_polynomials(2, 4, Gap(3))
    assert products.size == hermite_polynomials(2, 4).size - 3
    with pytest.raises(ValueError, match="forbids degree 2 in coordinate 0 alone"):
        hermite_polynomials(2, 4, Gap(2))


@pytest.mark.parametrize("wrong", [{"order": 0}, {"order": 1.5}, {"reach": 0}, {"reach": "far"}])
def test_wrong_interactions(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be an integer of at least 1"):
        bd.Interactions(**wrong)


def place(expansion, xi):
    return jnp.asarray(np.asarray(expansion.mean) + np.asarray(xi) @ np.asarray(expansion.cholesky).T)


@eqx.filter_jit
def score_and_force(expansion, x, mass, hbar):
    return expansion.score(x), expansion.quantum(x, mass, hbar)[1]


@eqx.filter_jit
def score_and_force_by_differentiation(expansion, x, mass, hbar):
    hamiltonian = bd.Hamiltonian(lambda t, y: 0 * y[0], mass, hbar)

    def score(t, y):
        return expansion.score(y[None])[0]

    def quantum_potential(y):
        return bd.quantum_potential(hamiltonian, score, 0.0, y)

    return jax.vmap(jax.grad(expansion.log_density))(x), -jax.vmap(jax.grad(quantum_potential))(x)


def drawn_masses(data, d):
    return jnp.asarray(data.draw(numbers(0.4, 3, d))), jnp.asarray(data.draw(st.floats(0.2, 2)))


def inside(d, number=8):
    """Points of the frame within the window; not its centre alone."""
    return numbers(-0.95, 0.95, number, d).map(lambda y: y * RADIUS / math.sqrt(d))


@pytest.mark.parametrize("polynomials", BASES[:2] + BASES[3:4], ids=["1-5", "2-4", "neighbours of 3"])
@few
@given(st.data())
def test_score_and_force_are_derivatives_within_the_window(polynomials, data):
    d, degree, basis, _ = polynomials
    expansion = data.draw(expansions(d, degree, RADIUS, basis))
    x = place(expansion, data.draw(inside(d)))
    mass, hbar = drawn_masses(data, d)
    for ours, exact in zip(
        score_and_force(expansion, x, mass, hbar),
        score_and_force_by_differentiation(expansion, x, mass, hbar),
        strict=True,
    ):
        np.testing.assert_allclose(ours, exact, rtol=1e-9, atol=1e-9 * (1 + np.max(np.abs(exact))))


@few
@given(st.data())
def test_correction_does_not_grow_beyond_the_window(data):
    d, degree = 2, 4
    expansion = data.draw(expansions(d, degree, RADIUS))
    mass, hbar = drawn_masses(data, d)
    ray = data.draw(numbers(0.2, 1, 1, d))
    # The first four are one ray, from just inside the radius on.
    far = np.ones((8, 1)) * ray / np.linalg.norm(ray)
    far[:4] *= RADIUS * np.array([1 - 1e-9, 1 + 1e-9, 3.0, 100.0])[:, None]
    x = place(expansion, far)
    score, _ = score_and_force(expansion, x, mass, hbar)
    factor = np.asarray(expansion.cholesky)
    correction = np.asarray(score + (x - expansion.mean) @ np.linalg.inv(factor @ factor.T))[:4]
    scale = 1 + np.max(np.abs(score[:2]))
    np.testing.assert_allclose(
        correction, np.broadcast_to(correction[0], correction.shape), atol=1e-6 * scale
    )
    assert np.max(np.abs(correction)) > 1e-3 or np.max(np.abs(expansion.coefficients)) < 1e-2


@few
@given(st.data())
def test_force_is_a_derivative_and_ends_beyond_the_window(data):
    d = 2
    expansion = data.draw(expansions(d, 4, RADIUS))
    stretch = np.array([[0.3, -0.2], [-0.2, 0.1]])
    fitted = replace(expansion, frame_force=FrameForce(jnp.array([0.2, -0.1]), jnp.asarray(stretch)))
    mass, hbar = drawn_masses(data, d)
    ray = data.draw(numbers(0.2, 1, 1, d))
    distances = [0.0, 2.0, 2.999, 3.001, 3.5, 4.5, 6.0, 7.0, 1e3, 1e30]
    x = place(expansion, np.array(distances)[:, None] * ray / np.linalg.norm(ray))

    @eqx.filter_jit
    def both(expansion):
        def potential(y):
            return expansion.quantum(y[None], mass, hbar)[0][0]

        return expansion.quantum(x, mass, hbar)[1], -jax.vmap(jax.grad(potential))(x)

    for of in (expansion, fitted):
        force, slopes = both(of)
        np.testing.assert_allclose(force[:9], slopes[:9], rtol=1e-9, atol=1e-9 * np.max(np.abs(slopes[:8])))
    np.testing.assert_array_equal(both(expansion)[0][-2:], 0)


def test_log_density_goes_on_as_a_straight_line():
    """Beyond the window, on top of the Gaussian, with the score's slope along the ray."""
    c = 0.1 * np.arange(1.0, 15)
    expansion = expansion_of(np.zeros(2), np.eye(2), c, 4, RADIUS)
    x = jnp.asarray(np.linspace(1, 8, 8)[:, None] * np.array([0.6, 0.8]))
    hbar, mass = jnp.asarray(1.0), jnp.ones(2)
    slope, _ = score_and_force_by_differentiation(expansion, x, mass, hbar)
    score, _ = score_and_force(expansion, x, mass, hbar)
    np.testing.assert_allclose(slope @ np.array([0.6, 0.8]), score @ np.array([0.6, 0.8]), rtol=1e-12)


@pytest.mark.parametrize(("d", "degree"), [(1, 5), (3, 3)])
@few
@given(st.data())
def test_fit_to_a_gaussian_is_exact(d, degree, data):
    mean, cholesky = data.draw(frames(d))
    mass, _ = drawn_masses(data, d)
    xi, weights = quadrature(d, degree + 1)
    x = np.asarray(mean + xi @ cholesky.T)
    fitted = fit(jnp.asarray(x), weights, mass, degree, math.inf)
    score, log_density = score_and_log_density(fitted.expansion, jnp.asarray(x))
    precision = np.linalg.inv(cholesky @ cholesky.T)
    np.testing.assert_allclose(fitted.expansion.coefficients, 0, atol=1e-8)
    np.testing.assert_allclose(fitted.expansion.mean, mean, atol=1e-10)
    np.testing.assert_allclose(score, -(x - mean) @ precision, atol=1e-8 * np.max(np.abs(precision)))
    np.testing.assert_allclose(fitted.fisher_information, np.sum(np.diag(precision) / mass), rtol=1e-9)
    normaliser = 0.5 * d * np.log(2 * np.pi) + np.sum(np.log(np.diag(cholesky)))
    exact = -0.5 * np.sum((x - mean) @ precision * (x - mean), axis=1) - normaliser
    # As good as so few nodes integrate a narrower Gaussian.
    np.testing.assert_allclose(log_density, exact, atol=0.03)


def test_condition_number_of_an_ideal_design():
    """E[|∇h_α|²] = |α|: between 1 and the degree."""
    for d, degree in [(1, 5), (3, 3)]:
        xi, weights = quadrature(d, degree + 1)
        fitted = fit(xi, weights, jnp.ones(d), degree, math.inf)
        np.testing.assert_allclose(fitted.condition_number, degree, rtol=1e-9)


def test_condition_number_tells_of_too_few_particles():
    x, weights = scattered(2, 40)
    well = fit(x, weights, jnp.ones(2), 4, math.inf).condition_number
    twins = jnp.concatenate([x[:5]] * 8)  # ten equations for fourteen coefficients
    badly = fit(twins, weights, jnp.ones(2), 4, math.inf).condition_number
    assert 1 < float(well) < 1e6
    assert not float(badly) < 1e12


def anharmonic(x):
    """ln ρ up to a constant: a quartic in two coordinates, so in reach of degree 4."""
    y = x[..., 0], x[..., -1]
    return -0.25 * (y[0] ** 4 + y[1] ** 4) - 0.4 * y[0] * y[1] + 0.5 * y[0] ** 2 * y[1] + 0.3 * y[0]


@pytest.mark.parametrize("d", [1, 2])
def test_fit_recovers_a_polynomial_log_density(d):
    axis = np.linspace(-4.5, 4.5, 61)
    x = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)
    density = np.exp(anharmonic(x))
    cell = (axis[1] - axis[0]) ** d
    weights = density / np.sum(density)
    mass = jnp.array([0.5, 2.0])[:d]
    fitted = fit(jnp.asarray(x), jnp.asarray(weights), mass, 4, math.inf)
    score, log_density = score_and_log_density(fitted.expansion, jnp.asarray(x))
    slopes = np.asarray(jax.jit(jax.vmap(jax.grad(anharmonic)))(x))
    near = np.max(np.abs(x), axis=1) < 2
    np.testing.assert_allclose(score[near], slopes[near], atol=1e-8)
    information = weights @ np.sum(slopes**2 / np.asarray(mass), axis=1)
    np.testing.assert_allclose(fitted.fisher_information, information, rtol=1e-9)
    exact = anharmonic(x) - np.log(np.sum(density) * cell)
    np.testing.assert_allclose(log_density[near], exact[near], atol=1e-7)


@pytest.mark.parametrize("change", ["rotated", "stretched"])
@few
@given(st.floats(0.5, 2), st.floats(-3, 3))
def test_fit_follows_affine_maps(change, size, angle):
    """x → A x + b takes s to A⁻ᵀ s, if the metric of the masses goes along."""
    x, weights = scattered(2)
    mass = jnp.array([1.0, 1.0]) if change == "rotated" else jnp.array([0.6, 1.7])
    c, s = math.cos(angle), math.sin(angle)
    matrix = size * np.array([[c, -s], [s, c]]) if change == "rotated" else np.diag([size, -1 / (1 + size)])
    moved_mass = mass / jnp.asarray(np.sum(matrix**2, axis=0))
    moved_x = jnp.asarray(np.asarray(x) @ matrix.T + np.array([3.0, -angle]))
    before = fit(x, weights, mass, 4, math.inf)
    after = fit(moved_x, weights, moved_mass, 4, math.inf)
    expected = np.linalg.solve(matrix.T, score_and_log_density(before.expansion, x)[0].T).T
    moved, _ = score_and_log_density(after.expansion, moved_x)
    np.testing.assert_allclose(moved, expected, rtol=1e-7, atol=1e-7 * np.max(np.abs(expected)))
    np.testing.assert_allclose(after.fisher_information, before.fisher_information, rtol=1e-8)


@eqx.filter_jit
def force_two_ways(x, weights, mass, hbar, degree, window, basis):
    def quantum_energy(x):
        information = fit_hermite(x, weights, mass, degree, window, basis).fisher_information
        return 0.125 * hbar**2 * information

    expansion = fit_hermite(x, weights, mass, degree, window, basis).expansion
    return -jax.grad(quantum_energy)(x), weights[:, None] * expansion.quantum(x, mass, hbar)[1]


@pytest.mark.parametrize(
    ("d", "degree", "window", "basis"),
    [
        (1, 4, math.inf, bd.TotalDegree()),
        (2, 3, math.inf, bd.TotalDegree()),
        (1, 4, 1.0, bd.TotalDegree()),
        (2, 3, 1.0, bd.TotalDegree()),
        (2, 4, math.inf, bd.HyperbolicCross()),
        (2, 4, 1.0, bd.HyperbolicCross()),
    ],
)
@few
@given(st.data())
def test_quantum_force_is_the_gradient_of_the_quantum_energy(d, degree, window, basis, data):
    """Of any particles at any degree, window and basis: this is why a symplectic solver keeps the energy."""
    x, weights = scattered(d, seed=data.draw(st.integers(0, 10)))
    mass, hbar = drawn_masses(data, d)
    by_energy, by_fit = force_two_ways(x, weights, mass, hbar, degree, window, basis)
    np.testing.assert_allclose(by_fit, by_energy, rtol=1e-8, atol=1e-9 * np.max(np.abs(by_energy)))


def test_the_window_decides_only_where_particles_are_outside():
    x, weights = scattered(2)
    farthest = float(
        jnp.max(jnp.linalg.norm(fit(x, weights, jnp.ones(2), 2, 1e3).expansion.in_frame(x), axis=1))
    )
    forces = []
    for window in (math.inf, farthest + 1e-6, 0.5 * farthest):
        fitted = fit(x, weights, jnp.ones(2), 4, window)
        frame = jax.tree.map(lambda part: float(jnp.max(jnp.abs(part))), fitted.expansion.frame_force)
        assert max(frame) < 1e-10 if window > farthest else min(frame) > 1e-3
        forces.append(np.asarray(fitted.expansion.quantum(x, jnp.ones(2), jnp.asarray(1.0))[1]))
    np.testing.assert_allclose(forces[1], forces[0], atol=1e-9 * np.max(np.abs(forces[0])))
    assert np.max(np.abs(forces[2] - forces[0])) > 0.1 * np.max(np.abs(forces[0]))


def test_fit_has_the_least_objective():
    """Implicit score matching: any other polynomial is worse."""
    x, weights = scattered(2)
    mass = jnp.array([0.6, 1.7])
    fitted = fit(x, weights, mass, 4, math.inf).expansion

    @eqx.filter_jit
    @jax.value_and_grad
    def objective(coefficients):
        other = eqx.tree_at(lambda e: e.coefficients, fitted, coefficients)

        def one(y):
            def score(z):
                return other.score(z[None])[0]

            return jnp.sum((0.5 * score(y) ** 2 + jnp.diag(jax.jacfwd(score)(y))) / mass)

        return weights @ jax.vmap(one)(x)

    least, slope = objective(fitted.coefficients)
    np.testing.assert_allclose(slope, 0, atol=1e-9)
    assert float(objective(1.1 * fitted.coefficients)[0]) > float(least)


def test_score_in_time_is_cubic():
    ts = jnp.array([0.0, 0.5, 1.2, 2.0])

    def at(t):
        return bd.HermiteExpansion(
            jnp.array([t**3 - t, 1 + t**2]),
            jnp.array([[1 + 0.1 * t**3, 0.0], [0.2 * t, 1.0]]),
            0.05 * jnp.arange(1.0, 10) * t**2 * (1 - t),
            0.1 * t,
            3,
            RADIUS,
        )

    @eqx.filter_jit
    def path(ts):
        values, rates = jax.vmap(lambda t: jax.jvp(at, (t,), (jnp.ones(()),)))(ts)
        return cubic_path(ts, values, rates)

    score = bd.HermiteScore(path(ts))
    assert isinstance(score, bd.AbstractScore)
    x = jnp.array([0.3, -0.4])

    @eqx.filter_jit
    def both(score, t):
        exact = at(t)
        ours = score(t, x), score.log_density(t, x)
        return ours, (exact.score(x[None])[0], exact.log_density(x))

    for t in (0.0, 0.3, 0.9, 1.7, 2.0):
        ours, exact = both(score, jnp.asarray(t))
        np.testing.assert_allclose(ours[0], exact[0], rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(ours[1], exact[1], rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6, 7, 20])
def test_a_path_through_values_reproduces_polynomials(steps):
    # Cubic between the steps, and with fewer steps as many powers as values determine.
    powers = np.arange(min(steps, 3) + 1)
    ts = 0.4 + 0.3 * jnp.arange(steps + 1)
    values = jnp.sum((ts[:, None] - 1) ** powers, axis=1)
    path = smooth_path(ts, {"value": values})
    # Places after the last step hold anything.
    longer = jnp.concatenate([ts, jnp.full(9, jnp.inf)])
    padded = smooth_path(longer, {"value": jnp.concatenate([values, jnp.full(9, jnp.nan)])}, steps)
    for t in jnp.linspace(ts[0], ts[-1], 7):
        exact = float(jnp.sum((t - 1) ** powers))
        np.testing.assert_allclose(path.evaluate(t)["value"], exact, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(padded.evaluate(t)["value"], exact, rtol=1e-10, atol=1e-12)


def test_gradient_score():
    def scalar(t, x):
        return -0.5 * x @ jnp.array([[1.0, 0.3], [0.3, 2.0]]) @ x * (1 + t) + jnp.sin(x[0] * x[1])

    score = bd.GradientScore(scalar)
    x, t = jnp.array([0.4, -0.7]), 0.5
    shared = math.cos(x[0] * x[1])
    expected = -1.5 * jnp.array([[1.0, 0.3], [0.3, 2.0]]) @ x + shared * x[::-1]
    np.testing.assert_allclose(score(t, x), expected, rtol=1e-12)
    jacobian = jax.jacfwd(score, argnums=1)(t, x)
    np.testing.assert_allclose(jacobian, jacobian.T, rtol=1e-12)

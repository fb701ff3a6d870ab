"""SplitOperator and GridSolution against closed forms, a reference, and their own refusals."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd
from bohmdiff.method.split_operator._fourier import FourierGrid

MASS, STIFFNESS, HBAR = np.array([1.0, 2.5]), np.array([1.3, 0.0]), 0.7
MEAN, VARIANCE = np.array([0.6, -0.3]), np.array([0.3, 0.5])
MOMENTUM, CHIRP = np.array([-0.4, 0.8]), np.array([0.2, -0.3])


def quadratic(t, x):
    return 0.5 * jnp.sum(jnp.asarray(STIFFNESS, x.dtype) * x**2)


def driven(t, x):
    return 0.5 * x[0] ** 2 + 0.1 * x[0] ** 4 + 0.7 * x[0] * jnp.sin(3 * t)


def packet_2d(dtype=float):
    return bd.GaussianWavePacket(
        jnp.asarray(MEAN, dtype), jnp.asarray(VARIANCE), jnp.asarray(MOMENTUM), jnp.diag(jnp.asarray(CHIRP))
    )


def closed_form(t, x):
    """ψ, score and velocity of the packet: one coordinate oscillates, the other is free."""
    psi, score, velocity = 1.0, [], []
    for i in range(2):
        m, k = MASS[i], STIFFNESS[i]
        w = np.sqrt(k / m)
        c, s = (np.cos(w * t), np.sin(w * t) / w) if k else (1.0, t)
        ds = np.cos(w * t) if k else 1.0
        dc = -w * np.sin(w * t) if k else 0.0
        a0 = CHIRP[i] + 0.5j * HBAR / VARIANCE[i]
        spread, a = c + a0 / m * s, m * (dc + a0 / m * ds) / (c + a0 / m * s)
        q = MEAN[i] * c + MOMENTUM[i] / m * s
        p = MEAN[i] * m * dc + MOMENTUM[i] * ds
        action = 0.5 * (p * q - MOMENTUM[i] * MEAN[i])
        y = x[..., i] - q
        exponent = 1j / HBAR * (0.5 * a * y**2 + p * y + action) - 0.5 * np.log(spread)
        psi = psi * (2 * np.pi * VARIANCE[i]) ** -0.25 * np.exp(exponent)
        score.append(-2 / HBAR * a.imag * y)
        velocity.append((p + a.real * y) / m)
    return psi, np.stack(score, -1), np.stack(velocity, -1)


def solve_quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return bd.solve(*args, **kwargs)


def problem_1d(potential=driven, t1=1.5, **packet):
    packet = {"mean": [0.5], "covariance": 0.4, "momentum": [0.3], **packet}
    return bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket(**packet), t1=t1)


@pytest.fixture(scope="module")
def exact():
    problem = bd.Problem(bd.Hamiltonian(quadratic, MASS, HBAR), packet_2d(), t0=0.25, t1=1.75)
    method = bd.SplitOperator((64, 63), lower=(-7.0, -9.0), upper=(7.0, 10.0), steps=300)
    return solve_quietly(problem, method, ts=[0.25, 0.5, 1.1, 1.75])


@pytest.fixture(scope="module")
def line():
    return solve_quietly(problem_1d(), bd.SplitOperator(64, -8, 8), ts=np.linspace(0.0, 1.5, 4))


# A saved time, and one between two saved times.
@pytest.mark.parametrize("t", [1.1, 1.37])
def test_wave_function_with_its_phase_between_the_points(exact, t):
    xs = MEAN + np.random.default_rng(1).normal(size=(40, 2))
    psi, score, velocity = closed_form(t - 0.25, xs)
    seen = np.abs(psi) > 1e-2
    np.testing.assert_allclose(jax.vmap(lambda x: exact.wave_function(t, x))(xs), psi, atol=1e-10)
    np.testing.assert_allclose(
        jax.vmap(lambda x: exact.log_density(t, x))(xs)[seen], 2 * np.log(np.abs(psi[seen])), atol=1e-8
    )
    np.testing.assert_allclose(jax.vmap(lambda x: exact.score(t, x))(xs)[seen], score[seen], atol=1e-8)
    np.testing.assert_allclose(
        jax.vmap(lambda x: exact.velocity(t, x))(xs)[seen], velocity[seen], atol=1e-8
    )


def test_on_the_grid(exact):
    axes = exact.grid()
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    psi = closed_form(1.0, points)[0]
    np.testing.assert_allclose(exact.wave_function_on_grid(1.25), psi, atol=1e-10)
    np.testing.assert_allclose(exact.density_on_grid(1.25), np.abs(psi) ** 2, atol=1e-10)


def test_moments_and_energy(exact):
    t = np.asarray(exact.ts) - 0.25
    q1 = MEAN[1] + MOMENTUM[1] / MASS[1] * t
    spread = (1 + CHIRP[1] / MASS[1] * t) ** 2 + (0.5 * HBAR / VARIANCE[1] / MASS[1] * t) ** 2
    np.testing.assert_allclose(exact.mean()[:, 1], q1, atol=1e-10)
    np.testing.assert_allclose(exact.std()[:, 1], np.sqrt(VARIANCE[1] * spread), atol=1e-10)
    momenta = MOMENTUM**2 + CHIRP**2 * VARIANCE + HBAR**2 / (4 * VARIANCE)
    energy = np.sum(momenta / (2 * MASS) + 0.5 * STIFFNESS * (MEAN**2 + VARIANCE))
    np.testing.assert_allclose(exact.energy(), energy, atol=1e-9)
    assert exact.norm_drift < 1e-12
    assert exact.energy_drift < 1e-9
    assert exact.diagnostics.holds
    correlation = exact.covariance()[:, 0, 1]
    np.testing.assert_allclose(correlation, 0, atol=1e-10)


def test_transformations_of_the_point(exact):
    x = jnp.asarray([0.3, 0.1])
    for t in (1.1, 1.371):
        np.testing.assert_allclose(
            jax.jit(lambda x, t=t: exact.score(t, x))(x), exact.score(t, x), rtol=1e-12
        )
        gradient = jax.grad(lambda x, t=t: exact.log_density(t, x))(x)
        np.testing.assert_allclose(gradient, exact.score(t, x), rtol=1e-9)


@pytest.mark.parametrize("sizes", [(6,), (7,), (4, 5), (6, 4, 5)])
def test_interpolant_of_anything_goes_through_the_grid_points(sizes):
    # A random function has as much at the Nyquist wavenumber as anywhere: that mode must be a cosine.
    d = len(sizes)
    grid = FourierGrid(sizes, (-1.0,) * d, (2.0,) * d)
    rng = np.random.default_rng(3)
    psi = jnp.asarray(rng.normal(size=sizes) + 1j * rng.normal(size=sizes))
    axes = [grid.axis(i) for i in range(d)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, d)
    np.testing.assert_allclose(grid.evaluate(grid.table(psi), points)[0], psi.ravel(), atol=1e-13)
    between = jnp.asarray(rng.uniform(-1, 2, size=(5, d)))
    table = grid.table(psi)
    slopes = jax.vmap(jax.jacfwd(lambda x: grid.evaluate(table, x[None])[0][0]))(between)
    np.testing.assert_allclose(grid.evaluate(table, between)[1], slopes, atol=1e-12)


def test_finite_where_nothing_is(exact):
    far = jnp.asarray([100.0, 0.0])
    assert exact.wave_function(1.1, far) == 0
    assert exact.log_density(1.1, far) == np.log(np.finfo(float).tiny)
    for quantity in (exact.score, exact.velocity):
        np.testing.assert_array_equal(quantity(1.1, far), np.zeros(2))
    node = jax.jacfwd(lambda x: exact.score(1.1, x))(far)
    assert np.all(np.isfinite(node))


@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("potential", [driven, lambda t, x: driven(0.4, x)], ids=["driven", "static"])
def test_order(order, potential):
    problem = problem_1d(potential)

    def psi(steps):
        method = bd.SplitOperator(96, -8, 8, steps=steps, order=order)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few steps do not keep the energy
            return bd.solve(problem, method, ts=[1.5]).wave_function_on_grid(1.5)

    reference = psi(960)
    errors = [float(jnp.max(jnp.abs(psi(n) - reference))) for n in (15, 30, 60)]
    orders = np.log2(np.asarray(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, order, atol=0.15)


def test_static_and_time_dependent_programs_agree():
    results = [
        bd.solve(problem_1d(potential), bd.SplitOperator(48, -8, 8, steps=20), ts=[0.4, 1.5])
        for potential in (lambda t, x: driven(0.4, x), lambda t, x: driven(0.4 + 0 * t, x))
    ]
    a, b = (r.wave_function_on_grid(1.5) for r in results)
    np.testing.assert_allclose(a, b, atol=1e-13)
    np.testing.assert_allclose(results[0].energy(), results[1].energy(), atol=1e-12)


@pytest.mark.long
def test_four_coordinates_are_the_product_of_two_and_two():
    def four(t, x):
        return quadratic(t, x[:2]) + quadratic(t, x[2:])

    initial = bd.GaussianWavePacket(
        *(np.tile(a, 2) for a in (MEAN, VARIANCE, MOMENTUM)), np.diag(np.tile(CHIRP, 2))
    )
    problem = bd.Problem(bd.Hamiltonian(four, np.tile(MASS, 2), HBAR), initial, t1=0.5)
    method = bd.SplitOperator((20, 21, 22, 24), -5.0, 5.5, steps=4)
    pair = bd.Problem(bd.Hamiltonian(quadratic, MASS, HBAR), packet_2d(), t1=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = bd.solve(problem, method, ts=[0.0, 0.25, 0.5])
        left = bd.solve(pair, bd.SplitOperator((20, 21), -5.0, 5.5, steps=4), ts=[0.0, 0.25, 0.5])
        right = bd.solve(pair, bd.SplitOperator((22, 24), -5.0, 5.5, steps=4), ts=[0.0, 0.25, 0.5])
    x = jnp.asarray([0.3, -0.2, 0.7, 0.1])
    product = left.wave_function(0.4, x[:2]) * right.wave_function(0.4, x[2:])
    np.testing.assert_allclose(whole.wave_function(0.4, x), product, atol=1e-12)
    scores = jnp.concatenate([left.score(0.4, x[:2]), right.score(0.4, x[2:])])
    np.testing.assert_allclose(whole.score(0.4, x), scores, atol=1e-10)
    np.testing.assert_allclose(whole.energy(), left.energy() + right.energy(), atol=1e-11)
    np.testing.assert_allclose(whole.mean(), jnp.concatenate([left.mean(), right.mean()], 1), atol=1e-11)


@pytest.mark.long
def test_morse_chain_reference():
    reference = np.load(Path(__file__).parent.parent / "data" / "morse_chain_d4.npz")
    chain = bd.MorseChain(depth=12.5, width=0.2, coupling=0.3)
    initial = bd.GaussianWavePacket([1.0, 0.0, 0.0, 0.0], 0.5)
    problem = bd.Problem(bd.Hamiltonian(chain), initial, t1=reference["t"][-1])
    method = bd.SplitOperator(points=44, lower=-5.5, upper=7.5, steps=16, snapshot_memory=0)
    which = [0, 10, 20, 32]
    solution = solve_quietly(problem, method, ts=reference["t"][which])
    np.testing.assert_allclose(solution.mean(), reference["mean"][which], atol=3e-5)
    np.testing.assert_allclose(solution.std(), reference["std"][which], atol=3e-5)
    np.testing.assert_allclose(solution.energy(), reference["energy"], atol=1e-4)
    assert solution.norm_drift < 1e-10


@pytest.mark.slow
def test_single_precision():
    problem = bd.Problem(
        bd.Hamiltonian(quadratic, jnp.asarray(MASS, jnp.float32), jnp.float32(HBAR)),
        packet_2d(jnp.float32),
        t1=1.5,
    )
    method = bd.SplitOperator((48, 48), lower=(-6.0, -8.0), upper=(6.0, 8.5), steps=40)
    solution = solve_quietly(problem, method, ts=[0.0, 1.0, 1.5])
    assert solution.wave_function_on_grid(1.2).dtype == jnp.complex64
    assert {solution.mean().dtype, solution.energy().dtype} == {jnp.dtype("float32")}
    x = jnp.asarray([0.3, 0.1], jnp.float32)
    psi, score, _ = closed_form(1.2, np.asarray(x, float))
    np.testing.assert_allclose(solution.wave_function(1.2, x), psi, atol=2e-5)
    np.testing.assert_allclose(solution.score(1.2, x), score, atol=2e-4)
    assert solution.score(1.2, x).dtype == jnp.float32
    assert solution.sample(jax.random.key(0), 3).dtype == jnp.float32


def test_warns_with_the_number_when_the_density_reaches_the_edge():
    problem = problem_1d(lambda t, x: 0.0 * x[0], momentum=[3.0], t1=2.0)
    with pytest.warns(
        UserWarning,
        match=r"box edge is \d.* at t = 1.6875 .*edge of the box.*coordinate 0, next to -6 and 6\.",
    ) as warned:
        solution = bd.solve(problem, bd.SplitOperator(96, -6, 6), ts=np.linspace(0, 2, 11))
    assert {warning.filename for warning in warned} == {__file__}
    assert not solution.diagnostics.holds


def test_warns_with_the_number_when_the_momentum_reaches_the_edge():
    problem = problem_1d(lambda t, x: -9.0 * jnp.tanh(x[0]), momentum=[0.0], mean=[-1.0], t1=0.3)
    with pytest.warns(
        UserWarning, match=r"momentum edge is \d.* at t = 0.*edge of the grid.* coordinate 0"
    ):
        bd.solve(problem, bd.SplitOperator(28, -8, 8), ts=np.linspace(0, 0.3, 6))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"points": 3}, "at least 4, but 3"),
        ({"points": 8.5}, "points must be an integer"),
        ({"points": [[8]]}, "points must be an integer"),
        ({"lower": "a"}, "lower must be a finite number"),
        ({"lower": [np.nan]}, "lower must be a finite number"),
        ({"upper": -8.0}, "upper must be larger than lower"),
        ({"points": (8, 8), "lower": (-1.0, -1.0, -1.0)}, "the same shape"),
        ({"steps": 0}, "steps must be an integer of at least 1, but 0"),
        ({"order": 3}, r"order must be one of \(2, 4\), but 3"),
        ({"memory": 0}, "memory must be a positive number"),
        ({"snapshot_memory": -1}, "snapshot_memory must be"),
    ],
)
def test_refuses_options(options, match):
    with pytest.raises(ValueError, match=match):
        bd.SplitOperator(**{"points": 64, "lower": -8.0, "upper": 8.0, **options})


@pytest.mark.parametrize(
    ("options", "packet", "match"),
    [
        ({"points": (64, 64)}, {}, r"points must be a number or have shape \(1,\)"),
        ({"memory": 1000.0}, {}, r"64 points needs about .* bytes, but 1e\+03 are available"),
        ({"upper": 1.0}, {}, r"norm of the initial state on the grid is 0\.\d+, not 1"),
        ({}, {"momentum": [26.0]}, r"A probability of 1 .* beyond the largest of the grid"),
    ],
)
def test_refuses_problems_before_any_work(options, packet, match):
    method = bd.SplitOperator(**{"points": 64, "lower": -8.0, "upper": 8.0, **options})
    with pytest.raises(ValueError, match=match):
        bd.solve(problem_1d(**packet), method)


def test_refuses_five_coordinates():
    problem = bd.Problem(
        bd.Hamiltonian(lambda t, x: jnp.sum(x)), bd.GaussianWavePacket([0.0] * 5, 1.0), t1=1
    )
    with pytest.raises(
        ValueError, match=r"up to 4 coordinates, but this one has 5.*SequentialScoreMatching"
    ):
        bd.solve(problem, bd.SplitOperator(8, -4, 4))


def test_refuses_potentials_that_are_not_finite():
    method = bd.SplitOperator(64, -8, 8)
    with pytest.raises(ValueError, match=r"potential is inf at x = \[0.0\]"):
        bd.solve(problem_1d(lambda t, x: 1 / jnp.abs(x[0])), method)
    with pytest.raises(ValueError, match=r"gradient of the potential is nan.*order=2"):
        bd.solve(problem_1d(lambda t, x: jnp.sqrt(jnp.abs(x[0]) ** 3) ** 0.5), method)
    with pytest.raises(bd.NotFiniteError, match=r"not finite at t = 1\.5"):
        bd.solve(problem_1d(lambda t, x: x[0] / (1.5 - t)), method, ts=[0.5, 1.5])


def test_refuses_a_potential_of_the_wrong_shape():
    problem = problem_1d()
    broken = jax.tree.map(lambda leaf: leaf, problem)
    object.__setattr__(broken.hamiltonian, "potential", lambda t, x: x)
    with pytest.raises(ValueError, match=r"must return a real array of shape \(\)"):
        bd.solve(broken, bd.SplitOperator(64, -8, 8))


def test_progress_bar_counts_saved_times(capsys):
    bd.solve(problem_1d(), bd.SplitOperator(64, -8, 8), ts=[0.5, 1.0, 1.5], progress=True)
    assert "3/3" in capsys.readouterr().err

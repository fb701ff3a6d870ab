"""Networks on top of baselines: against a forward pass by hand, automatic differentiation, and the initial
state."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.network import trainable
from bohmdiff.score import asymmetry

# A baseline need not be right.
pytestmark = pytest.mark.filterwarnings("ignore:The solution by GaussianDynamics may be wrong")

KEY = jax.random.key(5)
X = jnp.array([0.4, -0.7])
T0, T1 = 0.2, 1.7
HAMILTONIAN = bd.Hamiltonian(bd.HenonHeiles(coupling=0.1), jnp.array([1.0, 1.4]), 0.8)


def problem(dtype=float):
    mean, variances = jnp.array([0.3, -0.2]).astype(dtype), [0.3, 0.6]
    return bd.Problem(HAMILTONIAN, bd.GaussianWavePacket(mean, variances, [0.5, 0.2]), T1, T0)


def neural(**options):
    # Not small, so that the network is seen.
    return bd.NeuralScore(problem(), **{"width": 4, "output_scale": 0.7, "key": KEY, **options})


class OwnNetwork(eqx.Module):
    weights: jax.Array

    def __call__(self, features, z):
        return jnp.sum(jnp.sin(z) * self.weights) * jnp.sum(features)


@eqx.filter_jit
def look(score, t, x):
    return (
        score(t, x),
        score.log_density(t, x),
        jax.grad(score.log_density, 1)(t, x),
        asymmetry(score, t, x),
    )


@pytest.fixture(scope="module")
def baselines():
    return {
        "none": None,
        "harmonic": bd.HarmonicScore(problem()),
        "gaussian": bd.solve(problem(), bd.GaussianDynamics()),
        "sequential": bd.solve(
            problem(), bd.SequentialScoreMatching(3, bd.GaussHermitePoints(5, discard=0.0), steps=4)
        ),
    }


NAMES = pytest.mark.parametrize("name", ["none", "harmonic", "gaussian", "sequential"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conditioning": "concat"},
        {"width": (4, 3), "activation": jnp.tanh},
        {"width": (3, 4, 2), "depth": 3, "conditioning": "concat", "frequencies": 1},
        {"network": OwnNetwork(jnp.array([0.8, -0.6]))},
    ],
    ids=["film", "concat", "widths", "depth", "network"],
)
def test_is_the_gradient_of_its_log_density(options):
    score = neural(**options)
    assert isinstance(score, bd.AbstractScore)
    s, _, gradient, curl = look(score, 0.9, X)
    assert s.shape == (2,)
    assert np.min(np.abs(s)) > 1e-4
    np.testing.assert_allclose(s, gradient, rtol=1e-12)
    assert float(curl) < 1e-12


@pytest.mark.parametrize("conditioning", ["film", "concat"])
def test_forward_pass_by_hand(conditioning):
    options = {"conditioning": conditioning, "width": (4, 3), "activation": jnp.tanh, "frequencies": 2}
    score = neural(**options)
    tau = (0.9 - T0) / (T1 - T0)
    waves = 0.5 * np.pi * np.array([1, 2]) * tau
    features = np.concatenate([[1.0], np.cos(waves), np.sin(waves)])
    z = (np.asarray(X) - [0.3, -0.2]) / np.sqrt([0.3, 0.6])
    network = score.network
    if conditioning == "concat":
        z = np.concatenate([z, features])
    for index, layer in enumerate(network.hidden):
        z = np.asarray(layer.weight) @ z + layer.bias
        if conditioning == "film":
            change = np.asarray(network.modulation[index].weight) @ features
            z = z * (1 + change[: len(z)]) + change[len(z) :]
        z = np.tanh(z)
    expected = 0.7 * (np.asarray(network.output.weight) @ z).item()
    np.testing.assert_allclose(score.log_density(0.9, X), expected, rtol=1e-12)
    assert abs(expected) > 1e-3


def test_one_width_for_all_layers():
    shapes = [layer.weight.shape for layer in neural(depth=3).network.hidden]
    assert shapes == [(4, 2), (4, 4), (4, 4)]


@eqx.filter_jit
def at_times(ts, *scores):
    """Score, log density and the gradient of that, for each score: (K, d), (K,), (K, d)."""

    def at(score, t):
        return score(t, X), score.log_density(t, X), jax.grad(score.log_density, 1)(t, X)

    return [jax.vmap(lambda t, score=score: at(score, t))(ts) for score in scores]


class Nothing(bd.AbstractGradientScore):
    def __call__(self, t, x):
        return jnp.zeros_like(x)

    def log_density(self, t, x):
        return jnp.zeros((), x.dtype)


@NAMES
def test_baselines_and_exact_starts(name, baselines):
    baseline = baselines[name]
    scores = (
        neural(),
        Nothing() if baseline is None else bd.FrozenScore(baseline),
        neural(baseline=baseline, fade_in=0),
        neural(baseline=baseline, fade_in=3, exact_start=True),
    )
    network, base, both, exact = at_times(jnp.array([T0, 0.9, T1]), *scores)
    np.testing.assert_allclose(both[0], network[0] + base[0], rtol=1e-12)
    np.testing.assert_allclose(both[1], network[1] + base[1], rtol=1e-12)
    np.testing.assert_allclose(exact[0][0], problem().initial.score(X), rtol=1e-11)
    # At the end, of the initial state nothing is left but the network and the baseline.
    np.testing.assert_allclose(exact[0][2], both[0][2], rtol=1e-11)
    # Between, network and what the baseline lacks have faded in and out.
    tau = (0.9 - T0) / (T1 - T0)
    lacking = problem().initial.score(X) - base[0][0]
    np.testing.assert_allclose(
        exact[0][1], tau**3 * network[0][1] + base[0][1] + (1 - tau) * lacking, rtol=1e-10
    )
    # Always it is the gradient of its scalar.
    for score, _, gradient in (both, exact):
        np.testing.assert_allclose(score, gradient, rtol=1e-10)


def test_a_solution_may_be_an_argument_of_a_compiled_function(baselines):
    """Its span of time is not known there, though the time is."""
    solution = baselines["sequential"]
    compiled = eqx.filter_jit(lambda source: source.score(0.9, X))(solution)
    np.testing.assert_allclose(compiled, solution.score(0.9, X), rtol=1e-12)


def test_only_a_baseline_that_is_wrong_at_the_start_is_corrected(baselines):
    # The harmonic frame is not as wide as the initial state: the test above would say little if it were.
    harmonic = baselines["harmonic"]
    assert np.max(np.abs(harmonic(T0, X) - problem().initial.score(X))) > 0.1
    assert neural(baseline=harmonic, exact_start=True).initial is not None
    assert neural(baseline=baselines["gaussian"], exact_start=True).initial is None
    assert neural(baseline=harmonic).initial is None


def test_how_the_network_fades_in(baselines):
    assert neural().fade_in == 0
    assert neural(exact_start=True).fade_in == 2
    assert neural(baseline=baselines["gaussian"]).fade_in == 2
    base, plain, faded = at_times(
        jnp.array([T0, 0.9]),
        bd.FrozenScore(baselines["gaussian"]),
        neural(),
        neural(baseline=baselines["gaussian"]),
    )
    tau = (0.9 - T0) / (T1 - T0)
    np.testing.assert_array_equal(faded[0][0], base[0][0])
    np.testing.assert_allclose(faded[0][1], base[0][1] + tau**2 * plain[0][1], rtol=1e-12)


def test_the_output_scale_is_a_factor():
    one, three = (look(neural(output_scale=scale), 0.9, X)[0] for scale in (0.1, 0.3))
    np.testing.assert_allclose(three, 3 * one, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"conditioning": "sum"}, 'conditioning must be "film" or "concat", but \'sum\' was given'),
        ({"width": (4, 4, 4)}, r"one for each of the 2 layers, but \(4, 4, 4\) was given"),
        ({"width": 0}, "width must be an integer of at least 1, but 0 was given"),
        ({"width": (4, 0)}, "width must be an integer of at least 1, but 0 was given"),
        ({"depth": 0}, "depth must be an integer of at least 1, but 0 was given"),
        ({"frequencies": 0}, "frequencies must be an integer of at least 1, but 0 was given"),
        ({"output_scale": 0.0}, "output_scale must be positive, but 0.0 was given"),
        ({"output_scale": math.nan}, "output_scale must be positive, but nan was given"),
        ({"fade_in": -1}, "fade_in must be a whole number, 0 or more, .* but -1 was given"),
        ({"fade_in": 0.5}, "fade_in must be a whole number, 0 or more, .* but 0.5 was given"),
        ({"fade_in": 0, "exact_start": True}, "1 or more with exact_start, but 0 was given"),
        ({"network": lambda features, z: z}, r"must return a real array of shape \(\)"),
        ({"baseline": 3.0}, r"baseline must be a callable s\(t, x\) .* or a solution, but 3.0 was given"),
        ({"network": 3.0}, r"network must be a callable N\(features, z\) .* but 3.0 was given"),
        ({"baseline": lambda t, x: x[0]}, r"baseline\(t, x\) must return a real array of shape \(2,\)"),
    ],
)
def test_bad_options(options, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        neural(**options)


def test_baseline_of_another_dimension():
    other = bd.GradientScore(lambda t, x: -0.5 * x @ jnp.eye(3) @ x)
    with unchecked_types(), pytest.raises(ValueError, match="baseline could not be evaluated"):
        neural(baseline=other)


def parts(score, leaves):
    """Leaves under `network`, and all others."""
    outside = eqx.tree_at(lambda s: s.network, leaves, None)
    return jax.tree.leaves(leaves.network), jax.tree.leaves(outside)


@NAMES
def test_only_the_network_is_trained(name, baselines):
    score = neural(baseline=baselines[name], exact_start=True)
    inside, outside = parts(score, trainable(score))
    arrays = [eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(score.network)]
    assert inside == arrays
    assert sum(inside) == 2 * 2 + 2 + 1  # weights and biases, modulations, output
    assert not any(outside)


def test_no_derivative_reaches_a_baseline(baselines):
    def value(score):
        return jnp.sum(score(0.9, X) ** 2) + score.log_density(0.9, X)

    score = neural(baseline=baselines["sequential"], exact_start=True)
    gradient = eqx.filter_jit(eqx.filter_grad(value))(score)
    frozen = jax.tree.leaves((gradient.baseline, gradient.initial))
    assert frozen
    for leaf in frozen:
        np.testing.assert_array_equal(leaf, 0)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient.network))


def test_both_terms_of_a_sum_are_trained(baselines):
    both = neural() + neural(key=jax.random.key(6))
    assert all(
        sum(parts(term, mask)[0]) == 7 for term, mask in zip(both.terms, trainable(both).terms, strict=True)
    )
    frozen = neural() + bd.FrozenScore(neural())
    assert sum(jax.tree.leaves(trainable(frozen))) == 7


@pytest.mark.slow
def test_precision_is_that_of_the_problem():
    single = problem(jnp.float32)
    baseline = bd.HarmonicScore(single)
    for exact_start in (False, True):
        score = bd.NeuralScore(single, baseline=baseline, exact_start=exact_start, width=4, key=KEY)
        for leaf in jax.tree.leaves(eqx.filter(score, eqx.is_inexact_array)):
            assert leaf.dtype == jnp.float32
        t, x = jnp.float32(0.9), X.astype(jnp.float32)
        s, log_density = eqx.filter_eval_shape(lambda f, t, x: (f(t, x), f.log_density(t, x)), score, t, x)
        assert (s.dtype, log_density.dtype) == (jnp.float32, jnp.float32)

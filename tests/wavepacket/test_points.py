import itertools
import math
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import factorial2
from scipy.stats import chi2
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.wavepacket import default_design

KEY = jax.random.key(3)


def moment(points, weights, powers):
    return weights @ np.prod(np.asarray(points) ** np.asarray(powers), axis=1)


def exact_moment(powers):
    return np.prod([0.0 if p % 2 else factorial2(p - 1) if p else 1.0 for p in powers])


@pytest.mark.parametrize("dimension", [1, 2, 5])
@pytest.mark.parametrize(
    "design",
    [
        bd.RandomPoints(100),
        bd.SobolPoints(100),
        bd.GaussHermitePoints(4),
        bd.TruncatedPoints(bd.SobolPoints(100)),
        bd.WidenedPoints(bd.SobolPoints(100), 1.4),
        bd.StandardizedPoints(bd.SobolPoints(100)),
    ],
    ids=repr,
)
def test_weights_and_shapes(design, dimension):
    points, weights = design(dimension, KEY)
    assert points.shape == (len(weights), dimension)
    assert np.all(np.isfinite(points))
    assert np.all(np.asarray(weights) > 0)
    np.testing.assert_allclose(np.sum(weights), 1.0, rtol=1e-13)


@pytest.mark.parametrize(("dimension", "per_axis"), [(1, 6), (2, 4), (3, 3)])
def test_gauss_hermite_is_exact_for_polynomials(dimension, per_axis):
    points, weights = bd.GaussHermitePoints(per_axis, discard=0.0)(dimension)
    assert len(weights) == per_axis**dimension
    for powers in itertools.product(range(2 * per_axis), repeat=dimension):
        assert moment(points, weights, powers) == pytest.approx(exact_moment(powers), rel=1e-11, abs=1e-9)
    # One degree more is too much, or the test above would say nothing.
    powers = (2 * per_axis,) + (0,) * (dimension - 1)
    assert moment(points, weights, powers) != pytest.approx(exact_moment(powers), rel=1e-3)


@pytest.mark.parametrize("discard", [1e-8, 1e-6, 1e-3])
def test_pruning_discards_less_than_it_may(discard):
    full, full_weights = bd.GaussHermitePoints(8, discard=0.0)(3)
    points, weights = bd.GaussHermitePoints(8, discard=discard)(3)
    assert len(weights) < len(full_weights)
    # The variance is that of all nodes, for which the others were moved by a common factor.
    for axis in np.eye(3, dtype=int):
        assert moment(points, weights, tuple(2 * axis)) == pytest.approx(1.0, abs=1e-13)
    factor = points[points > 0].min() / full[full > 0].min()
    assert 1 < factor < 1 + 25 * discard
    # The nodes that are left, with the weights they had.
    weight_of = {tuple(np.round(x, 9)): w for x, w in zip(full, full_weights, strict=True)}
    kept = np.array([weight_of[tuple(np.round(x / factor, 9))] for x in points])
    assert 0 < 1 - kept.sum() < discard
    np.testing.assert_allclose(weights, kept / kept.sum(), rtol=1e-12)
    # The lightest went.
    assert np.sort(full_weights)[-len(kept)] == pytest.approx(kept.min(), rel=1e-9)
    for powers in [(0, 0, 0), (2, 0, 0), (2, 2, 0), (4, 0, 0), (1, 0, 0), (1, 2, 0)]:
        got = moment(points, weights, powers)
        assert got == pytest.approx(exact_moment(powers), abs=300 * discard)


def test_pruning_keeps_the_symmetry_of_the_rule():
    points, weights = bd.GaussHermitePoints(6, discard=1e-4)(2)
    nodes = {tuple(np.round(x, 9)): w for x, w in zip(points, weights, strict=True)}
    for (a, b), w in nodes.items():
        for image in [(-a, b), (a, -b), (b, a)]:
            assert nodes[image] == pytest.approx(w, rel=1e-9)


def test_many_dimensions_do_not_build_the_full_grid():
    tracemalloc.start()
    points, weights = bd.GaussHermitePoints(8, discard=1e-2)(6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    full_grid = 8**6 * 7 * 8
    assert peak < full_grid, f"{peak / full_grid:.2f}"
    assert len(weights) < 8**6 / 10
    assert moment(points, weights, (4, 0, 0, 0, 0, 0)) == pytest.approx(3.0, abs=0.3)


def test_a_grid_that_is_too_large_says_so():
    with pytest.raises(ValueError, match="Use fewer nodes, or SobolPoints"):
        bd.GaussHermitePoints(100, discard=0.0)(6)


@pytest.mark.parametrize(
    "design", [bd.RandomPoints(64), bd.SobolPoints(64), bd.TruncatedPoints(bd.RandomPoints(64))], ids=repr
)
def test_keys(design):
    points, _ = design(3, KEY)
    np.testing.assert_array_equal(points, design(3, KEY)[0])
    np.testing.assert_array_equal(points, design(3, jax.random.PRNGKey(3))[0])  # a raw key
    assert np.all(points != design(3, jax.random.key(4))[0])
    with pytest.raises(ValueError, match=r"needs a key: pass key=jax.random.key\(0\)"):
        design(3)


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(3)])
def test_sobol_points_within_a_compiled_function(key):
    def spread(scale, key):
        points, _ = bd.SobolPoints(8)(2, key)
        return scale * jnp.std(points)

    np.testing.assert_allclose(jax.jit(lambda scale: spread(scale, key))(2.0), spread(2.0, key))
    with pytest.raises(ValueError, match=r"key must be concrete because NumPy draws from it.* outside"):
        jax.jit(spread)(2.0, key)


def test_sobol_points_beat_random_ones():
    def error(design):
        points, weights = design(3, KEY)
        return np.linalg.norm(moment(points, weights, (2, 0, 0)) - 1) + np.linalg.norm(weights @ points)

    assert error(bd.RandomPoints(2048)) < 0.2
    assert error(bd.SobolPoints(2048)) < 0.02 * 5e-1
    assert error(bd.SobolPoints(2048)) < 0.2 * error(bd.RandomPoints(2048))


@pytest.mark.parametrize("number", [1, 7, 1000])
def test_any_number_of_sobol_points(number, recwarn):
    points, _ = bd.SobolPoints(number)(2, KEY)
    assert points.shape == (number, 2)
    assert not recwarn.list


@pytest.mark.parametrize("radius", [0.5, 1.5, 3.3])
@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_truncated_points_follow_the_truncated_distribution(dimension, radius):
    points, _ = bd.TruncatedPoints(bd.SobolPoints(4096), radius)(dimension, KEY)
    square = np.sum(np.asarray(points) ** 2, axis=1)
    assert np.max(square) <= radius**2 * (1 + 1e-9)
    # They reach the rim.
    assert np.max(square) > 0.9 * radius**2
    # Of a chi-squared variable below r², P(≤ a) and the mean are ratios of distributions.
    inside = chi2.cdf(radius**2, dimension)
    mean = dimension * chi2.cdf(radius**2, dimension + 2) / inside
    np.testing.assert_allclose(np.mean(square), mean, rtol=5e-3)
    half = chi2.cdf(0.25 * radius**2, dimension) / inside
    np.testing.assert_allclose(np.mean(square <= 0.25 * radius**2), half, atol=3e-3)
    np.testing.assert_allclose(np.mean(points, axis=0), 0, atol=0.01)


def test_truncated_points_keep_weights_directions_and_ranks():
    design = bd.GaussHermitePoints(5, discard=0.0)  # unequal weights, and a point at the centre
    before, weights_before = design(2)
    after, weights = bd.TruncatedPoints(design, radius=2.0)(2)
    np.testing.assert_array_equal(weights, weights_before)
    np.testing.assert_allclose(before[:, 0] * after[:, 1], before[:, 1] * after[:, 0], atol=1e-12)
    assert np.all(np.sum(before * after, axis=1) >= 0)
    far, near = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    assert np.all(near <= far)
    assert np.all(np.diff(near[np.argsort(far)]) > -1e-9)
    assert np.sum(near == 0) == np.sum(far == 0) == 1
    np.testing.assert_allclose(bd.TruncatedPoints(design, radius=np.inf)(2)[0], before, atol=1e-9)


def test_truncated_points_draw_in_the_farthest():
    """So far out that no probability is left beyond, in double precision."""

    class Far(bd.AbstractDesign):
        def __call__(self, dimension, key=None):
            return np.array([[1e3] + [0.0] * (dimension - 1)]), np.ones(1)

    points, _ = bd.TruncatedPoints(Far(), radius=2.5)(3)
    np.testing.assert_allclose(points, [[2.5, 0, 0]], rtol=1e-9)


@pytest.mark.parametrize("dimension", [1, 3])
def test_widened_points_stand_for_the_standard_normal_distribution(dimension):
    points, weights = bd.WidenedPoints(bd.SobolPoints(8192), factor=1.4)(dimension, KEY)
    one = np.eye(dimension, dtype=int)[0]
    for powers in (one, 2 * one, 4 * one):
        assert moment(points, weights, powers) == pytest.approx(exact_moment(powers), rel=0.01, abs=0.01)
    effective = 1 / np.sum(weights**2) / 8192
    np.testing.assert_allclose(effective, (np.sqrt(2 * 1.4**2 - 1) / 1.4**2) ** dimension, rtol=0.01)
    # Raised to a power, the weights are those of a Gaussian of a width between.
    between = (1.4**-2 + 0.6 * (1 - 1.4**-2)) ** -0.5
    same, tempered = bd.WidenedPoints(bd.SobolPoints(8192), 1.4, power=0.6)(dimension, KEY)
    np.testing.assert_array_equal(same, points)
    assert moment(points, tempered, 2 * one) == pytest.approx(between**2, rel=0.01)
    assert moment(points, tempered, 4 * one) == pytest.approx(3 * between**4, rel=0.02)
    before, _ = bd.SobolPoints(8192)(dimension, KEY)
    np.testing.assert_allclose(points, 1.4 * np.asarray(before), rtol=1e-12)


@pytest.mark.parametrize(
    "design", [bd.RandomPoints(50), bd.WidenedPoints(bd.SobolPoints(64), 1.4)], ids=repr
)
def test_standardized_points_have_exact_moments(design):
    points, weights = bd.StandardizedPoints(design)(3, KEY)
    np.testing.assert_allclose(weights @ points, 0, atol=1e-13)
    np.testing.assert_allclose(np.einsum("m,mi,mj->ij", weights, points, points), np.eye(3), atol=1e-12)
    before, same = design(3, KEY)
    np.testing.assert_array_equal(weights, same)
    # They are moved a little, all by the same affine map.
    ones = np.column_stack([before, np.ones(len(same))])
    matrix, *_ = np.linalg.lstsq(ones, points, rcond=None)
    np.testing.assert_allclose(ones @ matrix, points, atol=1e-12)
    assert np.max(np.abs(matrix[:3] - np.eye(3))) < 0.5
    # Higher moments are as good as the design's.
    sobol = bd.StandardizedPoints(bd.SobolPoints(4096))(2, KEY)
    assert moment(*sobol, (4, 0)) == pytest.approx(3, rel=0.02)


def test_points_in_a_plane_can_not_be_standardized():
    with pytest.raises(
        ValueError, match=r"The 2 points of SobolPoints\(number=2\) lie in a plane of 2 dim"
    ):
        bd.StandardizedPoints(bd.SobolPoints(2))(2, KEY)
    with pytest.raises(ValueError, match=r"The 1 points .* lie in a plane of 1 dimensions"):
        bd.StandardizedPoints(bd.RandomPoints(1))(1, KEY)


def test_widened_points_keep_the_weights_of_their_design():
    design = bd.GaussHermitePoints(4, discard=0.0)
    before, unchanged = design(2), bd.WidenedPoints(design, 1.0)(2)
    np.testing.assert_allclose(unchanged[0], before[0], rtol=1e-14)
    np.testing.assert_allclose(unchanged[1], before[1], rtol=1e-14)

    class Far(bd.AbstractDesign):
        def __call__(self, dimension, key=None):
            return np.full((2, dimension), [[100.0], [100.001]]), np.full(2, 0.5)

    _, weights = bd.WidenedPoints(Far(), 2.0)(1)
    square = 4 * np.array([100.0, 100.001]) ** 2
    assert weights[1] / weights[0] == pytest.approx(np.exp(-0.375 * np.diff(square)[0]), rel=1e-9)


def test_random_points_follow_the_precision_of_the_packet():
    packet = bd.GaussianWavePacket(jnp.zeros(2, jnp.float32), 1.0)
    assert packet.particles(bd.RandomPoints(4), KEY)[0].dtype == jnp.float32


def test_default_design():
    small = default_design(4, 8)
    assert isinstance(small, bd.GaussHermitePoints)
    assert small.points_per_axis == 8
    assert default_design(6, 8) == bd.SobolPoints(16_384)


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "many", None])
def test_numbers_of_points(bad):
    for make in (bd.RandomPoints, bd.SobolPoints, bd.GaussHermitePoints):
        with unchecked_types(), pytest.raises(ValueError, match=f"at least 1, but {bad!r} was given"):
            make(bad)


@pytest.mark.parametrize("bad", [-0.1, 1, 2.0, float("nan"), "some", None])
def test_discarded_probability(bad):
    with unchecked_types(), pytest.raises(ValueError, match="0 <= discard < 1"):
        bd.GaussHermitePoints(4, discard=bad)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_radius(bad):
    with unchecked_types(), pytest.raises(ValueError, match=f"radius must be positive, but {bad!r} was"):
        bd.TruncatedPoints(bd.SobolPoints(8), radius=bad)


@pytest.mark.parametrize("bad", [64, None, "many", bd.SobolPoints])
def test_truncated_design(bad):
    with unchecked_types(), pytest.raises(ValueError, match=r"must be a design such as SobolPoints\(256\)"):
        bd.TruncatedPoints(bad)
    with unchecked_types(), pytest.raises(ValueError, match=r"must be a design such as SobolPoints\(256\)"):
        bd.StandardizedPoints(bad)
    with unchecked_types(), pytest.raises(ValueError, match=r"must be a design such as SobolPoints\(256\)"):
        bd.WidenedPoints(bad, 1.4)


@pytest.mark.parametrize("bad", [0.9, -1.4, math.inf, math.nan])
def test_widening_factor(bad):
    with unchecked_types(), pytest.raises(ValueError, match=f"factor must be at least 1.*but {bad!r} was"):
        bd.WidenedPoints(bd.SobolPoints(8), bad)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_power_of_the_weights(bad):
    with unchecked_types(), pytest.raises(ValueError, match=f"power must be between 0 and 1, but {bad!r}"):
        bd.WidenedPoints(bd.SobolPoints(8), 1.4, bad)


@pytest.mark.parametrize("bad", ["wide", [1.4, 2.0], bd.SobolPoints(8)])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda v: bd.TruncatedPoints(bd.SobolPoints(8), v), "radius"),
        (lambda v: bd.WidenedPoints(bd.SobolPoints(8), v), "factor"),
        (lambda v: bd.WidenedPoints(bd.SobolPoints(8), 1.4, v), "power"),
    ],
)
def test_what_is_not_a_number(make, name, bad):
    with unchecked_types(), pytest.raises(ValueError, match=f"{name} must be a number, but .* was given"):
        make(bad)

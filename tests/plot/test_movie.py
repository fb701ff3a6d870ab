"""Movies: what each frame draws, and what is refused."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from PIL import Image
from tests.unchecked import unchecked_types

import bohmdiff as bd
from bohmdiff.plot._style import COLOURS

TS = jnp.linspace(0, 1, 9)
UNITS = bd.Units(bd.units.Label("fs"), bd.units.Label("Å"), bd.units.Label("eV"))


def solve(mean, method=None):
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(2 * jnp.eye(len(mean)))), bd.GaussianWavePacket(mean, 0.3), t1=1.0
    )
    return bd.solve(problem, method or bd.GaussianDynamics(steps=8), ts=TS)


@pytest.fixture(scope="module")
def line():
    return solve([0.5])


@pytest.fixture(scope="module")
def grid():
    return solve([0.5], bd.SplitOperator(points=64, lower=-6.0, upper=6.0, steps=8))


@pytest.fixture(scope="module")
def plane():
    return solve([0.5, -0.2])


@pytest.fixture(scope="module")
def space():
    return solve([0.5, -0.2, 0.8])


@pytest.fixture(autouse=True)
def every_movie_is_drawn(monkeypatch):
    """An animation that is thrown away without one frame being drawn makes matplotlib warn."""
    made = bd.plot.movie

    def movie(*args, **kwargs):
        animation = made(*args, **kwargs)
        animation._draw_was_started = True
        return animation

    monkeypatch.setattr(bd.plot, "movie", movie)


def at_frame(animation, k):
    """The figure as it is in frame `k`."""
    animation._func(k)
    return animation._fig


def density(solution, k, x):
    return np.exp(jax.vmap(lambda y: solution.log_density(TS[k], y))(jnp.asarray(x)))


def trails(axes):
    return next(one for one in axes.collections if isinstance(one, LineCollection))


@pytest.mark.slow
def test_every_frame_has_the_density_of_its_time(line):
    animation = bd.plot.movie(line, units=UNITS)
    (axes,) = at_frame(animation, 0).axes
    drawn = []
    for k in (0, 4, 8):
        at_frame(animation, k)
        (curve,) = axes.get_lines()
        np.testing.assert_allclose(curve.get_ydata(), density(line, k, curve.get_xdata()[:, None]))
        drawn.append(np.array(curve.get_ydata()))
        assert axes.get_title(loc="left") == f"t = {float(TS[k]):.2f} fs"
        # The area below the curve is that of the same frame.
        (area,) = (path.vertices for path in axes.collections[0].get_paths())
        np.testing.assert_allclose(np.max(area[:, 1]), np.max(drawn[-1]))
    assert np.max(np.abs(drawn[1] - drawn[0])) > 0.1
    assert np.max(np.abs(drawn[2] - drawn[1])) > 0.1
    # One scale for all.
    assert axes.get_ylim()[1] > max(np.max(one) for one in drawn)


def test_on_a_grid_and_against_another(line, grid):
    animation = bd.plot.movie(grid, exact=line)
    for k in (1, 7):
        ours, exact = at_frame(animation, k).axes[0].get_lines()
        x = ours.get_xdata()
        np.testing.assert_allclose(ours.get_ydata(), density(line, k, x[:, None]), atol=1e-5)
        np.testing.assert_allclose(exact.get_ydata(), density(line, k, x[:, None]))
        assert exact.get_linestyle() != ours.get_linestyle()
    (legend,) = animation._fig.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "SplitOperator",
        "exact, by GaussianDynamics",
    ]


@pytest.mark.long
def test_solutions_by_particles():
    few = {"particles": bd.GaussHermitePoints(8), "steps": 8}
    fitted = solve([0.5], bd.SequentialScoreMatching(degree=2, **few))
    given = solve([0.5], bd.GivenScore(fitted.fitted, **few))
    for solution in (fitted, given):
        (curve,) = at_frame(bd.plot.movie(solution), 5).axes[0].get_lines()
        np.testing.assert_allclose(
            curve.get_ydata(), density(solution, 5, curve.get_xdata()[:, None]), rtol=1e-10
        )
    # The scale is that of the particles: far out the polynomial of a fit may grow without bound.
    wide = bd.plot.movie(solve([0.5], bd.SequentialScoreMatching(degree=3, **few)), lower=-60, upper=60)
    assert wide._fig.axes[0].get_ylim()[1] < 2


@pytest.mark.parametrize("bare", [False, True], ids=["(M, K, 1)", "(M, K)"])
def test_particles_and_their_paths(line, bare):
    paths = np.asarray(line.sample(jax.random.key(0), 5))
    animation = bd.plot.movie(line, paths[..., 0] if bare else paths, label="Bohmian", units=UNITS)
    top, below = at_frame(animation, 3).axes
    dots = top.get_lines()[1]
    np.testing.assert_allclose(dots.get_xdata(), paths[:, 3, 0])
    np.testing.assert_allclose(dots.get_ydata(), density(line, 3, paths[:, 3]), rtol=1e-2, atol=1e-3)
    segments = trails(below).get_segments()
    assert len(segments) == 5
    for segment, path in zip(segments, paths[..., 0], strict=True):
        np.testing.assert_allclose(segment, np.stack([path[:4], TS[:4]], axis=1))
    assert animation._fig.legends[0].get_texts()[1].get_text() == "Bohmian"


@pytest.mark.slow
def test_the_plane(plane):
    paths = np.asarray(plane.sample(jax.random.key(0), 4))
    animation = bd.plot.movie(plane, paths, exact=plane, units=UNITS)
    for k in (0, 8):
        axes, _ = at_frame(animation, k).axes
        (image,) = axes.images
        low_x, high_x, low_y, high_y = image.get_extent()
        x, y = (
            np.linspace(low, high, n)
            for low, high, n in zip(
                (low_x, low_y), (high_x, high_y), reversed(image.get_array().shape), strict=True
            )
        )
        mesh = np.stack(np.meshgrid(x, y), axis=-1)
        expected = density(plane, k, mesh.reshape(-1, 2)).reshape(mesh.shape[:2])
        np.testing.assert_allclose(image.get_array(), expected)
        (dots,) = axes.get_lines()
        np.testing.assert_allclose(dots.get_xydata(), paths[:, k])
        # Contours of both, and none is left from frames before.
        assert len([one for one in axes.collections if hasattr(one, "levels")]) == 2
    # The last fifth of the paths.
    for segment, path in zip(trails(axes).get_segments(), paths, strict=True):
        np.testing.assert_allclose(segment, path[6:])


@pytest.mark.slow
def test_through_the_mean_of_the_other_coordinates(space):
    animation = bd.plot.movie(space, coordinates=2)
    (axes,) = at_frame(animation, 6).axes
    (curve,) = axes.get_lines()
    x = np.tile(np.asarray(space.mean()[6]), (400, 1))
    x[:, 2] = curve.get_xdata()
    np.testing.assert_allclose(curve.get_ydata(), density(space, 6, x))
    assert axes.get_xlabel() == "position $x_{3}$, a.u."
    assert axes.get_title(loc="right") == "on the line through the mean"
    axes, colours = bd.plot.movie(space, coordinates=(2, 0), units=UNITS)._fig.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("position $x_{3}$, Å", "position $x_{1}$, Å")
    assert colours.get_ylabel() == "density ρ(t, x), 1/(Å)³"
    assert axes.get_title(loc="right") == "on the plane through the mean"


def test_range(line, plane):
    assert bd.plot.movie(line, lower=-1, upper=2)._fig.axes[0].get_xlim() == (-1, 2)
    axes = bd.plot.movie(plane, lower=[-1, -2], upper=3)._fig.axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-1, 3), (-2, 3))


def test_number_of_frames(line, tmp_path):
    bd.plot.movie(line, every=3, fps=10).save(tmp_path / "movie.gif", writer="pillow", dpi=30)
    with Image.open(tmp_path / "movie.gif") as image:
        assert image.n_frames == 3
        assert image.info["duration"] == 100
        frames = []
        for k in range(3):
            image.seek(k)
            frames.append(np.asarray(image.convert("L"), float))
    assert all(np.max(np.abs(a - b)) > 50 for a, b in itertools.pairwise(frames))
    assert bd.plot.movie(line)._save_count == len(TS)
    (curve,) = at_frame(bd.plot.movie(line, every=3), 2).axes[0].get_lines()
    np.testing.assert_allclose(curve.get_ydata(), density(line, 6, curve.get_xdata()[:, None]))


@pytest.mark.long
def test_a_single_time():
    problem = bd.Problem(bd.Hamiltonian(bd.DoubleWell()), bd.GaussianWavePacket([0.0], 0.3), t1=1.0)
    one = bd.solve(problem, bd.GaussianDynamics(steps=4), ts=[1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bd.plot.movie(one, np.zeros((2, 1)))._save_count == 1


def test_nothing_stays_open_and_no_setting_changes(line):
    open_before, settings = plt.get_fignums(), dict(mpl.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            bd.plot.movie(line, every=8)
    assert plt.get_fignums() == open_before
    assert dict(mpl.rcParams) == settings


@pytest.mark.filterwarnings("ignore:The solution by GivenScore may be wrong")
def test_refuses_what_has_no_density(line):
    score = lambda t, x: (0.5 - x) / 0.3  # noqa: E731
    bare = solve([0.5], bd.GivenScore(score, bd.GaussHermitePoints(4), steps=2))
    with pytest.raises(bd.UnavailableError, match="A solution by GivenScore has no log_density"):
        bd.plot.movie(bare)
    with pytest.raises(bd.UnavailableError, match="A solution by GivenScore has no log_density"):
        bd.plot.movie(line, exact=bare)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinates": 2}, r"one or two different indices from 0 to 1, but 2 was given"),
        ({"coordinates": -1}, r"0 to 1, but -1 was given"),
        ({"coordinates": (1, 1)}, r"different indices from 0 to 1, but \(1, 1\) was given"),
        ({"coordinates": (0, 1, 1)}, r"one or two different indices"),
        ({"coordinates": 0.5}, r"0 to 1, but 0\.5 was given"),
        ({"trajectories": np.zeros((3, 9))}, r"\(M, K, d\) with the 9 saved times and 2 coord.* \(3, 9\)"),
        ({"trajectories": np.zeros((3, 8, 2))}, r"shape \(3, 8, 2\) was given\. Pass ts=solution\.ts"),
        ({"every": 0}, r"every must be an integer of at least 1, but 0 was given"),
        ({"fps": 0.5}, r"fps must be an integer of at least 1, but 0\.5 was given"),
        ({"lower": [0, 0, 0]}, r"lower must be one number, or one for each of the 2 coordinates drawn"),
        (
            {"lower": 2, "upper": 1},
            r"upper must be larger than lower, and both finite, but 1 and 2 were given",
        ),
    ],
)
def test_refuses_options(plane, options, message):
    with unchecked_types(), pytest.raises(ValueError, match=message):
        bd.plot.movie(plane, **options)


def test_refuses_what_is_no_solution(line, plane):
    with (
        unchecked_types(),
        pytest.raises(ValueError, match=r"Dataset was given\. Exported data have moments"),
    ):
        bd.plot.movie(line.to_xarray())
    with (
        unchecked_types(),
        pytest.raises(ValueError, match=r"exact must be a solution, but str was given\.$"),
    ):
        bd.plot.movie(line, exact="grid")
    with pytest.raises(
        ValueError, match="has 1 coordinates and exact has 2: pass two solutions of the same"
    ):
        bd.plot.movie(line, exact=plane)


@pytest.mark.parametrize("what", ["moments", "energy", "density", "movie of a line", "movie of a plane"])
def test_one_style(line, plane, what):
    """Every axis says what it shows, in which units; every line has a colour of the palette."""
    paths = np.asarray(line.sample(jax.random.key(0), 2))
    figure = {
        "moments": lambda: bd.plot.moments(line, line, units=UNITS),
        "energy": lambda: bd.plot.energy(line, line, units=UNITS),
        "density": lambda: bd.plot.density(line, paths[..., 0], reference=paths[..., 0], units=UNITS),
        "movie of a line": lambda: bd.plot.movie(line, paths, exact=line, units=UNITS)._fig,
        "movie of a plane": lambda: bd.plot.movie(plane, exact=plane, units=UNITS)._fig,
    }[what]()
    plt.close("all")
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
    assert len(labels) >= len(figure.axes)
    for label in labels:
        assert label.rpartition(", ")[2] in {"fs", "Å", "eV", "1/Å", "1/(Å)²"}, label
    lines = [one for axes in figure.axes for one in axes.get_lines()]
    assert lines or what == "movie of a plane"
    palette = {colour.lower() for colour in COLOURS}
    assert {to_hex(one.get_color()) for one in lines} <= palette

r"""A wave packet splits in a double well.

$V = D\,(x^2/a^2 - 1)^2$ with $D = 1$, $a = 2$ and $m = \hbar = 1$. The packet starts at rest on top of the
barrier, as a Gaussian of standard deviation ½, and is followed to $t = \pi$.

The picture double_well.png shows the exact density (grey) and the exact Bohmian trajectories (dashed). In one
dimension they are the quantiles of the density and never cross. The trajectories of SequentialScoreMatching
(orange) start from the same points and are drawn until two of them cross. By then waves have come back from
the walls, and the ripples of the density are too fine for a polynomial. Mean and width stay accurate to the
end, as double_well_moments.png shows. With --movie, double_well.gif shows the exact density and its
trajectories in time.
"""

import time

START = time.perf_counter()

from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.scipy.stats import norm  # noqa: E402

import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402


def main() -> None:
    parser = _common.parser(__doc__, degree=6, steps=96)
    parser.add_argument(
        "--particles",
        type=_common.positive,
        help="number of Sobol points; a Gauss-Hermite grid if not given",
    )
    parser.add_argument("--movie", action="store_true", help="write double_well.gif too")
    options = parser.parse_args()

    problem = bd.Problem(
        bd.Hamiltonian(bd.DoubleWell(barrier=1.0, minimum=2.0), mass=1.0, hbar=1.0),
        bd.GaussianWavePacket(mean=[0.0], covariance=0.25),
        t1=jnp.pi,
    )
    exact = bd.solve(problem, bd.SplitOperator(points=256, lower=-8.0, upper=8.0), progress=True)
    _common.save_data(exact.to_xarray(), options.out, "exact.nc")
    method = bd.SequentialScoreMatching(options.degree, options.particles, options.steps)
    solution = bd.solve(problem, method, key=jax.random.key(0), progress=True)
    _common.save_data(solution.to_xarray(), options.out, "solution.nc")

    levels = (np.arange(24) + 0.5) / 24
    x0 = problem.initial.mean + 0.5 * norm.ppf(jnp.asarray(levels))[:, None]
    paths = np.asarray(solution.trajectories(x0)[..., 0])
    in_order = np.all(np.diff(paths, axis=0) > 0, axis=0)
    kept = len(in_order) if in_order.all() else int(np.argmin(in_order))

    comparison = bd.compare(solution, exact)
    print(comparison)
    relative = float(jnp.max(jnp.abs(solution.std() / exact.std() - 1)))
    print(f"standard deviation at t = π: {float(solution.std()[-1, 0]):.5f}, ", end="")
    print(f"exact {float(exact.std()[-1, 0]):.5f}; largest relative error at any time {relative:.2%}")

    print(f"trajectories keep their order until t = {float(exact.ts[kept - 1]):.2f}")

    figure = bd.plot.density(
        exact,
        paths[:, :kept],
        ts=exact.ts[:kept],
        reference=exact.quantile_trajectories(levels),
        label="SequentialScoreMatching",
        lower=-5.0,
        upper=5.0,
    )
    _common.save_figure(figure, options.out, "double_well.png")
    _common.save_figure(bd.plot.moments(solution, exact), options.out, "double_well_moments.png")
    if options.movie:
        save_movie(exact, options.out / "double_well.gif")

    figures = {
        "mean_rms": float(comparison.mean_rms.max()),
        "std_rms": float(comparison.std_rms.max()),
        "std_relative_max": relative,
        "in_order_until": float(exact.ts[kept - 1]),
        "energy_error": float(comparison.energy_max),
    }
    figures |= _common.what_it_took(solution, time.perf_counter() - START)
    _common.save_json(figures, options.json)


def save_movie(exact: bd.GridSolution, path: Path) -> None:
    quantiles = exact.quantile_trajectories((np.arange(16) + 0.5) / 16)
    label = "Bohmian trajectories"
    movie = bd.plot.movie(exact, quantiles, every=4, fps=10, lower=-5, upper=5, label=label)
    _common.save(path, lambda file: movie.save(file, writer="pillow", dpi=70))


if __name__ == "__main__":
    _common.run(main)

r"""Your own potential and your own score.

SequentialScoreMatching and a grid solve a quartic trap for two coupled particles of different mass, one of
them driven:

$$V = \sum_i \Bigl(\tfrac12 x_i^2 + \tfrac1{20} x_i^4\Bigr) + \tfrac15 x_1 x_2 + \tfrac12 x_1 \sin 2t$$

Then comes a score written by hand: a Gaussian with the mean and the width of the solution, an Equinox module
of ten lines. Its Fisher divergence measures its distance from the score of the density that its own flow
produces. It is much larger than that of the fitted score.

The picture custom_potential.png shows mean and width of both coordinates (lines) over the exact ones
(markers).
"""

import time

START = time.perf_counter()

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402


def shaken_trap(t, x):
    """A potential is any function of time and one configuration x, shape (d,)."""
    return jnp.sum(x**2 / 2 + x**4 / 20) + x[0] * x[1] / 5 + x[0] * jnp.sin(2 * t) / 2


class MovingGaussian(eqx.Module):
    """A score is any module s(t, x) -> (d,); this one looks moments up in a table."""

    ts: jax.Array
    mean: jax.Array
    std: jax.Array

    def __call__(self, t, x):
        look_up = jax.vmap(lambda column: jnp.interp(t, self.ts, column), in_axes=1)
        return -(x - look_up(self.mean)) / look_up(self.std) ** 2


def main() -> None:
    options = _common.parser(__doc__, degree=6, steps=64).parse_args()

    problem = bd.Problem(
        bd.Hamiltonian(shaken_trap, mass=[1.0, 2.0], hbar=1.0),
        bd.GaussianWavePacket(mean=[0.5, 0.0], covariance=0.5, momentum=[0.0, 1.0]),
        t1=2.0,
    )
    exact = bd.solve(problem, bd.SplitOperator(points=64, lower=-6.0, upper=6.0), progress=True)
    _common.save_data(exact.to_xarray(), options.out, "exact.nc")
    method = bd.SequentialScoreMatching(options.degree, steps=options.steps)
    solution = bd.solve(problem, method, progress=True)
    _common.save_data(solution.to_xarray(), options.out, "solution.nc")
    comparison = bd.compare(solution, exact)
    print(comparison)

    x0, weights = problem.initial.particles(bd.GaussHermitePoints(8, discard=1e-3))
    by_hand = MovingGaussian(solution.ts, solution.mean(), solution.std())
    settings = {"weights": weights, "steps": options.steps, "solver": bd.BlanesMoan4()}
    divergences = {}
    for name, score in {"fitted": solution.score, "by hand": by_hand}.items():
        report = bd.fisher_divergence(problem, score, x0, **settings)
        divergences[name] = float(report.value)
        print(
            f"Fisher divergence of the score {name}: {report.value:.2g}, "
            f"{report.masked_fraction:.1%} masked, smallest |det F| {report.minimum_determinant:.2g}"
        )

    _common.save_figure(bd.plot.moments(solution, exact), options.out, "custom_potential.png")
    figures = {
        "mean_rms": float(comparison.mean_rms.max()),
        "std_rms": float(comparison.std_rms.max()),
        "energy_error": float(comparison.energy_max),
        "fisher_fitted": divergences["fitted"],
        "fisher_by_hand": divergences["by hand"],
    }
    figures |= _common.what_it_took(solution, time.perf_counter() - START)
    _common.save_json(figures, options.json)


if __name__ == "__main__":
    _common.run(main)

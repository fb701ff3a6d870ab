"""Figure 5: the score of the four-mode Morse chain on a plane through the packet, at t = 0 and t = π.

The plane has the coordinates x₁ and x₂; x₃ and x₄ stay at their exact means. Grey is the exact density on
it, lines are streamlines of the score: on the left the trained one, on the right the exact one. They end
where the density falls below 1e-4 of its maximum.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import _paper
import bohmdiff as bd
from bohmdiff.plot._style import style

PLACES, WIDTHS = 60, 3.5
FAINT = 1e-4


def main() -> None:
    options = _paper.parser(__doc__, weights=True).parse_args()
    ours, exact = _paper.data("slices.npz", compute, options), _paper.load("exact.npz")
    figures = {}
    for i, when in enumerate(("start", "end")):
        difference = np.sum((ours["score"][i] - exact["score"][i]) ** 2, axis=-1)
        rho = np.exp(exact["log_density"][i])
        figures[f"score_rms_{when}"] = float(np.sqrt(np.average(difference, weights=rho)))
        figures[f"score_size_{when}"] = float(
            np.sqrt(np.average(np.sum(exact["score"][i] ** 2, axis=-1), weights=rho))
        )
    for name, value in figures.items():
        print(f"{name}: {value:.2e}")
    _paper.save_figure(draw(ours, exact), options.out, "figure5.png")
    _paper.save_json(figures, options.json)


def compute(score) -> _paper.Arrays:
    """The score on the two planes."""
    exact = _paper.load("exact.npz")
    values = [
        jax.vmap(lambda x, t=t: score(t, x))(points(axes, mean).reshape(-1, _paper.MODES))
        for t, axes, mean in zip(exact["time"], exact["axes"], exact["mean"], strict=True)
    ]
    return {"score": np.stack([v[:, :2].reshape(PLACES, PLACES, 2) for v in values]).astype(np.float32)}


def compute_exact(exact: bd.GridSolution) -> _paper.Arrays:
    """The planes, and the exact density and score on them."""
    problem = exact.problem
    time = np.array([0.0, np.pi])
    # The solution's own moments are those at π.
    mean = np.stack([problem.initial.mean, exact.mean()[-1]])
    std = np.stack([np.sqrt(np.diagonal(problem.initial.covariance)), exact.std()[-1]])
    axes = mean[:, :2, None] + WIDTHS * std[:, :2].max(axis=1)[:, None, None] * np.linspace(-1, 1, PLACES)
    log_density, score = [], []
    for t, ends, centre in zip(time, axes, mean, strict=True):
        x = points(ends, centre).reshape(-1, _paper.MODES)
        both = jax.lax.map(lambda y, t=t: (exact.log_density(t, y), exact.score(t, y)), x, batch_size=256)
        log_density.append(both[0].reshape(PLACES, PLACES))
        score.append(both[1][:, :2].reshape(PLACES, PLACES, 2))
    return {
        "time": time,
        "mean": mean,
        "axes": axes,
        "log_density": np.asarray(log_density, np.float32),
        "score": np.asarray(score, np.float32),
    }


def points(axes, mean):
    """The plane's points (PLACES, PLACES, d), x₁ along the first axis."""
    x1, x2 = jnp.meshgrid(*axes, indexing="ij")
    rest = [jnp.full_like(x1, value) for value in mean[2:]]
    return jnp.stack([x1, x2, *rest], axis=-1)


def draw(ours: _paper.Arrays, exact: _paper.Arrays) -> Figure:
    with style():
        figure, rows = plt.subplots(2, 2, figsize=(7, 7.4), sharex="row", sharey="row")
        for i, (row, when) in enumerate(zip(rows, ("t = 0", "t = π"), strict=True)):
            (x1, x2), rho = exact["axes"][i], np.exp(exact["log_density"][i])
            columns = {"trained score": (ours, "#D55E00"), "exact score": (exact, "#0072B2")}
            for axes, (name, (source, colour)) in zip(row, columns.items(), strict=True):
                score = np.where(rho[..., None] > FAINT * rho.max(), source["score"][i], np.nan)
                axes.grid(False)
                axes.set_aspect("equal")
                axes.pcolormesh(x1, x2, rho.T, cmap="Greys", shading="gouraud", vmax=1.4 * rho.max())
                axes.streamplot(
                    x1,
                    x2,
                    score[..., 0].T,
                    score[..., 1].T,
                    color=colour,
                    linewidth=0.9,
                    density=1.1,
                    arrowsize=0.9,
                )
                axes.set(xlim=x1[[0, -1]], ylim=x2[[0, -1]], title=f"{name}, {when}")
            row[0].set_ylabel(f"$x_2$, {_paper.UNITS.length}")
        for axes in rows[1]:
            axes.set_xlabel(f"$x_1$, {_paper.UNITS.length}")
    return figure


if __name__ == "__main__":
    _paper.run(main)

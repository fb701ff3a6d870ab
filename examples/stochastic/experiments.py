"""Two velocities instead of a wave function: Deep Stochastic Mechanics beside score matching.

The experiments of Deep Stochastic Mechanics (Orlova et al., ICML 2024), each solved by training the osmotic and
the current velocity to satisfy their equations of motion on paths of Nelson's process
(DeepStochasticMechanics), and by fitting a polynomial score to particles without any training
(SequentialScoreMatching). The table has the wall time with compilation, and the largest errors of mean and
variance at any time, in standard deviations and relative; and those of u and v, relative in the norm of L2 over
the exact density and all times, by quadrature.

The picture shows the variance of the first coordinate against time, and u and v at the end along that
coordinate, through the mean of the others.

    python examples/stochastic/experiments.py oscillator_1d    # _1d_phase, _3d
    python examples/stochastic/experiments.py free_packet
    python examples/stochastic/experiments.py bosons --dim 2   # and --repulsion 2 --until 1.5
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NamedTuple  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402
from bohmdiff.plot.style import COLOURS, DASHES, style  # noqa: E402

TIMES = 11


class Experiment(NamedTuple):
    """What is solved, what is known about it, and how the networks are trained."""

    problem: bd.Problem
    reference: bd.AbstractMethod
    degree: int
    particles: int | None
    width: int
    epochs: int
    training: dict


def main() -> None:
    parser = _common.parser(__doc__, degree=None, steps=64)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--dim", type=_common.positive, default=2, help="number of bosons (2)")
    parser.add_argument("--repulsion", type=float, default=1.0, help="of the bosons (1)")
    parser.add_argument("--until", type=float, default=1.0, help="when it ends (1)")
    parser.add_argument("--epochs", type=_common.positive, help="of the training (60; bosons 150)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and paths (0)")
    _common.add_training_folder(parser)
    options = parser.parse_args()

    experiment = EXPERIMENTS[options.experiment](options)
    problem = experiment.problem
    ts = jnp.linspace(problem.t0, problem.t1, TIMES)
    exact = bd.solve(problem, experiment.reference, ts=ts)
    where = quadrature(exact)
    print(f"exact variance of the first coordinate in the end: {float(exact.std()[-1, 0]) ** 2:.4f}")

    keys = jax.random.split(jax.random.key(options.seed))
    u, v = bd.velocity_networks(problem, width=experiment.width, key=keys[0])
    methods = {
        "SequentialScoreMatching": bd.SequentialScoreMatching(
            options.degree or experiment.degree, experiment.particles, options.steps
        ),
        "DeepStochasticMechanics": bd.DeepStochasticMechanics(
            u,
            v,
            epochs=options.epochs or experiment.epochs,
            validate_every=10,
            checkpoint_every=10,
            directory=_common.training_folder(options),
            resume=options.resume,
            **experiment.training,
        ),
    }
    print(f"{'':26}{'seconds':>8}{'mean':>10}{'variance':>10}{'u':>10}{'v':>10}")
    figures, everything = {"exact_variance": float(exact.std()[-1, 0]) ** 2}, {"exact": Fields.of(exact)}
    for name, method in methods.items():
        start = time.perf_counter()
        solution = bd.solve(problem, method, key=keys[1], ts=ts, progress=True)
        seconds = time.perf_counter() - start
        everything[name] = Fields.of(solution)
        found = errors(everything[name], everything["exact"], where)
        figures[name] = {
            "seconds": seconds,
            **found,
            "variance_end": float(solution.std()[-1, 0]) ** 2,
        }
        print(f"{name:26}{seconds:8.1f}" + "".join(f"{value:10.1e}" for value in found.values()))
        _common.save_data(solution.to_xarray(), options.out, f"{options.experiment}_{name}.nc")
    figure = draw(everything)
    _common.save_figure(figure, options.out, f"{options.experiment}.png")
    _common.save_json(figures, options.json)


def oscillator(dimension: int, momentum: float = 0.0) -> Callable[[argparse.Namespace], Experiment]:
    """A wide packet in a displaced trap."""

    def make(options: argparse.Namespace) -> Experiment:
        problem = bd.Problem(
            bd.Hamiltonian(bd.Quadratic(1.0, centre=jnp.full(dimension, 0.1)), mass=1.0, hbar=0.01),
            bd.GaussianWavePacket(jnp.zeros(dimension), 0.1, momentum=jnp.full(dimension, momentum)),
            t1=1.0,
        )
        return Experiment(problem, bd.GaussianDynamics(), 2, None, 16, 60, {})

    return make


def free_packet(options: argparse.Namespace) -> Experiment:
    """It becomes fifty times as wide. Pure diffusion, the answer of networks that do not learn, has a variance of
    0.0101 in the end; the right one is 0.2501."""
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(jnp.zeros((1, 1))), mass=1.0, hbar=0.01),
        bd.GaussianWavePacket([0.0], 1e-4),
        t1=1.0,
    )
    return Experiment(problem, bd.GaussianDynamics(), 2, None, 16, 60, {})


def bosons(options: argparse.Namespace) -> Experiment:
    """In a trap, from its ground state, with a repulsion between each two."""
    if options.dim not in (2, 3):
        raise ValueError(f"--dim must be 2 or 3, where ψ on a grid is the reference, but is {options.dim}")
    problem = bd.Problem(
        bd.Hamiltonian(bd.InteractingBosons(1.0, options.repulsion, 0.1), mass=1.0, hbar=0.1),
        bd.GaussianWavePacket(jnp.zeros(options.dim), 0.05),
        t1=options.until,
    )
    grid = bd.SplitOperator(points={2: 96, 3: 64}[options.dim], lower=-4.0, upper=4.0)
    return Experiment(problem, grid, 8, 16_384, 24, 150, {"points": 512, "outlier_scale": 0.3})


EXPERIMENTS = {
    "oscillator_1d": oscillator(1),
    "oscillator_1d_phase": oscillator(1, momentum=-0.05),
    "oscillator_3d": oscillator(3),
    "free_packet": free_packet,
    "bosons": bosons,
}


def quadrature(exact: bd.Solution) -> list[tuple[jax.Array, jax.Array]]:
    """Points and weights for means over the exact density, at every saved time: those of the grid if there is
    one, otherwise 512 Sobol points of the Gaussian."""
    normal, _ = bd.SobolPoints(512)(exact.problem.dimension, jax.random.key(7))
    where = []
    for k, t in enumerate(np.asarray(exact.ts)):
        if isinstance(exact, bd.GridSolution):
            density = np.asarray(exact.density_on_grid(float(t))).ravel()
            points = np.stack(np.meshgrid(*exact.grid(), indexing="ij"), axis=-1).reshape(density.size, -1)
            # Every so many of them are enough where there are very many.
            chosen = np.flatnonzero(density > 1e-5 * density.max())[:: 1 if density.size < 20_000 else 7]
            weights = density[chosen] / density[chosen].sum()
            where.append((jnp.asarray(points[chosen]), jnp.asarray(weights)))
        else:
            x = exact.mean()[k] + normal @ jnp.linalg.cholesky(exact.covariance()[k]).T
            where.append((x, jnp.full(len(x), 1 / len(x))))
    return where


class Fields(NamedTuple):
    """A solution and its two velocities, which some have to be fitted for."""

    solution: bd.Solution
    osmotic: Callable
    current: Callable

    @staticmethod
    def of(solution: bd.Solution) -> "Fields":
        current = bd.current_velocity(solution)
        return Fields(solution, bd.Velocities(solution.problem, solution.score, current).osmotic, current)


def errors(fields: Fields, exact: Fields, where: list) -> dict[str, float]:
    missed, size = np.zeros(2), np.zeros(2)
    for t, (x, weights) in zip(np.asarray(exact.solution.ts), where, strict=True):
        for i, pair in enumerate(zip(fields[1:], exact[1:], strict=True)):
            own, right = (jax.vmap(lambda y, f=f, t=t: f(float(t), y))(x) for f in pair)
            missed[i] += float(weights @ jnp.sum((own - right) ** 2, axis=1))
            size[i] += float(weights @ jnp.sum(right**2, axis=1))
    ours, theirs = fields.solution, exact.solution
    mean = float(jnp.max(jnp.abs(ours.mean() - theirs.mean()) / theirs.std()))
    variance = float(jnp.max(jnp.abs(ours.std() ** 2 / theirs.std() ** 2 - 1)))
    of_u, of_v = np.sqrt(missed / size)
    return {"mean": mean, "variance": variance, "u": of_u, "v": of_v}


def draw(everything: dict[str, Fields]):
    exact = everything["exact"].solution
    centre, spread, end = exact.mean()[-1], float(exact.std()[-1, 0]), float(exact.ts[-1])
    x = jnp.linspace(centre[0] - 3 * spread, centre[0] + 3 * spread, 121)
    line = jnp.broadcast_to(centre, (x.size, centre.size)).at[:, 0].set(x)
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
        for i, (name, fields) in enumerate(everything.items()):
            look = {"color": "0.6", "lw": 4} if name == "exact" else {"color": COLOURS[i], "ls": DASHES[i]}
            variance = fields.solution.std()[:, 0] ** 2
            axes[0].plot(fields.solution.ts, variance, label=name, **look)
            for panel, field in zip(axes[1:], fields[1:], strict=True):
                panel.plot(x, jax.vmap(lambda y, f=field: f(end, y))(line)[:, 0], **look)
        axes[0].set_xlabel("time")
        axes[0].set_ylabel("variance")
        for panel, name in zip(axes[1:], ("osmotic", "current"), strict=True):
            panel.set_xlabel("position")
            panel.set_ylabel(f"{name} velocity at the end")
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    _common.run(main)

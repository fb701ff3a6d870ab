"""Trained velocities, a trained wave function and two scores.

These are the experiments of Deep Stochastic Mechanics (Orlova et al., ICML 2024), each solved in four ways. Three
methods train networks: SelfConsistentScoreMatching a score, on top of a polynomial, through its own flow;
DeepStochasticMechanics an osmotic and a current velocity, on their equations of motion along paths of Nelson's
process; PhysicsInformedNetwork a wave function, on the Schrödinger equation. SequentialScoreMatching fits a
polynomial score to particles without training.

The table has the wall time with compilation; the largest error of the mean at any time, in standard deviations;
the largest relative error of the variance; and the relative errors of u and v in the L2 norm over the exact
density and all times. The latter come from 2048 points at each of eleven times, and their standard errors
from sixteen subsets.

The picture shows mean and variance of the first coordinate against time, and u and v at the end along that
coordinate, through the mean of the others.

    python examples/stochastic/experiments.py oscillator_1d    # _1d_phase, _3d
    python examples/stochastic/experiments.py free_packet
    python examples/stochastic/experiments.py bosons --dim 2   # and --repulsion 2 --until 1.5
    python examples/stochastic/experiments.py bosons --dim 5 --only SequentialScoreMatching

A score of five bosons takes 18 GB of memory and many minutes to compile before it trains; --only leaves it out.
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import dataclasses  # noqa: E402
import math  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NamedTuple  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from _exact import PARTS, Fields, Reference, at, by_relative_motion, closed_form, on_a_grid  # noqa: E402

import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402
from bohmdiff.plot._style import COLOURS, DASHES, style  # noqa: E402

TIMES = 11


class Experiment(NamedTuple):
    """A problem, its reference, and the options of the methods for it."""

    problem: bd.Problem
    reference: Callable[..., Reference]
    degree: int = 2
    particles: int | None = None
    steps: int = 64
    window: float | None = None
    width: int = 16
    # Of velocities, ψ and score.
    epochs: tuple[int, int, int] = (60, 80, 5)
    velocities: dict = {}  # noqa: RUF012
    # Of the score that is trained: the size of its network, the window of its baseline, from which error
    # on a particle is an outlier, and the particles for its moments.
    output_scale: float = 1e-3
    baseline_window: float | None = None
    outlier_scale: float = math.inf
    solution_particles: bd.AbstractDesign | None = None
    # The longest step of ψ.
    clip: float = 30.0


def main() -> None:
    parser = _common.parser(__doc__, degree=None, steps=None)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--dim", type=_common.positive, default=2, help="number of bosons, 2 to 5 (2)")
    parser.add_argument("--repulsion", type=float, default=1.0, help="repulsion of the bosons (1)")
    parser.add_argument("--until", type=float, default=1.0, help="final time (1)")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, help="which methods (all)")
    parser.add_argument(
        "--epochs", type=_common.positive, help="epochs of all trainings (the default of each)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and paths (0)")
    _common.add_training_folder(parser)
    options = parser.parse_args()
    refuse_to_mix(options)

    experiment = EXPERIMENTS[options.experiment](options)
    problem = experiment.problem
    ts = jnp.linspace(problem.t0, problem.t1, TIMES)
    reference = experiment.reference(problem, ts)
    final = float(reference.std[-1, 0]) ** 2
    print(f"exact variance of the first coordinate in the end: {final:.4f}")
    print(f"{'':28}{'seconds':>8}{'mean':>10}{'variance':>10}{'u':>19}{'v':>19}")

    key = jax.random.split(jax.random.key(options.seed))[1]
    figures, found = {"exact_variance": final}, {}
    for name in options.only:
        start = time.perf_counter()
        method = METHODS[name](experiment, options, name)
        solution = bd.solve(problem, method, key=key, ts=ts, progress=True)
        seconds = time.perf_counter() - start
        found[name] = Fields.of(solution)
        missed = errors(found[name], reference)
        figures[name] = {"seconds": seconds, **missed, "variance_end": float(solution.std()[-1, 0]) ** 2}
        fields = (f"{missed[w]:.1e} ± {missed[w + '_uncertainty']:.0e}" for w in "uv")
        print(
            f"{name:28}{seconds:8.1f}{missed['mean']:10.1e}{missed['variance']:10.1e}"
            + "".join(f"{one:>19}" for one in fields)
        )
        _common.save_data(solution.to_xarray(), options.out, f"{label(options)}_{name}.nc")
        if name != "SequentialScoreMatching" and solution.history.epoch[-1] < method.training.epochs:
            print(f"interrupted after {int(solution.history.epoch[-1])} epochs: --resume goes on")
            break
    _common.save_figure(draw(reference, found), options.out, f"{label(options)}.png")
    _common.save_json(figures, options.json)


def oscillator(dimension: int, momentum: float = 0.0) -> Callable[[argparse.Namespace], Experiment]:
    """A wide packet in a displaced trap."""

    def make(options: argparse.Namespace) -> Experiment:
        problem = bd.Problem(
            bd.Hamiltonian(bd.Quadratic(1.0, centre=jnp.full(dimension, 0.1)), mass=1.0, hbar=0.01),
            bd.GaussianWavePacket(jnp.zeros(dimension), 0.1, momentum=jnp.full(dimension, momentum)),
            t1=1.0,
        )
        return Experiment(problem, closed_form)

    return make


def free_packet(options: argparse.Namespace) -> Experiment:
    """It becomes fifty times as wide. Networks that do not learn describe pure diffusion, with a variance of
    0.0101 at the end; the right one is 0.2501."""
    problem = bd.Problem(
        bd.Hamiltonian(bd.Quadratic(jnp.zeros((1, 1))), mass=1.0, hbar=0.01),
        bd.GaussianWavePacket([0.0], 1e-4),
        t1=1.0,
    )
    # Most happens in a fiftieth of the time, and a fitted score is interpolated between its steps.
    return Experiment(problem, closed_form, steps=256, epochs=(60, 160, 5), output_scale=1e-5, clip=10.0)


def bosons(options: argparse.Namespace) -> Experiment:
    """In a trap, from its ground state, with a repulsion between each two."""
    d = options.dim
    if not 2 <= d <= 5:
        raise ValueError(f"--dim must be 2 to 5, for which there is a reference, but is {d}")
    problem = bd.Problem(
        bd.Hamiltonian(bd.InteractingBosons(1.0, options.repulsion, 0.1), mass=1.0, hbar=0.1),
        bd.GaussianWavePacket(jnp.zeros(d), 0.05),
        t1=options.until,
    )
    # Stronger repulsion makes them faster, and time takes them further, until the trap turns them back.
    speed = math.sqrt(max(options.repulsion, 1.0))
    way = speed * max(math.sin(min(options.until, math.pi / 2)) / math.sin(1.0), 1.0)
    reach, points = {2: (4.0, 96), 3: (3.8, 80), 4: (3.8, 80), 5: (3.4, 75)}[d]
    points = math.ceil(points * way * speed)
    coordinates = 2 if d == 2 else d - 1
    if points**coordinates > 5e7:
        raise ValueError(
            f"the reference for {d} bosons, --repulsion {options.repulsion:g} and --until {options.until:g} "
            f"would take {points}^{coordinates} points of a grid, more than fit; take fewer, weaker or a "
            "shorter time"
        )
    exact = partial(on_a_grid if d == 2 else by_relative_motion, points=points, reach=reach * way)
    return Experiment(
        problem,
        exact,
        degree={2: 8, 3: 6}.get(d, 4),
        particles=16_384,
        # In more coordinates, and where ripples are finer, a polynomial is reliable less far out.
        window=None if d == 2 and way == 1 else 3.0,
        width=24,
        epochs=(150, 150, 100),
        velocities={"particles": 1024, "outlier_scale": 0.3},
        output_scale=1e-2,
        baseline_window=3.0,
        outlier_scale=3.0,
        # A single point far out that runs away would decide the variance.
        solution_particles=bd.StandardizedPoints(bd.TruncatedPoints(bd.SobolPoints(16_384))),
    )


EXPERIMENTS = {
    "oscillator_1d": oscillator(1),
    "oscillator_1d_phase": oscillator(1, momentum=-0.05),
    "oscillator_3d": oscillator(3),
    "free_packet": free_packet,
    "bosons": bosons,
}


def sequential(
    experiment: Experiment, options: argparse.Namespace, name: str
) -> bd.SequentialScoreMatching:
    return bd.SequentialScoreMatching(
        options.degree or experiment.degree,
        experiment.particles,
        options.steps or experiment.steps,
        window=experiment.window,
    )


def self_consistent(experiment: Experiment, options: argparse.Namespace, name: str) -> bd.AbstractMethod:
    below = dataclasses.replace(sequential(experiment, options, name), window=experiment.baseline_window)
    score = bd.NeuralScore(
        experiment.problem,
        baseline=bd.solve(experiment.problem, below, key=network_key(options)),
        width=experiment.width,
        output_scale=experiment.output_scale,
        key=network_key(options),
    )
    return bd.SelfConsistentScoreMatching(
        score,
        bd.FisherDivergence(outlier_scale=experiment.outlier_scale),
        training=training(
            falling(experiment.epochs[2], peak=0.2, clip=6.0, damping=1e-5, decay=0.9),
            options.epochs or experiment.epochs[2],
            options,
            name,
        ),
        steps=below.steps,
        solver=bd.VelocityVerlet(),
        solution_particles=experiment.solution_particles,
    )


def velocities(experiment: Experiment, options: argparse.Namespace, name: str) -> bd.AbstractMethod:
    u, v = bd.velocity_networks(experiment.problem, width=experiment.width, key=network_key(options))
    default = training(None, options.epochs or experiment.epochs[0], options, name)
    return bd.DeepStochasticMechanics(u, v, training=default, **experiment.velocities)


def wave_function(experiment: Experiment, options: argparse.Namespace, name: str) -> bd.AbstractMethod:
    psi = bd.NeuralWaveFunction(experiment.problem, width=experiment.width, key=network_key(options))
    optimizer = falling(experiment.epochs[1], clip=experiment.clip, damping=1e-4)
    epochs = options.epochs or experiment.epochs[1]
    return bd.PhysicsInformedNetwork(psi, training=training(optimizer, epochs, options, name))


METHODS = {
    "SequentialScoreMatching": sequential,
    "SelfConsistentScoreMatching": self_consistent,
    "DeepStochasticMechanics": velocities,
    "PhysicsInformedNetwork": wave_function,
}


def network_key(options: argparse.Namespace) -> jax.Array:
    return jax.random.split(jax.random.key(options.seed))[0]


def falling(
    epochs: int, *, clip: float, damping: float, peak: float = 0.5, decay: float = 0.7
) -> optax.GradientTransformation:
    """Steps of Gauss-Newton that end small."""
    warm = min(10, epochs - 1)
    rate = optax.warmup_cosine_decay_schedule(0.1 * peak, peak, warm, epochs, 0.04 * peak)
    return optax.chain(
        bd.scale_by_gauss_newton(damping=damping, decay=decay),
        optax.clip_by_global_norm(clip),
        optax.scale_by_learning_rate(rate),
    )


def label(options: argparse.Namespace) -> str:
    """The experiment in names of files and folders."""
    if options.experiment != "bosons":
        return options.experiment
    return f"bosons_{options.dim}_repulsion_{options.repulsion:g}_until_{options.until:g}"


def folder(options: argparse.Namespace, name: str) -> Path:
    return _common.training_folder(options) / label(options) / name


def refuse_to_mix(options: argparse.Namespace) -> None:
    """Before anything is computed: a training that is there already is neither overwritten nor taken for new."""
    there = [name for name in options.only if any((folder(options, name) / "checkpoints").glob("*"))]
    if there and not options.resume:
        raise ValueError(
            f"{folder(options, there[0])} already has a training. --resume goes on with it; for a new one pass "
            "another --out or --directory, or delete that folder."
        )


def training(
    optimizer: optax.GradientTransformation | None, epochs: int, options: argparse.Namespace, name: str
) -> bd.Training:
    return bd.Training(optimizer, epochs=epochs, directory=folder(options, name), resume=options.resume)


def errors(fields: Fields, reference: Reference) -> dict[str, float]:
    """The largest of mean and variance; those of u and v with the standard errors of their parts."""
    mean = float(jnp.max(jnp.abs(fields.mean - reference.mean) / reference.std))
    variance = float(jnp.max(jnp.abs(fields.std**2 / reference.std**2 - 1)))
    found = {"mean": mean, "variance": variance}
    points, *velocities = reference.drawn
    for name, own, right in zip("uv", (fields.osmotic, fields.current), velocities, strict=True):
        missed = np.sum((at(own, reference.ts, points) - right) ** 2, axis=(0, 2))
        size = np.sum(right**2, axis=(0, 2))
        found[name] = float(np.sqrt(missed.sum() / size.sum()))
        parts = np.sqrt(missed.reshape(-1, PARTS).sum(axis=0) / size.reshape(-1, PARTS).sum(axis=0))
        found[f"{name}_uncertainty"] = float(np.std(parts, ddof=1) / np.sqrt(PARTS))
    return found


def draw(reference: Reference, found: dict[str, Fields]):
    line, *exact = reference.line
    curves = [("exact", reference.mean, reference.std, *exact)]
    for name, fields in found.items():
        velocities = (at(field, reference.ts[-1:], line) for field in (fields.osmotic, fields.current))
        curves.append((name, fields.mean, fields.std, *velocities))
    with style():
        figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
        for i, (name, mean, std, *velocities) in enumerate(curves):
            look = {"color": "0.6", "lw": 4} if name == "exact" else {"color": COLOURS[i], "ls": DASHES[i]}
            axes[0].plot(reference.ts, mean[:, 0], label=name, **look)
            axes[1].plot(reference.ts, std[:, 0] ** 2, **look)
            for panel, velocity in zip(axes[2:], velocities, strict=True):
                panel.plot(line[0, :, 0], velocity[0, :, 0], **look)
        # A mean that stays where it is, as by symmetry, would be drawn with its round-off.
        spread = float(reference.std[-1, 0])
        axes[0].update_datalim([(reference.ts[0], reference.mean[-1, 0] + x * spread) for x in (-0.1, 0.1)])
        axes[0].autoscale_view()
        for panel, name in zip(axes[:2], ("mean", "variance"), strict=True):
            panel.set_xlabel("time")
            panel.set_ylabel(name)
        for panel, name in zip(axes[2:], ("osmotic", "current"), strict=True):
            panel.set_xlabel("position")
            panel.set_ylabel(f"{name} velocity at the end")
        figure.legend(loc="outside upper center", ncols=5, frameon=False)
    return figure


if __name__ == "__main__":
    _common.run(main)

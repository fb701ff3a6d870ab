"""Trains a score network from scratch on the Morse chain, and checks what it learned.

A small network is added to the score that sequential matching finds in seconds, and trained end to end: in
every epoch fresh particles move under the score, and the objective asks how far it is from the score of the
density that this very flow makes. Most epochs minimise the variance of the log density, which is cheap; the
last ones the Fisher divergence itself. Two modes take minutes on two cores, four the better part of an hour.

The picture training.png shows the loss, the Fisher divergence and the energy error against epochs;
moments.png shows mean and width of every mode on the exact ones.

    python examples/train_morse_chain.py --dim 2
    python examples/train_morse_chain.py --dim 4 --directory runs/d4    # Ctrl-C; go on with --resume
    python examples/train_morse_chain.py --dim 4 --weights examples/data/morse_chain_d4.eqx
"""

import time

START = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NamedTuple  # noqa: E402

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import xarray  # noqa: E402

import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402
import morse_chain  # noqa: E402

# What was found to work, by the number of modes: degree of the baseline early and late, width of the network,
# particles an epoch, epochs of the first stage and of the second.
#
# Late, one tail of the density is exponential and the other Gaussian, and degree 6 is so wrong in one of them
# that trajectories cross. There it hands over to degree 4, which does not fit the bulk as well but keeps them
# apart. With four modes the worse fit cost more than the crossings.
SETTINGS = {
    1: (6, 4, 32, 128, 300, 50),
    2: (6, 4, 32, 256, 1000, 100),
    3: (6, 4, 32, 256, 1000, 100),
    4: (6, 6, 40, 384, 1200, 60),
}
HANDOVER = (1.6, 2.8)


class Stage(NamedTuple):
    """One part of the training."""

    objective: bd.AbstractObjective
    rate: float
    largest_gradient: float  # where the norm is clipped: a few times its usual size
    power: float  # of the particles' importance weights: below 1 the tails count more than they weigh
    crowd: int  # how many times the number of particles


# Particles far out in the tails make rare, huge errors: beyond the outlier scale they count logarithmically.
# Where they would cross, and be masked, the penalty keeps them apart. What error is left shall not make the
# mean energy drift.
STAGES = {
    "variance": Stage(
        bd.LogDensityVariance(outlier_scale=0.3) + bd.CausticPenalty(0.4),
        rate=1e-2,
        largest_gradient=0.03,
        power=1.0,
        crowd=1,
    ),
    "fisher": Stage(
        bd.FisherDivergence(outlier_scale=3.0) + 30.0 * bd.EnergyDrift() + 3.0 * bd.CausticPenalty(0.4),
        rate=4e-3,
        largest_gradient=0.1,
        power=0.75,
        crowd=2,
    ),
}


def main() -> None:
    parser = _common.parser(__doc__, degree=None, steps=32)
    parser.add_argument("--dim", type=int, default=2, choices=SETTINGS, help="number of modes (2)")
    parser.add_argument(
        "--epochs", type=_common.positive, help="updates of the first stage (1000 for two modes)"
    )
    parser.add_argument(
        "--particles", type=_common.positive, help="fresh ones an epoch (256 for two modes)"
    )
    parser.add_argument(
        "--width", type=_common.positive, help="of the two hidden layers (32 for two modes)"
    )
    parser.add_argument(
        "--polish", type=int, help="updates of the second stage, by the Fisher divergence (100)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the particles (0)")
    parser.add_argument("--float32", action="store_true", help="train in single precision")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="log and checkpoints go here")
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR")
    parser.add_argument("--save-weights", type=Path, metavar="FILE", help="write the trained score here")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="evaluate these weights; with --polish, train them on"
    )
    options = parser.parse_args()
    degree, late_degree, width, particles, epochs, polish = SETTINGS[options.dim]
    degree, width = options.degree or degree, options.width or width
    particles, epochs = options.particles or particles, options.epochs or epochs
    polish = polish if options.polish is None else options.polish

    problem = morse_chain.chain(options.dim)
    ts = np.append(np.arange(32) / 10, 3.14)
    history = None
    if options.weights:
        trained, stages = load_score(options.weights, options.dim), {"fisher": options.polish or 0}
    else:
        trained = initial_score(problem, (degree, late_degree), width, jax.random.key(options.seed))
        stages = {"variance": epochs, "fisher": polish}
    # The precision of a problem is that of the training; the start is found in double precision.
    trained_in = in_single_precision(problem) if options.float32 else problem
    for name, number in stages.items():
        if number == 0:
            continue
        method = training(name, trained, number, particles, options)
        key = jax.random.key(1000 + options.seed)
        solution = bd.solve(trained_in, method, key=key, ts=ts, progress=True)
        trained, history = solution.fitted, joined(history, solution.history)
        if solution.history.epoch[-1] < number:
            print("interrupted: --resume goes on")
            break
    if options.save_weights:
        save_score(options.save_weights, trained)
    trained_at = time.perf_counter()

    solution = bd.solve(problem, bd.GivenScore(trained), ts=ts)
    fisher = _common.fisher_divergence(problem, trained, bd.SobolPoints(512), steps=32)
    # A single particle far out can decide: the same without the thousandth that starts farthest out.
    inner = _common.fisher_divergence(problem, trained, bd.TruncatedPoints(bd.SobolPoints(512)), steps=32)
    ours, exact = solution.to_xarray(), morse_chain.bundled(options.dim)
    morse_chain.print_table(ours, exact)
    figures = {
        "mean_rms": _common.worst_rms(ours["mean"] - exact["mean"].values),
        "std_rms": _common.worst_rms(ours["std"] - exact["std"].values),
        "energy_error": float(abs(ours.energy - exact.energy.values).max()),
        "fisher": float(fisher.value),
        "fisher_inner": float(inner.value),
        "masked_fraction": float(fisher.masked_fraction),
        "epochs": None if history is None else int(history.epoch[-1]),
        "wall_seconds": time.perf_counter() - START,
        "dim": options.dim,
        "particles": particles,
        "steps": options.steps,
        "degree": degree,
        "seed": options.seed,
    }
    print("error of the worst mode, root-mean-square over time:", end=" ")
    print("mean {mean_rms:.1e}, standard deviation {std_rms:.1e}".format(**figures))
    print("largest energy error {energy_error:.1e}".format(**figures))
    print("Fisher divergence {fisher:.1e}, of the innermost 99.9 % {fisher_inner:.1e}".format(**figures))
    print(f"{figures['wall_seconds']:.0f} s in all, {trained_at - START:.0f} s of them until trained")
    if history is not None:
        figure = bd.plot.training(history, float(exact.energy[0]), units=morse_chain.UNITS)
        _common.save_figure(figure, options.out, "training.png")
        save_log(options.out / "log.jsonl", history)
    figure = bd.plot.moments(solution, exact, units=morse_chain.UNITS)
    _common.save_figure(figure, options.out, "moments.png")
    _common.save_json(figures, options.json)


def training(
    name: str, score: bd.NeuralScore, epochs: int, particles: int, options: argparse.Namespace
) -> bd.SelfConsistentScoreMatching:
    """One stage of the training."""
    stage = STAGES[name]
    rate = optax.cosine_decay_schedule(stage.rate, epochs, 0.005)
    return bd.SelfConsistentScoreMatching(
        score,
        stage.objective,
        optax.chain(optax.clip_by_global_norm(stage.largest_gradient), optax.adam(rate)),
        epochs=epochs,
        # Out to 4.6 standard deviations.
        particles=bd.WidenedPoints(
            bd.TruncatedPoints(bd.SobolPoints(stage.crowd * particles), radius=3.3),
            factor=1.4,
            power=stage.power,
        ),
        steps=options.steps,
        directory=options.directory and options.directory / name,
        resume=options.resume,
    )


def joined(first: xarray.Dataset | None, then: xarray.Dataset) -> xarray.Dataset:
    """The history of two stages as that of one training."""
    if first is None:
        return then
    epochs, seconds = int(first.epoch[-1]), float(first.seconds[-1])
    then = then.assign_coords(epoch=then.epoch + epochs).assign(seconds=then.seconds + seconds)
    return xarray.concat([first, then], "epoch")


def initial_score(
    problem: bd.Problem, degrees: Sequence[int], width: int, key: jax.Array
) -> bd.NeuralScore:
    """The network before training, on top of what sequential matching finds."""
    early_degree, late_degree = degrees
    baseline = bd.solve(problem, bd.SequentialScoreMatching(early_degree)).fitted
    if late_degree != early_degree:
        late = bd.solve(problem, bd.SequentialScoreMatching(late_degree)).fitted
        baseline = bd.BlendedScore(baseline, late, *HANDOVER)
    return bd.NeuralScore(problem, baseline=baseline, fade_in=3, width=width, output_scale=0.03, key=key)


def in_single_precision(problem: bd.Problem) -> bd.Problem:
    return jax.tree.map(lambda leaf: leaf.astype("float32") if eqx.is_array(leaf) else leaf, problem)


def save_score(path: Path, score: bd.NeuralScore) -> None:
    """Writes the arrays of a score, each as NumPy does, one after the other; no pickles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    eqx.tree_serialise_leaves(path, score)
    print(f"wrote {path}")


def save_log(path: Path, history: xarray.Dataset) -> None:
    """The history of a training, a line of JSON for every epoch."""
    frame = history.to_dataframe()
    records = [{"epoch": int(epoch)} | row.dropna().to_dict() for epoch, row in frame.iterrows()]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    print(f"wrote {path}")


def load_score(path: Path, modes: int) -> bd.NeuralScore:
    """Reads what `save_score` wrote."""
    *degrees, width, _, _, _ = SETTINGS[modes]
    problem = morse_chain.chain(modes)
    like = eqx.filter_eval_shape(lambda key: initial_score(problem, degrees, width, key), jax.random.key(0))
    return eqx.tree_deserialise_leaves(path, like)


if __name__ == "__main__":
    _common.run(main)

"""A score network for the Morse chain, trained from scratch and compared with the exact answer.

A small network is added to the score that sequential matching finds in seconds, and trained end to end. In
every epoch, fresh particles move under the score, and the Fisher divergence measures its distance from the score
of the density that this flow produces. Gauss-Newton steps bring the divergence down by two orders of magnitude in
150 epochs: minutes for two modes on two cores, the better part of an hour for four.

The picture training.png shows the loss, the Fisher divergence and the energy error against epochs;
moments.png shows the mean and the width of every mode over the exact ones.

    python examples/train_morse_chain.py --dim 2
    python examples/train_morse_chain.py --dim 4 --out d4    # Ctrl-C; go on with --resume
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

import _chain  # noqa: E402
import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402


class Setting(NamedTuple):
    """Settings that work for each number of modes.

    At late times one tail of the density is exponential and the other Gaussian. A baseline of degree 6 is so
    wrong in one of them that trajectories cross. There it hands over to degree 4, which fits the bulk less well
    but keeps trajectories apart. With four modes the worse fit costs more than the crossings.
    """

    degree: int
    late_degree: int
    width: int
    particles: int
    epochs: int


SETTINGS = {
    1: Setting(6, 4, 32, 512, 150),
    2: Setting(6, 4, 32, 512, 150),
    3: Setting(6, 4, 40, 768, 150),
    4: Setting(6, 6, 48, 1024, 200),
}
HANDOVER = (1.6, 2.8)


def main() -> None:
    parser = _common.parser(__doc__, degree=None, steps=32)
    parser.add_argument("--dim", type=int, default=2, choices=SETTINGS, help="number of modes (2)")
    parser.add_argument("--epochs", type=_common.positive, help="number of updates (150 for two modes)")
    parser.add_argument(
        "--particles", type=_common.positive, help="fresh particles per epoch (512 for two modes)"
    )
    parser.add_argument(
        "--width", type=_common.positive, help="width of the two hidden layers (32 for two modes)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the particles (0)")
    parser.add_argument("--float32", action="store_true", help="train in single precision")
    _common.add_training_folder(parser)
    parser.add_argument("--save-weights", type=Path, metavar="FILE", help="write the trained score to FILE")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="evaluate these weights; with --epochs, continue to train them",
    )
    options = parser.parse_args()
    setting = SETTINGS[options.dim]
    degree, width = options.degree or setting.degree, options.width or setting.width
    particles, epochs = options.particles or setting.particles, options.epochs or setting.epochs

    problem = _chain.chain(options.dim)
    ts = np.append(np.arange(32) / 10, 3.14)
    history = None
    if options.weights:
        trained, epochs = load_score(options.weights, options.dim), options.epochs
    else:
        degrees = degree, setting.late_degree
        trained = initial_score(problem, degrees, width, jax.random.key(options.seed))
    if epochs:
        # The precision of a problem is that of the training; the start is found in double precision.
        trained_in = in_single_precision(problem) if options.float32 else problem
        key = jax.random.key(1000 + options.seed)
        method = method_for(trained, epochs, particles, options)
        solution = bd.solve(trained_in, method, key=key, ts=ts, progress=True)
        trained, history = solution.fitted, solution.history
        if history.epoch[-1] < epochs:
            print("interrupted: --resume goes on")
        _common.save_data(history, options.out, "history.nc")
    if options.save_weights:
        save_score(options.save_weights, trained)
    trained_at = time.perf_counter()

    solution = bd.solve(problem, bd.GivenScore(trained), ts=ts)
    fisher = _common.fisher_divergence(problem, trained, bd.SobolPoints(512), steps=32)
    # A single particle far out can dominate: the same without the thousandth that starts farthest out.
    inner = _common.fisher_divergence(problem, trained, bd.TruncatedPoints(bd.SobolPoints(512)), steps=32)
    ours = solution.to_xarray(units=_chain.UNITS)
    _common.save_data(ours, options.out, "solution.nc")
    exact = _chain.bundled(options.dim)
    _chain.print_table(ours, exact)
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
        figure = bd.plot.training(history, float(exact.energy[0]), units=_chain.UNITS)
        _common.save_figure(figure, options.out, "training.png")
        save_log(options.out / "log.jsonl", history)
    figure = bd.plot.moments(solution, exact, units=_chain.UNITS)
    _common.save_figure(figure, options.out, "moments.png")
    _common.save_json(figures, options.json)


def method_for(
    score: bd.NeuralScore, epochs: int, particles: int, options: argparse.Namespace
) -> bd.SelfConsistentScoreMatching:
    """Gauss-Newton steps on fresh particles in every epoch."""
    training = bd.Training(
        gauss_newton(epochs),
        epochs=epochs,
        directory=_common.training_folder(options),
        resume=options.resume,
    )
    return bd.SelfConsistentScoreMatching(
        score,
        # Particles far out in the tails make rare, huge errors: beyond the outlier scale they count
        # logarithmically. The error that remains must not make the mean energy drift.
        bd.FisherDivergence(outlier_scale=3.0) + 30.0 * bd.EnergyDrift(),
        training=training,
        particles=points(particles),
        steps=options.steps,
        solver=bd.VelocityVerlet(),
    )


def points(number: int) -> bd.WidenedPoints:
    """Particles out to 4.6 standard deviations, where the tails count more than they weigh."""
    return bd.WidenedPoints(bd.TruncatedPoints(bd.SobolPoints(number), radius=3.3), factor=1.4, power=0.9)


def gauss_newton(epochs: int) -> optax.GradientTransformation:
    """Up to half of the step that solves the linearised problem, clipped, and less at the end."""
    rate = optax.warmup_cosine_decay_schedule(0.1, 0.5, min(6, epochs // 4), epochs, 0.01)
    return optax.chain(
        bd.scale_by_gauss_newton(damping=3e-6),
        optax.clip_by_global_norm(6.0),
        optax.scale_by_learning_rate(rate),
    )


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

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            eqx.tree_serialise_leaves(stream, score)

    _common.save(path, write)


def save_log(path: Path, history: xarray.Dataset) -> None:
    """The history of a training, a line of JSON for every epoch."""
    frame = history.to_dataframe()
    records = [{"epoch": int(epoch)} | row.dropna().to_dict() for epoch, row in frame.iterrows()]
    text = "".join(json.dumps(record) + "\n" for record in records)
    _common.save(path, lambda file: file.write_text(text))


def load_score(path: Path, modes: int) -> bd.NeuralScore:
    """Reads what `save_score` wrote."""
    setting, problem = SETTINGS[modes], _chain.chain(modes)
    degrees = setting.degree, setting.late_degree
    like = eqx.filter_eval_shape(
        lambda key: initial_score(problem, degrees, setting.width, key), jax.random.key(0)
    )
    with path.open("rb") as stream:
        return eqx.tree_deserialise_leaves(stream, like)


if __name__ == "__main__":
    _common.run(main)

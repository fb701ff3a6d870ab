"""Trains a score network from scratch on the Morse chain, and checks what it learned.

A small network is added to the score that sequential matching finds in seconds, and trained end to end: in
every epoch fresh particles move under the score, and the objective asks how far it is from the score of the
density that this very flow makes. With two modes it takes minutes on two cores, with four about an hour.

The picture training.png shows the loss, the Fisher divergence and the energy error against epochs;
moments.png shows mean and width of every mode on the exact ones.

    python examples/train_morse_chain.py --dim 2
    python examples/train_morse_chain.py --dim 4 --directory runs/d4    # Ctrl-C; go on with --resume
    python examples/train_morse_chain.py --dim 4 --weights examples/data/morse_chain_d4.eqx
"""

import time

START = time.perf_counter()

from pathlib import Path  # noqa: E402

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402
import morse_chain  # noqa: E402

# What was found to work, by the number of modes: degree of the baseline, width of the network, particles
# an epoch, epochs.
SETTINGS = {1: (8, 32, 128, 300), 2: (6, 32, 256, 600), 3: (4, 32, 256, 600), 4: (4, 40, 384, 900)}


def main() -> None:
    parser = _common.parser(__doc__, degree=None, steps=32)
    parser.add_argument("--dim", type=int, default=2, choices=SETTINGS, help="number of modes (2)")
    parser.add_argument("--epochs", type=_common.positive, help="updates in all (600 for two modes)")
    parser.add_argument(
        "--particles", type=_common.positive, help="fresh ones an epoch (256 for two modes)"
    )
    parser.add_argument(
        "--width", type=_common.positive, help="of the two hidden layers (32 for two modes)"
    )
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate at the start (0.01)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the particles (0)")
    parser.add_argument("--float32", action="store_true", help="train in single precision")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="log and checkpoints go here")
    parser.add_argument("--resume", action="store_true", help="go on with the run in DIR")
    parser.add_argument("--start", type=Path, metavar="FILE", help="train on from these weights")
    parser.add_argument(
        "--mask", type=float, default=0.3, help="particles with a smaller |det F| are left out (0.3)"
    )
    parser.add_argument("--save-weights", type=Path, metavar="FILE", help="write the trained score here")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="do not train: evaluate these weights")
    options = parser.parse_args()
    degree, width, particles, epochs = SETTINGS[options.dim]
    degree, width = options.degree or degree, options.width or width
    particles, epochs = options.particles or particles, options.epochs or epochs

    problem = morse_chain.chain(options.dim)
    ts = np.append(np.arange(32) / 10, 3.14)
    if options.weights:
        trained, history, epochs = load_score(options.weights, options.dim), None, None
    else:
        if options.start:
            score = load_score(options.start, options.dim)
        else:
            score = initial_score(problem, degree, width, jax.random.key(options.seed))
        rate = optax.cosine_decay_schedule(options.rate, epochs, 0.02)
        method = bd.SelfConsistentScoreMatching(
            score,
            bd.LogDensityVariance(options.mask),
            optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
            epochs=epochs,
            particles=particles,
            steps=options.steps,
            directory=options.directory,
            resume=options.resume,
        )
        key = jax.random.key(1000 + options.seed)
        # The precision of a problem is that of the training; the start is found in double precision.
        trained_in = in_single_precision(problem) if options.float32 else problem
        solution = bd.solve(trained_in, method, key=key, ts=ts, progress=True)
        trained, history = solution.fitted, solution.history
        epochs = int(history.epoch[-1])
        if options.save_weights:
            save_score(options.save_weights, trained)
    trained_at = time.perf_counter()

    solution = bd.solve(problem, bd.GivenScore(trained), ts=ts)
    x0, weights = problem.initial.points(bd.SobolPoints(512), jax.random.key(0))
    fisher = bd.fisher_divergence(problem, trained, x0, weights=weights, steps=32, solver=bd.BlanesMoan4())
    ours, exact = solution.to_xarray(), morse_chain.bundled(options.dim)
    morse_chain.print_table(ours, exact)
    figures = {
        "mean_rms": _common.worst_rms(ours["mean"] - exact["mean"].values),
        "std_rms": _common.worst_rms(ours["std"] - exact["std"].values),
        "energy_error": float(abs(ours.energy - exact.energy.values).max()),
        "fisher": float(fisher.value),
        "masked_fraction": float(fisher.masked_fraction),
        "epochs": epochs,
        "wall_seconds": time.perf_counter() - START,
        "dim": options.dim,
        "particles": particles,
        "steps": options.steps,
        "degree": degree,
        "seed": options.seed,
    }
    print("error of the worst mode, root-mean-square over time:", end=" ")
    print("mean {mean_rms:.1e}, standard deviation {std_rms:.1e}".format(**figures))
    print("largest energy error {energy_error:.1e}; Fisher divergence {fisher:.1e}".format(**figures))
    print(f"{figures['wall_seconds']:.0f} s in all, {trained_at - START:.0f} s of them until trained")
    if history is not None:
        figure = bd.plot.training(history, float(exact.energy[0]), units=morse_chain.UNITS)
        _common.save_figure(figure, options.out, "training.png")
    figure = bd.plot.moments(solution, exact, units=morse_chain.UNITS)
    _common.save_figure(figure, options.out, "moments.png")
    _common.save_json(figures, options.json)


def initial_score(problem: bd.Problem, degree: int, width: int, key: jax.Array) -> bd.NeuralScore:
    """The network before training, on top of what sequential matching finds."""
    baseline = bd.solve(problem, bd.SequentialScoreMatching(degree))
    return bd.NeuralScore(problem, baseline=baseline.fitted, width=width, key=key)


def in_single_precision(problem: bd.Problem) -> bd.Problem:
    return jax.tree.map(lambda leaf: leaf.astype("float32") if eqx.is_array(leaf) else leaf, problem)


def save_score(path: Path, score: bd.NeuralScore) -> None:
    """Writes the arrays of a score, each as NumPy does, one after the other; no pickles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    eqx.tree_serialise_leaves(path, score)
    print(f"wrote {path}")


def load_score(path: Path, modes: int) -> bd.NeuralScore:
    """Reads what `save_score` wrote."""
    degree, width, _, _ = SETTINGS[modes]
    problem = morse_chain.chain(modes)
    like = eqx.filter_eval_shape(lambda key: initial_score(problem, degree, width, key), jax.random.key(0))
    return eqx.tree_deserialise_leaves(path, like)


if __name__ == "__main__":
    _common.run(main)

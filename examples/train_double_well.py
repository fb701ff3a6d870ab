r"""A score network for the double well.

$V = D\,(x^2/a^2 - 1)^2$ with $D = 1$, $a = 2$ and $m = \hbar = 1$. The packet starts on top of the barrier, as a
Gaussian of standard deviation ½. The potential curves downwards there, so no harmonic state is a baseline. The
network is added to a Gaussian packet that spreads on the barrier, and trained to $t = \pi/2$, when the packet is
about to split.

The picture training.png shows the loss and the energy error against epochs. double_well.png shows the exact
density with exact trajectories (dashed) and those of the trained score (orange).
"""

import time

START = time.perf_counter()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.scipy.stats import norm  # noqa: E402

import _common  # noqa: E402
import bohmdiff as bd  # noqa: E402


def main() -> None:
    parser = _common.parser(__doc__, degree=6, steps=48)
    parser.add_argument("--epochs", type=_common.positive, default=1000, help="number of updates (1000)")
    parser.add_argument(
        "--particles", type=_common.positive, default=128, help="fresh particles per epoch (128)"
    )
    parser.add_argument(
        "--width", type=_common.positive, default=24, help="width of the two hidden layers (24)"
    )
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate at the start (0.01)")
    parser.add_argument(
        "--baseline",
        choices=["gaussian", "sequential"],
        default="gaussian",
        help="the baseline of the network (gaussian)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the particles (0)")
    _common.add_training_folder(parser)
    options = parser.parse_args()

    problem = bd.Problem(
        bd.Hamiltonian(bd.DoubleWell(barrier=1.0, minimum=2.0), mass=1.0, hbar=1.0),
        bd.GaussianWavePacket(mean=[0.0], covariance=0.25),
        t1=jnp.pi / 2,
    )
    exact = bd.solve(problem, bd.SplitOperator(points=256, lower=-8.0, upper=8.0))
    methods = {"gaussian": bd.GaussianDynamics(), "sequential": bd.SequentialScoreMatching(options.degree)}
    baseline = bd.solve(problem, methods[options.baseline])
    score = bd.NeuralScore(
        problem, baseline=baseline, width=options.width, exact_start=True, key=jax.random.key(options.seed)
    )
    rate = optax.cosine_decay_schedule(options.rate, options.epochs, 0.02)
    training = bd.Training(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        epochs=options.epochs,
        directory=_common.training_folder(options),
        resume=options.resume,
        validate_every=50,
        checkpoint_every=100,
    )
    method = bd.SelfConsistentScoreMatching(
        score,
        bd.LogDensityVariance(),
        training=training,
        particles=options.particles,
        steps=options.steps,
        solver=bd.VelocityVerlet(),
    )
    solution = bd.solve(problem, method, key=jax.random.key(1000 + options.seed), progress=True)
    epochs = int(solution.history.epoch[-1])
    if epochs < options.epochs:
        print(f"interrupted after {epochs} epochs: --resume goes on")
    _common.save_data(solution.history, options.out, "history.nc")
    _common.save_data(solution.to_xarray(), options.out, "solution.nc")

    relative = np.abs(solution.std() / exact.std() - 1)
    before = np.abs(baseline.std() / exact.std() - 1)
    fisher = _common.fisher_divergence(problem, solution.fitted, bd.SobolPoints(256), steps=64)
    figures = {
        "std_relative_error": float(relative.max()),
        "baseline_std_relative_error": float(before.max()),
        "energy_error": float(np.abs(solution.energy() - exact.energy()).max()),
        "fisher": float(fisher.value),
        "masked_fraction": float(fisher.masked_fraction),
        "epochs": epochs,
        "wall_seconds": time.perf_counter() - START,
    }
    print(bd.compare(solution, exact))
    print(
        "standard deviation: largest relative error at any time {std_relative_error:.2%}".format(**figures)
    )
    print("({baseline_std_relative_error:.2%} before training)".format(**figures), end=" ")
    print("Fisher divergence {fisher:.1e}; {wall_seconds:.0f} s in all".format(**figures))

    history = bd.plot.training(solution.history, float(exact.energy()[0]))
    _common.save_figure(history, options.out, "training.png")
    levels = (np.arange(24) + 0.5) / 24
    paths = solution.trajectories(0.5 * norm.ppf(jnp.asarray(levels))[:, None])[..., 0]
    figure = bd.plot.density(
        exact,
        paths,
        reference=exact.quantile_trajectories(levels),
        label="trained score",
        lower=-5.0,
        upper=5.0,
    )
    _common.save_figure(figure, options.out, "double_well.png")
    _common.save_json(figures, options.json)


if __name__ == "__main__":
    _common.run(main)

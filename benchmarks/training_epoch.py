"""The cost of an epoch of training, compared with a straightforward version of the same loss.

Both compute the Fisher divergence of a network on the d = 4 Morse chain (FiLM 128 x 128, to t = pi, in double
precision) and its gradient with respect to the parameters. Three ratios are printed, all of times per particle:

- at the same leapfrog steps: values and gradients for the same particles must agree;
- with a solver of order 4 and few steps, whose trajectories must be no less accurate;
- with the cheaper objectives on top.

Trajectories are compared with those of a solver of order 6 with four times the steps.
"""

import argparse
import json
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import bohmdiff as bd  # noqa: E402
from _straightforward import fisher_divergence, morse_chain, network, timed  # noqa: E402
from bohmdiff.network import trainable  # noqa: E402
from bohmdiff.objective import evaluate  # noqa: E402


def value_and_gradient(problem, fixed, objective, solver, steps):
    """An objective and its gradient, as an update of the training finds them."""

    def loss(parameters, x0, key):
        weights = jnp.full(x0.shape[0], 1 / x0.shape[0])
        score = eqx.combine(parameters, fixed)
        return evaluate(problem, score, objective, x0, weights, solver, steps, key=key).value

    return eqx.filter_jit(jax.value_and_grad(loss))


def end_points(problem, score, x0, solver, steps):
    ts = jnp.array([problem.t1])
    flow = bd.propagate(problem, score, x0, ts=ts, solver=solver, steps=steps, tangents=False)
    return np.asarray(flow.position[:, -1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=128, help="width of the two hidden layers (128)")
    parser.add_argument("--steps", type=int, default=314, help="leapfrog steps (314)")
    parser.add_argument("--few", type=int, default=8, help="steps of the solver of order 4 (8)")
    parser.add_argument("--particles", type=int, default=256, help="number of our particles (256)")
    parser.add_argument(
        "--straightforward", type=int, default=16, help="particles of the straightforward version (16)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()

    problem = morse_chain(4)
    score = network(problem, options.width)
    parameters, fixed = eqx.partition(score, trainable(score))
    x0, _ = problem.initial.particles(bd.SobolPoints(options.particles), jax.random.key(1))
    few, key = x0[: options.straightforward], jax.random.key(2)

    @eqx.filter_jit
    def straightforward(parameters, x0):
        def loss(parameters):
            score = eqx.combine(parameters, fixed)
            return fisher_divergence(score, x0, problem.initial.mean, problem.t1, options.steps)

        return jax.value_and_grad(loss)(parameters)

    first, seconds, (value, gradient) = timed(straightforward, parameters, few, repeats=1)
    each = seconds / len(few)
    figures: dict = {
        "width": options.width,
        "straightforward": {"seconds_per_particle": each, "first_call": first, "particles": len(few)},
        "runs": {},
    }
    print(f"straightforward: {1e3 * each:.4g} ms a particle, first call {first:.0f} s", flush=True)

    # The straightforward version does not clip.
    fisher = bd.FisherDivergence(max_target=np.inf)
    verlet, fourth = bd.VelocityVerlet(), bd.BlanesMoan4()
    runs = {
        "same steps": (fisher, verlet, options.steps),
        "fewer steps": (fisher, fourth, options.few),
        "and variance": (bd.LogDensityVariance(), fourth, options.few),
    }
    reference = end_points(problem, score, few, bd.BlanesMoan6(), 4 * options.steps)
    for name, (objective, solver, steps) in runs.items():
        ours = value_and_gradient(problem, fixed, objective, solver, steps)
        first, seconds, _ = timed(ours, parameters, x0, key)
        own_each = seconds / len(x0)
        error = float(np.abs(end_points(problem, score, few, solver, steps) - reference).max())
        figures["runs"][name] = {
            "seconds_per_particle": own_each,
            "first_call": first,
            "steps": steps,
            "trajectory_error": error,
            "ratio": each / own_each,
        }
        print(
            f"{name}: {1e3 * own_each:.4g} ms a particle, first call {first:.0f} s, trajectories to "
            f"{error:.1e}: {each / own_each:.1f} times as fast",
            flush=True,
        )
        if name == "same steps":
            own_value, own_gradient = ours(parameters, few, key)
            pairs = list(zip(jax.tree.leaves(own_gradient), jax.tree.leaves(gradient), strict=True))
            size = max(float(jnp.max(jnp.abs(theirs))) for _, theirs in pairs)
            difference = max(float(jnp.max(jnp.abs(ours - theirs))) for ours, theirs in pairs)
            figures["value_difference"] = abs(float(own_value / value) - 1)
            figures["gradient_difference"] = difference / size
            print(
                f"the same value, {float(value):.4g}, to {figures['value_difference']:.1e}, gradient to "
                f"{difference / size:.1e} of its largest component",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

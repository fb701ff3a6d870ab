"""The cost of moving an ensemble under a trained score, compared with a straightforward version.

Both move particles through the flow of a network on the d = 4 Morse chain (FiLM 128 x 128, to t = pi, in
double precision), without tangents and on all cores: the straightforward one by the paper's 314 leapfrog steps
with nested differentiation, ours by `bohmdiff.propagate` with a solver of order 4. With --trained the score
is the one of the examples (FiLM 48 x 48 on a Hermite baseline of degree 6). Errors of end points are against
a solver of order 6 with many steps, on the first hundred particles.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
# A device for each core: ours divides particles among them, the straightforward version leaves them to XLA.
jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))

import equinox as eqx  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import bohmdiff as bd  # noqa: E402
from _straightforward import morse_chain, network, path, timed  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"


def bundled():
    """The trained score of the d = 4 chain that the examples bundle."""
    sys.path.insert(0, str(EXAMPLES))
    import train_morse_chain

    return train_morse_chain.load_score(EXAMPLES / "data" / "morse_chain_d4.eqx", 4)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trained", action="store_true", help="take the score that the examples bundle")
    parser.add_argument("--width", type=int, default=128, help="width of the two hidden layers (128)")
    parser.add_argument("--steps", type=int, default=314, help="leapfrog steps (314)")
    parser.add_argument("--few", type=int, default=4, help="steps of the solver of order 4 (4)")
    parser.add_argument("--particles", type=int, default=20_000, help="number of our particles (20000)")
    parser.add_argument(
        "--straightforward", type=int, default=2000, help="particles of the straightforward version (2000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()

    problem = morse_chain(4)
    score = bundled() if options.trained else network(problem, options.width)
    x0, _ = problem.initial.particles(bd.SobolPoints(options.particles), jax.random.key(1))
    end = jnp.array([problem.t1])

    def end_points(score, x0, solver, steps):
        flow = bd.propagate(problem, score, x0, ts=end, solver=solver, steps=steps, tangents=False)
        return flow.position[:, -1]

    def ours(score, x0):
        return end_points(score, x0, bd.BlanesMoan4(), options.few)

    @eqx.filter_jit
    def straightforward(score, x0):
        return jax.vmap(lambda x: path(score, x, problem.t1, options.steps)[-1])(x0)

    reference = np.asarray(end_points(score, x0[:100], bd.BlanesMoan6(), options.steps))
    figures: dict = {"score": "bundled" if options.trained else f"FiLM {options.width} x {options.width}"}
    for name, function, points in (
        ("ours", ours, x0),
        ("straightforward", straightforward, x0[: options.straightforward]),
    ):
        first, seconds, ends = timed(function, score, points)
        figures[name] = {
            "particles": len(points),
            "seconds": seconds,
            "first_call": first,
            "error": float(np.abs(np.asarray(ends[:100]) - reference).max()),
        }
        print(
            "{name}: {seconds:.3g} s for {particles} particles, first call {first_call:.3g} s, end points to "
            "{error:.1e}".format(name=name, **figures[name]),
            flush=True,
        )
    each = [figures[name]["seconds"] / figures[name]["particles"] for name in ("straightforward", "ours")]
    figures["ratio"] = each[0] / each[1]
    print(f"for each particle {figures['ratio']:.1f} times as fast")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

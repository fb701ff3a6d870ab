"""The speed of a GPU compared with the processor of the same machine.

Each kind of work on the Morse chain runs on both, in double and in single precision, each time in a separate
process: seconds of the first call and of the next one, and the ratio. In double precision both must give the same
numbers: the largest difference is printed, relative to the largest number.

The kinds: particles under a FiLM network (128 x 128) in four modes without tangents, the Fisher divergence of
such a network and its gradient, sequential score matching in eight modes, and the split operator.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# What is asked of each kind: number of modes, and particles or points of the grid.
CASES = {
    "force": (4, 100_000),
    "epoch": (4, 1024),
    "sequential": (8, 16_384),
    "split operator": (4, 44),
}
PRECISIONS = ("double", "single")
PLATFORMS = ("cpu", "cuda")


def measure(case: str, precision: str, file: str) -> dict:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import bohmdiff as bd
    from _straightforward import morse_chain, network, timed
    from bohmdiff.network import trainable
    from training_epoch import value_and_gradient

    # After the imports: the scripts above ask for double precision.
    jax.config.update("jax_enable_x64", precision == "double")
    modes, number = CASES[case]
    problem = morse_chain(modes)
    ts = jnp.array([problem.t1])
    if case == "force":
        score = network(problem, 128)
        x0, _ = problem.initial.particles(bd.SobolPoints(number), jax.random.key(1))

        def work():
            flow = bd.propagate(problem, score, x0, ts=ts, solver=bd.BlanesMoan4(), steps=4, tangents=False)
            return flow.position[:, -1]

    elif case == "epoch":
        score = network(problem, 128)
        parameters, fixed = eqx.partition(score, trainable(score))
        x0, _ = problem.initial.particles(bd.SobolPoints(number), jax.random.key(1))
        both = value_and_gradient(problem, fixed, bd.FisherDivergence(), bd.BlanesMoan4(), 8)

        def work():
            _, gradient = both(parameters, x0, jax.random.key(2))
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

    elif case == "split operator":
        method = bd.SplitOperator(points=number, lower=-5.5, upper=7.5, steps=160)

        def work():
            return bd.solve(problem, method, ts=ts).std()

    else:
        method = bd.SequentialScoreMatching(4, number, steps=64)

        def work():
            return bd.solve(problem, method, key=jax.random.key(0), ts=ts).std()

    first, seconds, result = timed(work, repeats=1)
    np.save(file, np.asarray(result))
    return {"seconds": seconds, "first_call": first, "device": jax.devices()[0].device_kind}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="kinds of work (all)"
    )
    parser.add_argument(
        "--platforms", nargs="+", choices=PLATFORMS, default=list(PLATFORMS), help="platforms (both)"
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="precisions (both)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--run", nargs=3, metavar=("CASE", "PRECISION", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(*options.run)))
        return

    figures: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases:
            runs, results = figures.setdefault(case, {}), {}
            for precision in options.precisions:
                for platform in options.platforms:
                    file = f"{folder}/{platform}.npy"
                    command = [sys.executable, __file__, "--run", case, precision, file]
                    done = subprocess.run(
                        command,
                        stdout=subprocess.PIPE,
                        text=True,
                        env=os.environ | {"JAX_PLATFORMS": platform},
                    )
                    if done.returncode:
                        sys.exit(
                            f"{case} failed on {platform}, for the reason above; --platforms leaves one out"
                        )
                    run = json.loads(done.stdout.splitlines()[-1])
                    runs.setdefault(precision, {})[platform] = run
                    results[precision, platform] = np.load(file)
                    print(
                        f"{case}, {precision}: {run['seconds']:8.4g} s on {run['device']}, first call "
                        f"{run['first_call']:.1f} s",
                        flush=True,
                    )
                if set(options.platforms) == set(PLATFORMS):
                    one, other = (runs[precision][platform]["seconds"] for platform in PLATFORMS)
                    runs[precision]["ratio"] = one / other
                    print(f"{'':{len(case)}}  {one / other:.1f} times as fast")
            if {("double", platform) for platform in PLATFORMS} <= set(results):
                one, other = (results["double", platform] for platform in PLATFORMS)
                difference = float(np.max(np.abs(one - other)) / np.max(np.abs(one)))
                runs["difference"] = difference
                print(f"{'':{len(case)}}  the same numbers to {difference:.1e}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

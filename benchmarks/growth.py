"""How time and memory grow with the number of modes, of particles and of steps.

Three kinds of runs on the Morse chain: particles under a FiLM network (32 x 32) without tangents, with them,
and sequential score matching of degree 3. Each run is a separate process. It gives the seconds of the second
call, and the peak of resident memory above the memory after loading. The exponent is the slope
between the last two runs of a series; compare it with the one from counting operations.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from math import log
from pathlib import Path

MODES = (1, 2, 4, 8, 16, 32)
PARTICLES = (100, 1000, 10_000, 100_000, 1_000_000)
STEPS = (4, 16, 64, 256)
# What varies, the kind of run, its values, the exponent that counting gives, and why.
SERIES = (
    ("particles", "force", PARTICLES, "1", "each moves alone"),
    ("steps", "force", STEPS, "1", "one after the other"),
    ("modes", "force", MODES, "1", "a column of first derivatives for each mode"),
    ("modes", "tangents", MODES[:4], "3", "third derivatives"),
    ("particles", "sequential", PARTICLES[2:4], "1", "sums over particles"),
    ("modes", "sequential", MODES[1:5], "4 to 9", "pairs of polynomials of degree 2, then a dense solve"),
)


def measure(kind: str, modes: int, particles: int, steps: int) -> dict:
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    import bohmdiff as bd
    from _straightforward import morse_chain, network

    problem = morse_chain(modes)
    if kind == "sequential":
        method = bd.SequentialScoreMatching(3, particles=particles, steps=steps)

        def run():
            return bd.solve(problem, method, key=jax.random.key(0)).mean()
    else:
        score = network(problem, 32)
        x0, _ = problem.initial.particles(bd.SobolPoints(particles), jax.random.key(0))
        end = jnp.array([problem.t1])

        def run():
            flow = bd.propagate(
                problem,
                score,
                x0,
                ts=end,
                solver=bd.VelocityVerlet(),
                steps=steps,
                tangents=kind == "tangents",
            )
            return flow.position

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    jax.block_until_ready(run())
    first = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(run())
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "compile_seconds": first - seconds, "peak_mib": (after - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=10**9, help="leave out values above this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument(
        "--run", nargs=4, metavar=("KIND", "MODES", "PARTICLES", "STEPS"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.run:
        kind, *sizes = options.run
        print(json.dumps(measure(kind, *map(int, sizes))))
        return

    figures = []
    for varied, kind, values, expected, reason in SERIES:
        runs = []
        print(f"{kind}, {varied}:", flush=True)
        for value in (v for v in values if v <= options.largest):
            sizes = {"modes": 4, "particles": 8192, "steps": 8} | {varied: value}
            command = [sys.executable, __file__, "--run", kind, *map(str, sizes.values())]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            runs.append({varied: value} | json.loads(out.splitlines()[-1]))
            print(
                "{value:>9}: {seconds:8.3g} s, first call {compile_seconds:.0f} s more, peak "
                "{peak_mib:.0f} MiB".format(value=value, **runs[-1]),
                flush=True,
            )
        slope = None
        if len(runs) > 1:
            one, other = runs[-2:]
            slope = log(other["seconds"] / one["seconds"]) / log(other[varied] / one[varied])
            print(f"{'':11}time grows with power {slope:.1f}; counting gives {expected}: {reason}")
        figures.append(
            {"kind": kind, "varied": varied, "runs": runs, "exponent": slope, "counted": expected}
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

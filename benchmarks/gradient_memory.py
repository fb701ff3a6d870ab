"""Peak memory of a gradient through many steps, against one through few.

The gradient of a final position and density with respect to the width of a potential goes through the whole
trajectory of an ensemble. With recursive checkpoints its memory grows as the root of the number of steps:
16 times the steps should cost about 4 times the memory. Each number of steps runs in a separate process.
The benchmark compares the peaks of resident memory above the memory just before the gradient.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path


def peak_of_gradient(steps: int, particles: int) -> dict:
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp

    import bohmdiff as bd

    def final_spread(width, x0):
        potential = bd.MorseChain(depth=12.5, width=width, coupling=0.3)
        problem = bd.Problem(
            bd.Hamiltonian(potential), bd.GaussianWavePacket([1.0, 0.0, 0.0, 0.0], 0.5), t1=jnp.pi
        )
        score = bd.GradientScore(lambda t, x: -jnp.sum(x**2))
        flow = bd.propagate(
            problem, score, x0, ts=jnp.array([3.0]), solver=bd.VelocityVerlet(), steps=steps
        )
        return jnp.mean(flow.position**2) + jnp.mean(flow.log_density)

    gradient = jax.jit(jax.grad(final_spread))
    x0 = jax.random.normal(jax.random.key(0), (particles, 4))
    compiled = gradient.lower(jnp.asarray(0.2), x0).compile()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = float(compiled(jnp.asarray(0.2), x0))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    planned = compiled.memory_analysis().temp_size_in_bytes
    return {"gradient": value, "peak_bytes": 1024 * (after - before), "planned_bytes": planned}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", type=int, default=128, help="steps (128)")
    parser.add_argument("--many", type=int, default=2048, help="steps (2048)")
    parser.add_argument("--particles", type=int, default=20_000, help="particles (20000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--run", type=int, metavar="STEPS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(peak_of_gradient(options.run, options.particles)))
        return

    figures: dict = {"particles": options.particles}
    for name in ("few", "many"):
        steps = getattr(options, name)
        command = [sys.executable, __file__, "--run", str(steps), "--particles", str(options.particles)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        figures[name] = {"steps": steps} | json.loads(out.splitlines()[-1])
        print(
            f"{steps:>6} steps: peak {figures[name]['peak_bytes'] / 2**20:8.1f} MiB above the start, "
            f"planned by XLA {figures[name]['planned_bytes'] / 2**20:8.1f} MiB"
        )
    figures["ratio"] = figures["many"]["peak_bytes"] / figures["few"]["peak_bytes"]
    figures["planned_ratio"] = figures["many"]["planned_bytes"] / figures["few"]["planned_bytes"]
    print(f"ratio of peaks {figures['ratio']:.2f}, of what XLA plans {figures['planned_ratio']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

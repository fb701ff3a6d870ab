"""How long a user waits for the first result, and how much a persistent compilation cache saves.

Runs `examples/morse_chain.py` in separate processes: without a cache, with an empty cache, and with the
cache that this run filled. Then it solves the same problem with other values in one process and counts
compilations: there must be none after the first time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "morse_chain.py"


def seconds_of_example(directory: Path, cache: Path | None) -> float:
    environment = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    start = time.perf_counter()
    command = [sys.executable, str(EXAMPLE), "--out", str(directory)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{EXAMPLE} failed:\n{done.stderr}")
    return time.perf_counter() - start


def compilations_of_new_values() -> tuple[int, int]:
    """How often XLA compiles for a first solution, and for two more whose values differ."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import bohmdiff as bd

    compiled = 0

    def count(event: str, duration: float, **_) -> None:
        nonlocal compiled
        compiled += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(count)

    def solve(width: float, mean: float, t1: float) -> None:
        potential = bd.MorseChain(depth=12.5, width=width, coupling=0.3)
        initial = bd.GaussianWavePacket([mean, 0.0, 0.0, 0.0], 0.5)
        problem = bd.Problem(bd.Hamiltonian(potential), initial, t1=t1)
        solution = bd.solve(problem, bd.SequentialScoreMatching(4))
        solution.mean(), solution.std(), solution.energy()

    solve(0.2, 1.0, 3.0)
    first, compiled = compiled, 0
    solve(0.18, 0.9, 3.1)
    solve(0.16, 0.8, 2.9)
    return first, compiled


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    figures: dict = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, cache in (("no_cache", None), ("empty_cache", "cache"), ("full_cache", "cache")):
            figures[name] = seconds_of_example(Path(directory), cache and Path(directory) / cache)
            print(f"{name}: {figures[name]:.1f} s from start to pictures", flush=True)
    figures["ratio"] = figures["no_cache"] / figures["full_cache"]
    print(f"with a cache {figures['ratio']:.1f} times as fast")
    figures["first_compilations"], figures["later_compilations"] = compilations_of_new_values()
    print(
        "{first_compilations} compilations for a solution, {later_compilations} for two more with other "
        "values".format(**figures)
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

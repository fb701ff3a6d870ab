"""Sequential score matching: seconds to compile and to run, and errors, as degree and dimension grow.

The errors are against exact moments in any dimension that is a multiple of four: chains of four modes side by
side, uncoupled, each with the moments that the examples bundle. The basis does not depend on
which modes are coupled, except that it may prefer neighbours. With `--coupled` there is one long chain instead,
for which only the drift of the energy is known.
"""

import argparse
import json
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import bohmdiff as bd  # noqa: E402
from _straightforward import VARIANCE, morse_chain, timed  # noqa: E402

EXACT = Path(__file__).parents[1] / "examples" / "data" / "morse_chain.npz"
MODES = 4
CASES = ("4x4", "4x6", "8x4", "8x4x2x2", "16x3", "16x4x2x2", "32x4x2x2")


def side_by_side(dimension: int) -> bd.Problem:
    """Chains of four modes, uncoupled, each as the one of `morse_chain(4)`."""
    one = morse_chain(MODES)

    def potential(t, x):
        chains = x.reshape(-1, MODES)
        return jnp.sum(jax.vmap(one.hamiltonian.potential, in_axes=(None, 0))(t, chains))

    mean = jnp.tile(one.initial.mean, dimension // MODES)
    return bd.Problem(bd.Hamiltonian(potential), bd.GaussianWavePacket(mean, VARIANCE), t1=one.t1)


def rms(errors) -> float:
    """Root-mean-square over time, of the worst mode."""
    return float(np.sqrt(np.mean(errors**2, axis=0)).max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "cases",
        nargs="*",
        default=CASES,
        help=f"modes x degree, or modes x degree x coordinates in a polynomial x their reach ({' '.join(CASES)})",
    )
    parser.add_argument("--coupled", action="store_true", help="one long chain")
    parser.add_argument("--particles", type=int, help="Sobol points; the method's own choice if not given")
    parser.add_argument("--steps", type=int, default=64, help="steps of the solver of order 4 (64)")
    parser.add_argument("--nodes", type=int, help="Gauss-Hermite nodes per axis instead")
    parser.add_argument(
        "--discard", type=float, default=1e-6, help="probability left out with --nodes (1e-6)"
    )
    parser.add_argument(
        "--window", type=float, help="in standard deviations; the method's own if not given"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    with np.load(EXACT) as data:
        exact = {name: data[f"{name}_{MODES}"] for name in ("mean", "std")}
        ts = data["time"]
    figures: dict = {"coupled": options.coupled, "cases": {}}
    for case in options.cases:
        dimension, degree, *structure = map(int, case.split("x"))
        problem = (morse_chain if options.coupled else side_by_side)(dimension)
        particles = options.particles
        if options.nodes:
            particles = bd.GaussHermitePoints(options.nodes, discard=options.discard)
        method = bd.SequentialScoreMatching(
            degree,
            particles,
            options.steps,
            window=options.window,
            basis=bd.Interactions(*structure) if structure else bd.TotalDegree(),
        )

        def solve(problem=problem, method=method):
            solution = bd.solve(problem, method, key=jax.random.key(0), ts=ts)
            return solution, jax.block_until_ready(solution.mean())

        first, seconds, (solution, _) = timed(solve, repeats=1)
        energy = np.asarray(solution.energy())
        row = {
            "particles": solution.particles.weights.size,
            "seconds": seconds,
            "compile_seconds": first - seconds,
            "energy_drift": float(np.abs(energy - energy[0]).max()),
        }
        message = "{particles} particles, {seconds:.2f} s after {compile_seconds:.1f} s of compiling"
        if not options.coupled or dimension == MODES:
            copies = (1, dimension // MODES)
            row["mean_error"] = rms(solution.mean() - np.tile(exact["mean"], copies))
            row["std_error"] = rms(solution.std() - np.tile(exact["std"], copies))
            message += ", mean to {mean_error:.1e}, std to {std_error:.1e}"
        message += ", energy drifts by {energy_drift:.1e}"
        figures["cases"][case] = row
        print(f"{dimension} modes, degree {degree}, {method.basis!r}:", message.format(**row), flush=True)
    rows = list(figures["cases"].values())
    figures["ratio"] = rows[-1]["seconds"] / rows[0]["seconds"]
    print(f"{options.cases[-1]} takes {figures['ratio']:.1f} times as long as {options.cases[0]}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Shared parts of the examples: their options, and the files of their results."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import xarray

import bohmdiff as bd

# Quantum dynamics wants double precision; bohmdiff never switches it on by itself.
jax.config.update("jax_enable_x64", True)


def parser(description: str | None, *, degree: int | None, steps: int | None) -> argparse.ArgumentParser:
    """A parser with the options that every example has, and their defaults."""
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="folder for pictures (out)"
    )
    out.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    out.add_argument(
        "--degree",
        type=int,
        default=degree,
        help=f"degree of the polynomial score ({degree or 'by dimension'})",
    )
    out.add_argument(
        "--steps",
        type=positive,
        default=steps,
        help=f"number of equal steps in time ({steps or 'by experiment'})",
    )
    return out


def positive(text: str) -> int:
    """An integer of at least one, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but {value} was given")
    return value


def add_training_folder(parser: argparse.ArgumentParser) -> None:
    """Adds options for the folder of the log and checkpoints of a training."""
    parser.add_argument(
        "--directory",
        type=Path,
        metavar="DIR",
        help="folder for log and checkpoints (training, next to the pictures)",
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder")


def training_folder(options: argparse.Namespace) -> Path:
    return options.directory or options.out / "training"


def save_figure(figure, directory: Path, name: str) -> None:
    save(directory / name, figure.savefig)


def save_data(dataset: xarray.Dataset, directory: Path, name: str) -> None:
    """Saves results as soon as they are there, because later work may be interrupted."""
    save(directory / name, dataset.to_netcdf)


def save_json(figures: dict, path: Path | None) -> None:
    if path is not None:
        save(path, lambda file: file.write_text(json.dumps(figures, indent=2) + "\n"))


def save(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file completely or, if interrupted, not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished_{path.name}")
    write(unfinished)
    os.replace(unfinished, path)
    print(f"wrote {path}")


def what_it_took(solution, wall_seconds: float) -> dict:
    """The size of a run of SequentialScoreMatching, printed and for --json."""
    figures = {
        "wall_seconds": wall_seconds,
        "dim": solution.problem.dimension,
        "particles": solution.particles.weights.size,
        "steps": solution.steps,
        "degree": solution.method.degree,
    }
    print(
        "{dim} coordinates, {particles} particles, {steps} steps: {wall_seconds:.1f} s in all".format(
            **figures
        )
    )
    return figures


def worst_rms(errors) -> float:
    """Root-mean-square over time, of the worst coordinate."""
    return float(np.sqrt(np.mean(np.asarray(errors) ** 2, axis=0)).max())


def fisher_divergence(problem, score, design, steps: int) -> bd.ObjectiveReport:
    """The distance of a score from that of its own flow, on points not used in training."""
    x0, weights = problem.initial.particles(design, jax.random.key(0))
    return bd.fisher_divergence(problem, score, x0, weights=weights, steps=steps, solver=bd.BlanesMoan4())


def run(main) -> None:
    """Runs an example; an error that the user can fix prints one line, without a traceback."""
    try:
        main()
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.stdout.flush()
        # What XLA still computes would crash the interpreter on its way out.
        os._exit(1)

"""Shared parts of the scripts in this folder: their options, the benchmark, and the source of the data."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(EXAMPLES))

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import bohmdiff as bd  # noqa: E402
from _chain import UNITS as UNITS  # noqa: E402
from _chain import bundled as bundled  # noqa: E402
from _chain import chain as chain  # noqa: E402
from _common import run as run  # noqa: E402
from _common import save as save  # noqa: E402
from _common import save_figure as save_figure  # noqa: E402
from _common import save_json as save_json  # noqa: E402

MODES = 4
DATA = Path(__file__).resolve().parent / "data"
WEIGHTS = EXAMPLES / "data" / "morse_chain_d4.eqx"
LOG = DATA / "morse_chain_d4.jsonl"

Arrays = dict[str, np.ndarray]


def parser(description: str | None, *, weights: bool = False, train: bool = False):
    """A parser with the options of all scripts, and those of the tiers that one has."""
    out = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="folder for pictures (out)"
    )
    out.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    tiers = out.add_mutually_exclusive_group()
    if weights:
        tiers.add_argument(
            "--weights",
            metavar="FILE",
            help="recompute from these weights instead of replotting what is in data; 'sequential' stands "
            "for the polynomial score of SequentialScoreMatching, which needs no training",
        )
    if train or weights:
        tiers.add_argument(
            "--train",
            action="store_true",
            help="train from scratch into the folder of --out first (about an hour), or continue that training",
        )
    return out


def data(name: str, compute: Callable[[bd.AbstractScore], Arrays], options) -> Arrays:
    """Data cached as `name`, or recomputed from the weights in the options."""
    if options.train:
        return compute(score_from(train(options.out)[0]))
    if options.weights is not None:
        return compute(score_from(options.weights))
    return load(name)


def load(name: str) -> Arrays:
    path = DATA / name
    if not path.exists():
        raise ValueError(
            f"{path} is not there: python {Path(__file__).parent / 'make_data.py'} makes it; or pass --weights"
        )
    with np.load(path) as file:
        return dict(file)


def score_from(weights: str | Path):
    """The trained score, or the one it started from."""
    from train_morse_chain import SETTINGS, load_score

    if str(weights) == "sequential":
        return bd.solve(chain(MODES), bd.SequentialScoreMatching(SETTINGS[MODES].degree)).score
    return load_score(Path(weights), MODES)


def solve_exactly() -> bd.GridSolution:
    """ψ at 0 and at π on 44⁴ points."""
    grid = bd.SplitOperator(points=44, lower=-5.5, upper=7.5)
    return bd.solve(chain(MODES), grid, ts=[jnp.pi], progress=True)


def train(out: Path) -> tuple[Path, Path]:
    """Trains by the example for that, unless it has been done; where the weights and the log are."""
    weights = out / WEIGHTS.name
    command = [str(EXAMPLES / "train_morse_chain.py"), "--dim", str(MODES), "--out", str(out)]
    command += ["--resume", "--save-weights", str(weights)]
    print("running: python", *command, flush=True)
    subprocess.run([sys.executable, *command], check=True)
    return weights, out / "log.jsonl"

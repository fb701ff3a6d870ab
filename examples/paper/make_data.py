"""Computes the data of the other scripts: data/moments.npz, slices.npz and particles.npz, from the weights.

--exact recomputes data/exact.npz too; it does not depend on the weights. The log of the training,
data/morse_chain_d4.jsonl, is only copied: pass it as --log.
"""

import argparse
import shutil
import time
from pathlib import Path

import numpy as np

import _paper
import figure4
import figure5
import reverse_kl


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default=_paper.WEIGHTS, metavar="FILE", help="or 'sequential'")
    parser.add_argument("--log", type=Path, metavar="FILE", help="log.jsonl of the training")
    parser.add_argument("--exact", action="store_true", help="compute the exact data anew too")
    options = parser.parse_args()

    def save(name, function, *inputs):
        start = time.perf_counter()
        result = function(*inputs)
        print(f"{name} after {time.perf_counter() - start:.0f} s", flush=True)
        _paper.save(_paper.DATA / name, lambda file: np.savez_compressed(file, **result))

    if options.log is not None:
        log = options.log
        _paper.save(_paper.LOG, lambda file: shutil.copyfile(log, file))
    score = _paper.score_from(options.weights)
    start = time.perf_counter()
    exact = _paper.solve_exactly()
    print(f"ψ at t = π after {time.perf_counter() - start:.0f} s")
    if options.exact:
        save("exact.npz", figure5.compute_exact, exact)
    save("slices.npz", figure5.compute, score)
    save("moments.npz", figure4.compute, score)
    save("particles.npz", reverse_kl.compute, score, exact)


if __name__ == "__main__":
    _paper.run(main)

"""The scripts that draw the paper's figures: those whose data are there run."""

import importlib
import json
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "examples" / "paper"
NEEDS = {
    "figure1": [],
    "figure2": [],
    "figure3": ["morse_chain_d4.jsonl"],
    "figure4": ["moments.npz"],
    "figure5": ["exact.npz", "slices.npz"],
    "reverse_kl": ["particles.npz"],
}


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Imports a script, and runs it with some options; returns its numbers."""
    matplotlib.use("Agg")
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(tmp_path)

    def run(name, *options):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--json", "numbers.json", *options])
        module.main()
        return json.loads(Path("numbers.json").read_text())

    yield run
    plt.close("all")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "figure1" else []) for n in NEEDS]
)
def test_what_is_bundled_is_drawn(name, script, tmp_path):
    missing = [file for file in NEEDS[name] if not (FOLDER / "data" / file).exists()]
    if missing:
        pytest.skip(f"no {', '.join(missing)} yet")
    script(name)
    assert name == "reverse_kl" or (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000


def test_a_log_is_read(script, tmp_path):
    lines = [{"epoch": 1, "loss": 1.0, "fisher": 0.5, "energy": 2.4, "energy_drift": 0.1}]
    lines += [{"epoch": 2, "loss": 0.5}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    numbers = script("figure3", "--log", "log.jsonl")
    assert (numbers["epochs"], numbers["fisher_last"]) == (2, 0.5)
    np.testing.assert_allclose(numbers["energy_error_last"], 2.4 - 2.32361723, atol=1e-6)


def test_the_planes_of_the_exact_score(script):
    script("figure2")  # so that what the scripts share can be imported
    figure5 = importlib.import_module("figure5")
    exact = importlib.import_module("_paper").load("exact.npz")
    mean = np.array([1.0, 0.0, 0.0, 0.0])
    ours = figure5.compute(lambda t, x: -2 * (x - mean))
    np.testing.assert_allclose(ours["score"][0], exact["score"][0], atol=1e-3)
    # The packet at π has its maximum inside the plane, and the score points to it.
    rho = np.exp(exact["log_density"][1])
    assert 10 < np.unravel_index(np.argmax(rho), rho.shape)[0] < 50
    slope = np.gradient(exact["log_density"][1], exact["axes"][1, 0], axis=0)
    np.testing.assert_allclose(slope[20:40, 20:40], exact["score"][1][20:40, 20:40, 0], atol=0.03)


def test_data_that_are_not_there_are_named(script, monkeypatch, tmp_path):
    script("figure2")
    monkeypatch.setattr(importlib.import_module("_paper"), "DATA", tmp_path)
    with pytest.raises(ValueError, match=r"moments\.npz is not there"):
        script("figure4")

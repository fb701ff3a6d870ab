"""The first example is right. Those that are interrupted leave whole files, and a training goes on."""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray
from matplotlib.image import imread

import bohmdiff as bd

EXAMPLES = Path(__file__).parent.parent / "examples"
READ = {
    ".nc": lambda path: xarray.load_dataset(path),
    ".png": imread,
    ".gif": imread,
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
}
# After so many seconds it is past its imports, and not at its end.
MOMENT = 5.0
# Short trainings.
OPTIONS = {
    "stochastic/experiments": ["free_packet", "--epochs", "8"],
    "train_double_well": ["--epochs", "8", "--particles", "16", "--width", "4", "--steps", "8"],
    "train_morse_chain": [
        "--dim",
        "1",
        "--epochs",
        "8",
        "--particles",
        "16",
        "--width",
        "4",
        "--steps",
        "8",
    ],
}
ALL = [
    str(path.relative_to(EXAMPLES).with_suffix(""))
    for path in sorted(EXAMPLES.glob("**/*.py"))
    if not path.name.startswith("_")
    # The first has no options, and the other writes into its own folder.
    and path.stem not in ("morse_chain", "make_data")
]


def start(name, folder, *options):
    return subprocess.Popen(
        [sys.executable, "-u", EXAMPLES / f"{name}.py", "--json", "figures.json", *options],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "Agg"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in the background with interrupts ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def written(output, folder):
    """The files that an example has said to have written, all of which can be read."""
    files = [
        folder / line.removeprefix("wrote ") for line in output.splitlines() if line.startswith("wrote")
    ]
    for file in files:
        READ[file.suffix](file)
    return files


@pytest.mark.slow
def test_the_first_example_is_right(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = runpy.run_path(str(EXAMPLES / "morse_chain.py"))
    imread(tmp_path / "morse_chain.png")
    found = bd.compare(names["solution"], names["exact"])
    assert found.mean_rms.max() < 6e-5
    assert found.std_rms.max() < 6e-4
    assert found.energy_max < 5e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "files"), [("double_well", 1), ("custom_potential", 2)])
def test_what_was_finished_is_there_after_ctrl_c(name, files, tmp_path):
    process = start(name, tmp_path)
    said = ""
    while said.count("wrote") < files and (line := process.stdout.readline()):
        said += line
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert errors.strip().endswith("interrupted")
    done = written(said + rest, tmp_path)
    assert len(done) >= files
    others = {path.name for path in (tmp_path / "out").iterdir()} - {path.name for path in done}
    assert all(name.startswith("unfinished_") for name in others)


@pytest.mark.long
def test_an_interrupted_training_goes_on(tmp_path):
    options = "--epochs", "400", "--particles", "16", "--width", "4", "--steps", "8"
    process = start("train_double_well", tmp_path, *options)
    log = tmp_path / "out" / "training" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "--resume goes on" in output
    assert {file.name for file in written(output, tmp_path)} >= {
        "history.nc",
        "solution.nc",
        "figures.json",
    }
    reached = json.loads((tmp_path / "figures.json").read_text())["epochs"]
    assert 2 <= reached < 400

    process = start("train_double_well", tmp_path, *options, "--resume")
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    history = xarray.load_dataset(tmp_path / "out" / "history.nc")
    np.testing.assert_array_equal(history.epoch, np.arange(1, 401))


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_at_any_moment(name, tmp_path):
    process = start(name, tmp_path, *OPTIONS.get(name, []))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=MOMENT)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=600)
    assert process.returncode in (0, 1, -signal.SIGINT), errors
    done = written(output, tmp_path)
    assert process.returncode or done
    for file in tmp_path.glob("**/*"):
        if file.suffix in READ and not file.name.startswith("unfinished_"):
            READ[file.suffix](file)
    # Unless the example itself has not begun, or JAX has lost the signal in a callback.
    if "Exception ignored in" not in errors:
        assert "Traceback" not in errors or ("import" in errors and not done)

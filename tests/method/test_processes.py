"""Training and trajectories in several processes that `jax.distributed` joins, here two on one host."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json
import os
import sys

import jax

jax.config.update("jax_enable_x64", True)
this, number, address, directory, epochs, resume, kind = sys.argv[1:]
if int(number) > 1:
    jax.distributed.initialize(address, int(number), int(this))
    assert len(jax.devices()) == int(number) and len(jax.local_devices()) == 1

if kind == "own disks":
    os.chdir(f"{directory}/{this}")
    directory = "run"

import jax.numpy as jnp
import numpy as np
import optax

import bohmdiff as bd

problem = bd.Problem(
    bd.Hamiltonian(lambda t, x: jnp.sum(0.5 * x**2 + 0.02 * x**4), mass=[1.0, 2.0]),
    bd.GaussianWavePacket(mean=[0.5, 0.0], covariance=0.5),
    t1=1.0,
)
second = kind == "second order"
optimizer = None
if kind not in ("velocities", "wave function"):
    optimizer = optax.adam(1e-2)
if second:
    optimizer = optax.chain(bd.scale_by_gauss_newton(damping=1e-3), optax.scale(-0.1))
training = bd.Training(
    optimizer, epochs=int(epochs), validate_every=4, checkpoint_every=2, directory=directory or None,
    resume=resume == "resume",
)
options = dict(training=training, steps=6)
if kind in ("velocities", "wave function"):
    networks = dict(width=4, depth=1, key=jax.random.key(0))
    options |= dict(particles=33, validation_particles=17)
    if kind == "velocities":
        method = bd.DeepStochasticMechanics(*bd.velocity_networks(problem, **networks), **options)
    else:
        method = bd.PhysicsInformedNetwork(bd.NeuralWaveFunction(problem, **networks), **options)
    solution = bd.solve(problem, method, key=jax.random.key(1), ts=[0.5, 1.0])
    print(json.dumps({
        "losses": solution.history["loss"].values.tolist(),
        "residual": solution.history["residual"].dropna("epoch").values.tolist(),
        "skipped": int(solution.history["skipped"][-1]),
        "std": solution.std().tolist(),
    }))
    sys.exit()

score = bd.NeuralScore(problem, baseline=bd.HarmonicScore(problem), width=4, depth=1, key=jax.random.key(0))
method = bd.SelfConsistentScoreMatching(
    score,
    bd.FisherDivergence() if second else bd.LogDensityVariance(),
    solver=bd.VelocityVerlet(),
    particles=65,
    validation_particles=33,
    **options,
)
key = jax.random.key(int(this) if kind == "own keys" else 1)
solution = bd.solve(problem, method, key=key, ts=[0.5, 1.0])
x0, _ = problem.initial.particles(bd.SobolPoints(301), jax.random.key(2))
flow = bd.propagate(problem, solution.fitted, x0, ts=[1.0], solver=bd.BlanesMoan4(), steps=6)
print(json.dumps({
    "losses": solution.history["loss"].values.tolist(),
    "fisher": solution.history["fisher"].dropna("epoch").values.tolist(),
    "skipped": int(solution.history["skipped"][-1]),
    "parameters": [leaf.tolist() for leaf in jax.tree.leaves(solution.fitted.network) if hasattr(leaf, "tolist")],
    "std": solution.std().tolist(),
    "ends": np.asarray(flow.position[:, 0]).tolist(),
}))
"""


def start(number, directory="", epochs=6, resume=False, kind="first order"):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    arguments = [address, str(directory), str(epochs), "resume" if resume else "anew", kind]
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(this), str(number), *arguments],
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for this in range(number)
    ]


def results(processes):
    outputs = [process.communicate(timeout=400) for process in processes]
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


def run(number, **options):
    return results(start(number, **options))


def assert_same(one, other, rtol):
    assert one.keys() == other.keys()
    for name in one:
        if name == "parameters":
            for ours, theirs in zip(one[name], other[name], strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol, err_msg=name)
        else:
            np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=rtol, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "rtol"),
    [("first order", 1e-9), ("second order", 1e-7), ("velocities", 1e-6), ("wave function", 1e-6)],
)
def test_two_processes_train_as_one(kind, rtol, tmp_path):
    (one,) = run(1, kind=kind)
    first, second = run(2, kind=kind, directory=tmp_path)
    assert one["skipped"] == 0
    assert first == second
    assert_same(one, first, rtol)
    # One of them wrote, once for each epoch.
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3, 4, 5, 6]


def wait_for_epochs(processes, folder, number):
    """The log, once it has so many lines."""
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and log.read_text().count("\n") >= number):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    return log


@pytest.mark.long
def test_a_process_is_killed_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "killed"
    processes = start(2, directory=folder, epochs=10_000)
    log = wait_for_epochs(processes, folder, 5)
    processes[1].send_signal(signal.SIGKILL)
    # The other waits for it until JAX notices; a scheduler would end it.
    time.sleep(1.0)
    for process in processes:
        process.kill()
        process.wait()
    epochs = log.read_text().count("\n") + 3
    first, second = run(2, directory=folder, epochs=epochs, resume=True)
    assert first == second
    straight, _ = run(2, epochs=epochs)
    assert straight == first


@pytest.mark.long
def test_a_key_of_its_own_for_every_process_is_refused():
    processes = start(2, kind="own keys")
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode != 0 for process in processes)
    assert any("different keys or options" in text for text in errors)


@pytest.mark.long
def test_ctrl_c_in_one_process_ends_all_with_a_checkpoint(tmp_path):
    processes = start(2, directory=tmp_path, epochs=10_000)
    log = wait_for_epochs(processes, tmp_path, 3)
    processes[1].send_signal(signal.SIGINT)
    first, second = results(processes)
    assert first == second
    reached = len(first["losses"])
    assert 3 <= reached < 10_000
    assert log.read_text().count("\n") == reached
    assert (tmp_path / "checkpoints" / str(reached)).is_dir()


@pytest.mark.long
def test_checkpoints_that_not_all_can_see_are_refused(tmp_path):
    for this in "01":
        (tmp_path / this).mkdir()
    run(1, directory=tmp_path, epochs=2, kind="own disks")
    processes = start(2, directory=tmp_path, epochs=4, resume=True, kind="own disks")
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode != 0 for process in processes)
    assert any("different checkpoints" in text for text in errors)

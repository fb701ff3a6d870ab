"""Trainings: their log and checkpoints, and that neither kills nor damage on disk can harm a run."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from tests.training import runs
from tests.training.runs import (
    ADAM,
    KEY,
    PROBLEM,
    START,
    VALIDATION,
    Distance,
    Width,
    other_well,
    outcome,
    parameters,
    problem,
    read_log,
    saved_epochs,
    train,
)
from tests.unchecked import unchecked_types
from tqdm import tqdm

import bohmdiff as bd
from bohmdiff.training._folder import FolderLock
from bohmdiff.training._history import history_of
from bohmdiff.training._identity import Values, values_of_activations, values_of_optimizer
from bohmdiff.training._interrupt import interruptible
from bohmdiff.training._progress import Progress
from bohmdiff.training._record import Checkpoints, Log
from bohmdiff.training._update import TrainingState


def test_the_same_key_gives_the_same_bits_and_leaves_no_trace(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    first = train(progress=True)
    assert list(tmp_path.iterdir()) == []
    bar = capfd.readouterr().err
    assert re.search(r"compiling … \d+\.\d s, with the first epoch\n.*1/6", bar)
    assert "6/6" in bar
    assert f"loss {float(first.history['loss'][-1]):.2e}" in bar
    assert f"fisher {float(first.history['fisher'][-1]):.2e}" in bar
    assert outcome(first) == outcome(train()) == outcome(train(key=jax.random.PRNGKey(0)))
    assert capfd.readouterr().err == ""
    assert outcome(train(key=jax.random.key(1))) != outcome(first)
    with pytest.raises(ValueError, match=r"needs a key: key=jax.random.key\(0\)"):
        train(key=None)


def test_clipping_and_schedules():
    schedule = optax.piecewise_constant_schedule(1.0, {3: 0.0})
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(schedule))
    one, three, eight = (train(optimizer=optimizer, epochs=n) for n in (1, 3, 8))
    assert np.linalg.norm(np.subtract(parameters(one), START)) == pytest.approx(1e-3, rel=1e-9)
    assert outcome(one) != outcome(three) == outcome(eight)


@pytest.mark.long
def test_the_rate_falls_when_the_loss_stalls():
    plateau = optax.contrib.reduce_on_plateau(factor=0.5, patience=2)
    optimizer = optax.chain(optax.scale_by_sign(), optax.scale(-1e-3), plateau)
    epochs = 12
    # What the transformation itself makes of a loss that is always one.
    state, scales = plateau.init(jnp.zeros(())), []
    for _ in range(epochs):
        scale, state = plateau.update(jnp.asarray(1.0), state, value=jnp.asarray(1.0))
        scales.append(float(scale))
    assert scales[-1] < 0.2
    precision, _ = parameters(train(objective=Distance(stalled=True), optimizer=optimizer, epochs=epochs))
    assert precision - 1.2 == pytest.approx(1e-3 * sum(scales), rel=1e-9)


@pytest.mark.long
def test_lbfgs_has_all_that_its_line_search_wants():
    solution = train(optimizer=optax.lbfgs(), epochs=8)
    np.testing.assert_allclose(parameters(solution), [2.0, 1.0], atol=1e-3)
    # Adam's steps of 0.03 are far from there.
    assert abs(parameters(train(epochs=8))[0] - 2) > 0.3


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of six epochs, whose optimiser draws random numbers, that others resume and compare with."""
    folder = tmp_path_factory.mktemp("run") / "new" / "folder"
    return folder, train(**RUN, directory=folder)


NOISY = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(3)), ADAM)
RUN = {"optimizer": NOISY, "checkpoint_every": 1, "validate_every": 2, "keep": 4}


@pytest.fixture
def folder(undisturbed, tmp_path):
    return Path(shutil.copytree(undisturbed[0], tmp_path / "copy"))


def test_the_log_has_a_line_for_every_epoch(undisturbed):
    folder, solution = undisturbed
    records = read_log(folder, but=())
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    always = {
        "epoch",
        "loss",
        "gradient_norm",
        "masked_fraction",
        "minimum_determinant",
        "skipped",
        "seconds",
    }
    assert {
        epoch: set(r) - always for epoch, r in enumerate(records, 1) if set(r) != always
    } == dict.fromkeys((1, 2, 4, 6), VALIDATION)
    assert all(set(record) >= always for record in records)
    assert list(solution.history["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert set(solution.history) == always - {"epoch"} | VALIDATION
    for name in solution.history:
        np.testing.assert_array_equal(solution.history[name], [r.get(name, np.nan) for r in records])
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "log.jsonl"]
    assert saved_epochs(folder) == [3, 4, 5, 6]


def test_a_resumed_run_ends_as_if_it_had_not_stopped(undisturbed, tmp_path):
    folder, whole = undisturbed
    # Without a checkpoint there it starts anew, whatever the log says.
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "log.jsonl").write_bytes(b'{"epoch": 1, "loss": 7.0}\n\xff{"epo')
    train(**RUN, directory=torn, epochs=4, resume=True)
    assert saved_epochs(torn) == [1, 2, 3, 4]
    resumed = train(**RUN, directory=str(torn), resume=True)
    assert outcome(resumed) == outcome(whole)
    assert read_log(torn) == read_log(folder)
    assert saved_epochs(torn) == [3, 4, 5, 6]
    # Time goes on where it stopped.
    seconds = [record["seconds"] for record in read_log(torn, but=())]
    assert seconds == sorted(seconds)

    # Once more, with nothing left to do.
    before = (torn / "log.jsonl").read_text()
    again = train(**RUN, directory=torn, resume=True)
    assert outcome(again) == outcome(whole)
    np.testing.assert_array_equal(again.std(), whole.std())
    assert (torn / "log.jsonl").read_text() == before
    assert list(again.history["epoch"]) == [1, 2, 3, 4, 5, 6]

    # From an earlier one; what came after it is written anew.
    for stale in (5, 6):
        shutil.rmtree(torn / "checkpoints" / str(stale) / "arrays")
    assert outcome(train(**RUN, directory=torn, resume=4)) == outcome(whole)
    assert outcome(train(**RUN, directory=torn, resume=True)) == outcome(whole)
    assert read_log(torn) == read_log(folder)


def test_what_can_not_be_resumed(folder):
    before = read_log(folder, but=())
    for match, options in [
        (r"copy already has checkpoints of epochs \[3, 4, 5, 6\]. Pass resume=True", {}),
        (r"has 6 epochs already, but epochs=4 was given", {"resume": True, "epochs": 4}),
        (r"no checkpoint of epoch 2 in .*copy.*, only of \[3, 4, 5, 6\]", {"resume": 2}),
    ]:
        with pytest.raises(ValueError, match=match):
            train(**(RUN | options), directory=folder)
    assert read_log(folder, but=()) == before
    assert saved_epochs(folder) == [3, 4, 5, 6]


class Further(bd.AbstractObjective):
    """As `Distance`, but from another score."""

    second_tangents = "none"
    through_flow = False
    min_determinant: float = 0.0
    stalled: bool = False

    def at(self, problem, score, t, ensemble):
        s = jax.vmap(score, in_axes=(None, 0))(t, ensemble.start)
        return ensemble.weights @ jnp.sum((s + 3 * ensemble.start) ** 2, axis=1)


class Moved(bd.AbstractObjective):
    """As `Distance`, under another name."""

    second_tangents = "none"
    through_flow = False
    min_determinant: float = 0.0
    stalled: bool = False

    def at(self, problem, score, t, ensemble):
        return Distance(self.min_determinant, self.stalled).at(problem, score, t, ensemble)


class Faster(Width):
    """Its centre moves in another way."""

    def __call__(self, t, x):
        return -0.5 * self.precision * jnp.sum((x - self.amplitude * jnp.cos(1.1 * t)) ** 2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"problem": problem(t1=2.0)}, "belongs to another run: its problem is not the same"),
        (
            {"problem": problem(other_well)},
            r"to another run: its potential is not the same \(well there, other_well here\)",
        ),
        ({"problem": problem(lambda t, x: 0.51 * jnp.sum(x**2))}, "its potential is not the same"),
        ({"problem": problem(mean=1.1)}, "its initial state is not the same"),
        ({"key": jax.random.key(1)}, "its key is not the same"),
        ({"particles": 8}, r"its particles is not the same \(16 there, 8 here\)"),
        ({"objective": bd.FisherDivergence()}, r"its objective is not the same \(Distance.*, Fisher"),
        ({"objective": Further()}, r"its objective is not the same \(Distance"),
        ({"optimizer": optax.sgd(1e-2)}, "its optimizer is not the same"),
        (
            {"score": bd.NeuralScore(PROBLEM, width=4, depth=1, key=KEY)},
            r"its score is not the same \(.*precision.* there, .*network.* here\)",
        ),
        (
            {"score": bd.GradientScore(Faster(*map(jnp.asarray, START)))},
            r"its score is not the same\. Go on",
        ),
    ],
)
def test_checkpoints_of_another_run(folder, options, match):
    with pytest.raises(ValueError, match=f"checkpoint of epoch 6 in .*{match}.*another directory"):
        train(**(RUN | options), directory=folder, resume=True)
    assert saved_epochs(folder) == [3, 4, 5, 6]
    assert len(read_log(folder)) == 6


def test_functions_that_only_moved_resume(folder, undisturbed):
    """Another name, another place in the code, another object: the values are the same."""
    adam = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(3)), optax.adam(3e-2))
    moved = {"problem": problem(lambda t, y: y @ y / 2), "objective": Moved(), "optimizer": adam}
    assert outcome(train(**(RUN | moved), directory=folder, resume=True)) == outcome(undisturbed[1])


def rate_at(count, rate=0.1):
    return optax.sgd(optax.piecewise_constant_schedule(0.2, {count: rate}))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (optax.adam(1e-2), optax.adam(1.001e-2)),
        (optax.adam(1e-2), optax.adam(1e-2, b1=0.91)),
        (rate_at(500), rate_at(530)),
        (rate_at(3), rate_at(4)),
        (optax.sgd(1.0, momentum=0.9), optax.sgd(1.0, momentum=0.8)),
        (
            optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(1.0)),
            optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(1.0)),
        ),
        (optax.contrib.reduce_on_plateau(patience=2), optax.contrib.reduce_on_plateau(patience=3)),
        (bd.scale_by_gauss_newton(damping=1e-5), bd.scale_by_gauss_newton(damping=2e-5)),
    ],
)
def test_optimizers_are_told_apart_by_what_they_do(one, other):
    parameters = {"matrix": jnp.ones((40, 3)), "number": jnp.ones(())}
    values = values_of_optimizer(one, parameters)
    assert values.groups
    assert Values.from_json(json.loads(json.dumps(values.as_json()))).same_as(values)
    assert not values_of_optimizer(other, parameters).same_as(values)


def test_an_optimizer_that_needs_the_true_shapes():
    scales = jnp.arange(40.0)

    def scaled(by):
        return optax.stateless(lambda updates, _: jax.tree.map(lambda leaf: by * scales * leaf, updates))

    one, same, other = (values_of_optimizer(scaled(by), jnp.ones(40)) for by in (1.0, 1.0, 1.1))
    assert one.groups
    assert one.same_as(same)
    assert not one.same_as(other)


def test_activations_are_told_apart_by_their_values():
    def values(activation):
        network = bd.TimeConditionedMLP(1, 3, width=2, activation=activation, key=KEY)
        return values_of_activations({"a": [network], "b": jnp.tanh})

    assert values(jnp.tanh).same_as(values(lambda z: jnp.tanh(z)))
    assert not values(jnp.tanh).same_as(values(lambda z: jnp.tanh(1.01 * z)))


@pytest.mark.long
def test_a_network_with_another_activation_belongs_to_another_run(tmp_path):
    def options(activation):
        score = bd.NeuralScore(PROBLEM, width=2, depth=1, activation=activation, key=KEY)
        return {"score": score, "directory": tmp_path, "epochs": 1}

    train(**options(jnp.tanh))
    with pytest.raises(ValueError, match=r"its activation is not the same \(<function tanh> there"):
        train(**options(jax.nn.softplus), resume=True)


def shorten(path):
    os.truncate(path, path.stat().st_size // 2)


# Threads of orbax that still read when it gives up complain that nobody waits for them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [
        lambda epoch: shorten(next((epoch / "arrays" / "d").iterdir())),
        lambda epoch: next((epoch / "arrays" / "d").iterdir()).unlink(),
        lambda epoch: (epoch / "arrays" / "manifest.ocdbt").unlink(),
        lambda epoch: shorten(epoch / "arrays" / "_METADATA"),
        lambda epoch: shorten(epoch / "description" / "metadata"),
        lambda epoch: (epoch / "description" / "metadata").write_text('{"settings": 1, "arrays": 2}'),
        lambda epoch: shutil.rmtree(epoch / "arrays"),
        lambda epoch: [shutil.rmtree(epoch), epoch.mkdir(), (epoch / "notes").write_text("mine")],
    ],
    ids=["short data", "no data", "no manifest", "short shapes", "short text", "text", "no arrays", "junk"],
)
def test_a_damaged_checkpoint_is_named_and_the_others_go_on(folder, undisturbed, damage):
    damage(folder / "checkpoints" / "6")
    with pytest.raises(
        ValueError, match=r"epoch 6 in .*copy/checkpoints can't be read .*resume=5 goes on"
    ) as e:
        train(**RUN, directory=folder, resume=True)
    assert "\n" not in str(e.value)
    assert saved_epochs(folder) == [3, 4, 5, 6]
    assert outcome(train(**RUN, directory=folder, resume=5)) == outcome(undisturbed[1])
    assert outcome(train(**RUN, directory=folder, resume=True)) == outcome(undisturbed[1])


def test_no_flipped_bit_is_loaded(tmp_path):
    """One in each file of a checkpoint: its arrays, its settings, its checksums, and what orbax adds."""
    state = TrainingState.initial({"w": jax.random.normal(KEY, (8, 8))}, ADAM, None)
    with contextlib.closing(Checkpoints(tmp_path, 3, {"steps": "8"}, writes=True)) as checkpoints:
        checkpoints.save(state, {})
        np.testing.assert_array_equal(
            checkpoints.restore(state, {}, 0)[0].parameters["w"], state.parameters["w"]
        )
        files = [path for path in (tmp_path / "0").rglob("*") if path.is_file()]
        assert {"sha256.json", "metadata", "manifest.ocdbt"} <= {path.name for path in files}
        draw = random.Random(0)
        for path in files:
            before = path.read_bytes()
            data, bit = bytearray(before), draw.randrange(8 * len(before))
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            with pytest.raises(ValueError, match=r"can't be read \(.*It is damaged"):
                checkpoints.restore(state, {}, 0)
            path.write_bytes(before)
        checkpoints.restore(state, {}, 0)


def test_what_is_half_deleted_is_not_there(tmp_path, monkeypatch):
    """The process dies while it deletes the oldest checkpoint."""
    state = TrainingState.initial({"w": jnp.ones(2)}, ADAM, None)
    later = dataclasses.replace(state, epoch=jnp.asarray(1))

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with contextlib.closing(Checkpoints(tmp_path, 1, {}, writes=True)) as checkpoints:
        checkpoints.save(state, {})
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", die)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.save(later, {})
        assert checkpoints.epochs == [1]
        assert list((tmp_path / ".unfinished").iterdir())
    with contextlib.closing(Checkpoints(tmp_path, 1, {}, writes=True)) as checkpoints:
        assert checkpoints.epochs == [1]
        assert int(checkpoints.restore(state, {}, 1)[0].epoch) == 1
        assert not list((tmp_path / ".unfinished").iterdir())


def test_two_trainings_in_one_folder(folder):
    """In this process, and in another one that is then killed."""
    busy = "Another training is writing to .*copy. Wait until it ends, or train into another directory"
    lock = folder / "checkpoints" / ".lock"
    with contextlib.closing(FolderLock(lock.parent, "here")), pytest.raises(ValueError, match=busy):
        train(**RUN, directory=folder, resume=True)
    train(**RUN, directory=folder, resume=True)

    code = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True)"
    )
    command = [sys.executable, "-c", f"{code}; sys.stdin.read()", lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(ValueError, match=busy):
            train(**RUN, directory=folder, resume=True)
        process.kill()
    train(**RUN, directory=folder, resume=True)


def test_a_folder_that_can_not_be_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", no_space)
    with pytest.warns(UserWarning, match=r"can't be locked \(.*Make sure that no other training"):
        FolderLock(tmp_path, "here")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("gs://bucket/run", "a folder of this machine, but the address 'gs://bucket/run' was given"),
        (Path("s3://bucket/run"), "the address 's3:/bucket/run' was given"),
        ("~nobody-has-this-name/run", "there is no home for '~nobody-has-this-name/run'"),
        ("run[1]", r"the name 'run\[1\]' has one of the characters"),
        ("back\\slash/run", "has one of the characters"),
        ("a*/run", "has one of the characters"),
        ("gs:/run", "the address"),
        ("runs/gs:/run", "the name 'gs:' .*ends with a colon"),
        ("\udcff", "is not text"),
        ("nothing\0", "has one of the characters"),
    ],
)
def test_folders_from_which_nothing_could_be_read(name, match):
    with pytest.raises(ValueError, match=match):
        bd.Training(epochs=1, directory=name)


def test_strange_names_that_work(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "lr=0.1, β {a,b} 50%"))
    train(**(RUN | {"epochs": 1}), directory="~/run")
    assert saved_epochs(tmp_path / "lr=0.1, β {a,b} 50%" / "run") == [1]
    train(**(RUN | {"epochs": 1}), directory=Path("~/run"), resume=True)


LINES = ['{"epoch": 1, "loss": 1.0}', '{"epoch": 2, "loss": 2.0}', '{"epoch": 3, "loss": 3.0}']


@pytest.mark.parametrize(
    ("text", "missing", "kept"),
    [
        ("\n".join(LINES), "", [1, 2, 3]),
        ("\n".join([*LINES, '{"epoch": 4, "lo']), "", [1, 2, 3]),
        ("\n".join([*LINES, *LINES]), "", [1, 2, 3]),
        ("\n".join([LINES[0], LINES[1].replace("l", "\x01"), LINES[2]]), "2", [1, 3]),
        ("\n".join([LINES[0], LINES[1][:-1], LINES[2]]), "2", [1, 3]),
        ("\n".join([LINES[0], LINES[1].replace("2.0", '"x"'), LINES[2]]), "2", [1, 3]),
        ("\n".join([LINES[0], LINES[1].replace("2.0", "[1]"), LINES[2]]), "2", [1, 3]),
        ("\n".join([LINES[0], LINES[1].replace("2.0", "1" * 400), LINES[2]]), "2", [1, 3]),
        ("\n".join([LINES[0].replace("epoch", "ep\udcffch"), LINES[1] + LINES[2]]), "1 to 3", []),
        ("[" * 100_000 + "\n7\n[]\nnull", "1 to 3", []),
        ("", "1 to 3", []),
    ],
)
def test_a_damaged_log_is_told(tmp_path, text, missing, kept):
    path = tmp_path / "log.jsonl"
    path.write_bytes(text.encode(errors="surrogateescape"))
    told = f"damaged or cut: it has no line, nor has `history`, for epoch {missing}. The training itself"
    expected = pytest.warns(UserWarning, match=told) if missing else contextlib.nullcontext()
    with expected, contextlib.closing(Log(path, 3, writes=True)) as log:
        assert list(history_of(log.lines)["epoch"]) == kept
        assert log.seconds == 0
    # Nothing that was there is gone.
    others = [one.read_bytes() for one in tmp_path.iterdir() if one != path]
    assert others == ([text.encode(errors="surrogateescape")] if missing and text else [])
    with contextlib.closing(Log(path, 3, writes=True, digest=log.digest)) as again:
        assert again.lines == log.lines


def test_a_changed_figure_in_the_log_is_told(folder):
    log = folder / "log.jsonl"
    log.write_text(log.read_text().replace('"epoch": 2, "loss": ', '"epoch": 2, "loss": 1'))
    with pytest.warns(UserWarning, match=r"log.jsonl was changed, so its figures may be wrong"):
        train(**RUN, directory=folder, resume=True)


def test_the_log_of_an_earlier_run_is_kept(tmp_path):
    (tmp_path / "log.jsonl").write_text("mine\n")
    with pytest.warns(UserWarning, match=r"earlier run that has no checkpoint.*kept as log.1.jsonl"):
        train(epochs=1, directory=tmp_path)
    assert (tmp_path / "log.1.jsonl").read_text() == "mine\n"


def test_the_log_is_not_written_through_a_link_that_waits_for_it(tmp_path, monkeypatch):
    names = set()
    monkeypatch.setattr(os, "replace", lambda source, target: names.add(Path(source).name))
    for _ in range(3):
        Log(tmp_path / "log.jsonl", 0, writes=True).close()
    assert len(names) == 3


def test_a_checkpoint_of_a_newer_version_is_refused(folder):
    text = folder / "checkpoints" / "6" / "description" / "metadata"
    description = json.loads(text.read_text())
    text.write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(
        ValueError, match=r"epoch 6 .* newer version of bohmdiff, in format 99; .* up to 2\. Update"
    ):
        train(**RUN, directory=folder, resume=True)
    assert saved_epochs(folder) == [3, 4, 5, 6]


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_no_more_than_the_last_checkpoint(folder, undisturbed, monkeypatch):
    longer = RUN | {"epochs": 8}
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", no_space)
        with pytest.raises(
            bd.TrainingNotSavedError, match=r"epoch 7 can't be .*No space left.* resume=True"
        ) as e:
            train(**longer, directory=folder, resume=True)
    assert saved_epochs(folder) == [3, 4, 5, 6]
    assert jnp.isfinite(e.value.fitted(0.5, jnp.zeros(1))).all()
    assert outcome(train(**longer, directory=folder, resume=True))


def test_a_log_that_can_not_be_written_ends_the_training_with_the_score(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))
    try:
        with pytest.raises(bd.TrainingNotSavedError, match="The log can't be written") as e:
            train(epochs=6, directory=tmp_path, checkpoint_every=100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert jnp.isfinite(e.value.fitted(0.5, jnp.zeros(1))).all()
    complete = (tmp_path / "log.jsonl").read_text().splitlines()[:-1]
    assert complete
    assert all(json.loads(line)["epoch"] == number for number, line in enumerate(complete, 1))


def test_strange_files_among_the_checkpoints(folder, tmp_path, undisturbed):
    checkpoints = folder / "checkpoints"
    (checkpoints / "notes.txt").write_text("mine")
    (checkpoints / "7").write_text("a file")
    (checkpoints / "plots").mkdir()
    assert outcome(train(**RUN, directory=folder, resume=True)) == outcome(undisturbed[1])
    (checkpoints / "9").mkdir()
    with pytest.raises(
        ValueError, match=r"epoch 9 in .* can't be read .*resume=6 goes on from the one before"
    ):
        train(**RUN, directory=folder, resume=True)
    longer = train(**RUN, directory=folder, resume=6, epochs=8)
    assert list(longer.history["epoch"]) == list(range(1, 9))
    assert (checkpoints / "notes.txt").read_text() == "mine"

    (tmp_path / "file").write_text("mine")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=f"directory must be a folder .* but {directory} can't be"):
            train(directory=directory)
    shutil.rmtree(checkpoints)
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"The log can't be written to .*log.jsonl"):
        train(directory=folder)


class Trap(bd.AbstractDesign):
    """Sobol points, with something extra at some of the epochs after `TRAPPED` is emptied."""

    far: tuple[int, ...] = ()
    interrupted: tuple[int, ...] = ()

    def __call__(self, dimension, key=None):
        points, weights = bd.SobolPoints(16)(dimension, key)
        TRAPPED.append(None)
        if len(TRAPPED) in self.far:
            points[0] = 1e200
        if len(TRAPPED) in self.interrupted:
            signal.raise_signal(signal.SIGINT)
        return points, weights


TRAPPED: list = []


def trapped(**options):
    TRAPPED.clear()
    return train(**options)


def test_a_loss_that_is_not_finite_is_skipped(tmp_path):
    two = trapped(particles=Trap(), epochs=2)
    three = trapped(particles=Trap(far=(3,)), epochs=3)
    assert outcome(three) == outcome(two)
    five = trapped(particles=Trap(far=(3,)), epochs=5, max_skipped=2, directory=tmp_path)
    records = read_log(tmp_path)
    assert [record["skipped"] for record in records] == [0, 0, 1, 1, 1]
    assert [record["loss"] is None for record in records] == [False, False, True, False, False]
    assert np.isnan(five.history["loss"][2])
    assert outcome(five) != outcome(two)


def test_when_nothing_is_finite_any_more(tmp_path):
    options = {"particles": Trap(far=tuple(range(3, 30))), "max_skipped": 4}
    message = (
        r"finite in the 4 epochs up to 6: the loss is inf.* gradient (nan|inf).*baseline=.*learning rate"
        rf".*clip_by_global_norm.*TruncatedPoints.*more steps.*saved in {tmp_path}"
    )
    with pytest.raises(bd.TrainingDivergedError, match=message) as caught:
        trapped(**options, epochs=20, directory=tmp_path)
    assert [record["skipped"] for record in read_log(tmp_path)] == [0, 0, 1, 2, 3, 4]
    saved = trapped(**options, epochs=6, directory=tmp_path, resume=True)
    kept = trapped(particles=Trap(), epochs=2)
    assert outcome(saved) == outcome(kept)
    assert parameters(caught.value) == parameters(kept)


def test_steps_that_leave_the_numbers_are_skipped():
    wild = optax.chain(optax.scale(1e300), optax.scale(1e300))
    solution = train(optimizer=wild, epochs=2)
    assert parameters(solution) == START
    assert list(solution.history["skipped"]) == [1, 2]


def test_ctrl_c_ends_with_what_has_been_reached(tmp_path, capfd):
    handler = signal.getsignal(signal.SIGINT)
    design = Trap(interrupted=(3,))
    stopped = trapped(particles=design, directory=tmp_path)
    (said,) = capfd.readouterr().err.splitlines()
    assert re.fullmatch(
        r"Ctrl-C: .*finishes this epoch, saves a checkpoint, and returns.*Press Ctrl-C again.*", said
    )
    assert list(stopped.history["epoch"]) == [1, 2, 3]
    assert saved_epochs(tmp_path) == [3]
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = train(particles=design, directory=tmp_path, resume=True)
    assert outcome(resumed) == outcome(trapped(particles=Trap()))

    class Insistent(Trap):
        def __call__(self, dimension, key=None):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super().__call__(dimension, key)

    capfd.readouterr()
    with pytest.raises(KeyboardInterrupt):
        train(particles=Insistent())
    assert signal.getsignal(signal.SIGINT) is handler
    # Nothing is saved without a directory.
    assert "finishes this epoch, and returns" in capfd.readouterr().err


@jax.jit
def long_computation(x):
    return jax.lax.fori_loop(0, 40_000_000, lambda i, y: jnp.sin(y) + 1e-3, x)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_is_answered_while_something_is_computed(presses, monkeypatch):
    """The message does not wait until XLA gives control back to Python."""
    said = []
    monkeypatch.setattr(tqdm, "write", lambda message, file: said.append((message, time.perf_counter())))
    compiled = long_computation.lower(1.0).compile()

    def press():
        for _ in range(presses):
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)

    ends = pytest.raises(KeyboardInterrupt) if presses == 2 else contextlib.nullcontext()
    with ends, interruptible("I heard you.") as interrupted:
        thread = threading.Thread(target=press)
        thread.start()
        compiled(1.0).block_until_ready()
        end = time.perf_counter()
        assert interrupted.is_set()
    thread.join()
    ((message, moment),) = said
    assert message == "I heard you."
    if presses == 1:
        assert moment < end - 0.3, "the computation was too short, or the message too late"


@pytest.fixture
def updates(caplog):
    """How often the update of an epoch was compiled so far."""
    with jax.log_compiles():
        yield lambda: sum("Compiling jit(update)" in record.getMessage() for record in caplog.records)


def test_the_update_is_compiled_once(updates):
    train(particles=5, epochs=4, validate_every=2)
    assert updates() == 1
    # Nor is it compiled for a second training with equal options.
    train(particles=5, epochs=2)
    assert updates() == 1


class Squares(bd.AbstractLeastSquares):
    """The same distance, for Gauss-Newton steps."""

    second_tangents = "none"
    through_flow = False
    min_determinant: float = 0.0

    def residuals(self, problem, score, t, ensemble):
        s = jax.vmap(score, in_axes=(None, 0))(t, ensemble.start)
        return jnp.sqrt(ensemble.weights)[:, None] * (s + 2 * (ensemble.start - jnp.cos(t)))

    def at(self, problem, score, t, ensemble):
        return jnp.sum(self.residuals(problem, score, t, ensemble) ** 2)


def test_two_equal_trainings_are_equal_solutions(updates):
    options = {"objective": Squares(), "optimizer": None, "epochs": 2}
    first, second = train(**options), train(**options)
    assert updates() == 1
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(first.method))
    assert outcome(first) == outcome(second)


def test_the_time_of_compilation_is_not_in_the_rate_of_the_bar(capfd):
    shown = Progress(0, 10, silent=False)
    time.sleep(0.5)
    for epoch in (1, 2, 3):
        shown.update(epoch, "")
    bar = shown._bar
    assert bar is not None
    assert bar.format_dict["elapsed"] < 0.25
    assert (bar.initial, bar.n) == (1, 3)
    shown.close()
    assert re.match(r"compiling … 0\.[5-9] s", capfd.readouterr().err)
    Progress(10, 10, silent=False).close()
    assert capfd.readouterr().err == ""


class Far(bd.AbstractDesign):
    """One of its points cannot be followed."""

    def __call__(self, dimension, key=None):
        points, weights = bd.SobolPoints(16)(dimension, key)
        points[0] = 1e60
        return points, weights


@pytest.mark.slow
def test_a_validation_that_loses_particles_is_told_once(tmp_path):
    with pytest.warns(
        UserWarning, match="after epoch 1 lost particles, so the log has no fisher, .*energy"
    ) as w:
        solution = train(
            problem=problem(other_well), validation_particles=Far(), validate_every=2, directory=tmp_path
        )
    assert [warning.filename for warning in w] == [str(Path(runs.__file__))]
    assert [record["epoch"] for record in read_log(tmp_path) if "energy" in record] == [1, 2, 4, 6]
    assert all(record.get("energy") is None for record in read_log(tmp_path))
    assert np.isnan(solution.history["energy"]).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"optimizer": "adam"}, "optimizer must be an optax transformation .* but 'adam'"),
        ({"optimizer": optax.adam}, "optimizer must be an optax transformation .* but <function adam"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, but 0"),
        ({"epochs": 1e3}, "epochs must be an integer of at least 1, but 1000.0"),
        ({"validate_every": 0}, "validate_every must be an integer of at least 1, but 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be an integer of at least 1, but 0"),
        ({"keep": 0}, "keep must be an integer of at least 1, but 0"),
        ({"max_skipped": -1}, "max_skipped must be an integer of at least 1, but -1"),
        ({"directory": 3}, "directory must be a path, but 3"),
        ({"resume": True}, "resume needs the directory"),
        ({"resume": 4}, "resume needs the directory"),
        ({"resume": 0, "directory": "x"}, "resume must be an integer of at least 1, but 0"),
        ({"resume": "yes", "directory": "x"}, "resume must be an integer of at least 1, but 'yes'.*True"),
    ],
)
def test_bad_options_are_named(options, match):
    with unchecked_types(), pytest.raises(ValueError, match=match):
        bd.Training(**({"epochs": 1} | options))


def train_network(**options):
    """A network on top of a Gaussian, on numbers of particles that two devices can't share evenly."""
    anharmonic = problem(other_well)
    baseline = bd.solve(anharmonic, bd.GaussianDynamics(steps=8))
    score = bd.NeuralScore(anharmonic, baseline=baseline, width=4, depth=1, frequencies=1, key=KEY)
    return train(
        problem=anharmonic,
        score=score,
        objective=bd.LogDensityVariance(),
        particles=15,
        validation_particles=11,
        validate_every=2,
        **options,
    )


def start(folder, code, **environment):
    """Another Python that runs `code`, a script in `folder` that has all names of this file."""
    script = folder / "script.py"
    script.write_text(
        'import jax\n\njax.config.update("jax_enable_x64", True)\n'
        f"from tests.training.test_training import *\n\n{code}\n"
    )
    root = str(Path(__file__).parents[2])
    with (folder / "errors").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, script],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONPATH": root} | environment,
        )


@pytest.mark.long
def test_two_devices_give_the_losses_of_one(tmp_path):
    process = start(
        tmp_path,
        "print(len(jax.devices()))\ntrain_network(directory=Path(__file__).parent)",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )
    one = train_network().history
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, (tmp_path / "errors").read_text()
    assert output == "2\n"
    two = read_log(tmp_path)
    assert len(two) == 6
    for name in ("loss", "gradient_norm", *VALIDATION):
        values = [record.get(name, np.nan) for record in two]
        np.testing.assert_allclose(values, one[name], rtol=1e-9, atol=1e-12, err_msg=name)


LONG = {"epochs": 60, "checkpoint_every": 2}


def wait_for(condition, process):
    end = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it could be killed"
    assert condition()


@pytest.mark.long
def test_ten_kills_and_a_ctrl_c_do_not_change_a_bit(tmp_path):
    """Killed during imports, compilation, epochs and the writing of checkpoints."""
    draw, run = random.Random(5), tmp_path / "run"
    log = run / "log.jsonl"
    code = f"print(outcome(train(**LONG, directory={str(run)!r}, resume=True)), flush=True)"

    def begin():
        # What one process has compiled the next need not, where no checks at run time call Python back.
        return start(
            tmp_path,
            code,
            JAX_COMPILATION_CACHE_DIR=str(tmp_path / "compiled"),
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
            EQX_ON_ERROR="off",
        )

    def lines():
        return log.read_text().count("\n") if log.exists() else 0

    def opened():
        return log.stat().st_ino if log.exists() else None

    epochs_at_kills = []
    for moment in ("epochs",) * 3 + ("import", "compile") * 2 + ("epochs",) * 2 + ("ctrl-c", "epochs"):
        process, file, done = begin(), opened(), lines()
        if moment == "import":
            time.sleep(draw.uniform(0.1, 2.0))
        elif moment == "compile":
            # The log is put in place anew just before.
            wait_for(lambda file=file: opened() != file, process)
            time.sleep(draw.uniform(0.0, 0.5))
        else:
            saved = max(saved_epochs(run), default=0) if done else 0
            wait_for(lambda saved=saved, file=file: opened() != file and lines() > saved, process)
            time.sleep(draw.uniform(0.0, 0.3))
        assert process.poll() is None
        process.send_signal(signal.SIGINT if moment == "ctrl-c" else signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
        if moment == "ctrl-c":
            assert process.returncode == 0, (tmp_path / "errors").read_text()
            assert len(output.strip()) == 64
            assert saved_epochs(run)[-1] == lines() < LONG["epochs"]
            stopped = lines()
        else:
            assert (process.returncode, output) == (-signal.SIGKILL, "")
        epochs_at_kills.append(lines())
    assert len(set(epochs_at_kills)) >= 5

    output, _ = (process := begin()).communicate(timeout=120)
    assert process.returncode == 0, (tmp_path / "errors").read_text()
    whole = train(**LONG, directory=tmp_path / "whole")
    assert output.strip() == outcome(whole)
    ours, exact = read_log(run), read_log(tmp_path / "whole")
    # Where it was stopped with Ctrl-C there is a validation more.
    assert ours[stopped - 1].keys() > VALIDATION
    ours[stopped - 1] = {name: ours[stopped - 1][name] for name in exact[stopped - 1]}
    assert ours == exact
    assert saved_epochs(run) == [56, 58, 60]

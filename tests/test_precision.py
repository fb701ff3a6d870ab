import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bohmdiff as bd

TS = np.array([0.0, 0.5])
PLACE = jnp.zeros(2, jnp.float32)


class Listener:
    """A potential that notes in which precision JAX would multiply matrices where it is evaluated."""

    def __init__(self):
        self.heard = set()

    def __call__(self, t, x):
        self.heard.add(jax.default_matmul_precision.value)
        return 0.5 * jnp.sum(x**2)


def setting():
    listener = Listener()
    hamiltonian = bd.Hamiltonian(listener)
    problem = bd.Problem(hamiltonian, bd.GaussianWavePacket(np.zeros(2, np.float32), 0.5), t1=0.5)
    listener.heard.clear()  # the constructors tried it
    return listener, problem


def score(t, x):
    return -2 * x


def rest(t, x):
    return 0 * x


def solve(problem, x):
    problem = eqx.tree_at(lambda p: p.initial.mean, problem, x)
    return bd.solve(problem, bd.SequentialScoreMatching(2, steps=2), ts=TS).mean()


def propagate(problem, x):
    return bd.propagate(problem, score, x[None], ts=TS, solver=bd.VelocityVerlet(), steps=2).position


def fisher_divergence(problem, x):
    x0 = jnp.stack([x, 2 * x])
    return bd.fisher_divergence(problem, score, x0, solver=bd.VelocityVerlet(), steps=2).value


# Traced, and not run: it takes a tenth of the time.
CALLS = {
    "solve": solve,
    "propagate": propagate,
    "fisher_divergence": fisher_divergence,
    "acceleration": lambda problem, x: bd.acceleration(problem.hamiltonian, score, 0.0, x),
    "velocity_residuals": lambda problem, x: bd.velocity_residuals(problem.hamiltonian, rest, rest, 0.0, x),
}


def traced(name, problem):
    jax.eval_shape(lambda x: CALLS[name](problem, x), PLACE)


@pytest.mark.parametrize("name", CALLS)
def test_on_a_gpu_products_have_all_digits(name, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    listener, problem = setting()
    traced(name, problem)
    assert listener.heard == {"highest"}
    assert jax.default_matmul_precision.value is None


def test_nelsons_process_has_all_digits(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    listener, problem = setting()
    # It asks no potential: here the velocity does.
    velocities = bd.Velocities(problem, score, lambda t, x: 0 * x + problem.hamiltonian.potential(t, x))
    bd.nelson_process(velocities, PLACE[None], key=jax.random.key(0), steps=2)
    assert listener.heard == {"highest"}


def test_what_the_user_chose_stays(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    listener, problem = setting()
    with jax.default_matmul_precision("tensorfloat32"):
        traced("acceleration", problem)
    assert listener.heard == {"tensorfloat32"}


def test_a_processor_is_left_alone(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    listener, problem = setting()
    traced("acceleration", problem)
    assert listener.heard == {None}


def test_moments_of_particles_have_all_digits(monkeypatch):
    solution = bd.solve(
        setting()[1], bd.GivenScore(score, bd.SobolPoints(4), steps=2), ts=TS, key=jax.random.key(0)
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for moment in ("mean", "std", "energy"):

        def of(weights, moment=moment):
            return getattr(eqx.tree_at(lambda s: s.particles.weights, solution, weights), moment)()

        assert_all_digits(of, solution.particles.weights)


INITIAL = {
    "GaussianWavePacket": lambda mean: bd.GaussianWavePacket(mean, 0.5),
    "GaussianMixture": lambda mean: bd.GaussianMixture([1.0, 1.0], jnp.stack([mean, mean + 1]), 0.5),
    "LogDensity": lambda mean: bd.LogDensity(lambda x: -jnp.sum(x**2), mean, 0.5),
}


@pytest.mark.parametrize("name", INITIAL)
def test_initial_states_have_all_digits(name, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    key = jax.random.key(0)
    for design in (bd.SobolPoints(4), bd.RandomPoints(4)):
        assert_all_digits(lambda mean, design=design: INITIAL[name](mean).particles(design, key)[0], PLACE)


def test_gauss_newton_steps_have_all_digits(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    optimizer = bd.scale_by_gauss_newton()

    def step(gradient):
        def rows(projections):
            return jnp.stack([gradient, 2 * gradient])

        return optimizer.update(gradient, optimizer.init(gradient), residual_rows=rows)[0]

    assert_all_digits(step, PLACE)


def assert_all_digits(function, x):
    text = str(jax.make_jaxpr(function)(x))
    assert text.count("dot_general") == text.count("HIGHEST, Precision.HIGHEST") > 0, text

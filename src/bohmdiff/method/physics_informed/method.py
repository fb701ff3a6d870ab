"""Physics-informed training: a neural wave function learns to solve the Schrödinger equation."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..._check import as_float, as_positive_integer, as_real_array, check_output
from ..._types import Field, Key, Points, Scalar, Times, Vector, Weights
from ...hamiltonian import Hamiltonian
from ...network import SpreadingFrame, trainable
from ...problem import Problem
from ...training import Training, as_training, scale_by_gauss_newton, training_keys
from .._pointwise import AbstractPointwiseLoss, AbstractPointwiseTask, Columns, Rows
from ..method import AbstractMethod
from .solution import WaveFunction, WaveFunctionSolution, WaveVelocity, parts_of


class PhysicsInformedNetwork(AbstractMethod):
    r"""Trains a wave function to solve the Schrödinger equation at points of time and space.

    The loss is the time average, by the clock of the problem, of
    $\int |\hbar^{-1}(i\hbar\,\partial_t\psi - H\psi)|^2\,dx$, times the square of the time that the clock takes,
    which makes it dimensionless. Because $H$ is self-adjoint, residuals add up and do not grow: if the start is
    exact, the distance $\|\psi - \psi_\text{exact}\|$ is at most the square root of the loss.

    The integral can be taken in two ways. Without a `box`, points lie on paths of Nelson's process with the
    velocities of ψ, so that their density becomes $|\psi|^2$ as ψ is learned, and the residual is divided by ψ.
    With a `box`, points are uniform in it, and ψ has to vanish on its walls.

    ```python
    psi = bd.NeuralWaveFunction(problem, width=8, key=key)
    method = bd.PhysicsInformedNetwork(
        psi, training=bd.Training(epochs=3), particles=32
    )
    solution = bd.solve(problem, method, key=key)
    solution.std(), solution.wave_function(0.5, x)
    ```

    **Arguments:**

    - `psi`: a module `(t, x) ->` complex number with arrays of real numbers as parameters, such as a
        [`NeuralWaveFunction`][bohmdiff.NeuralWaveFunction].
    - `training`: the optimizer, the number of epochs, log and checkpoints: a [`Training`][bohmdiff.Training].
        The default optimizer takes clipped Gauss-Newton steps with a rate that rises to one half in ten epochs.
    - `particles`: the number of points in an epoch, each at its own time.
    - `box`: the lower and the upper ends, two numbers or two arrays of shape `(d,)`, for points that are uniform
        between them.
    - `steps`: the number of steps of a path, equal by the clock of the problem; not used with a `box`.
    - `initial_weight`: the weight of $\int|\psi(t_0) - \psi_0|^2\,dx$, evaluated at the starts of the paths, or
        at uniform points. It has no effect on networks with an exact start.
    - `boundary_weight`: the weight of the mean of $|\psi|^2$ on the walls of the box, times its volume.
    - `validation_particles`: the number of points at which validations evaluate the loss. Their random numbers
        are drawn once; points on paths move with ψ.

    **Units:** those of the problem; the loss has none. Moments have the shape `(K, d)`.

    **Returns** from [`solve`][bohmdiff.solve]: a [`WaveFunctionSolution`][bohmdiff.WaveFunctionSolution].

    **Raises:** `ValueError` for bad options, a ψ without parameters, and checkpoints that are damaged or
    belong to another run; [`TrainingDivergedError`][bohmdiff.TrainingDivergedError] if updates are no longer
    finite or the flow of ψ loses particles,
    [`TrainingNotSavedError`][bohmdiff.TrainingNotSavedError] if log or checkpoint cannot be written, both
    with ψ as `fitted`.

    ??? cite "Reference"

        M. Raissi, P. Perdikaris and G. E. Karniadakis, *Physics-informed neural networks*, J. Comput. Phys. 378,
        686 (2019).
    """

    psi: WaveFunction
    training: Training = eqx.field(kw_only=True)
    particles: int = eqx.field(default=512, static=True)
    box: tuple[Array, Array] | None = eqx.field(default=None, converter=lambda box: _as_box(box))
    steps: int = eqx.field(default=32, static=True)
    initial_weight: float = eqx.field(
        default=1.0, static=True, converter=lambda v: as_float(v, "initial_weight")
    )
    boundary_weight: float = eqx.field(
        default=1.0, static=True, converter=lambda v: as_float(v, "boundary_weight")
    )
    validation_particles: int = eqx.field(default=256, static=True)

    def __check_init__(self):
        if not callable(self.psi):
            raise ValueError(
                f"psi must be a callable psi(t, x) -> complex number, but {self.psi!r} was given."
            )
        if not any(jax.tree.leaves(trainable(self.psi))):
            raise ValueError(
                "psi has no parameters to train: it must have arrays of real numbers outside frozen modules. "
                "Pass a module such as NeuralWaveFunction(problem, key=key)."
            )
        as_training(self.training)
        for name in ("particles", "validation_particles"):
            as_positive_integer(getattr(self, name), name, "Pass a number of points.")
        as_positive_integer(self.steps, "steps", "Pass the number of steps of a path.")
        for name in ("initial_weight", "boundary_weight"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must not be negative, but {value!r} was given.")

    def run(self, problem: Problem, ts: Times, *, key: Key | None, progress: bool) -> WaveFunctionSolution:
        keys = training_keys(key, "particles")
        d = problem.dimension
        check_output(self.psi, (problem.t0, jnp.zeros(d, problem.dtype)), (), "psi", complex_valued=True)
        task = _Task(
            problem=problem,
            frame=SpreadingFrame.of(problem),
            box=_box_of(self.box, problem),
            method=self,
            validation_key=keys.validation,
            design_key=keys.solution,
        )
        return task.solved(self.psi, self.training, ts, keys, progress)


@cache
def default_optimizer() -> optax.GradientTransformation:
    """Always the same object, because compiled code is cached for each optimizer object."""
    return optax.chain(
        scale_by_gauss_newton(damping=1e-4, decay=0.7),
        optax.clip_by_global_norm(30.0),
        optax.scale_by_learning_rate(optax.linear_schedule(0.05, 0.5, 10)),
    )


class SchroedingerLoss(AbstractPointwiseLoss):
    """The residuals of the Schrödinger equation, of the initial state, and of ψ = 0 on the walls."""

    problem: Problem
    frame: SpreadingFrame
    box: tuple[Vector, Vector] | None
    fixed: PyTree
    initial_weight: float
    boundary_weight: float
    outlier_scale: float = math.inf

    def residuals(self, parameters: PyTree, point: Columns) -> Float[Array, " components"]:
        psi = eqx.combine(parameters, self.fixed)
        problem, d = self.problem, self.problem.dimension
        t, x, x0, wall = point[0], point[1 : 1 + d], point[1 + d : 1 + 2 * d], point[1 + 2 * d :]
        value, missing = schroedinger_residual(problem.hamiltonian, psi, t, x)
        missing = self.frame.pace(t) / problem.hamiltonian.hbar * missing
        started = parts_of(psi(jnp.asarray(problem.t0, t.dtype), x0))
        logarithm = jax.lax.complex(
            0.5 * problem.initial.log_density(x0), problem.initial.phase(x0) / problem.hamiltonian.hbar
        )
        start = parts_of(jnp.exp(logarithm))
        of_start, of_boundary = self.initial_weight**0.5, self.boundary_weight**0.5
        if self.box is None:
            return jnp.concatenate([_ratio(missing, value), of_start * _ratio(started - start, start)])
        lower, upper = self.box
        root = jnp.sqrt(jnp.prod(upper - lower))
        outside = parts_of(psi(t, wall))
        return root * jnp.concatenate([missing, of_start * (started - start), of_boundary * outside])


def schroedinger_residual(
    hamiltonian: Hamiltonian, psi: WaveFunction, t: Scalar, x: Vector
) -> tuple[Float[Array, " 2"], Float[Array, " 2"]]:
    r"""Real and imaginary part of $\psi$, and of $i\hbar\,\partial_t\psi - H\psi$."""

    def parts(t: Scalar, y: Vector) -> Array:
        return parts_of(psi(t, y))

    def curvature(direction: Vector) -> Array:
        def slope(y: Vector) -> Array:
            return jax.jvp(lambda z: parts(t, z), (y,), (direction,))[1]

        return jax.jvp(slope, (x,), (direction,))[1]

    d = x.shape[0]
    mass, hbar = hamiltonian.masses(d), hamiltonian.hbar
    value, rate = jax.jvp(lambda s: parts(s, x), (t,), (jnp.ones_like(t),))
    curvatures = jax.vmap(curvature)(jnp.eye(d, dtype=x.dtype))
    kinetic = -0.5 * hbar**2 * (1 / mass) @ curvatures
    turned = jnp.stack([-rate[1], rate[0]])
    return value, hbar * turned - kinetic - hamiltonian.potential(t, x) * value


def _ratio(above: Array, below: Array) -> Array:
    """The ratio of two complex numbers, given by their parts."""
    real, imaginary = above @ below, above[1] * below[0] - above[0] * below[1]
    return jnp.stack([real, imaginary]) / (below @ below)


class _Task(AbstractPointwiseTask):
    """Points on paths of the process of ψ, or in the box."""

    advice: ClassVar[str] = (
        "ψ has nodes where particles are, or is too rough. Lower the learning rate, clip the steps "
        "(optax.clip_by_global_norm), raise the damping of Gauss-Newton, or pass a box."
    )

    problem: Problem
    frame: SpreadingFrame
    box: tuple[Vector, Vector] | None
    method: PhysicsInformedNetwork
    validation_key: Key
    design_key: Key

    def default_optimizer(self, epochs: int) -> optax.GradientTransformation:
        return default_optimizer()

    def loss(self, fixed: PyTree) -> SchroedingerLoss:
        method = self.method
        return SchroedingerLoss(
            problem=self.problem,
            frame=self.frame,
            box=self.box,
            fixed=fixed,
            initial_weight=method.initial_weight,
            boundary_weight=method.boundary_weight,
        )

    def carry(self) -> None:
        return None

    def draw(self, trained: PyTree, carry: None, epoch: int, key: Key) -> tuple[None, Points, Weights]:
        points = self.collocation(trained, self.method.particles, key)
        return None, points, jnp.full(self.method.particles, 1 / self.method.particles, points.dtype)

    def collocation(self, trained: PyTree, number: int, key: Key) -> Rows:
        if self.box is not None:
            return _in_box(self.frame, self.box, number, key)
        return self.on_paths(trained, number, key)

    def velocities(self, trained: PyTree) -> tuple[Field, Field]:
        hamiltonian = self.problem.hamiltonian
        return WaveVelocity(hamiltonian, trained, "osmotic"), WaveVelocity(hamiltonian, trained, "current")

    def solution(
        self, trained: PyTree, ts: Times, x0: Points, weights: Weights, history: dict[str, Array]
    ) -> WaveFunctionSolution:
        return WaveFunctionSolution.of(self.problem, self.method, ts, trained, x0, weights, history)

    def settings(self) -> dict[str, Any]:
        names = ("particles", "box", "steps", "initial_weight", "boundary_weight")
        return {name: getattr(self.method, name) for name in names}

    def functions(self, trained: PyTree) -> dict[str, tuple[str, Callable[..., Array]]]:
        return {"psi": (type(trained).__name__, trained)}


@eqx.filter_jit
def _in_box(frame: SpreadingFrame, box: tuple[Vector, Vector], number: int, key: Key) -> Rows:
    """Times, uniform by the clock, and uniform places inside the box, at the start, and on the walls."""
    lower, upper = box
    time_key, place_key, side_key = jax.random.split(key, 3)
    t = jax.vmap(frame.time_at)(jax.random.uniform(time_key, (number,), lower.dtype))
    places = jax.random.uniform(place_key, (3, number, lower.size), lower.dtype)
    side = jax.random.randint(side_key, (number,), 0, 2 * lower.size)
    walls = places[2].at[jnp.arange(number), side // 2].set((side % 2).astype(lower.dtype))
    inside, start, walls = lower + (upper - lower) * places.at[2].set(walls)
    return jnp.concatenate([t[:, None], inside, start, walls], axis=1)


def _as_box(box: Any) -> tuple[Array, Array] | None:
    if box is None:
        return None
    if not isinstance(box, tuple | list) or len(box) != 2:
        raise ValueError(f"box must be a pair of lower and upper ends, or None, but {box!r} was given.")
    lower, upper = (as_real_array(end, "box") for end in box)
    if lower.ndim > 1 or upper.ndim > 1 or not jnp.all(lower < upper):
        raise ValueError(
            f"box must have lower ends below the upper ones, numbers or one for each coordinate, but {box!r} "
            "was given."
        )
    return lower, upper


def _box_of(box: tuple[Array, Array] | None, problem: Problem) -> tuple[Vector, Vector] | None:
    """The box with ends for each coordinate."""
    if box is None:
        return None
    d = problem.dimension
    if any(end.shape not in ((), (1,), (d,)) for end in box):
        raise ValueError(
            f"box must have ends of shape () or ({d},) for this problem, but {box[0].shape} and {box[1].shape} "
            "were given."
        )
    lower, upper = (jnp.broadcast_to(end, (d,)).astype(problem.dtype) for end in box)
    return lower, upper

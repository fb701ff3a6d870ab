"""What can go wrong after the input was found good. Bad input is a `ValueError` or a `TypeError`."""

from typing import Any


class BohmdiffError(RuntimeError):
    """The base class of the errors that bohmdiff raises when a calculation fails, as opposed to bad input.

    ```python
    try:
        solution = bd.solve(problem, bd.GaussianDynamics(steps=50))
    except bd.BohmdiffError as error:
        print(error)
    ```
    """


class UnavailableError(BohmdiffError):
    """A solution was asked for a quantity that its method cannot give.

    ```python
    try:
        amplitude = solution.wave_function(0.5, x)
    except bd.UnavailableError:
        amplitude = jnp.exp(0.5 * solution.log_density(0.5, x))
    ```
    """


class ParticlesLostError(BohmdiffError):
    """Particles became infinite or NaN on their way.

    ```python
    try:
        flow = bd.propagate(
            problem, score, x0, solver=bd.BlanesMoan4(), steps=32
        )
    except bd.ParticlesLostError as error:
        print(error)
    ```
    """


class DegenerateFitError(BohmdiffError):
    """The linear system of the score fit became singular.

    ```python
    try:
        solution = bd.solve(problem, bd.SequentialScoreMatching(degree=8))
    except bd.DegenerateFitError:
        solution = bd.solve(problem, bd.SequentialScoreMatching(degree=4))
    ```
    """


class NotFiniteError(BohmdiffError):
    """A wave function, a potential or the path of a packet became infinite or NaN during a calculation.

    ```python
    try:
        solution = bd.solve(problem, bd.GaussianDynamics())
    except bd.NotFiniteError as error:
        print(error)
    ```
    """


class ToleranceNotReachedError(BohmdiffError):
    """[`AutomaticDegree`][bohmdiff.AutomaticDegree] found no degree that meets its tolerance.

    ```python
    try:
        solution = bd.solve(
            problem, bd.AutomaticDegree(tolerance=1e-9, largest=4)
        )
    except bd.ToleranceNotReachedError as error:
        solution = error.solution
    ```

    - `solution`: the best solution found, or `None`.
    """

    def __init__(self, message: str, solution: Any):
        super().__init__(message)
        self.solution = solution


class ElectronicStructureError(BohmdiffError):
    r"""The electronic structure of a molecule, or its minimum, was not found.

    ```python
    hydrogen = "H 0.0 0.0 0.0\nH 0.0 0.0 0.7"
    try:
        modes = bd.NormalModes.from_geometry(
            hydrogen,
            method="hf",
            basis="sto-3g",
            optimize=True,
            cache="cache",
        )
    except bd.ElectronicStructureError as error:
        print(error)
    ```
    """


class TrainingError(BohmdiffError):
    """A training ended early.

    ```python
    training = bd.Training(optax.adam(1e-3), epochs=2)
    method = bd.SelfConsistentScoreMatching(
        score, training=training, particles=32, steps=4
    )
    try:
        trained = bd.solve(problem, method, key=key).fitted
    except bd.TrainingError as error:
        trained = error.fitted
    ```

    - `fitted`: the parameters reached so far, in the module that was trained.
    """

    def __init__(self, message: str, fitted: Any):
        super().__init__(message)
        self.fitted = fitted


class TrainingDivergedError(TrainingError):
    """Too many updates in a row were not finite, or the trained flow loses particles.

    ```python
    training = bd.Training(optax.adam(1e-3), epochs=2)
    method = bd.SelfConsistentScoreMatching(
        score, training=training, particles=32, steps=4
    )
    try:
        trained = bd.solve(problem, method, key=key).fitted
    except bd.TrainingDivergedError as error:
        trained = error.fitted
    ```

    - `fitted`: the module after the last finite update.
    """


class TrainingNotSavedError(TrainingError):
    """The log or a checkpoint could not be written, for example because the disk is full. Earlier checkpoints are
    complete.

    ```python
    training = bd.Training(optax.adam(1e-3), epochs=2)
    method = bd.SelfConsistentScoreMatching(
        score, training=training, particles=32, steps=4
    )
    try:
        trained = bd.solve(problem, method, key=key).fitted
    except bd.TrainingNotSavedError as error:
        trained = error.fitted
    ```

    - `fitted`: the module as it was then.
    """

"""Two solutions of one problem, side by side."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._errors import UnavailableError
from .._precision import in_full_precision
from .._types import Scalar
from ..wavepacket import SobolPoints
from .solution import Solution, as_solution, same_times

_DENSITY_POINTS = 1024
_WIDER = 1.25  # so that the Gaussian from which the density is probed covers the tails


class Comparison(eqx.Module):
    """What [`compare`][bohmdiff.compare] returns; printed, it is a table.

    ```python
    comparison = bd.compare(solution, exact)
    comparison.std_rms, comparison.divergence
    ```

    - `mean_rms`, `std_rms`: root-mean-square error over the saved times, for each coordinate, shape `(d,)`.
    - `mean_max`, `std_max`: the largest error at any saved time, shape `(d,)`.
    - `energy_rms`, `energy_max`: the same for the mean energy, scalars.
    - `divergence`: the Kullback–Leibler divergence of the solution's density from the reference's at the
        last saved time, both normalised, in nats, or `None` where one of them has no density.
    - `normalisation`: the integral of the solution's density then, relative to that of the reference, or `None`.
    - `failed`: the figures of each solution that exceed their limits, as text.
    """

    solution: str
    reference: str
    mean_rms: Float[Array, " d"]
    std_rms: Float[Array, " d"]
    mean_max: Float[Array, " d"]
    std_max: Float[Array, " d"]
    energy_rms: Scalar
    energy_max: Scalar
    divergence: Scalar | None
    normalisation: Scalar | None
    failed: tuple[str, ...]

    def __str__(self) -> str:
        rows = [
            (f"{name} of x{i + 1}", rms[i], largest[i])
            for name, rms, largest in (
                ("mean", self.mean_rms, self.mean_max),
                ("std", self.std_rms, self.std_max),
            )
            for i in range(rms.shape[0])
        ]
        rows.append(("energy", self.energy_rms, self.energy_max))
        lines = [
            f"{self.solution} against {self.reference}",
            f"{'error in':<14}{'rms over time':>14}{'largest':>12}",
            *(f"{name:<14}{float(rms):>14.1e}{float(largest):>12.1e}" for name, rms, largest in rows),
        ]
        last = "not available" if self.divergence is None else f"{float(self.divergence):.1e} nats"
        lines.append(f"density at the last time, Kullback-Leibler divergence: {last}")
        if self.normalisation is not None:
            lines.append(f"integral of that density: {float(self.normalisation):.4g}")
        return "\n".join([*lines, *(f"may be wrong: {one}" for one in self.failed)])


@in_full_precision
def compare(solution: Solution, reference: Solution) -> Comparison:
    r"""How far one solution is from another of the same problem.

    ```python
    print(bd.compare(solution, exact))
    ```

    **Arguments:**

    - `solution`: what is to be judged.
    - `reference`: what it is judged by; both saved at the same times.

    **Units:** errors in those of the problem, the divergence in nats.

    **Returns:** a [`Comparison`][bohmdiff.Comparison]. The divergence is
    $E_{\rho_\text{ref}}[\ln\rho_\text{ref} - \ln\rho]$ at the last saved time, by importance sampling from
    a Gaussian with 1024 Sobol points, so it is no more accurate than about 1e-3 of itself. Both densities are
    normalised on these points, since those of fitted and trained scores need not integrate to one;
    `normalisation` is that integral.

    **Raises:** `ValueError` if the dimensions or the saved times differ.
    """
    solution, reference = as_solution(solution, "solution"), as_solution(reference, "reference")
    if solution.problem.dimension != reference.problem.dimension:
        raise ValueError(
            f"The solutions have {solution.problem.dimension} and {reference.problem.dimension} "
            "coordinates; compare two solutions of the same problem."
        )
    if not same_times(solution, reference):
        raise ValueError(
            "The solutions are saved at different times: pass the same ts=... to solve for both."
        )
    mean = jnp.abs(solution.mean() - reference.mean())
    std = jnp.abs(solution.std() - reference.std())
    energy = jnp.abs(solution.energy() - reference.energy())
    divergence, normalisation = _divergence(solution, reference) or (None, None)
    return Comparison(
        solution=type(solution.method).__name__,
        reference=type(reference.method).__name__,
        mean_rms=_rms(mean),
        std_rms=_rms(std),
        mean_max=jnp.max(mean, axis=0),
        std_max=jnp.max(std, axis=0),
        energy_rms=_rms(energy),
        energy_max=jnp.max(energy),
        divergence=divergence,
        normalisation=normalisation,
        failed=tuple(
            f"{type(one.method).__name__}, {name} {figure}"
            for one in (solution, reference)
            for name, figure in one.diagnostics.failed().items()
        ),
    )


def _rms(errors: Array) -> Array:
    return jnp.sqrt(jnp.mean(errors**2, axis=0))


def _divergence(solution: Solution, reference: Solution) -> tuple[Scalar, Scalar] | None:
    """The divergence of the normalised densities, and the ratio of their integrals."""
    d, t = reference.problem.dimension, reference.ts[-1]
    mean, std = reference.mean()[-1], _WIDER * reference.std()[-1]
    normal, _ = SobolPoints(_DENSITY_POINTS)(d, jax.random.key(0))
    normal = jnp.asarray(normal, mean.dtype)
    x = mean[None] + std[None] * normal
    try:
        log_reference = jax.vmap(lambda y: reference.log_density(t, y))(x)
        log_density = jax.vmap(lambda y: solution.log_density(t, y))(x)
    except UnavailableError:
        return None
    log_proposal = -0.5 * jnp.sum(normal**2, axis=1)
    ours, theirs = log_density - log_proposal, log_reference - log_proposal
    weights = jax.nn.softmax(theirs)
    excess = jax.nn.log_softmax(theirs) - jax.nn.log_softmax(ours)
    ratio = jnp.exp(jax.nn.logsumexp(ours) - jax.nn.logsumexp(theirs))
    return jnp.sum(jnp.where(weights > 0, weights * excess, 0)), ratio

"""The drift of the mean energy that a wrong score causes."""

import jax
import jax.numpy as jnp

from .._types import Scalar, Time
from ..problem import Problem
from ..score import AbstractScore
from .objective import AbstractObjective, Ensemble, determinant_limit, mean, own_score, target_limit


class EnergyDrift(AbstractObjective):
    r"""The square of the rate at which the mean energy drifts because the score is wrong.

    The mean of $\tfrac12 m v^2 + V + Q_\theta$ over the particles changes at the rate
    $E_\rho[\partial_t V] + E_\rho[\partial_t Q_\theta]$. The second part is an artefact of the score. Integrated
    by parts it is

    $$ E_\rho[\partial_t Q_\theta] = -\sum_i \frac{\hbar^2}{4 m_i}\, E_\rho[(s_\theta - s_\rho)_i\,
    \partial_t s_{\theta,i}], $$

    which vanishes for every exact score, and for many others: it is only one condition for each time. Added
    to the Fisher divergence, it shifts the errors of the network to where they do not change the energy. It
    needs `d` second tangents, as the Fisher divergence does.

    ```python
    objective = bd.FisherDivergence() + 100.0 * bd.EnergyDrift()
    ```

    **Arguments:**

    - `min_determinant`, `max_target`: as for [`FisherDivergence`][bohmdiff.FisherDivergence].

    **Units:** (energy / time)².

    **Raises:** `ValueError` for a negative `min_determinant`.
    """

    second_tangents = "all"

    min_determinant: float = determinant_limit()
    max_target: float = target_limit()

    def at(self, problem: Problem, score: AbstractScore, t: Time, ensemble: Ensemble) -> Scalar:
        hamiltonian = problem.hamiltonian

        def along(t: Time):
            return jax.vmap(score, in_axes=(None, 0))(t, ensemble.position.motion)

        s, rate = jax.jvp(along, (t,), (jnp.ones_like(t),))
        error = s - own_score(problem, ensemble, self.max_target)
        power = jnp.sum(error * rate / hamiltonian.masses(problem.dimension), axis=1)
        return (0.25 * hamiltonian.hbar**2 * mean(ensemble, power)) ** 2

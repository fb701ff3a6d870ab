"""Rules that select the products of one-dimensional polynomials in a fit."""

from abc import abstractmethod

import equinox as eqx
import numpy as np

from .._check import as_positive_integer


class AbstractBasis(eqx.Module):
    """A rule that selects the polynomials of bounded total degree that a fit may use.

    Each is a product of one polynomial $h_{\\alpha_i}$ for each coordinate $\\xi_i$, and the rule receives
    the degrees $\\alpha_i$. The coordinates are those of the frame that moves with the ensemble:
    $\\xi = L^{-1}(x - \\mu)$ with the Cholesky factor $L$ of its covariance. For a chain they are nearly as
    local as $x$.

    ```python
    class AroundTheFirst(bd.AbstractBasis):
        def allows(self, places, degrees, degree):
            return 0 in places or degrees.sum() <= 2
    ```
    """

    @abstractmethod
    def allows(self, places: np.ndarray, degrees: np.ndarray, degree: int) -> bool:
        """Whether a fit may use the product.

        **Arguments:**

        - `places`: the coordinates in the product, in increasing order, shape `(k,)`.
        - `degrees`: the degree in each of them, at least 1 each, shape `(k,)`.
        - `degree`: the largest total degree, which need not be checked here.

        A product is used if the rule allows it and all products with a lower degree in one of the
        coordinates. Degrees 1 and 2 of each coordinate alone must be allowed.
        """


class TotalDegree(AbstractBasis):
    """All polynomials up to the total degree. The fit does not depend on the choice of coordinates.

    ```python
    bd.SequentialScoreMatching(degree=4, basis=bd.TotalDegree())
    ```
    """

    def allows(self, places, degrees, degree):
        return True


class Interactions(AbstractBasis):
    """Polynomials of a few coordinates each, optionally only of neighbours.

    With pairs, the number of polynomials grows with the square of the number of coordinates; with pairs of
    neighbours it grows linearly, for any degree.

    ```python
    bd.SequentialScoreMatching(
        degree=4, basis=bd.Interactions(order=2, reach=1)
    )
    ```

    **Arguments:**

    - `order`: the largest number of coordinates in one polynomial: 1 is a product of one-dimensional
        densities in the frame, 2 includes pairs.
    - `reach`: their largest distance in the numbering of the coordinates; any distance if not given.

    **Units:** none; both are counts.

    **Raises:** `ValueError` for numbers that are not positive integers.
    """

    order: int = eqx.field(
        default=2,
        static=True,
        converter=lambda n: as_positive_integer(n, "order", "Pass the largest number of coordinates."),
    )
    reach: int | None = eqx.field(
        default=None,
        static=True,
        converter=lambda n: (
            n if n is None else as_positive_integer(n, "reach", "Pass the largest distance, or None.")
        ),
    )

    def allows(self, places, degrees, degree):
        near = self.reach is None or places[-1] - places[0] <= self.reach
        return len(places) <= self.order and bool(near)


class HyperbolicCross(AbstractBasis):
    r"""Polynomials with $\prod_i (\alpha_i + 1) \le \mathrm{degree} + 1$: high degrees in one coordinate, low
    degrees in products of many coordinates.

    ```python
    bd.SequentialScoreMatching(degree=6, basis=bd.HyperbolicCross())
    ```
    """

    def allows(self, places, degrees, degree):
        return bool(np.prod(degrees + 1) <= degree + 1)

"""Tests for your own parts: laws that report what is wrong, and hypothesis strategies with known answers.

Needs hypothesis: `pip install hypothesis`.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as error:
    raise ImportError("bohmdiff.testing needs hypothesis: pip install hypothesis") from error

from .driven_gaussian import DrivenGaussian as DrivenGaussian
from .driven_gaussian import Moments as Moments
from .law import LawError as LawError
from .method import check_method as check_method
from .potential import check_potential as check_potential
from .score import check_score as check_score
from .solution import check_solution as check_solution
from .solver import check_solver as check_solver
from .strategies import driven_gaussians as driven_gaussians
from .strategies import gaussian_wave_packets as gaussian_wave_packets
from .strategies import positive_definite_matrices as positive_definite_matrices
from .strategies import potentials as potentials
from .strategies import quadratic_potentials as quadratic_potentials
from .strategies import scores as scores
from .strategies import symmetric_matrices as symmetric_matrices
from .strategies import vectors as vectors

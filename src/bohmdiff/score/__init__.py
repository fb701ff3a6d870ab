from .hermite import HermiteExpansion as HermiteExpansion
from .hermite import HermiteFit as HermiteFit
from .hermite import HermiteScore as HermiteScore
from .hermite import fit_hermite as fit_hermite
from .hermite_basis import basis_size as basis_size
from .score import AbstractScore as AbstractScore
from .score import GradientScore as GradientScore

from .compare import Comparison as Comparison
from .compare import compare as compare
from .ensemble import EnsembleSolution as EnsembleSolution
from .flow import FlowSolution as FlowSolution
from .gaussian import GaussianSolution as GaussianSolution
from .grid import GridSolution as GridSolution
from .solution import Solution as Solution
from .solution import UnavailableError as UnavailableError

from .method import GaussianDynamics as GaussianDynamics
from .solution import GaussianSolution as GaussianSolution

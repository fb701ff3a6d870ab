from .gaussian_dynamics import GaussianDynamics as GaussianDynamics
from .method import AbstractMethod as AbstractMethod
from .method import solve as solve
from .sequential import DegenerateFitError as DegenerateFitError
from .sequential import SequentialScoreMatching as SequentialScoreMatching
from .split_operator import SplitOperator as SplitOperator

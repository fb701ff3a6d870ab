from .method import GivenScore as GivenScore
from .solution import FlowSolution as FlowSolution

from .method import HermiteFunctions as HermiteFunctions
from .solution import HermiteSolution as HermiteSolution

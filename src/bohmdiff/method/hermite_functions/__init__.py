from .method import HermiteFunctions as HermiteFunctions
from .solution import HermiteSolution as HermiteSolution
from .state import HermiteState as HermiteState

from .method import SplitOperator as SplitOperator
from .solution import GridSolution as GridSolution
from .tabulated import TabulatedWaveFunction as TabulatedWaveFunction

from .absorber import ComplexAbsorber as ComplexAbsorber
from .method import SplitOperator as SplitOperator
from .solution import GridSolution as GridSolution

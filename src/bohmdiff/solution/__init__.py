from .compare import Comparison as Comparison
from .compare import compare as compare
from .solution import Solution as Solution
from .solution import as_solution as as_solution
from .solution import place as place
from .solution import within_span as within_span

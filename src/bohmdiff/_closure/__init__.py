"""Plain functions as modules: code is static, the numbers that it closes over are leaves.

`jax.jit` compiles once for each plain function, even where two differ by a number only:
`lambda t, x: c * x[0] ** 2` compiles anew for each `c`. `as_module` takes a function apart into its code and
the values that the code can reach: closure cells, global names that it loads, default arguments, and the
functions among these in turn. Numbers and arrays become leaves. All else becomes a *recipe*: nested tuples that
compare by value. A call builds the function again from both. Functions with equal recipes share one program.

A recipe is complete: whatever can change the result of a call is a leaf, or takes part in the comparison. An
object that can't be compared by value gets a number of its own, so that nothing is shared.
"""

from ._function import ClosedFunction as ClosedFunction
from ._function import as_module as as_module
from ._function import name_of as name_of
from ._function import settled as settled
from ._values import off as off
from ._values import uniform_places as uniform_places
from ._values import values_at as values_at

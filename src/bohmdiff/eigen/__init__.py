from .eigen import eigenstates as eigenstates
from .eigen import ground_state as ground_state

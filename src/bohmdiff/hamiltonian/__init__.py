from .hamiltonian import Hamiltonian as Hamiltonian

from .fisher import FisherReport as FisherReport
from .fisher import fisher_divergence as fisher_divergence

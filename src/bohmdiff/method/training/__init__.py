from .gauss_newton import scale_by_gauss_newton as scale_by_gauss_newton
from .record import text_of as text_of
from .training import AbstractTask as AbstractTask
from .training import AbstractTrainedMethod as AbstractTrainedMethod
from .training import Trained as Trained
from .update import AbstractLoss as AbstractLoss
from .update import TrainingDivergedError as TrainingDivergedError
from .update import TrainingNotSavedError as TrainingNotSavedError

from .matrices import WeightMatrix as WeightMatrix
from .matrices import Weights as Weights
from .matrices import read_vector as read_vector
from .matrices import read_weights as read_weights
from .stored_tensors import WeightsError as WeightsError
from .tensor_names import bare_name as bare_name
from .tensor_names import match_names as match_names

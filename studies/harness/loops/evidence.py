"""The evidence of a trained network by a Laplace approximation with Kronecker factors.

Immer et al. 2021, "Scalable marginal likelihood estimation for model selection in deep learning":
the prior's precision, one for all weights, is the one of highest evidence. By the package
`laplace-torch`, which only this needs.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def laplace_evidence(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Negative log evidence per training example, in nats; lower is better.

    Args:
        model: trained, for classes.
        x: training inputs, examples first.
        y: their classes, (examples,).

    Raises:
        ModuleNotFoundError: without the package.
    """
    from laplace import Laplace

    model.eval()
    approximation = Laplace(
        model, "classification", subset_of_weights="all", hessian_structure="kron"
    )
    approximation.fit(DataLoader(TensorDataset(x, y), batch_size=500))
    approximation.optimize_prior_precision(method="marglik")
    return -float(approximation.log_marginal_likelihood()) / len(x)

"""The gradient regularization function psi: it bends a soft prompt's gradient towards directions that generalize.

psi(g, e) = (1 - z) * rescale(h(g)) + z * g, with h a stack of low-rank layers over the rows of g and z a
coefficient computed from e, the mean encoder state of the batch that gave g. Source: released code
(`model/grad_trans.py`). Two corrections are the default: the last layer has no ReLU (with it, h is never negative
and the learned branch can only push every coordinate down) and layers start near the identity.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metashot.metaprompt.meta.config import LayerInit, RegularizerConfig, Rescale

_ROW_EPSILON = 1e-8
_NEAR_IDENTITY_SCALE = 0.01


def row_norm(matrix: Float[Tensor, "*tasks P d"]) -> Float[Tensor, "*tasks P 1"]:
    """L2 norm of each row: [..., rows, d] -> [..., rows, 1]."""
    return torch.linalg.vector_norm(matrix, dim=-1, keepdim=True)


def rescale_like(
    direction: Float[Tensor, "*tasks P d"], reference: Float[Tensor, "*tasks P d"], variant: Rescale
) -> Float[Tensor, "*tasks P d"]:
    """`direction` with the size of `reference`, both [..., P, d].

    A direction of size zero stays zero (the released code gives NaN for the last three variants).
    """
    if variant is Rescale.ROW_L2:
        return direction / (row_norm(direction) + _ROW_EPSILON) * (row_norm(reference) + _ROW_EPSILON)
    size = {
        Rescale.MATRIX_L2: lambda x: torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True),
        Rescale.ROW_L1: lambda x: x.abs().mean(dim=-1, keepdim=True),
        Rescale.MATRIX_L1: lambda x: x.abs().mean(dim=(-2, -1), keepdim=True),
    }[variant]
    smallest = torch.finfo(direction.dtype).tiny
    return direction / size(direction).clamp_min(smallest) * size(reference)


def combine(
    gradient: Float[Tensor, "*tasks P d"],
    direction: Float[Tensor, "*tasks P d"],
    coefficient: Float[Tensor, "*tasks"],
) -> Float[Tensor, "*tasks P d"]:
    """(1 - z) * direction + z * gradient, for [..., P, d] tensors and a coefficient z of shape [...].

    z = 1 gives back `gradient` itself.
    """
    weight = coefficient[..., None, None]
    return (1 - weight) * direction + weight * gradient


class LowRankLayer(nn.Module):
    """x -> act(x V^T U^T + b), plus x where `residual`; U [d, r], V [r, d], b [d] starts at 0."""

    def __init__(self, width: int, rank: int, *, activation: bool, residual: bool, init: LayerInit) -> None:
        super().__init__()
        rank = min(rank, width)
        self.activation = activation
        self.residual = residual
        self.u = nn.Parameter(torch.empty(width, rank))
        self.v = nn.Parameter(torch.empty(rank, width))
        self.bias = nn.Parameter(torch.zeros(width))
        with torch.no_grad():
            _initialize(self.u, self.v, init)

    def forward(self, rows: Float[Tensor, "*tasks P d"]) -> Float[Tensor, "*tasks P d"]:
        """Rows [..., d] -> [..., d]."""
        out = rows @ self.v.T @ self.u.T + self.bias
        if self.activation:
            out = torch.relu(out)
        return rows + out if self.residual else out


def _initialize(u: Tensor, v: Tensor, init: LayerInit) -> None:
    width, rank = u.shape
    if init is LayerInit.XAVIER:
        nn.init.xavier_uniform_(u, gain=nn.init.calculate_gain("relu"))
        nn.init.xavier_uniform_(v)
    elif init is LayerInit.NORMAL:
        nn.init.normal_(u)
        nn.init.normal_(v)
    else:
        # Not exactly zero: behind a ReLU a zero factor would have a zero gradient for ever.
        nn.init.normal_(v, std=width**-0.5)
        nn.init.normal_(u, std=_NEAR_IDENTITY_SCALE * (width / rank) ** 0.5)


class GradientRegularizer(nn.Module):
    """psi as a module. It keeps no running statistics: the released code stores them but never uses them."""

    def __init__(self, width: int, config: RegularizerConfig) -> None:
        super().__init__()
        self.width = width
        self.config = config
        self.rescale = Rescale(config.rescale)
        last = config.hidden_layers
        self.layers = nn.ModuleList(
            LowRankLayer(
                width,
                config.rank,
                activation=index < last or config.last_activation == "relu",
                residual=config.residual,
                init=LayerInit(config.init),
            )
            for index in range(last + 1)
        )
        self.hidden = nn.Linear(width, config.coefficient_width)
        self.output = nn.Linear(config.coefficient_width, 1)

    def coefficient(self, state: Float[Tensor, "*tasks d"]) -> Float[Tensor, "*tasks"]:
        """Z = sigmoid(w2 ReLU(W1 e + b1) + b2): [..., d] -> [...], each in (0, 1)."""
        return torch.sigmoid(self.output(torch.relu(self.hidden(state)))).squeeze(-1)

    def direction(self, gradient: Float[Tensor, "*tasks P d"]) -> Float[Tensor, "*tasks P d"]:
        """The learned direction, with the size of `gradient`: [..., P, d] -> [..., P, d]."""
        rows = gradient
        for layer in self.layers:
            rows = layer(rows)
        return rescale_like(rows, gradient, self.rescale)

    def forward(
        self, gradient: Float[Tensor, "*tasks P d"], state: Float[Tensor, "*states d"]
    ) -> tuple[Float[Tensor, "*tasks P d"], Float[Tensor, "*states"]]:
        """Regularized gradient and coefficient.

        Args:
            gradient: raw gradient of the prompt, [P, d] or one per task [N, P, d].
            state: mean encoder state of the batch that gave it, [d] or [N, d].

        Returns:
            psi(gradient, state) of the gradient's shape, and z of shape [] or [N].
        """
        gradient = gradient.float()
        coefficient = self.coefficient(state.float())
        return combine(gradient, self.direction(gradient), coefficient), coefficient

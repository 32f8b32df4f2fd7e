"""From the fused vector to one score an answer.

    h = tanh(W_1 z + b_1) for each hidden layer, if any (or ReLU)
    logits = W h + b

Legend: `B` batch, `D` width, `A` answers.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vqa.models.dropout import FastDropout
from vqa.models.layers import BatchNorm
from vqa.models.options import Count, Rate

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Classifier(nn.Module):
    """Dropout and linear; before them, for each hidden layer: dropout, linear, activation.

    Answers are scored in the type of the weights, also under autocast: in bfloat16, which has 8 bits, 2 to 5% of
    questions had two best answers. Training computes as autocast has it.

    Args:
        in_dim: width of the fused vector.
        answers: size of the answer vocabulary.
        hidden: widths of the hidden layers, none by default.
        activation: what follows a hidden layer.
        dropout: before every linear layer.
        input_dropout: before the first linear layer, where that differs.
        weight_norm: weight normalisation of every linear layer (Salimans and Kingma 2016, arXiv 1602.07868), one length
            for the whole matrix.
        batch_norm: batch normalisation of every hidden layer, before its activation.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        answers: int,
        hidden: tuple[Count, ...] = (),
        activation: Literal["tanh", "relu"] = "tanh",
        dropout: Rate = 0.5,
        input_dropout: Rate | None = None,
        weight_norm: bool = False,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (in_dim, *hidden, answers)
        before = dropout if input_dropout is None else input_dropout
        for width_in, width_out in pairwise(widths):
            linear = nn.Linear(width_in, width_out)
            if layers and batch_norm:
                layers.append(BatchNorm(width_in))
            layers += [ACTIVATIONS[activation]()] if layers else []
            layers += [FastDropout(before), parametrizations.weight_norm(linear, dim=-1) if weight_norm else linear]
            before = dropout
        self.layers = nn.Sequential(*layers)

    def forward(self, vector_BD: Tensor) -> Tensor:
        """Logits `[B, A]`."""
        if self.training:
            logits_BA: Tensor = self.layers(vector_BD)
            return logits_BA
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        hidden_BD = self.layers[:-1](vector_BD)
        with torch.autocast(vector_BD.device.type, enabled=False):
            return last(hidden_BD.to(last.weight.dtype))

"""From the fused vector to one score an answer.

Legend: `B` batch, `D` width, `A` answers.
"""

from typing import Literal

from torch import Tensor, nn

from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Classifier(nn.Module):
    """Dropout and linear; before them, for each hidden layer: dropout, linear, activation.

    Args:
        in_dim: width of the fused vector.
        answers: size of the answer vocabulary.
        hidden: widths of the hidden layers, none by default.
        activation: what follows a hidden layer.
        dropout: before every linear layer.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        answers: int,
        hidden: tuple[Count, ...] = (),
        activation: Literal["tanh", "relu"] = "tanh",
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [FastDropout(dropout), nn.Linear(in_dim, width), ACTIVATIONS[activation]()]
            in_dim = width
        self.layers = nn.Sequential(*layers, FastDropout(dropout), nn.Linear(in_dim, answers))

    def forward(self, vector_BD: Tensor) -> Tensor:
        """Logits `[B, A]`."""
        logits_BA: Tensor = self.layers(vector_BD)
        return logits_BA

"""`dppnet`: the question writes the weights of a layer that reads the image.

Source: Noh et al. 2016, "Image Question Answering using Convolutional Neural Network with Dynamic Parameter Prediction"
(arXiv 1511.05756), and its released code. The question predicts few candidate weights p, and a fixed hash spreads them,
with fixed random signs, over the whole matrix of the dynamic layer:

    f = ReLU(W_i i / |i| + b_i),  i the mean region
    p = W_q q + b_q
    w[m, n] = p[psi(m, n)] xi(m, n)
    z = ReLU(BatchNorm(w f))

psi and xi are xxh32 of the released code's keys (see `dynamic_layer_hash`). The dynamic layer's own bias is left out:
the batch normalisation takes it away. W_q starts at 0 and b_q at N(0, 0.05), so at first every question has the same
weights.

Legend: `B` batch, `R` regions, `C` channels, `K` candidates, `M` and `N` outputs and inputs of the dynamic layer.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.hashing import dynamic_layer_hash
from vqa.models.layers import BatchNorm, in_turns, once_an_image, pool_regions
from vqa.models.options import Count, Rate

WEIGHTS_AT_ONCE = 2**26  # how many weights of dynamic layers exist at a time; more questions are done in turns


class DPPNet(Fusion):
    """A layer over the image whose weights the question predicts, shared by hashing.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        candidates: weights that the question predicts (the paper: 40000).
        fusion_dim: inputs and outputs of the dynamic layer (the paper: 2000). A question costs fusion_dim^2 look-ups.
        normalise_image: scale the image vector to length 1.
        dropout: on image and question.

    Attributes:
        out_dim: fusion_dim.
    """

    reads = "mean"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        candidates: Count = 10000,
        fusion_dim: Count = 500,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        self.normalise_image = normalise_image
        self.dropout = FastDropout(dropout)
        self.image = nn.Linear(image_dim, fusion_dim)
        self.candidates = nn.Linear(question_dim, candidates)
        nn.init.zeros_(self.candidates.weight)
        nn.init.normal_(self.candidates.bias, std=0.05)
        self.norm = BatchNorm(fusion_dim)
        self.position_MN: Tensor
        positions = _positions(fusion_dim, candidates)
        self.register_buffer("position_MN", positions, persistent=False)  # it follows from the sizes

    def forward(self, image: Image, question: Question) -> Fused:
        image_IC = pool_regions(image, normalise=self.normalise_image)
        image_BN = torch.relu(
            once_an_image(lambda pooled_IC: self.image(self.dropout(pooled_IC)), image_IC, image, self.dropout)
        )
        candidates_BK = self.candidates(self.dropout(question.sentence_BD))
        rows = max(1, WEIGHTS_AT_ONCE // self.position_MN.numel())
        return Fused(torch.relu(self.norm(in_turns(self._dynamic, rows, candidates_BK, image_BN))), None)

    def _dynamic(self, candidates_BK: Tensor, image_BN: Tensor) -> Tensor:
        """w f for some questions."""
        signed_BK = torch.cat([candidates_BK, -candidates_BK], dim=1)
        weight_BMN = signed_BK.index_select(1, self.position_MN.flatten()).unflatten(1, self.position_MN.shape)
        return (weight_BMN @ image_BN[:, :, None])[:, :, 0]


def _positions(width: int, candidates: int) -> Tensor:
    """Where in [p, -p] each weight of the dynamic layer is: int64 `[M, N]`; without data where models have none."""
    if torch.get_default_device().type == "meta":
        return torch.empty(width, width, dtype=torch.int64)
    bucket_MN, sign_MN = dynamic_layer_hash(width, width, candidates)
    # a negative sign is a look-up in the second half of [p, -p]
    return torch.from_numpy(bucket_MN) + candidates * (torch.from_numpy(sign_MN) < 0)

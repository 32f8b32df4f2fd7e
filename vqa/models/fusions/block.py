"""`block`: a block-term decomposition: both sides cut into chunks, a low-rank bilinear form for each pair of chunks.

Source: Ben-younes et al. 2019, "BLOCK: Bilinear Superdiagonal Fusion" (arXiv 1902.00038). The bilinear tensor is block
superdiagonal: chunk c of the result depends on chunk c of either side alone, through `rank` outer products:

    q' = W_q q + b_q,  i' = W_i i / |i| + b_i,  i the mean region
    z_c = sum_r (M_cr q'_c + m_cr) * (N_cr i'_c + n_cr),  then signed square root and length 1, chunk by chunk

and the paper's output factor is the classifier. The released code drops out q' and i', after their projection: that
is `dropout_at: projected`.

Legend: `B` batch, `R` regions, `C` channels, `G` chunks, `S` width of a chunk, `K` rank, `D` fusion.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import once_an_image, pool_regions, power_normalise
from vqa.models.options import Count, Rate


class ChunkedLinear(nn.Module):
    """One linear layer for each chunk of the input, all at once."""

    def __init__(self, chunks: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        limit = in_dim**-0.5
        self.weight_GSK = nn.Parameter(torch.empty(chunks, in_dim, out_dim).uniform_(-limit, limit))
        self.bias_G1K = nn.Parameter(torch.empty(chunks, 1, out_dim).uniform_(-limit, limit))

    def forward(self, values_BD: Tensor) -> Tensor:
        """`[B, chunks * in_dim]` to `[chunks, B, out_dim]`."""
        values_GBS = values_BD.unflatten(1, self.weight_GSK.shape[:2]).transpose(0, 1)
        return torch.baddbmm(self.bias_G1K, values_GBS, self.weight_GSK)


class Block(Fusion):
    """Low-rank bilinear fusion, chunk by chunk.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        chunks: blocks of the tensor; fusion_dim must be a multiple of it.
        rank: rank of each block.
        fusion_dim: width of each projected side and of the result.
        normalise: signed square root and length 1 of each chunk.
        normalise_image: scale the image vector to length 1.
        dropout: on both sides.
        dropout_at: before their projection ("inputs") or after it ("projected").

    Raises:
        InputError: fusion_dim is not a multiple of chunks.

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
        chunks: Count = 20,
        rank: Count = 15,
        fusion_dim: Count = 1600,
        normalise: bool = True,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
        dropout_at: Literal["inputs", "projected"] = "inputs",
    ) -> None:
        super().__init__()
        if fusion_dim % chunks:
            raise InputError(f"fusion 'block': fusion_dim ({fusion_dim}) must be a multiple of chunks ({chunks})")
        width = fusion_dim // chunks
        self.out_dim = fusion_dim
        self.rank = rank
        self.normalise, self.normalise_image = normalise, normalise_image
        self.dropout, self.after = FastDropout(dropout), dropout_at == "projected"
        self.image = nn.Linear(image_dim, fusion_dim)
        self.question = nn.Linear(question_dim, fusion_dim)
        self.image_factors = ChunkedLinear(chunks, width, rank * width)
        self.question_factors = ChunkedLinear(chunks, width, rank * width)

    def forward(self, image: Image, question: Question) -> Fused:
        image_IC = pool_regions(image, normalise=self.normalise_image)
        if self.after:
            image_BD = self.dropout(image.of(self.image(image_IC)))
            question_BD = self.dropout(self.question(question.sentence_BD))
        else:
            drop_first = lambda pooled_IC: self.image(self.dropout(pooled_IC))  # noqa: E731
            image_BD = once_an_image(drop_first, image_IC, image, self.dropout)
            question_BD = self.question(self.dropout(question.sentence_BD))
        joint_GBK = self.image_factors(image_BD) * self.question_factors(question_BD)
        joint_GBS = joint_GBK.unflatten(2, (self.rank, -1)).sum(dim=2)
        if self.normalise:
            joint_GBS = power_normalise(joint_GBS)
        return Fused(joint_GBS.transpose(0, 1).flatten(1), None)

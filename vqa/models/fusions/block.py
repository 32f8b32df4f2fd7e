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
from vqa.models.contracts import Image
from vqa.models.dropout import FastDropout
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import once_an_image, power_normalise
from vqa.models.options import Count, Rate


def chunk_width(fusion: str, fusion_dim: int, chunks: int) -> int:
    """The width of one chunk; raises InputError, naming the fusion, where its width is no multiple of them."""
    if fusion_dim % chunks:
        raise InputError(f"fusion {fusion!r}: fusion_dim ({fusion_dim}) must be a multiple of chunks ({chunks})")
    return fusion_dim // chunks


class ChunkedLinear(nn.Module):
    """One linear layer for each chunk of the input, all at once."""

    def __init__(self, chunks: int, in_dim: int, out_dim: int) -> None:
        super().__init__()
        limit = in_dim**-0.5
        self.weight_GSK = nn.Parameter(torch.empty(chunks, in_dim, out_dim).uniform_(-limit, limit))
        self.bias_G1K = nn.Parameter(torch.empty(chunks, 1, out_dim).uniform_(-limit, limit))

    def forward(self, values: Tensor) -> Tensor:
        """`[..., chunks * in_dim]` to `[..., chunks, out_dim]`."""
        values_GBS = values.flatten(0, -2).unflatten(1, self.weight_GSK.shape[:2]).transpose(0, 1)
        result_GBK = torch.baddbmm(self.bias_G1K, values_GBS, self.weight_GSK)
        return result_GBK.transpose(0, 1).unflatten(0, values.shape[:-1])


class Block(VectorFusion):
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
        width = chunk_width("block", fusion_dim, chunks)
        self.out_dim = fusion_dim
        self.rank = rank
        self.normalise, self.normalise_image = normalise, normalise_image
        self.dropout, self.dropout_first = FastDropout(dropout), dropout_at == "inputs"
        self.image = nn.Linear(image_dim, fusion_dim)
        self.question = nn.Linear(question_dim, fusion_dim)
        self.image_factors = ChunkedLinear(chunks, width, rank * width)
        self.question_factors = ChunkedLinear(chunks, width, rank * width)

    def image_side(self, image: Image) -> Tensor:
        return once_an_image(self._image_factors, self.vectors(image), image, self.dropout)

    def _image_factors(self, vectors_IRC: Tensor) -> Tensor:
        """`[I, R, chunks, rank * width]`."""
        factors_IRGK: Tensor = self.image_factors(self._project(self.image, vectors_IRC))
        return factors_IRGK

    def question_side(self, sentence_BD: Tensor) -> Tensor:
        factors_BGK: Tensor = self.question_factors(self._project(self.question, sentence_BD))
        return factors_BGK

    def _project(self, side: nn.Module, values: Tensor) -> Tensor:
        """A side projected, with dropout where it belongs."""
        projected: Tensor = side(self.dropout(values)) if self.dropout_first else self.dropout(side(values))
        return projected

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        joint_BRGK = image_BRS * question_BS[:, None]
        joint_BRGS = joint_BRGK.unflatten(-1, (self.rank, -1)).sum(dim=-2)
        if self.normalise:
            joint_BRGS = power_normalise(joint_BRGS)
        return joint_BRGS.flatten(2)

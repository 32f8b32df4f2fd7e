"""`block_tucker`: both sides cut into chunks, a full bilinear form for each pair of chunks.

Source: the block-term decomposition of Ben-younes et al. 2019, "BLOCK: Bilinear Superdiagonal Fusion" (arXiv
1902.00038), without the rank constraint on its blocks; the authors' code calls it BlockTucker. Chunk c of the result is
a full Tucker core T_c between chunk c of either side:

    q' = W_q q + b_q,  i' = W_i i / |i| + b_i,  i the mean region
    z_ck = sum_mn T_c[m, n, k] q'_cm i'_cn + t_ck,  then signed square root and length 1, chunk by chunk

and the paper's output factor is the classifier. One chunk is `tucker` without its tanh; a low rank of every T_c is
`block`.

Legend: `B` batch, `R` regions, `C` channels, `G` chunks, `S` width of a chunk, `M` question side, `N` image side,
`D` fusion.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Image
from vqa.models.dropout import FastDropout
from vqa.models.fusions.block import chunk_width
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import power_normalise
from vqa.models.options import Count, Rate


class BlockTucker(VectorFusion):
    """Full bilinear fusion, chunk by chunk; it has fusion_dim^3 / chunks^2 weights between the projections.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        chunks: blocks of the tensor; fusion_dim must be a multiple of it.
        fusion_dim: width of each projected side and of the result.
        normalise: signed square root and length 1 of each chunk.
        normalise_image: scale the image vector to length 1.
        dropout: on the input of both projections.

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
        fusion_dim: Count = 1600,
        normalise: bool = True,
        normalise_image: bool = True,
        dropout: Rate = 0.5,
    ) -> None:
        super().__init__()
        width = chunk_width("block_tucker", fusion_dim, chunks)
        self.out_dim = fusion_dim
        self.chunks = chunks
        self.normalise, self.normalise_image = normalise, normalise_image
        self.image, self.question = (
            nn.Sequential(FastDropout(dropout), nn.Linear(side, fusion_dim)) for side in (image_dim, question_dim)
        )
        limit = width**-0.5  # as torch starts a bilinear layer
        self.core_GMNS = nn.Parameter(torch.empty(chunks, width, width, width).uniform_(-limit, limit))
        self.bias_G1S = nn.Parameter(torch.empty(chunks, 1, width).uniform_(-limit, limit))

    def image_side(self, image: Image) -> Tensor:
        return super().image_side(image).unflatten(-1, (self.chunks, -1))

    def question_side(self, sentence_BD: Tensor) -> Tensor:
        """The question's own matrix from image side to result, of each chunk: `[B, G, N, S]`."""
        question_BGM = super().question_side(sentence_BD).unflatten(-1, (self.chunks, -1))
        return torch.einsum("bgm,gmns->bgns", question_BGM, self.core_GMNS)

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        joint_BGRS = image_BRS.transpose(1, 2) @ question_BS
        joint_BRGS = (joint_BGRS + self.bias_G1S.to(joint_BGRS.dtype)).transpose(1, 2)
        if self.normalise:
            joint_BRGS = power_normalise(joint_BRGS)
        return joint_BRGS.flatten(2)

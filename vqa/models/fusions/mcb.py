"""`mcb`: compact bilinear pooling: a sketch of the outer product, never the product itself.

Source: Fukui et al. 2016, "Multimodal Compact Bilinear Pooling for Visual Question Answering and Visual Grounding"
(arXiv 1606.01847), algorithm 1, without its attention. Each side is count-sketched with fixed random buckets h and
signs s, and the sketch of the outer product is the circular convolution of the two sketches, done by FFT:

    sketch(x)_d = sum_{n: h(n) = d} s(n) x_n
    z = IFFT(FFT(sketch(i / |i|)) * FFT(sketch(q))),  then signed square root and length 1,  i the mean region

Nothing here is learnt; the classifier does it.

Legend: `B` batch, `R` regions, `C` channels, `N` any width, `D` sketch.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Image, Question
from vqa.models.fusions.vector_fusion import VectorFusion
from vqa.models.layers import at_least_float32, power_normalise
from vqa.models.options import Count


class CountSketch(nn.Module):
    """Adds every input, with a random sign, to a random bucket; chosen once and kept with the weights."""

    def __init__(self, in_dim: int, sketch_dim: int) -> None:
        super().__init__()
        self.sketch_dim = sketch_dim
        self.bucket_N: Tensor
        self.sign_N: Tensor
        self.register_buffer("bucket_N", torch.randint(sketch_dim, (in_dim,)))
        self.register_buffer("sign_N", (2 * torch.randint(2, (in_dim,)) - 1).to(torch.int8))

    def forward(self, values: Tensor) -> Tensor:
        """`[..., in_dim]` to `[..., sketch_dim]`."""
        values_BN = values.flatten(0, -2)
        empty_BD = values_BN.new_zeros(values_BN.shape[0], self.sketch_dim)
        return empty_BD.index_add(1, self.bucket_N, values_BN * self.sign_N).unflatten(0, values.shape[:-1])


class MCB(VectorFusion):
    """The count sketch of the outer product of image and question.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector.
        sketch_dim: width of the sketch (the paper: 16000).
        normalise_image: scale the image vector to length 1.

    Attributes:
        out_dim: sketch_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        sketch_dim: Count = 16000,
        normalise_image: bool = True,
    ) -> None:
        super().__init__()
        self.out_dim = sketch_dim
        self.normalise_image = normalise_image
        self.image = CountSketch(image_dim, sketch_dim)
        self.question = CountSketch(question_dim, sketch_dim)

    def image_side(self, image: Image) -> Tensor:
        # there is no FFT in half precision
        return image.of(torch.fft.rfft(self.image(at_least_float32(self.vectors(image)))))

    def question_side(self, sentence_BD: Tensor) -> Tensor:
        return torch.fft.rfft(self.question(at_least_float32(sentence_BD)))

    def join_sides(self, image_BRS: Tensor, question_BS: Tensor) -> Tensor:
        return power_normalise(torch.fft.irfft(image_BRS * question_BS[:, None], n=self.out_dim))

    def forward(self, image: Image, question: Question) -> Fused:
        vector_BD = super().forward(image, question).vector_BD
        return Fused(vector_BD.to(image.regions_IRC.dtype), None)

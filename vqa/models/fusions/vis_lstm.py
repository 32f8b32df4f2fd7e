"""`vis_lstm`: an LSTM reads the image as if it were the first word of the question.

Source: Ren et al. 2015, "Exploring Models and Data for Image Question Answering" (arXiv 1505.02074), the model
VIS+LSTM. With word vectors x_1 ... x_T:

    x_0 = W_i i,  i the mean region
    z = LSTM(x_0, x_1, ..., x_T), its last hidden state

The word vectors are those of the question encoder: with `bow` they are the embedding itself, as in the paper. The paper
standardises the image channels first (`features: {standardise: true}`). The sentence vector is not used. Departure:
the LSTM has no peepholes.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` word.
"""

import torch
from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import pool_regions
from vqa.models.options import Count, Rate
from vqa.models.precision import run_recurrent


class VisLSTM(Fusion):
    """The image as word 0, then an LSTM over image and words.

    Args:
        image_dim: channels of a region.
        regions: regions an image; they are averaged.
        question_dim: width of the question vector, not used.
        word_dim: width of a word vector, to which the image is projected.
        hidden_dim: width of the LSTM.
        normalise_image: scale the image vector to length 1.
        dropout: on image and words.

    Attributes:
        out_dim: hidden_dim.
    """

    reads = "mean"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        question_dim: int,
        word_dim: int,
        hidden_dim: Count = 300,
        normalise_image: bool = False,
        dropout: Rate = 0.2,
    ) -> None:
        super().__init__()
        self.out_dim = hidden_dim
        self.normalise_image = normalise_image
        self.image = nn.Linear(image_dim, word_dim, bias=False)
        self.dropout = FastDropout(dropout)
        self.recurrent = nn.LSTM(word_dim, hidden_dim, batch_first=True)

    def forward(self, image: Image, question: Question) -> Fused:
        first_B1D = image.of(self.image(pool_regions(image, normalise=self.normalise_image)))[:, None]
        read_BTD = torch.cat([first_B1D, question.words_BTD.to(first_B1D.dtype)], dim=1)
        return Fused(self._last_state(self.dropout(read_BTD), question.mask_BT), None)

    @torch.compiler.disable  # a compiled LSTM is no faster
    def _last_state(self, read_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """`[B, hidden]`: the output at the last real word; what is padded comes after it and cannot disturb it."""
        output_BTD, _ = run_recurrent(self.recurrent, read_BTD)
        last_B = mask_BT.sum(dim=1)  # the image stands before the words
        chosen_BD: Tensor = output_BTD[torch.arange(len(last_B), device=last_B.device), last_B]
        return chosen_BD

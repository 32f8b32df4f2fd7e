"""`textcnn`: convolutions of several widths over the words, then the maximum over time.

Source: the CNN question model of Yang et al. 2016, "Stacked Attention Networks" (arXiv 1511.02274): widths 1, 2, 3 with
256, 512, 512 filters, tanh, max over time. Two channels are those of Kim 2014, "Convolutional Neural Networks for
Sentence Classification" (arXiv 1408.5882): one stays as it began, one is trained; a filter reads both, with weights of
its own for each. k-max pooling is that of Kalchbrenner et al. 2014 (arXiv 1404.2188): the k largest values of a filter
in their order.

A filter's places are those where it lies wholly on the question; a question shorter than the filter has one place,
filled up with zeros.

    c_t^n = tanh(W_n [w_t, ..., w_(t+n-1)] + b_n) for each width n
    q = [max_t c_t^n for each n],  or the k largest

Legend: `B` batch, `T` tokens, `E` embedding, `D` filters, `K` k.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Question, QuestionEncoder
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate
from vqa.models.question_encoders.sequences import keep, token_mask, windows


class TextCNN(QuestionEncoder):
    """Embedding, convolutions of several widths, the k largest values of every filter.

    Args:
        vocab_size: number of tokens, padding (0) and unknown (1) included.
        widths: tokens that a filter sees.
        filters: number of filters of each width.
        embedding_dim: width of a word vector.
        k_max: values kept of every filter; 1 is max pooling. Where a question has fewer places, zeros follow.
        channels: "tuned", or "static_and_tuned": the same word vectors twice, one of them never trained.
        activation: after the convolution.
        dropout: on the word vectors.

    Attributes:
        word_dim: sum of filters; a word's vector is what the filters that start there give.
        sentence_dim: k_max * sum of filters.

    Raises:
        InputError: widths and filters differ in number.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        widths: tuple[Count, ...] = (1, 2, 3),
        filters: tuple[Count, ...] = (256, 512, 512),
        embedding_dim: Count = 500,
        k_max: Count = 1,
        channels: Literal["tuned", "static_and_tuned"] = "tuned",
        activation: Literal["tanh", "relu"] = "tanh",
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        if len(widths) != len(filters) or not widths:
            raise InputError(f"question_encoder 'textcnn': {len(widths)} widths, but {len(filters)} numbers of filters")
        self.widths, self.k_max = widths, k_max
        self.word_dim = sum(filters)
        self.sentence_dim = k_max * self.word_dim
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)
        self.static_VE: Tensor | None
        two = channels == "static_and_tuned"
        self.register_buffer("static_VE", self.embedding.weight.detach().clone() if two else None)
        in_dim = embedding_dim * (2 if two else 1)
        self.convolutions = nn.ModuleList(
            nn.Linear(width * in_dim, number) for width, number in zip(widths, filters, strict=True)
        )
        self.activation = torch.tanh if activation == "tanh" else torch.relu
        self.dropout = FastDropout(dropout)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        mask_BT = token_mask(tokens_BT, length_B)
        embedded_BTE = self.embedding(tokens_BT)
        if self.static_VE is not None:
            embedded_BTE = torch.cat([F.embedding(tokens_BT, self.static_VE), embedded_BTE], dim=-1)
        embedded_BTE = keep(self.dropout(embedded_BTE), mask_BT)
        words: list[Tensor] = []
        pooled: list[Tensor] = []
        for width, convolution in zip(self.widths, self.convolutions, strict=True):
            found_BTD = self.activation(convolution(windows(embedded_BTE, width)))
            # wholly on the question: the token width - 1 further on is real too
            places_BT = F.pad(mask_BT[:, width - 1 :], (0, min(width - 1, mask_BT.shape[1])))
            places_BT = torch.cat([mask_BT[:, :1], places_BT[:, 1:]], dim=1)
            words.append(found_BTD)
            pooled.append(k_largest(found_BTD, places_BT, self.k_max))
        return Question(keep(torch.cat(words, dim=-1), mask_BT), torch.cat(pooled, dim=-1), mask_BT)

    @torch.no_grad()
    def begin(self, tokens_NT: Tensor, length_N: Tensor) -> None:
        """The static channel stays where the tuned one starts."""
        if self.static_VE is not None:
            self.static_VE.copy_(self.embedding.weight)


def k_largest(values_BTD: Tensor, mask_BT: Tensor, k: int) -> Tensor:
    """The k largest of every column where the mask is True, in their order, then zeros; `[B, k * D]`."""
    short = max(0, k - values_BTD.shape[1])
    masked_BTD = F.pad(values_BTD.masked_fill(~mask_BT[:, :, None], -torch.inf), (0, 0, 0, short), value=-torch.inf)
    place_BKD = masked_BTD.topk(k, dim=1).indices.sort(dim=1).values
    largest_BKD = masked_BTD.gather(1, place_BKD)
    return largest_BKD.masked_fill(largest_BKD.isinf(), 0.0).flatten(1)

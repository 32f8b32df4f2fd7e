"""`single_stream`: words and regions are one sequence, and one transformer encoder reads it.

Sources: Li et al. 2019, "VisualBERT" (arXiv 1908.03557), and Chen et al. 2020, "UNITER" (arXiv 1909.11740), whose
embeddings these are, with W, b and LN (layer normalisation) of their own each time:

    X = [LN([CLS] + e_word); LN(W w_t + e_word); LN(LN(W v_r + b) + LN(W g_r + b) + e_region)],
    g = (x1, y1, x2, y2, width, height, area) of a region's box
    X = LN(U + FFN(U)),  U = LN(X + A(X, X)),  layer on layer;  A multi-head attention, FFN two layers with GELU
    z = tanh(W x_[CLS] + b)

The attention returned is the last layer's from [CLS] to the regions, renormalised over these, one row a head.
Departures: the words come from the question encoder, which knows their order, so there are no position embeddings;
nothing is pretrained; layer normalisation with epsilon 1e-5, there 1e-12; key projections have no bias, which softmax
would ignore. Where no boxes are known, g is that of the whole image for each region, a constant. The last layer is
computed for [CLS] alone, which is all that is read. The sentence vector is not used.

Legend: `B` batch, `T` tokens with [CLS], `R` regions, `S` both, `D` hidden, `H` heads.
"""

import torch
from torch import nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.options import Count, Rate
from vqa.models.transformers.bert import Block, RegionEmbedding, WordEmbedding, real_regions


class SingleStream(Fusion):
    """One transformer encoder over words and regions.

    Args:
        image_dim: channels of a region.
        word_dim: width of a word vector.
        layers: depth; the papers' base models: 12.
        heads: attention heads; hidden_dim must be a multiple of it. The papers: 12.
        hidden_dim: width of words and regions inside, and of the result; the papers: 768.
        feed_forward_dim: width inside the feed-forward layers; the papers: 3072.
        dropout: of the embeddings, after every sublayer and on attention weights.

    Raises:
        InputError: hidden_dim is not a multiple of heads.

    Attributes:
        out_dim: hidden_dim.
    """

    attention_name = "head"

    def __init__(
        self,
        *,
        image_dim: int,
        word_dim: int,
        layers: Count = 6,
        heads: Count = 8,
        hidden_dim: Count = 512,
        feed_forward_dim: Count = 2048,
        dropout: Rate = 0.1,
    ) -> None:
        super().__init__()
        self.out_dim = hidden_dim
        self.words = WordEmbedding(word_dim, hidden_dim)
        self.regions = RegionEmbedding(image_dim, hidden_dim)
        self.dropout = FastDropout(dropout)
        self.layers = nn.ModuleList(Block(hidden_dim, heads, feed_forward_dim, dropout) for _ in range(layers - 1))
        self.last = Block(hidden_dim, heads, feed_forward_dim, dropout)
        self.output = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.Tanh())

    def forward(self, image: Image, question: Question) -> Fused:
        (words_BTD, mask_BT), regions_BRD = self.words(question), image.of(self.regions(image))
        mask_BR = real_regions(image, regions_BRD)
        values_BSD = self.dropout(torch.cat([words_BTD, regions_BRD], dim=1))
        mask_BS = torch.cat([mask_BT, mask_BR], dim=1)
        for layer in self.layers:
            values_BSD = layer(values_BSD, values_BSD, mask_BS)
        first_B1D, regions_BRD = values_BSD[:, :1], values_BSD[:, words_BTD.shape[1] :]
        attention_BH1R = self.last.attention.look(first_B1D, regions_BRD, mask_BR)
        first_B1D = self.last(first_B1D, values_BSD, mask_BS)
        return Fused(self.output(first_B1D[:, 0]), attention_BH1R[:, :, 0])

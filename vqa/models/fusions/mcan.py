"""`mcan`: words attend to words, regions to regions and to words, layer on layer.

Source: Yu et al. 2019, "Deep Modular Co-Attention Networks for Visual Question Answering" (arXiv 1906.10770), the
encoder-decoder form. The words go through `layers` of self-attention; the regions through `layers` of self-attention
and attention to the encoded words. Then each side is reduced to one vector by an attention of its own:

    Y = SA(Y) layer by layer, then X = GA(SA(X), Y) layer by layer,  SA self-attention, GA attention to Y
    a = softmax(MLP(X)),  x = sum_r a_r X_r,  and y from the words Y likewise
    z = LayerNorm(W_x x + W_y y)

The attention returned is a. Departures: the words are first projected to hidden_dim; key projections have no bias,
which softmax would ignore. The sentence vector is not used.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` hidden.
"""

from torch import Tensor, nn

from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.dropout import FastDropout
from vqa.models.layers import attend
from vqa.models.options import Count, Rate
from vqa.models.transformers.attention import DecoderLayer, DeviationNorm, EncoderLayer, Norm


class Reduction(nn.Module):
    """Many vectors to one, by weights from a two-layer network."""

    def __init__(self, dim: int, inner_dim: int, dropout: float) -> None:
        super().__init__()
        self.logit = nn.Sequential(
            nn.Linear(dim, inner_dim), nn.ReLU(), FastDropout(dropout), nn.Linear(inner_dim, 1, bias=False)
        )

    def forward(self, values_BTD: Tensor, mask_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The vector `[B, D]` and its weights `[B, 1, T]`."""
        reduced_B1D, weight_B1T = attend(self.logit(values_BTD).transpose(1, 2), values_BTD, mask_BT)
        return reduced_B1D[:, 0], weight_B1T


class MCAN(Fusion):
    """Self-attention over words, guided attention over regions, attentional reduction of both.

    Args:
        image_dim: channels of a region.
        word_dim: width of a word vector.
        layers: depth of either side.
        heads: attention heads; hidden_dim must be a multiple of it.
        hidden_dim: width of words and regions inside.
        feed_forward_dim: width inside the feed-forward layers.
        reduction_dim: width inside the two reductions; null: hidden_dim, as in the released small model. The large
            one: 512, with a hidden_dim of 1024.
        fusion_dim: width of the result.
        dropout: after every sublayer, on attention weights and inside feed-forward layers.
        released_norm: layer normalisation as the released code computes it (`DeviationNorm`), not as torch does.

    Raises:
        InputError: hidden_dim is not a multiple of heads.

    Attributes:
        out_dim: fusion_dim.
    """

    def __init__(
        self,
        *,
        image_dim: int,
        word_dim: int,
        layers: Count = 6,
        heads: Count = 8,
        hidden_dim: Count = 512,
        feed_forward_dim: Count = 2048,
        reduction_dim: Count | None = None,
        fusion_dim: Count = 1024,
        dropout: Rate = 0.1,
        released_norm: bool = False,
    ) -> None:
        super().__init__()
        self.out_dim = fusion_dim
        norm: Norm = DeviationNorm if released_norm else nn.LayerNorm
        sizes = (hidden_dim, heads, feed_forward_dim, dropout, norm)
        self.words = nn.Linear(word_dim, hidden_dim)
        self.regions = nn.Linear(image_dim, hidden_dim)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(layers))
        self.reduce_words = Reduction(hidden_dim, reduction_dim or hidden_dim, dropout)
        self.reduce_regions = Reduction(hidden_dim, reduction_dim or hidden_dim, dropout)
        self.from_words = nn.Linear(hidden_dim, fusion_dim)
        self.from_regions = nn.Linear(hidden_dim, fusion_dim)
        self.norm = norm(fusion_dim)

    def forward(self, image: Image, question: Question) -> Fused:
        words_BTD, regions_BRD = self.words(question.words_BTD), image.of(self.regions(image.regions_IRC))
        for layer in self.encoder:
            words_BTD = layer(words_BTD, question.mask_BT)
        mask_BR = image.mask_BR
        for layer in self.decoder:
            regions_BRD = layer(regions_BRD, words_BTD, question.mask_BT, mask_BR)
        word_BD, _ = self.reduce_words(words_BTD, question.mask_BT)
        region_BD, attention_B1R = self.reduce_regions(regions_BRD, mask_BR)
        return Fused(self.norm(self.from_regions(region_BD) + self.from_words(word_BD)), attention_B1R)

"""`gated_cross_attention`: a language model reads the question, and looks at the image in between its layers.

Source: Alayrac et al. 2022, "Flamingo: a Visual Language Model for Few-Shot Learning" (arXiv 2204.14198), figure 4: a
gated block in front of every `every`-th layer. With region vectors v_r, hidden states y_t of the words, and gates a
and b that start at 0, so that the model's output is at first what it is without an image:

    x_r = LayerNorm(v_r)
    y_t' = y_t + tanh(a) Attention(LayerNorm(y_t), x),  heads side by side
    next layer's y_t = y_t' + tanh(b) W_2 max(0, W_1 LayerNorm(y_t'))^2
    z = mean_t y_t behind the last layer, or its first or last word

The language model is that of the question encoder, `{name: hf:NAME, words: embeddings}`. The attention returned is the
last block's, one row a head, the mean over the words. Departures: encoders such as BERT are taken as well as causal
models; the regions themselves are looked at, not a resampler's summary of them; and an answer is classified from z, not
written word by word.

Legend: `I` distinct images of a batch, `B` batch, `R` regions, `C` channels, `T` tokens, `D` width of the language
model, `H` heads, `E` width of a head.
"""

from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.layers import at_least_float32
from vqa.models.options import Count
from vqa.models.question_encoders.pretrained import TextTransformer
from vqa.models.question_encoders.sequences import masked_mean
from vqa.models.transformers.language import LanguageModel, last_real

WIDER = 4  # how many times as wide as the model its feed-forward layers are inside


class GatedBlock(nn.Module):
    """Attention to the regions, then a feed-forward network, each behind a gate that starts closed."""

    def __init__(self, width: int, image_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.before_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(image_dim, inner, bias=False)
        self.value = nn.Linear(image_dim, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.before_feed_forward = nn.LayerNorm(width)
        self.wide = nn.Linear(width, WIDER * width, bias=False)
        self.narrow = nn.Linear(WIDER * width, width, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(()))
        self.feed_forward_gate = nn.Parameter(torch.zeros(()))

    def forward(self, states_BTD: Tensor, key_BHRE: Tensor, value_BHRE: Tensor, mask_BR: Tensor | None) -> Tensor:
        """`[B, T, D]`; regions where the mask is False are not looked at."""
        mask_B11R = None if mask_BR is None else mask_BR[:, None, None]
        found_BHTE = F.scaled_dot_product_attention(self.queries(states_BTD), key_BHRE, value_BHRE, mask_B11R)
        found_BTD = self.output(found_BHTE.transpose(1, 2).flatten(2))
        states_BTD = states_BTD + self.attention_gate.tanh() * found_BTD
        changed_BTD = self.narrow(self.wide(self.before_feed_forward(states_BTD)).relu().square())
        gated_BTD: Tensor = states_BTD + self.feed_forward_gate.tanh() * changed_BTD
        return gated_BTD

    def queries(self, states_BTD: Tensor) -> Tensor:
        """`[B, H, T, E]`."""
        return self.query(self.before_attention(states_BTD)).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def keys_and_values(self, image: Image, normed_IRC: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, H, R, E]` each, computed once an image."""
        key_BHRE, value_BHRE = (
            image.of(layer(normed_IRC).unflatten(2, (self.heads, -1)).transpose(1, 2))
            for layer in (self.key, self.value)
        )
        return key_BHRE, value_BHRE

    def looks(self, states_BTD: Tensor, key_BHRE: Tensor, mask_BT: Tensor, mask_BR: Tensor | None) -> Tensor:
        """The weights of the regions, the mean over real words: `[B, H, R]` in float32 or better."""
        query_BHTE = self.queries(states_BTD)
        logit_BHTR = at_least_float32(query_BHTE @ key_BHRE.mT) * query_BHTE.shape[-1] ** -0.5
        if mask_BR is not None:
            logit_BHTR = logit_BHTR.masked_fill(~mask_BR[:, None, None], -torch.inf)
        real_BT = mask_BT.to(logit_BHTR.dtype)
        share_BT = real_BT / real_BT.sum(dim=1, keepdim=True)
        return (share_BT[:, None, None] @ logit_BHTR.softmax(dim=-1))[:, :, 0]


class GatedCrossAttention(Fusion):
    """Gated attention to the regions in between the layers of a language model.

    Args:
        image_dim: channels of a region.
        regions: regions an image; any number works.
        transformer: the language model.
        tuned: what of it is trained with the rest: false: nothing; true: all of it, word embeddings included; a number:
            its last so many layers (training.optimizer.parts can give them a learning rate of their own, under the name
            fusion.language_model).
        every: a block stands in front of every so many-th layer.
        heads: of a block.
        head_dim: width of a head.
        pooling: the result: the mean of the last hidden states, or that of the first or the last word; a causal model
            has seen the whole question only at the last.

    Attributes:
        out_dim: the model's width.

    Raises:
        InputError: the model cannot be run or tuned so, or has fewer layers than `every`.
    """

    attention_name: ClassVar[str] = "head"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        transformer: TextTransformer,
        tuned: bool | Count = False,
        every: Count = 1,
        heads: Count = 8,
        head_dim: Count = 64,
        pooling: Literal["mean", "first", "last"] = "mean",
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.language_model = LanguageModel(transformer, tuned)
        depth, self.out_dim = self.language_model.depth, self.language_model.width
        self.places = range(every - 1, depth, every)
        if not self.places:
            raise InputError(f"fusion 'gated_cross_attention': every: {every}: the language model has {depth} layers")
        self.before_regions = nn.LayerNorm(image_dim)
        width = int(transformer.model.config.hidden_size)  # of its layers; that of its outputs may be another
        self.blocks = nn.ModuleList(GatedBlock(width, image_dim, heads, head_dim) for _ in self.places)

    def forward(self, image: Image, question: Question) -> Fused:
        normed_IRC, mask_BR, mask_BT = self.before_regions(image.regions_IRC), image.mask_BR, question.mask_BT
        attention: list[Tensor] = []

        def change(block: nn.Module, last: bool, states_BTD: Tensor) -> Tensor:
            assert isinstance(block, GatedBlock)
            key_BHRE, value_BHRE = block.keys_and_values(image, normed_IRC)
            if last:
                attention.append(block.looks(states_BTD, key_BHRE, mask_BT, mask_BR))
            changed_BTD: Tensor = block(states_BTD, key_BHRE, value_BHRE, mask_BR)
            return changed_BTD

        before = {
            place: partial(change, block, place == self.places[-1])
            for place, block in zip(self.places, self.blocks, strict=True)
        }
        attended = None if self.language_model.causal else mask_BT  # padding is behind, where a causal one looks not
        states_BTD = self.language_model(question.words_BTD, attended, before)
        return Fused(self._pooled(states_BTD, mask_BT), attention[0])

    def _pooled(self, states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        match self.pooling:
            case "mean":
                return masked_mean(states_BTD, mask_BT)
            case "first":
                return states_BTD[:, 0]
            case _:
                return last_real(states_BTD, mask_BT)

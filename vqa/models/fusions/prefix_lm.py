"""`prefix_lm`: the regions as a prefix of a causal language model, the question behind them.

Source: Liu et al. 2023, "Visual Instruction Tuning" (LLaVA, arXiv 2304.08485), whose projector is linear, and Liu et
al. 2024, "Improved Baselines with Visual Instruction Tuning" (arXiv 2310.03744), whose projector has two layers; before
them Tsimpoukelli et al. 2021, "Multimodal Few-Shot Learning with Frozen Language Models" (Frozen, arXiv 2106.13884). A
resampler in the projector's place, which makes any number of regions a prefix of K, is that of `resampler`. With region
vectors v_r and the word embeddings e_t of the model's own tokenizer:

    linear:  u_r = W v_r + b
    mlp:     u_r = W_2 GELU(W_1 v_r + b_1) + b_2
    resampler: u_k = W x_k + b, with the K queries x that have read the regions
    z = last hidden state of LM(u, e_1 ... e_T), at the last real token

The language model is that of the question encoder, `{name: hf:NAME, words: embeddings}`. Departures: an answer is
classified from z, not written word by word, so that accuracies are those of every other fusion; there is no text before
the image, and no prompt but the question. The attention returned is where the queries of a resampler looked. Regions
that pad an image are put behind the question, where a causal model does not see them, so positions are counted over
real regions and words, and no attention mask is needed.

Legend: `I` distinct images of a batch, `B` batch, `R` regions, `K` queries, `C` channels, `T` tokens, `N` = R + T or
K + T, `E` word embedding.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vqa.errors import InputError
from vqa.models.contracts import Fused, Fusion, Image, Question
from vqa.models.fusions.resampler import Resampler
from vqa.models.options import Count
from vqa.models.question_encoders.pretrained import TextTransformer
from vqa.models.transformers.language import LanguageModel, last_real


class PrefixLM(Fusion):
    """Projected regions, then the words, through a causal language model.

    Args:
        image_dim: channels of a region.
        regions: regions an image; with the question no more than the model has positions for.
        transformer: the language model, GPT-2, OPT, Llama, Qwen, ...
        projector: "linear", "mlp" of two layers, or "resampler"; the last layer is as wide as the word embeddings.
        queries: of a resampler: how many vectors are the prefix.
        layers: of a resampler.
        heads: of a resampler; hidden_dim must be a multiple of it.
        hidden_dim: width of a resampler; four times as wide inside its feed-forward layers.
        tuned: what of the language model is trained with the rest: false: nothing; true: all of it, word embeddings
            included; a number: its last so many layers (training.optimizer.parts can give them a learning rate of their
            own, under the name fusion.language_model).

    Attributes:
        out_dim: the model's width.

    Raises:
        InputError: the model is not causal, or cannot be run or tuned so; hidden_dim is not a multiple of heads.
    """

    attention_name: ClassVar[str] = "query"

    def __init__(
        self,
        *,
        image_dim: int,
        regions: int,
        transformer: TextTransformer,
        projector: Literal["linear", "mlp", "resampler"] = "mlp",
        queries: Count = 32,
        layers: Count = 2,
        heads: Count = 8,
        hidden_dim: Count = 512,
        tuned: bool | Count = False,
    ) -> None:
        super().__init__()
        if not transformer.causal:
            raise InputError(
                f"fusion 'prefix_lm': {type(transformer.model).__name__} is no causal language model; choose a "
                f"decoder, as GPT-2, OPT, Llama or Qwen are"
            )
        self.language_model = LanguageModel(transformer, tuned)
        self.out_dim, width = self.language_model.width, self.language_model.embedding_dim
        resampled, most = projector == "resampler", self.language_model.most
        length, what = (queries, "queries") if resampled else (regions, "regions")
        if most is not None and length >= most:
            raise InputError(
                f"fusion 'prefix_lm': {length:,} {what} leave no room for a question: the language model has positions "
                f"for {most:,} tokens"
            )
        self.resampler = None
        if resampled:
            size = {"layers": layers, "heads": heads, "feed_forward_dim": 4 * hidden_dim}
            self.resampler = Resampler(image_dim, hidden_dim, queries=queries, **size)
        first = nn.Linear(hidden_dim if resampled else image_dim, width)
        second = [nn.GELU(), nn.Linear(width, width)] if projector == "mlp" else []
        self.projector = nn.Sequential(first, *second)

    def forward(self, image: Image, question: Question) -> Fused:
        attention_BKR, read = None, image
        if self.resampler is not None:
            queries_IKD, attention_IKR = self.resampler(image.regions_IRC, image.mask_IR)
            attention_BKR, read = image.of(attention_IKR), Image(queries_IKD, image.row_B)
        prefix_BRE = image.of(self.projector(read.regions_IRC)).to(question.words_BTD.dtype)
        both_BNE = torch.cat([prefix_BRE, question.words_BTD], dim=1)
        if read.mask_BR is None:
            real_BR = question.mask_BT.new_ones(prefix_BRE.shape[:2])
            mask_BN = torch.cat([real_BR, question.mask_BT], dim=1)
        else:
            both_BNE, mask_BN = real_first(both_BNE, torch.cat([read.mask_BR, question.mask_BT], dim=1))
        return Fused(last_real(self.language_model(both_BNE), mask_BN), attention_BKR)


def real_first(values_BNE: Tensor, mask_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's real vectors first, in their order, and the mask of that."""
    rows, places = mask_BN.shape
    order_BN = (~mask_BN).to(torch.uint8).argsort(dim=1, stable=True)
    flat_M = (order_BN + places * torch.arange(rows, device=order_BN.device)[:, None]).flatten()
    moved_BNE = values_BNE.flatten(0, 1).index_select(0, flat_M).unflatten(0, (rows, places))
    return moved_BNE, mask_BN.gather(1, order_BN)

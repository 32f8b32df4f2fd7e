"""What question encoders, fusions and models return, whichever they are.

Legend: `B` batch, `T` tokens, `D` width of the question vector, `H` hops, heads or glimpses, `R` regions, `A` answers.
"""

from typing import NamedTuple

from torch import Tensor


class Question(NamedTuple):
    """What a question encoder returns.

    Attributes:
        words_BTD: float, one vector a token, zeros where padded.
        sentence_BD: float, one vector a question.
        mask_BT: bool, True on real tokens.
    """

    words_BTD: Tensor
    sentence_BD: Tensor
    mask_BT: Tensor


class Fused(NamedTuple):
    """What a fusion returns.

    Attributes:
        vector_BD: float `[B, out_dim]`, ready for the classifier.
        attention_BHR: float, each row sums to 1; None where the fusion does not look at regions.
    """

    vector_BD: Tensor
    attention_BHR: Tensor | None


class Prediction(NamedTuple):
    """What the model returns.

    Attributes:
        logits_BA: float, one score an answer of the vocabulary, before any softmax or sigmoid.
        attention_BHR: float, where the fusion looked, or None.
    """

    logits_BA: Tensor
    attention_BHR: Tensor | None

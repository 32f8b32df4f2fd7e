"""Question encoders: how tokens become vectors. One file each; a new one is one line more here."""

from collections.abc import Mapping
from typing import Any

from vqa.models.contracts import QuestionEncoder
from vqa.models.question_encoders.bilstm import BiLSTM
from vqa.models.question_encoders.bow import BagOfWords
from vqa.models.question_encoders.gru import GRU
from vqa.models.question_encoders.hierarchical import Hierarchical
from vqa.models.question_encoders.lstm import QstEncoder
from vqa.models.question_encoders.lstm_last import LSTMLast
from vqa.models.question_encoders.pretrained import Pretrained
from vqa.models.question_encoders.textcnn import TextCNN
from vqa.models.question_encoders.transformer import Transformer

QUESTION_ENCODERS: dict[str, type[QuestionEncoder]] = {
    "lstm": QstEncoder,
    "lstm_last": LSTMLast,
    "gru": GRU,
    "bilstm": BiLSTM,
    "bow": BagOfWords,
    "textcnn": TextCNN,
    "hierarchical": Hierarchical,
    "transformer": Transformer,
}
HUB = "hf:"  # before a name or path: a pretrained model of transformers


def is_pretrained(section: Mapping[str, Any]) -> bool:
    """Whether a section of an experiment names a pretrained question encoder, "hf:NAME_OR_PATH"."""
    return str(section.get("name")).startswith(HUB)


def is_precomputed(section: Mapping[str, Any]) -> bool:
    """Whether a resolved section names a pretrained question encoder whose outputs are computed before the training."""
    return is_pretrained(section) and not section["tuned"] and section.get("words", "outputs") == "outputs"


def encoders_for(section: Mapping[str, Any]) -> dict[str, type[QuestionEncoder]]:
    """The question encoders by name; a pretrained one under the name that the section gives it."""
    named = section["name"] if isinstance(section, Mapping) and is_pretrained(section) else HUB
    return {**QUESTION_ENCODERS, f"{HUB}NAME_OR_PATH" if named == HUB else named: Pretrained}

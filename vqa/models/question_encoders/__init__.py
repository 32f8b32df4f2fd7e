"""Question encoders: how tokens become vectors. One file each; a new one is one line more here."""

from vqa.models.contracts import QuestionEncoder
from vqa.models.question_encoders.lstm import QstEncoder

QUESTION_ENCODERS: dict[str, type[QuestionEncoder]] = {
    "lstm": QstEncoder,
}

"""Question encoders: how tokens become vectors. One file each; a new one is one line more here."""

from vqa.models.contracts import QuestionEncoder
from vqa.models.question_encoders.bilstm import BiLSTM
from vqa.models.question_encoders.bow import BagOfWords
from vqa.models.question_encoders.gru import GRU
from vqa.models.question_encoders.hierarchical import Hierarchical
from vqa.models.question_encoders.lstm import QstEncoder
from vqa.models.question_encoders.lstm_last import LSTMLast
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

"""Parts from outside the package: a user's file, and an installed package with entry points."""

from pathlib import Path

FUSION = '''"""`mine`: image and question side by side, then one layer.

    z = tanh(W [v; q])
"""

import torch
from torch import Tensor, nn

from vqa.models import Fused, Fusion, Question
from vqa.models.options import Count


class Mine(Fusion):
    """One layer over the mean region and the question."""

    def __init__(self, *, image_dim: int, question_dim: int, width: Count = 6, scale: float = 1.0) -> None:
        super().__init__()
        self.out_dim, self.scale = width, scale
        self.layer = nn.Linear(image_dim + question_dim, width)

    def forward(self, image_BRC: Tensor, question: Question) -> Fused:
        both_BD = torch.cat([image_BRC.mean(dim=1), question.sentence_BD], dim=1)
        return Fused(self.scale * torch.tanh(self.layer(both_BD)), None)
'''
QUESTION_ENCODER = '''
import torch
from torch import Tensor, nn

from vqa.models import Question, QuestionEncoder


class MeanWord(QuestionEncoder):
    """The mean of the words' vectors."""

    def __init__(self, *, vocab_size: int, embedding_dim: int = 8) -> None:
        super().__init__()
        self.word_dim = self.sentence_dim = embedding_dim
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=0)

    def forward(self, tokens_BT: Tensor, length_B: Tensor) -> Question:
        mask_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device) < length_B.to(tokens_BT.device)[:, None]
        words_BTD = self.embedding(tokens_BT) * mask_BT[..., None]
        return Question(words_BTD, words_BTD.sum(dim=1) / mask_BT.sum(dim=1, keepdim=True), mask_BT)
'''
LOSS = '''
from torch import Tensor

from vqa.models.losses import CrossEntropy, Target


class Doubled(CrossEntropy):
    """Twice the cross entropy."""

    def forward(self, logits_BA: Tensor, target: Target) -> Tensor:
        return 2 * super().forward(logits_BA, target)
'''
IMAGE_ENCODER = '''
import torch
from torch import nn

from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.preprocessing import Preparation


def coarse(name: str, *, layer: str | None, weights: str, preparation: Preparation) -> ImageEncoder:
    """The colours of a coarse grid."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(2))
    return ImageEncoder(
        network, name=name, layer=layer or "grid", preparation=preparation, weights_origin=f"{weights} weights",
        read_output=lambda map_BCHW: map_BCHW,
    )
'''
FORMAT = '''
from pathlib import Path
from dataclasses import replace

from vqa.data.dataset import QADataset
from vqa.data.formats import read_dataset


class Renamed:
    """VQA v2 under other names of its splits."""

    splits = {"train": "first", "val": "second"}
    about = "VQA v2, its splits renamed"

    def read(self, root: Path, split: str) -> QADataset:
        return replace(read_dataset("vqa_v2", root, {"first": "train", "second": "val"}[split]), split=split)
'''


def write_module(folder: Path, name: str, source: str) -> Path:
    """A module of that name in a folder; returns its file."""
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    return path


def install(site: Path, package: str, source: str, entry_points: dict[str, str], version: str = "1.2") -> Path:
    """What an installer leaves of a package with one module, `part`; returns the module's file.

    Args:
        site: the folder of installed packages, to be on `sys.path`.
        entry_points: group and name, as "vqa.fusions mine", to what they name.
    """
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").touch()
    info = site / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n", encoding="utf-8")
    lines = [f"[{key.split()[0]}]\n{key.split()[1]} = {value}\n" for key, value in entry_points.items()]
    (info / "entry_points.txt").write_text("".join(lines), encoding="utf-8")
    (info / "RECORD").write_text(f"{package}/__init__.py,,\n{package}/part.py,,\n", encoding="utf-8")
    return write_module(site / package, "part", source)

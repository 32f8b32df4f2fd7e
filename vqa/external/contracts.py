"""What an external model is to the rest: something that takes prepared batches and says answers.

Legend: `B` questions of a batch.
"""

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vqa.data.dataset import QADataset
from vqa.errors import InputError
from vqa.text.vocabulary import AnswerVocabulary

PLACE = "{question}"  # where a prompt has the question


class Batch(NamedTuple):
    """Questions that are answered together, ready for the model.

    Attributes:
        rows: of the data set.
        images: one a question, RGB.
        questions: as asked, before any prompt.
        choices: the choices of each question, or None where only open-ended answers are wanted.
        inputs: what the model's own processor makes of images and prompts, on the CPU.
    """

    rows: list[int]
    images: list[Image.Image]
    questions: list[str]
    choices: list[list[str]] | None
    inputs: Mapping[str, Tensor]


class ModelAnswer(NamedTuple):
    """What a model says to one question.

    Attributes:
        answer: the open-ended answer, cleaned.
        probability: of that answer, 0..1: the softmax's, or the product over the tokens of a generated answer.
        choice: the choice that it picks, where there are choices.
    """

    answer: str
    probability: float
    choice: str | None


@dataclass(frozen=True)
class Settings:
    """How a model is asked.

    Attributes:
        prompt: the text that the model reads, with `{question}` where the question goes.
        batch_size: questions answered together.
        max_new_tokens: longest generated answer; classification models need none.
        device: where the model runs.
        dtype: in which it computes.
    """

    prompt: str
    batch_size: int
    max_new_tokens: int
    device: torch.device
    dtype: torch.dtype


class ExternalModel(ABC):
    """A model of transformers behind one contract. Build with `vqa.external.load.load_external`.

    Attributes:
        name: as the user gave it.
        revision: the commit of the hub, or a digest of the folder's files.
        kind: "classification", "generative" or "chat".
        settings: how it is asked.
        answers: all that it can answer, for a classification model; None for one that generates text.
    """

    name: str
    revision: str
    kind: str
    settings: Settings
    answers: AnswerVocabulary | None = None

    def __init__(self, name: str, revision: str, model: Any, processor: Any, settings: Settings) -> None:
        self.name, self.revision, self.settings = name, revision, settings
        self.model, self.processor = model, processor
        self._copies = threading.local()

    @property
    def title(self) -> str:
        """How tables call the model: its name on the hub, or that of its folder."""
        return Path(self.name).resolve().name if Path(self.name).is_dir() else self.name

    def expect(self, dataset: QADataset) -> None:
        """Called once, before the first batch, with the split that will be asked and its choices."""
        return

    @abstractmethod
    def prompt_length(self, question: str) -> int:
        """Tokens of the prompt; questions of one length share a batch, so that nothing is padded."""

    @abstractmethod
    def encode(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Mapping[str, Tensor]:
        """What the model's own processor makes of a batch, on the CPU. Called from several threads."""

    @abstractmethod
    def answer(self, batch: Batch) -> list[ModelAnswer]:
        """Answer a batch of questions; raises InputError where the model computes what is no number."""

    def prompt(self, question: str) -> str:
        """The text that the model reads for a question."""
        return self.settings.prompt.replace(PLACE, question)

    def require_numbers(self, values: Tensor) -> None:
        """Raise InputError where a computation gave something that is no number: no answer follows from it."""
        if values.isnan().any():
            dtype = str(self.settings.dtype).removeprefix("torch.")
            raise InputError(
                f"{self.name}: computes probabilities that are not numbers: damaged weights, or too large for {dtype}"
            )

    def own_processor(self) -> Any:
        """A copy of the processor for the calling thread: fast tokenizers break when threads share one."""
        if not hasattr(self._copies, "processor"):
            self._copies.processor = copy.deepcopy(self.processor)
        return self._copies.processor

    def on_device(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs where the model is, floating ones in its type."""
        device, dtype = self.settings.device, self.settings.dtype
        return {
            name: value.to(device, dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }


def clean_answer(text: str) -> str:
    """A generated answer as a results file has it: the first line that is not empty, in lower case, no full stop.

    The official metric normalises further, but only where the humans disagree: "Yes." would be wrong where all ten say
    "yes".

    >>> clean_answer(" A red bus. \\nIt is parked.")
    'a red bus'
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    first = next((line for line in lines if line), "")
    return first.lower().removesuffix(".").strip()

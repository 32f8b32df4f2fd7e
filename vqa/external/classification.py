"""Models that choose among labels, such as ViLT fine-tuned on VQA v2.

Legend: `B` questions of a batch, `A` labels, `C` choices.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vqa.data.dataset import QADataset
from vqa.errors import InputError
from vqa.evaluation.multiple_choice import pick_choices
from vqa.external.contracts import Batch, ExternalModel, ModelAnswer, Settings
from vqa.features.encoders.text_encoders import NO_LIMIT, longest_text
from vqa.progress import console
from vqa.text.vocabulary import AnswerVocabulary
from vqa.training.inputs.choices import ChoiceTable


class ClassificationModel(ExternalModel):
    """Open-ended answers are the best label; choices score as those of our own models do.

    The rule for choices that are no label is that of `vqa.evaluation.multiple_choice`.
    """

    kind = "classification"

    def __init__(self, name: str, revision: str, model: Any, processor: Any, settings: Settings) -> None:
        super().__init__(name, revision, model, processor, settings)
        labels: Mapping[int, str] = model.config.id2label
        if sorted(labels) != list(range(len(labels))):
            raise InputError(f"{name}: its config's id2label does not number its answers from 0")
        self.labels = AnswerVocabulary(tuple(labels[number] for number in range(len(labels))))
        self.answers = self.labels
        self.longest = longest_text(model.config, processor.tokenizer, model)

    def expect(self, dataset: QADataset) -> None:
        self.dataset = dataset
        long = sum(self._tokens(question) > self.longest for question in dataset.question.distinct)
        if long:
            console.print(
                f"note: {long:,} of {len(dataset.question.distinct):,} distinct questions are longer than the "
                f"{self.longest} tokens that {self.name} takes, and are cut",
            )
        self.table = ChoiceTable.of(dataset, self.labels, self.settings.device)

    def prompt_length(self, question: str) -> int:
        return min(self._tokens(question), self.longest)

    def _tokens(self, question: str) -> int:
        return len(self.processor.tokenizer(self.prompt(question), verbose=False)["input_ids"])

    def encode(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Mapping[str, Tensor]:
        texts = [self.prompt(question) for question in questions]
        limit = {"truncation": True, "max_length": self.longest} if self.longest < NO_LIMIT else {}
        return dict(self.own_processor()(images=list(images), text=texts, padding=True, return_tensors="pt", **limit))

    @torch.inference_mode()
    def answer(self, batch: Batch) -> list[ModelAnswer]:
        torch.manual_seed(0)  # ViLT puts the patches of an image in a random order, which rounding depends on
        logits_BA = self.model(**self.on_device(batch.inputs)).logits.float()
        best = logits_BA.softmax(dim=1).max(dim=1)
        self.require_numbers(best.values)
        chosen = self._choose(batch, logits_BA)
        found = zip(best.indices.tolist(), best.values.tolist(), chosen, strict=True)
        return [ModelAnswer(self.labels.answers[label], probability, choice) for label, probability, choice in found]

    def _choose(self, batch: Batch, logits_BA: Tensor) -> list[str | None]:
        """The best choice of each question; None where no choice is asked for."""
        if batch.choices is None or self.table is None or self.dataset.choices is None:
            return [None] * len(logits_BA)
        rows_B = torch.tensor(batch.rows, device=logits_BA.device)
        score_BC = self.table.score(logits_BA, rows_B).cpu().numpy()
        picked = pick_choices(self.dataset.choices.take(rows_B.cpu().numpy()), score_BC)
        return [picked.at(row) for row in range(len(batch.rows))]

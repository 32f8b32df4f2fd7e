"""A trained run brought back from its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqa.features.text_towers import TextTower
from vqa.models import VQAModel
from vqa.text.vocabulary import AnswerVocabulary, Tokenizer, Vocabulary, read_vocabularies, vocabulary_digest
from vqa.training.checkpoint import RunFolder, load_model, open_run
from vqa.training.experiment import Experiment
from vqa.training.prepare import Machine, choose_machine, make_model
from vqa.training.questions import reload_tower
from vqa.training.tuning import reload_encoder


@dataclass(frozen=True)
class TrainedRun:
    """The model with its best weights, and what it needs to read questions.

    Attributes:
        recorded: facts of the training: digests of the data, shape and origin of the features.
        model: on the machine's device, in eval mode.
        words: the words of the training questions.
        tower: the pretrained model of the question encoder, or None.
    """

    folder: RunFolder
    experiment: Experiment
    recorded: dict[str, Any]
    model: VQAModel
    words: Vocabulary
    answers: AnswerVocabulary
    machine: Machine
    tower: TextTower | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns questions into the model's tokens."""
        return self.tower or self.words

    @property
    def name(self) -> str:
        """How tables call the run: "san, seed 0"."""
        return f"{self.experiment.name}, seed {self.experiment.seed}"


def load_run(path: Path) -> TrainedRun:
    """Load a run.

    Raises:
        InputError: when the folder is no run, has no weights yet, or its files do not belong together.
    """
    folder, experiment, recorded = open_run(path)
    words, answers = read_vocabularies(folder.vocabulary, experiment.words.longest)
    machine = choose_machine(experiment.training)
    features = recorded["features"]
    tower = reload_tower(folder, experiment, recorded)
    encoder = reload_encoder(folder, experiment, recorded)
    model = make_model(experiment, words, answers, features["regions"], features["channels"], tower, encoder)
    load_model(folder.model, model, vocabulary_digest(words, answers))
    model = model.to(machine.device).eval()
    return TrainedRun(folder, experiment, recorded, model, words, answers, machine, tower)

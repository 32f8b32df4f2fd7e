"""A trained run brought back from its folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from vqa.data.images import Decoding
from vqa.errors import InputError, first_line, first_of
from vqa.evaluation.contamination import TrainingDigests, read_seen, seen_in
from vqa.experiment import Experiment
from vqa.features.cache.reader import FeatureCache, differences, identity
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.text_encoders import TextEncoder, hf_text_encoder
from vqa.files import sha256_file
from vqa.models import VQAModel, is_pretrained, tuned_share
from vqa.parts import require_allowed
from vqa.progress import console
from vqa.runtime.device import Machine, choose_machine
from vqa.text.vocabulary import AnswerVocabulary, Tokenizer, Vocabulary, read_vocabularies, vocabulary_digest
from vqa.training.inputs.prepare import cutter_of, open_caches
from vqa.training.inputs.splits import read_train_and_val
from vqa.training.inputs.tuned_encoder import encoder_without_weights
from vqa.training.model import make_model
from vqa.training.outside import code_of_run, find_again
from vqa.training.run_folder import RunFolder, load_model, open_run, saved_names

BEST_ANSWERS = 5  # to a question, that are shown


@dataclass(frozen=True)
class TrainedRun:
    """The model with its best weights, and what it needs to read questions.

    Attributes:
        recorded: facts of the training: digests of the data, shape and origin of the features.
        model: on the machine's device, in eval mode.
        words: the words of the training questions.
        text_encoder: the pretrained model of the question encoder, or None.
    """

    folder: RunFolder
    experiment: Experiment
    recorded: dict[str, Any]
    model: VQAModel
    words: Vocabulary
    answers: AnswerVocabulary
    machine: Machine
    text_encoder: TextEncoder | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns questions into the model's tokens."""
        return self.text_encoder or self.words

    @property
    def name(self) -> str:
        """How tables call the run: "san, seed 0"."""
        return f"{self.experiment.name}, seed {self.experiment.seed}"


def load_run(path: Path, *, allow_code: bool = False) -> TrainedRun:
    """Load a run.

    Args:
        allow_code: import code from outside the package that the run's record names as `module:Class`.

    Raises:
        InputError: when the folder is no run, has no weights yet, its files do not belong together, or it names code
            that may not be imported or is not there.
    """
    folder, experiment, recorded = open_run(path)
    require_allowed(code_of_run(experiment), path, allow_code)
    for note in find_again(path, experiment, recorded):
        console.print(note)
    cutter, normalise = cutter_of(experiment, recorded, folder.words_tokenizer), experiment.answers.normalise
    words, answers = read_vocabularies(folder.vocabulary, experiment.words.longest, cutter, normalise)
    machine = choose_machine(
        experiment.training.device, experiment.training.precision, experiment.training.recurrent_precision
    )
    features = recorded["features"]
    text_encoder = reload_text_encoder(folder, experiment, recorded)
    encoder = reload_encoder(folder, experiment, recorded)
    shape = (features["regions"], features["channels"])
    try:
        model = make_model(experiment, words, answers, *shape, text_encoder, encoder)
    except (MemoryError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{folder.experiment}: no model can be built of it: {first_line(error)}") from None
    load_model(folder.model, model, vocabulary_digest(words, answers))
    model = model.to(machine.device).eval()
    return TrainedRun(folder, experiment, recorded, model, words, answers, machine, text_encoder)


def moved_to(run: TrainedRun, root: Path) -> TrainedRun:
    """The run with its data set in another folder, whose files must be those that it was trained on.

    Raises:
        InputError: naming the files that are missing there or are others.
    """
    old, data = Path(run.experiment.data.root), run.experiment.data
    digests, wrong = {}, []
    for name, digest in run.recorded["data"].items():
        path = Path(name)
        here = root / (path.relative_to(old) if path.is_relative_to(old) else path.name)
        digests[str(here)] = digest
        if not here.is_file():
            wrong.append(f"{here}: no such file; the run was trained on it as {name}")
        elif sha256_file(here) != digest:
            wrong.append(f"{here}: is not the file that the run was trained on, {name} (sha256 {digest[:12]})")
    if wrong:
        raise InputError(first_of(wrong))
    experiment = run.experiment.model_copy(update={"data": data.model_copy(update={"root": str(root)})})
    return replace(run, experiment=experiment, recorded={**run.recorded, "data": digests})


def reload_text_encoder(folder: RunFolder, experiment: Experiment, recorded: dict[str, Any]) -> TextEncoder | None:
    """The same for a trained run: tokenizer and configuration from its folder, and weights unless the run has them all.

    Raises:
        InputError: the model's weights are not those that the run was trained with, or are gone.
    """
    section = experiment.question_encoder
    if not is_pretrained(section):
        return None
    whole = tuned_share(section, experiment.fusion) == "all"  # its own weights are all there are
    text_encoder = hf_text_encoder(section["name"], files=folder.language_model, weights=not whole)
    made, now = recorded["question_encoder"], text_encoder.recorded()
    same_library = made["transformers"] == now["transformers"]  # another one may write the same tokenizer otherwise
    if same_library and made["tokenizer_sha256"] != now["tokenizer_sha256"]:
        raise InputError(f"{folder.language_model}: not the tokenizer that the run was trained with; bring it back")
    stated = made["weights_sha256"]
    if not whole and text_encoder.weights_sha256 != stated:
        raise InputError(
            f"{folder.path}: was trained with other weights of {section['name']} (sha256 {stated[:12]}) than are there "
            f"now ({text_encoder.weights_sha256[:12]}); bring them back, or set question_encoder.name in "
            f"{folder.experiment} to where they are"
        )
    return text_encoder


POOLER = "image_encoder.network.model.pooler."  # of a transformers vision encoder


def reload_encoder(folder: RunFolder, experiment: Experiment, recorded: dict[str, object]) -> ImageEncoder | None:
    """The same for a trained run, whose own weights are loaded with the model's: its first weights are not needed.

    Raises:
        InputError: when the encoder prepares images otherwise than when the run was trained.
    """
    section = experiment.features
    if not section.tune:
        return None
    encoder, made = encoder_without_weights(section), recorded["features"]
    assert isinstance(made, dict)
    encoder.decode_as(Decoding.stated_in(made["preprocessing"]))
    wrong = differences(encoder.preprocessing, made["preprocessing"], folder.experiment)
    if wrong:
        raise InputError("\n".join(["the encoder prepares images otherwise than when trained:", *wrong]))
    text_encoder = getattr(encoder.network, "model", None)
    saved = saved_names(folder.model)
    if (
        isinstance(text_encoder, nn.Module)
        and hasattr(text_encoder, "pooler")
        and not any(n.startswith(POOLER) for n in saved)
    ):
        text_encoder.register_module("pooler", None)  # its checkpoint had none, and the layer needs none
    return encoder


def load_seen(folder: RunFolder, experiment: Experiment, recorded: dict[str, Any]) -> TrainingDigests:
    """What a run was trained on: from its `seen.npz`, or from its data where they are still the recorded ones.

    Raises:
        InputError: when neither is there.
    """
    data = recorded.get("data", {})
    if not folder.seen.is_file() and data and all(Path(f).is_file() and sha256_file(Path(f)) == data[f] for f in data):
        train, val = read_train_and_val(experiment, recorded)
        return seen_in(train, val if experiment.training.keep == "best" else None, open_caches(experiment))
    return read_seen(folder.seen)


def open_run_caches(run: TrainedRun, caches: Sequence[Path] = ()) -> list[FeatureCache]:
    """Open the experiment's caches, or others, and check that they hold the features that the run was trained on."""
    experiment = run.experiment
    if experiment.features.tune:
        if caches:
            raise InputError(f"{run.folder.path}: tuned its image encoder, so it reads images; leave out --cache")
        return []
    if caches:
        section = experiment.features.model_copy(update={"cache": [str(path) for path in caches]})
        experiment = experiment.model_copy(update={"features": section})
    opened = open_caches(experiment)
    stated = identity(run.recorded["features"])
    wrong = [line for cache in opened for line in cache.contradictions(stated)]
    shape = tuple(run.recorded["features"][key] for key in ("regions", "channels"))
    wrong += [
        f"{cache.path}: holds {cache.regions} x {cache.channels} an image, {run.folder.experiment} says {shape[0]} x "
        f"{shape[1]}"
        for cache in opened
        if (cache.regions, cache.channels) != shape
    ]
    for cache in opened:  # filled up with zeros is one thing where they count as regions, another where they do not
        ragged = cache.count_I is not None and bool((cache.count_I < cache.regions).any())
        if ragged and "region_count" not in run.recorded["features"]:
            wrong.append(f"{cache.path}: says which regions are real, which the run was trained without")
        if "region_count" in run.recorded["features"] and cache.count_I is None:
            wrong.append(f"{cache.path}: does not say which regions are real, which the run was trained with")
        if "boxes" in run.recorded["features"] and not cache.boxed:
            wrong.append(f"{cache.path}: does not say where regions lie, which the run was trained with")
    if wrong:
        raise InputError(
            "\n".join([f"{run.folder.experiment}: these are not the features that the run was trained on:", *wrong])
        )
    return opened

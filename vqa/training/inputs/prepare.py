"""From an experiment to tensors: data sets read, vocabularies built, questions encoded, features in memory.

Legend: `I` images of all splits in use, `R` regions, `C` channels.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vqa.data.dataset import ImageDigests, ImageTable, QADataset, ids_digest, missing_images
from vqa.data.images import Decoding
from vqa.data.missing import missing_sentence
from vqa.errors import InputError
from vqa.evaluation.contamination import Contamination, TrainingDigests, overlap, seen_in
from vqa.experiment import AnswersSection, Experiment, TrainingSection
from vqa.features.cache.reader import IDENTITY, FeatureCache
from vqa.features.cache.writer import WHERE
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.text_encoders import TextEncoder
from vqa.features.tables.feature_table import FeatureTable, too_large_for_memory
from vqa.features.tables.pixel_table import PixelTable
from vqa.files import sha256_file
from vqa.models import Fusion, reads_of, tuned_share
from vqa.models.boxes import NO_BOXES
from vqa.runtime.device import Machine, choose_machine
from vqa.text.cutters import Cutter, word_cutter
from vqa.text.vocabulary import UNKNOWN, AnswerVocabulary, Vocabulary
from vqa.training.inputs.batches import BLOCKS_A_WINDOW, EncodedQuestions
from vqa.training.inputs.choices import ChoiceTable
from vqa.training.inputs.questions import encode_split, learnt_from, load_text_encoder
from vqa.training.inputs.splits import read_train_and_val
from vqa.training.inputs.tuned_encoder import encoder_to_tune
from vqa.training.inputs.word_vectors import FirstVectors, read_first_vectors
from vqa.training.run_folder import RunFolder

Shuffle = Literal["full", "blocks"]


def cutter_of(experiment: Experiment, recorded: dict[str, Any] | None = None, file: Path | None = None) -> Cutter:
    """How the questions of an experiment are cut into words.

    Args:
        recorded: the facts of a run that has begun; one of version 0.1.0 recorded nothing of words.
        file: where a run keeps its tokenizer (`word_cutter`).
    """
    old = recorded is not None and "words" not in recorded
    return word_cutter("latin" if old else experiment.words.tokenizer, file)


def build_vocabularies(
    train: QADataset, experiment: Experiment, cutter: Cutter | None = None
) -> tuple[Vocabulary, AnswerVocabulary]:
    """The question and answer vocabularies, from the training split alone; `cutter` is the experiment's."""
    questions = [train.question.distinct[code] for code in train.question.codes]
    least = experiment.words.min_count
    words = Vocabulary.build(questions, least, experiment.words.longest, cutter or cutter_of(experiment))
    if not words.words:
        raise InputError(f"no word is there {least:,} times in the training questions; lower words.min_count")
    return words, count_answers(train, experiment.answers)


def count_answers(train: QADataset, section: AnswersSection) -> AnswerVocabulary:
    """The K most frequent answers of a split, counted as the experiment says."""
    column = train.majority if section.count_from == "majority" else train.answers
    if column is None:
        raise InputError(f"{train.no_answers}, so it cannot be trained on")
    codes, counts = np.unique(column.codes[column.codes >= 0], return_counts=True)
    frequency = {column.distinct[code]: int(count) for code, count in zip(codes, counts, strict=True)}
    return AnswerVocabulary.build(Counter(frequency), section.size, section.min_count, section.normalise)


def open_caches(experiment: Experiment) -> list[FeatureCache]:
    """Open the experiment's feature caches and check them against what it says.

    Raises:
        InputError: naming the cache, what it holds and what the experiment expects, or the command that makes it.
    """
    section = experiment.features
    expected = {
        key: value for key in ("encoder", "layer", "image_size") if (value := getattr(section, key)) is not None
    }
    caches = []
    for name in section.cache:
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{path}: no such feature cache; make it with:\n  {_extract_command(experiment, name)}")
        cache = FeatureCache(path)
        asked = {"weights": section.weights} if section.weights and cache.attributes.get("weights") else {}
        wrong = cache.contradictions(expected | asked)
        if wrong:
            raise InputError("\n".join([*wrong, "Correct the experiment's features section, or extract again."]))
        caches.append(cache)
    shapes = {(cache.regions, cache.channels) for cache in caches}
    if len(shapes) > 1:
        raise InputError(f"features.cache: the files differ in shape (regions, channels): {sorted(shapes)}")
    return caches


def require_boxes(fusion: Fusion | type[Fusion], has_boxes: bool, cache: str | Path) -> None:
    """Refuse a fusion that asks where the regions lie, if the features do not say it.

    Args:
        fusion: as its options make it (they may decide), its weights may be on the meta device.
        has_boxes: whether the features say where their regions lie.
        cache: where the features are from, for the message.

    Raises:
        InputError: they do not, and the fusion asks.
    """
    if fusion.needs_boxes and not has_boxes:
        raise InputError(f"{cache}: {NO_BOXES}")


def _require_extractable(experiment: Experiment, datasets: Sequence[QADataset]) -> None:
    """Raise InputError where images are missing that a tuned encoder, or the extraction of a missing cache, needs."""
    root, section = Path(experiment.data.root), experiment.features
    absent = [name for name in section.cache if not Path(name).is_file()]
    for dataset in datasets if absent or section.tune else ():
        if missing := missing_images(dataset):
            first = f"{absent[0]}: no such feature cache, and it cannot be made: " if absent else ""
            raise InputError(f"{first}{dataset.name}: {missing_sentence(dataset.images, missing, root)}")


def _extract_command(experiment: Experiment, cache: str) -> str:
    features, data = experiment.features, experiment.data
    options = [f"--encoder {features.encoder or 'vgg16'}"]
    options += [f"--layer {features.layer}"] if features.layer else []
    options += [f"--image-size {features.image_size}"] if features.image_size else []
    options += [f"--weights {features.weights}"] if features.weights else []
    also = [data.val] if data.val is not None and data.holdout is None else []
    splits = [f"--split {split}" for split in (*data.train_splits, *also)]
    source = [f"--data {data.root} --format {data.format}", *map(shlex.quote, data.table.arguments)]
    return " ".join(["vqa features extract", *source, *splits, *options, f"--out {cache}"])


def load_features(
    experiment: Experiment,
    caches: list[FeatureCache],
    datasets: list[QADataset],
    machine: Machine,
    encoder: ImageEncoder | None = None,
    *,
    statistics: bool = False,
) -> tuple[FeatureTable | PixelTable, list[np.ndarray]]:
    """One table with what the fusion reads of every image in use, and for each data set the rows of its images.

    Args:
        encoder: that is tuned: the table has the images themselves then.
        statistics: of the features are asked for, over all regions of some images (`vqa.training.model`).
    """
    image_ids = list(dict.fromkeys(name for dataset in datasets for name in dataset.images.ids))
    residency = experiment.features.residency
    table: FeatureTable | PixelTable
    if encoder is not None:
        tables = (dataset.images for dataset in datasets)
        paths = {name: path for images in tables for name, path in zip(images.ids, images.paths, strict=True)}
        table = PixelTable(ImageTable(tuple(paths), tuple(paths.values())), encoder, machine.device, residency)
    else:
        table = FeatureTable.load(
            caches, image_ids, machine.device, residency, machine.feature_dtype, experiment.features.share,
            reads=reads_of(experiment.fusion), variance=statistics,
        )  # fmt: skip
    row = {name: i for i, name in enumerate(image_ids)}
    rows = [np.array([row[name] for name in dataset.images.ids], dtype=np.int64) for dataset in datasets]
    return table, rows


@dataclass(frozen=True)
class TrainingData:
    """Everything the training loop gathers from, on its device; `val` and what is of it None without validation."""

    train: QADataset
    val: QADataset | None
    words: Vocabulary
    answers: AnswerVocabulary
    train_questions: EncodedQuestions
    val_questions: EncodedQuestions | None
    val_choices: ChoiceTable | None
    features: FeatureTable | PixelTable
    caches: list[FeatureCache]
    machine: Machine
    first_vectors: FirstVectors | None = None
    text_encoder: TextEncoder | None = None
    encoder: ImageEncoder | None = None
    shuffle: Shuffle = "full"

    @property
    def has_boxes(self) -> bool:
        """Whether it is known where the regions of every image lie."""
        return bool(self.caches) and all(cache.boxed for cache in self.caches)

    @property
    def digests(self) -> Sequence[ImageDigests]:
        """What states the digests of the images' files."""
        return [self.features] if isinstance(self.features, PixelTable) else self.caches

    @cached_property
    def seen(self) -> TrainingDigests:
        """What is trained on, in digests; made once."""
        return seen_in(self.train, None, self.digests)

    def seen_of_val(self, shares_images: str | None) -> Contamination | None:
        """What the validation split has in common with what is trained on, as `vqa evaluate` will find it."""
        return None if self.val is None else overlap(self.seen, self.val, self.digests, shares_images)

    def shuffled(self, shuffle: Shuffle) -> "TrainingData":
        """The same with its questions in blocks of images, or in none."""
        in_blocks = shuffle == "blocks" and isinstance(self.features, FeatureTable)
        block_N = self.features.block_N if in_blocks else None  # type: ignore[union-attr]
        train, val = self.train_questions.in_blocks(block_N), self.val_questions
        val = None if val is None else val.in_blocks(block_N)
        return replace(self, train_questions=train, val_questions=val, shuffle=shuffle)


def choose_shuffle(section: TrainingSection, features: FeatureTable | PixelTable) -> Shuffle:
    """Resolve `shuffle: auto`; where the model encodes the images itself there is one order only."""
    if not isinstance(features, FeatureTable):
        return "full"
    if section.shuffle != "auto":
        return section.shuffle
    return "blocks" if too_large_for_memory(features) else "full"


def prepare(
    experiment: Experiment, decoding: Decoding | None = None, recorded: dict[str, Any] | None = None
) -> TrainingData:
    """Read, check and encode what training needs; raises InputError before anything is written.

    Args:
        decoding: of the images of a tuned encoder, where the run has begun with one (`vqa.training.resume`).
        recorded: the facts of a run that has begun, whose held-out questions are found again.
    """
    machine = choose_machine(
        experiment.training.device, experiment.training.precision, experiment.training.recurrent_precision
    )
    train, val = read_train_and_val(experiment, recorded)
    for dataset, key in ((train, "train"), (val, "val")):
        if dataset is not None and dataset.answers is None:
            raise InputError(f"data.{key}: {dataset.no_answers}")
    kept = None if recorded is None else RunFolder(experiment.folder).words_tokenizer
    words, answers = build_vocabularies(train, experiment, cutter_of(experiment, recorded, kept))
    first_vectors = read_first_vectors(experiment, words, train)
    text_encoder = load_text_encoder(experiment)
    encoder = encoder_to_tune(experiment, decoding)
    _require_extractable(experiment, [train] if val is None else [train, val])
    caches = open_caches(experiment)
    table, (train_rows, *val_rows) = load_features(
        experiment, caches, [train] if val is None else [train, val], machine, encoder,
        statistics=experiment.features.standardise,
    )  # fmt: skip
    encoding: dict[str, Any] = {"experiment": experiment, "caches": caches, "device": machine.device}
    train_questions = encode_split(train, text_encoder or words, answers, train_rows, **encoding)
    val_questions = val_choices = None
    if val is not None:
        val_questions = encode_split(val, text_encoder or words, answers, *val_rows, **encoding).to(machine.device)
        val_choices = ChoiceTable.of(val, answers, machine.device)
    prepared = TrainingData(
        train=train,
        val=val,
        words=words,
        answers=answers,
        train_questions=train_questions.take(learnt_from(train_questions, experiment)).to(machine.device),
        val_questions=val_questions,
        val_choices=val_choices,
        features=table,
        caches=caches,
        machine=machine,
        first_vectors=first_vectors,
        text_encoder=text_encoder,
        encoder=encoder,
    )
    return prepared.shuffled(choose_shuffle(experiment.training, table))


def shuffle_note(prepared: TrainingData) -> str:
    """What is printed of the order of the questions: nothing where it is the plain one of features in memory."""
    if prepared.shuffle == "blocks":
        return f"questions shuffled in windows of {BLOCKS_A_WINDOW} blocks of neighbouring images (training.shuffle)"
    if isinstance(prepared.features, FeatureTable) and prepared.features.residency == "disk":
        return "questions shuffled over all images; training.shuffle=blocks would read the disk in long runs"
    return ""


def data_notes(prepared: TrainingData) -> list[str]:
    """What the reader of the data has to say of how it read them, each once."""
    splits = [prepared.train] if prepared.val is None else [prepared.train, prepared.val]
    return list(dict.fromkeys(note for dataset in splits for note in dataset.notes))


def question_notes(prepared: TrainingData, experiment: Experiment) -> list[str]:
    """What is printed of words that start from a file, and of a pretrained language model."""
    notes = [] if prepared.first_vectors is None else [str(prepared.first_vectors)]
    if prepared.text_encoder is not None:
        vectors = prepared.train_questions.vectors
        how = {"all": "tuned", "some": "its last layers tuned", "none": "frozen, run with every image and question"}[
            tuned_share(experiment.question_encoder, experiment.fusion)
        ]
        if vectors is not None:
            how = f"frozen, {vectors.packed_PD.nbytes / 1e9:.2f} GB of outputs computed once"
        notes.append(f"{prepared.text_encoder.name}: {how}; {len(prepared.text_encoder):,} tokens of its own")
    elif prepared.val_questions is not None:
        notes.append(_unknown_words(prepared.val_questions))
    return notes


def _unknown_words(questions: EncodedQuestions) -> str:
    """How much of the validation questions the vocabulary does not know; nothing where it knows all."""
    unknown_NT = questions.tokens_NT == UNKNOWN
    words = int(unknown_NT.sum())
    if not words:
        return ""
    asked, share = int(unknown_NT.any(1).sum()), 100 * words / int(questions.length_N.sum())
    return (
        f"{asked:,} of {len(questions):,} validation questions have words that the vocabulary does not know, "
        f"{share:.2g}% of their words"
    )


def recorded_facts(prepared: TrainingData) -> dict[str, Any]:
    """What the run folder records of its data and features, for prediction and to find out a file that has changed."""
    splits = [prepared.train] if prepared.val is None else [prepared.train, prepared.val]
    files = sorted({str(path) for dataset in splits for path in dataset.files})
    return {
        "data": {name: sha256_file(Path(name)) for name in files},
        "features": _recorded_features(prepared),
        "questions": {
            "train": len(prepared.train),
            "trained_on": len(prepared.train_questions),
            "train_ids_sha256": ids_digest(prepared.train),
            "val_ids_sha256": None if prepared.val is None else ids_digest(prepared.val),
        },
        "words": {"tokenizer": prepared.words.cutter.name},
        "word_vectors": None if prepared.first_vectors is None else prepared.first_vectors.recorded(),
        "question_encoder": None if prepared.text_encoder is None else prepared.text_encoder.recorded(),
        "machine": str(prepared.machine),
        "residency": prepared.features.reason,
    }


def _recorded_features(prepared: TrainingData) -> dict[str, Any]:
    """The shape of the features and what makes them; of a tuned encoder, what it was at the start."""
    shape = {"regions": prepared.features.regions, "channels": prepared.features.channels}
    if prepared.encoder is not None:
        return {**shape, **prepared.encoder.attributes()}
    attributes = prepared.caches[0].attributes
    optional = {key: attributes.get(key) for key in ("weights", "weights_origin", "arithmetic")}
    optional |= {"code": attributes["code"]} if "code" in attributes else {}  # of an encoder from outside
    where = {name: True for name in WHERE if name in prepared.caches[0].places}
    return {**shape, **{key: attributes[key] for key in IDENTITY}, **optional, **where}

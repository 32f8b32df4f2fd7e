"""The sizes that `vqa describe` needs and that only the data knows: given, looked up, or assumed and said so."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from vqa.data.formats import official_split
from vqa.errors import InputError
from vqa.experiment import Experiment
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.text_encoders import question_lengths
from vqa.models import is_pretrained
from vqa.planning.plan import COMMON_FEATURES
from vqa.training.inputs.batches import encode_targets
from vqa.training.inputs.prepare import build_vocabularies
from vqa.training.inputs.questions import make_loss
from vqa.training.inputs.splits import read_train_and_val
from vqa.training.needs import ModelSizes

# questions and images of training splits as published, and images of training and validation together
PUBLISHED_COUNTS = {
    ("vqa_v1", "train2014"): (248_349, 123_287),
    ("vqa_v2", "train2014"): (443_757, 123_287),
    ("abstract", "train2015"): (60_000, 30_000),
    ("clevr", "train"): (699_989, 85_000),
}
# distinct answers of training splits, or those that a recipe keeps, by how often an answer must occur
PUBLISHED_ANSWERS = {
    ("vqa_v2", 9): (3129, "as published: the answers seen 9 times in training and validation together"),
    ("coco_qa", 1): (430, "published for coco_qa"),
    ("clevr", 1): (28, "published for clevr"),
}
# regions and channels of feature files that other projects published
IMPORTED_SHAPES = {
    "import:bottom-up-attention": (36, 2048),
    "import:hengyuan-hu": (36, 2048),
    "import:openvqa": (100, 2048),
    "import:cyanogenoid": (196, 2048),
    "import:vqa-lstm-cnn": (1, 4096),
}
ASSUMED = {
    "words": (13_746, "assumed: as many as SAN's released code counts on VQA v1"),
    "answers": (1000, "assumed"),
    "tokens": (6, "assumed: the mean of VQA v2 is 6.1"),
}


@dataclass(frozen=True)
class SizeOptions:
    """Sizes that the user gives; None is looked up."""

    words: int | None = None
    answers: int | None = None
    tokens: int | None = None
    regions: int | None = None
    channels: int | None = None
    questions: int | None = None
    images: int | None = None


@dataclass(frozen=True)
class Sizes(ModelSizes):
    """The sizes of an experiment's data; `tokens` is the mean.

    Attributes:
        questions: that are trained on in an epoch, or None.
        images: of all splits whose features are held, or None.
        sources: for each size where it comes from.
    """

    questions: int | None
    images: int | None
    sources: dict[str, str]


def find_sizes(experiment: Experiment, options: SizeOptions) -> Sizes:
    """Each size from the first that knows it: the user, the files at hand, the experiment, publications, an assumption.

    Raises:
        InputError: the shape of the features is known to nobody.
    """
    known = {field.name: (value, "given") for field in fields(options) if (value := getattr(options, field.name))}
    for look in (_from_data, _from_caches, _from_experiment, _from_publications):
        known = known if len(known) == len(fields(options)) else look(experiment) | known
    known = ASSUMED | known
    if "regions" not in known or "channels" not in known:
        known = _from_encoder(experiment) | known
    if "regions" not in known or "channels" not in known:
        raise InputError(
            "the shape of the features is not known: there is no feature cache yet, and the experiment names no "
            "torchvision encoder (features.encoder); give --regions and --channels"
        )
    values = {field.name: known[field.name][0] if field.name in known else None for field in fields(options)}
    return Sizes(**values, sources={name: source for name, (_, source) in known.items()})  # type: ignore[arg-type]


Known = dict[str, tuple[int, str]]


def _from_data(experiment: Experiment) -> Known:
    """Vocabularies, lengths and counts, where the data set is at hand."""
    if not Path(experiment.data.root).exists():
        return {}
    train, val = read_train_and_val(experiment)
    words, answers = build_vocabularies(train, experiment)
    distinct, section = train.question.distinct, experiment.question_encoder
    if is_pretrained(section):
        length_D = np.array(question_lengths(section["name"], distinct))
    else:
        length_D = np.array([len(words.encode(question)) for question in distinct])
    target = encode_targets(train, answers)
    assert target is not None  # there is an answer vocabulary
    found = {
        "words": len(words),
        "answers": len(answers),
        "tokens": max(1, round(float(length_D[train.question.codes].mean()))),
        "questions": int(make_loss(experiment).averaged_over(target).sum()),
        "images": len({*train.images.ids, *(() if val is None else val.images.ids)}),
    }
    return {name: (value, f"counted in {experiment.data.root}") for name, value in found.items()}


def _from_caches(experiment: Experiment) -> Known:
    """The shape of the features, where a cache is at hand."""
    for name in experiment.features.cache:
        if Path(name).is_file():
            cache = FeatureCache(Path(name))
            return {"regions": (cache.regions, f"of {name}"), "channels": (cache.channels, f"of {name}")}
    return {}


def _from_experiment(experiment: Experiment) -> Known:
    """The answer vocabulary's size, and the features of a common encoder."""
    found: Known = {}
    if experiment.answers.size is not None:
        found["answers"] = (experiment.answers.size, "answers.size")
    section = experiment.features
    for known in COMMON_FEATURES:
        if (known.encoder, known.layer, known.image_size) == (section.encoder, section.layer, section.image_size):
            source = f"{known.encoder} {known.layer} at {known.image_size} px"
            found |= {"regions": (known.regions, source), "channels": (known.channels, source)}
    if section.encoder in IMPORTED_SHAPES:
        regions, channels = IMPORTED_SHAPES[section.encoder]
        source = f"of the files published for {section.encoder}"
        found |= {"regions": (regions, source), "channels": (channels, source)}
    return found


def _from_encoder(experiment: Experiment) -> Known:
    """The shape that the experiment's image encoder gives, found by building it without its trained weights."""
    from vqa.features.encoders.registry import build_image_encoder  # brings torchvision, which other runs do not need

    section = experiment.features
    if section.encoder is None or ":" in section.encoder:
        return {}
    size: dict[str, Any] = {} if section.image_size is None else {"image_size": section.image_size}
    encoder = build_image_encoder(section.encoder, layer=section.layer, weights="random", **size)
    source = f"{encoder.name} {encoder.layer} at {encoder.image_size} px"
    return {"regions": (encoder.regions, source), "channels": (encoder.channels, source)}


def _from_publications(experiment: Experiment) -> Known:
    data, kept = experiment.data, experiment.answers
    found: Known = {}
    if kept.size is None and kept.count_from == "majority" and (data.format, kept.min_count) in PUBLISHED_ANSWERS:
        found["answers"] = PUBLISHED_ANSWERS[data.format, kept.min_count]
    split = official_split(data.format, data.train_splits[0])
    plain = data.held_out is None and len(data.train_splits) == 1
    if not plain or (data.format, split) not in PUBLISHED_COUNTS:
        return found
    questions, images = PUBLISHED_COUNTS[data.format, split]
    return found | {
        "questions": (questions, f"published for {data.format} {split}; those without a known answer included"),
        "images": (images, f"published for {data.format}, training and validation"),
    }

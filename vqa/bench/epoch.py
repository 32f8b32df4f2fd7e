"""`vqa bench epoch`: a whole epoch by the ordinary commands, on files of VQA v2's shape, beside the usual way.

Files of questions and answers and a feature cache are written, and `vqa train` reads them as it reads real ones: in a
process of its own, validation included. The usual way is a `DataLoader` over HDF5 and the same model in plain PyTorch.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from vqa.bench.child import COMMAND
from vqa.bench.gate import BenchReport, Figure, Ratio
from vqa.bench.memory import Cost, measure_alone
from vqa.bench.reading import V2_IMAGES, V2_QUESTIONS, write_v2_sized_files
from vqa.bench.steps.baselines import BaselineProduct, BaselineStackedAttention, QuestionRows, loaded_training_rate
from vqa.bench.steps.ours import PRODUCT, STACKED_ATTENTION
from vqa.bench.synthetic import ANSWERS, Shape, make_features
from vqa.experiment import Experiment, read_experiment
from vqa.features.cache.reader import FeatureCache
from vqa.files import write_json
from vqa.progress import console
from vqa.runtime.device import choose_machine
from vqa.training.inputs.batches import EncodedQuestions, encode_questions
from vqa.training.inputs.prepare import build_vocabularies
from vqa.training.inputs.questions import learnt_from
from vqa.training.inputs.splits import read_split
from vqa.training.run_folder import RunFolder, read_metrics

Model = Literal["product", "san"]
SECTIONS = {"product": PRODUCT, "san": STACKED_ATTENTION}
BASELINES = {"product": BaselineProduct, "san": BaselineStackedAttention}
REGIONS_CHANNELS = {"product": (1, 4096), "san": (49, 512)}  # fc7; pool5 at 224 px


@dataclass(frozen=True)
class EpochOptions:
    """What `vqa bench epoch` measures. VQA v2 has 443,757 questions to train on and 214,354 to validate with.

    Attributes:
        model: the deeper LSTM with the product, or stacked attention of two hops.
        questions, val_questions: how many to write; they ask about images in VQA v2's proportion.
        regions, channels: of the features; None takes those of fc7 or of pool5 at 224 px, as the model has them.
        batch_size: of both ways.
        epochs: of ours; the last one is reported, so that what only a first one does can be left out.
        workers: processes of the `DataLoader`.
        device: "auto", "cpu" or "cuda".
        seconds: spent on the usual way.
    """

    model: Model = "product"
    questions: int = 5000
    val_questions: int = 2000
    regions: int | None = None
    channels: int | None = None
    batch_size: int = 512
    epochs: int = 1
    workers: int = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seconds: float = 4.0

    @property
    def shape(self) -> Shape:
        """Of the features."""
        regions, channels = REGIONS_CHANNELS[self.model]
        regions, channels = self.regions or regions, self.channels or channels
        return Shape(f"{regions} x {channels}", regions, channels)


class EpochTimes(NamedTuple):
    """What the last epoch took.

    Attributes:
        rate: questions/s in training.
        validation: seconds.
        total: seconds of all epochs, validation included.
    """

    rate: float
    validation: float
    total: float


def bench_epoch(options: EpochOptions) -> BenchReport:
    """Write the files, train on them, then the usual way for a few seconds on the same features.

    Raises:
        InputError: a device that is not there, or sizes that do not fit into memory.
    """
    device = choose_machine(options.device).device
    with TemporaryDirectory(prefix="vqa-bench-") as temporary:
        folder = Path(temporary)
        console.print(f"writing files of {options.questions:,} and {options.val_questions:,} questions")
        cache = write_inputs(folder, options)
        command = ["train", str(folder / "experiment.yaml")]
        write_json(folder / COMMAND, command)
        console.print("vqa train, in a process of its own")
        cost = measure_alone("command", folder, cache=folder / "columns")
        experiment = read_experiment(folder / "experiment.yaml")
        questions = questions_to_learn(experiment, cache)
        times = epoch_times(read_metrics(RunFolder(experiment.folder).metrics), len(questions))
        console.print("the usual way")
        usual = usual_rate(options, cache.path, questions, device)
    return epoch_report(options, len(questions), cache, cost, times, usual, device)


def write_inputs(folder: Path, options: EpochOptions) -> FeatureCache:
    """Questions and answers of two splits, the features of their images, and `experiment.yaml`, all below a folder."""
    data = folder / "data"
    data.mkdir()
    ids: list[str] = []
    for count, val in ((options.questions, False), (options.val_questions, True)):
        images = max(1, round(count * V2_IMAGES / V2_QUESTIONS))
        ids += write_v2_sized_files(data, count, seed=int(val), val=val, images=images)
    cache = make_features(folder / "features.h5", options.shape, ids)
    write_json(folder / "experiment.yaml", experiment_values(folder, options))
    return cache


def experiment_values(folder: Path, options: EpochOptions) -> dict[str, Any]:
    """The experiment file; every JSON file is a YAML file."""
    return {
        "name": options.model,
        "runs": str(folder / "runs"),
        "data": {"format": "vqa_v2", "root": str(folder / "data"), "test": None},
        "features": {"cache": str(folder / "features.h5")},
        "answers": {"size": ANSWERS},
        **SECTIONS[options.model],
        "training": {"epochs": options.epochs, "batch_size": options.batch_size, "device": options.device},
    }


def questions_to_learn(experiment: Experiment, cache: FeatureCache) -> EncodedQuestions:
    """The questions that the training learns from, their image rows those of the cache."""
    train = read_split(experiment, "train")
    row_of = {name: row for row, name in enumerate(cache.image_ids)}
    rows_I = np.array([row_of[name] for name in train.images.ids], dtype=np.int64)
    questions = encode_questions(train, *build_vocabularies(train, experiment), rows_I)
    return questions.take(learnt_from(questions, experiment))


def epoch_times(rows: list[dict[str, Any]], questions: int) -> EpochTimes:
    """From the lines of metrics.jsonl: `seconds` there counts training and validation since the first step."""
    last = rows[-1]
    before = rows[-2]["seconds"] if len(rows) > 1 else 0.0
    training = questions / last["questions_per_second"]
    return EpochTimes(last["questions_per_second"], max(0.0, last["seconds"] - before - training), last["seconds"])


def usual_rate(options: EpochOptions, cache: Path, questions: EncodedQuestions, device: torch.device) -> float:
    """Questions/s of the same model in plain PyTorch, float32, one HDF5 row a question."""
    words = int(questions.tokens_NT.max()) + 1
    model = BASELINES[options.model](words, options.shape.channels)
    loader = DataLoader(
        QuestionRows(cache, questions), options.batch_size, shuffle=True, num_workers=options.workers,
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    return loaded_training_rate(model, loader, options.seconds, device)


def epoch_report(
    options: EpochOptions,
    learnt: int,
    cache: FeatureCache,
    cost: Cost,
    times: EpochTimes,
    usual: float,
    device: torch.device,
) -> BenchReport:
    """Times and memory of ours, the rate of the usual way, and their ratio."""
    shape = options.shape
    note = (
        f"{options.questions:,} questions of VQA v2's form, {learnt:,} of them learnt from, {ANSWERS:,} answers; "
        f"validation on {options.val_questions:,}; {len(cache):,} images of {shape.name} float16; batch "
        f"{options.batch_size}, {device.type}, torch {torch.__version__}, {torch.get_num_threads()} threads. The usual "
        f"way: a DataLoader of {options.workers} workers over HDF5, the same model in float32; {options.seconds:g} s "
        f"of it were measured, and its epoch is reckoned from that rate."
    )
    report = BenchReport(f"One epoch: {options.model} on {shape.name}", note)
    figures = report.figures
    figures["training"] = Figure(times.rate, "questions/s")
    figures["training, usual way"] = Figure(usual, "questions/s")
    figures["epoch of training"] = Figure(learnt / times.rate, "s")
    figures["epoch of training, usual way"] = Figure(learnt / usual, "s")
    figures["validation"] = Figure(times.validation, "s")
    figures["reading, encoding and saving"] = Figure(max(0.0, cost.seconds - times.total), "s")
    figures["whole command"] = Figure(cost.seconds, "s")
    figures["features"] = Figure(len(cache) * cache.row_bytes / 1e9, "GB")
    figures["peak memory"] = Figure(cost.peak_bytes / 1e9, "GB")
    if cost.device_peak_bytes is not None:
        figures["peak GPU memory"] = Figure(cost.device_peak_bytes / 1e9, "GB")
    report.ratios["training / usual way"] = Ratio(times.rate / usual)
    return report

"""What a run answers without the image that was asked about: with a blank one, and with another question's.

Legend: `N` questions, `I` images, `R` regions, `C` channels, `S` side of an image; 3 is the colour channel.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, metric_name, score
from vqa.evaluation.report.image_use import AS_IT_IS, BLANK, SHUFFLED, Condition, ImageUse
from vqa.evaluation.results import Task
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelBatch, PixelTable
from vqa.models import VQAModel, reads_of
from vqa.models.contracts import Image
from vqa.runs.load import TrainedRun
from vqa.training.inputs.batches import EncodedQuestions
from vqa.training.inputs.choices import ChoiceTable
from vqa.training.predict import Predictions, predict
from vqa.training.run_folder import open_run, read_evaluation

SAMPLED = 2048  # images whose mean is the blank one
PIXELS_SAMPLED = 256  # the same, of images that are encoded with the model
AT_ONCE = 64

Pick = Callable[[Predictions], Mapping[Task, Strings]]


class _BlankImages(nn.Module):
    """The model with the content of every image replaced by one vector (or colour); masks and boxes stay."""

    def __init__(self, model: VQAModel, blank_C: Tensor) -> None:
        super().__init__()
        self.model, self.blank_C = model, blank_C

    def forward(self, image: Image | PixelBatch, tokens_BT: Tensor, length_B: Tensor) -> Any:
        if isinstance(image, PixelBatch):
            pixels_U3SS = self.blank_C[None, :, None, None].expand_as(image.pixels_U3SS)
            return self.model(PixelBatch(pixels_U3SS, image.place_B), tokens_BT, length_B)
        regions_IRC = self.blank_C.to(image.regions_IRC.dtype).expand_as(image.regions_IRC)
        return self.model(image._replace(regions_IRC=regions_IRC), tokens_BT, length_B)


@torch.inference_mode()
def blank_of(features: FeatureTable | PixelTable, row_I: Tensor) -> Tensor:
    """What stands for a blank image: the mean of the real regions of some images, `[C]`, or their mean colour, `[3]`.

    Zeros are no choice: the features of an encoder are rarely near 0, and a model has never seen them there.

    Args:
        row_I: rows of the table, of which so many as are enough are taken, evenly spaced.
    """
    most = PIXELS_SAMPLED if isinstance(features, PixelTable) else SAMPLED
    place = np.unique(np.linspace(0, len(row_I) - 1, min(most, len(row_I))).round().astype(np.int64))
    batches = row_I[torch.from_numpy(place)].split(AT_ONCE)
    total_C, count = torch.zeros(1, dtype=torch.float64, device=features.device), 0.0
    for image in features.stream(list(batches)):
        if isinstance(image, PixelBatch):
            mean_UC = image.pixels_U3SS.double().mean(dim=(2, 3))
            total_C, count = total_C + mean_UC.sum(dim=0), count + len(mean_UC)
            continue
        regions_IRC, mask_IR = image.regions_IRC.double(), image.mask_IR
        real_IR = torch.ones(regions_IRC.shape[:2], device=regions_IRC.device) if mask_IR is None else mask_IR
        total_C = total_C + torch.einsum("irc,ir->c", regions_IRC, real_IR.double())
        count = count + float(real_IR.sum())
    mean_C = total_C / count
    return mean_C.round().to(torch.uint8) if isinstance(features, PixelTable) else mean_C.float()


def exchanged(row_N: Tensor, seed: int = 0) -> Tensor | None:
    """Rows `[N]` of which each image has another's, all of them exchanged in one ring at random; None of one image."""
    distinct, place_N = np.unique(row_N.numpy(), return_inverse=True)
    if len(distinct) < 2:
        return None
    ring = np.random.default_rng(seed).permutation(len(distinct))
    other = np.empty(len(distinct), dtype=np.int64)
    other[ring] = np.roll(ring, 1)
    return torch.from_numpy(distinct[other][place_N])


def measure_image_use(
    run: TrainedRun,
    questions: EncodedQuestions,
    features: FeatureTable | PixelTable,
    nearest: ChoiceTable | None,
    pick: Pick,
) -> dict[str, Mapping[Task, Strings]]:
    """What the run answers with a blank image and with the images of other questions, by task; two passes.

    Args:
        nearest: as for `predict`.
        pick: the answers of predictions by task, "open-ended" among them.

    Returns:
        The answers by condition; nothing where the model reads none of the image.
    """
    if reads_of(run.experiment.fusion) == "nothing":
        return {}
    row_N = questions.image_row_N
    blank = _BlankImages(run.model, blank_of(features, torch.unique(row_N)).to(run.machine.device))
    of_first = replace(questions, image_row_N=row_N[:1].expand(len(row_N)).contiguous())
    models = {BLANK: (cast(VQAModel, blank), of_first)}
    other_N = exchanged(row_N)
    if other_N is not None:
        models[SHUFFLED] = (run.model, replace(questions, image_row_N=other_N))
    return {
        name: pick(predict(model, asked, features, run.machine, nearest=nearest))
        for name, (model, asked) in models.items()
    }


def judge_image_use(
    run: TrainedRun,
    dataset: QADataset,
    own: Mapping[Task, Strings],
    others: Mapping[str, Mapping[Task, Strings]],
    protocol: Protocol,
    beside: Condition | None,
) -> ImageUse:
    """The accuracies of the answers by condition.

    Args:
        own: the answers with each question's own image.
        others: as `measure_image_use` gives them.
        beside: a run that reads questions only, or None.
    """
    conditions = []
    for name, by_task in ((AS_IT_IS, own), *others.items()):
        accuracy = {task: score(dataset, answers, protocol).overall for task, answers in by_task.items() if task in own}
        unchanged = None
        if name != AS_IT_IS and "open-ended" in own and "open-ended" in by_task:
            same_N = own["open-ended"].codes == by_task["open-ended"].codes  # of one vocabulary
            unchanged = 100 * float(same_N.mean())
        conditions.append(Condition(name, accuracy, unchanged))
    return ImageUse(
        run.name, dataset.name, metric_name(dataset, protocol), (*conditions, *([beside] if beside else []))
    )


def question_only_beside(run: TrainedRun, split: str, dataset: QADataset, protocol: Protocol) -> Condition | None:
    """The accuracy of a run that reads questions only, of the same data and in the same folder of runs; None without.

    Of several seeds the run's own, else the first; it must have been evaluated on the very questions.
    """
    found: dict[bool, Condition] = {}
    for path in sorted(run.folder.path.parent.parent.glob("*/*/experiment.yaml")):
        if path.parent == run.folder.path or "question_only" not in path.read_text(encoding="utf-8", errors="replace"):
            continue
        condition = _question_only(run, path.parent, split, dataset, protocol)
        if condition is not None:
            found.setdefault(path.parent.name == run.folder.path.name, condition)
    return found.get(True, found.get(False))


def _question_only(run: TrainedRun, path: Path, split: str, dataset: QADataset, protocol: Protocol) -> Condition | None:
    try:
        folder, experiment, recorded = open_run(path)
        if reads_of(experiment.fusion) != "nothing" or not folder.evaluation(split).is_file():
            return None
        written = read_evaluation(folder.evaluation(split))
    except InputError:
        return None  # a damaged run beside this one is not this one's fault
    same = recorded["data"] == run.recorded["data"] and recorded.get("questions", {}).get(
        "val_ids_sha256"
    ) == run.recorded.get("questions", {}).get("val_ids_sha256")
    of = (dataset.name, len(dataset), protocol)
    if not same or (written["data"], written["questions"], written["protocol"]) != of:
        return None
    accuracy = written["accuracy"]
    by_task: dict[Task, float] = {}
    tasks: tuple[Task, ...] = ("open-ended", "multiple-choice")
    for task in tasks:
        if (numbers := accuracy.get(task.replace("-", "_"))) is not None:
            by_task[task] = numbers["overall"]
    return Condition(f"none: the run {experiment.name}, seed {experiment.seed}", by_task)

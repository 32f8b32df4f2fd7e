"""A trained run and the questions that it is asked: checked, encoded, with their features; and where it looks.

Legend: `N` questions, `H` hops, `R` regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqa.data.dataset import ImageDigests, QADataset
from vqa.errors import InputError
from vqa.evaluation.contamination import Contamination, overlap, without_seen
from vqa.evaluation.report.boxes import Attention
from vqa.features.cache.reader import frame_of, grid_of
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelTable
from vqa.runs.load import TrainedRun, load_seen, open_run_caches
from vqa.training.inputs.batches import EncodedQuestions
from vqa.training.inputs.prepare import load_features
from vqa.training.inputs.questions import encode_split
from vqa.training.model import TunedModel
from vqa.training.predict import attend


@dataclass(frozen=True)
class AskedRun:
    """Questions as a run reads them.

    Attributes:
        run: the trained run.
        dataset: the questions.
        questions: the same as tensors on the run's device.
        features: their images' features.
        contamination: what of them the run was trained on.
    """

    run: TrainedRun
    dataset: QADataset
    questions: EncodedQuestions
    features: FeatureTable | PixelTable
    contamination: Contamination


def ask_run(
    run: TrainedRun,
    dataset: QADataset,
    caches: Sequence[Path] = (),
    *,
    allow_seen: bool = False,
    exclude_seen: bool = False,
) -> AskedRun:
    """Load the features of a data set's images and encode its questions for a run.

    Args:
        caches: feature caches instead of the experiment's.
        allow_seen: also questions and images that the run was trained on.
        exclude_seen: leave those out.

    Raises:
        InputError: the run was trained on some of them, or their features are not there or not those it was trained on.
    """
    opened = open_run_caches(run, caches)
    encoder = run.model.image_encoder if isinstance(run.model, TunedModel) else None

    def check(images: Sequence[ImageDigests]) -> tuple[QADataset, Contamination]:
        return check_seen(run, dataset, images, allow_seen=allow_seen, exclude_seen=exclude_seen)

    asked, common = (dataset, None) if encoder else check(opened)  # what takes long comes last
    features, (rows,) = load_features(run.experiment, opened, [asked], run.machine, encoder)
    if isinstance(features, PixelTable):
        asked, common = check([features])
        rows = features.find(asked.images.ids)
    assert common is not None
    device = run.machine.device
    questions = encode_split(
        asked, run.tokenizer, run.answers, rows, experiment=run.experiment, caches=opened, device=device
    ).to(device)
    return AskedRun(run, asked, questions, features, common)


def check_seen(
    run: TrainedRun,
    dataset: QADataset,
    caches: Sequence[ImageDigests],
    *,
    allow_seen: bool,
    exclude_seen: bool = False,
) -> tuple[QADataset, Contamination]:
    """What of a split may be evaluated on, and what of that the run was trained or chosen on.

    Raises:
        InputError: it was trained on some of it, unless that is allowed or left out; or nothing is left.
    """
    try:
        seen = load_seen(run.folder, run.experiment, run.recorded)
    except InputError:
        if not allow_seen:
            raise
        return dataset, Contamination(dataset.name, unknown=True)
    if exclude_seen:
        return without_seen(seen, dataset, caches, run.experiment.data.shares_images)
    common = overlap(seen, dataset, caches, run.experiment.data.shares_images)
    if not allow_seen:
        common.refuse()
    return dataset, common


def attention_of(
    run: TrainedRun, questions: EncodedQuestions, features: FeatureTable | PixelTable, rows: Sequence[int]
) -> list[Attention]:
    """Where a run looks for some of the questions."""
    framing, name = frame_of(run.recorded["features"]), run.model.fusion.attention_name
    found = []
    for row, weights_HR in zip(rows, attend(run.model, questions, features, run.machine, rows), strict=True):
        grid = None if weights_HR is None else grid_of(run.recorded["features"], weights_HR.shape[1])
        weights_HR, box_R4 = _of_real_regions(questions, features, row, weights_HR)
        found.append(Attention(weights_HR, grid, framing, box_R4, name))
    return found


def _of_real_regions(
    questions: EncodedQuestions, features: FeatureTable | PixelTable, row: int, attention_HR: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The attention of a question and the boxes of its image, padded regions left out."""
    if attention_HR is None or not isinstance(features, FeatureTable) or features.holds != "map":
        return attention_HR, None
    image_row = questions.image_row_N[row]
    count = features.regions if features.count_N is None else int(features.count_N[image_row])
    boxes = None if features.box_NR4 is None else features.box_NR4[image_row, :count].cpu().numpy()
    ragged = features.count_N is not None
    return attention_HR[:, :count] if ragged or boxes is not None else attention_HR, boxes

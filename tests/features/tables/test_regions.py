"""Masks and boxes of batches, from every place where a table may lie."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.regions import CHANNELS, CPU, HOMES, REGIONS, load, written

from vqa.errors import InputError
from vqa.features.cache.writer import WHERE
from vqa.features.tables.feature_table import FeatureTable


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_batches_have_their_images_masks_and_boxes(home: str, dtype: str, tmp_path: Path) -> None:
    caches = [
        written(tmp_path / "a.h5", "a", [5, 1, 3], dtype=dtype),
        written(tmp_path / "b.h5", "b", [2, 5], dtype=dtype),
    ]
    ids = ["b0", "a2", "a0", "a1", "b1"]
    counts = torch.tensor([2, 3, 5, 1, 5])
    table = load(caches, ids, home, dtype=torch.float32)
    stored_box = {f"{cache.image_ids[0][0]}{i}": box for cache in caches
                  for i, box in enumerate(cache.read_boxes(np.arange(len(cache))))}  # fmt: skip
    batches = [torch.tensor([4, 0, 0, 3]), torch.tensor([2, 1])]
    for rows, image in zip(batches, table.stream(batches), strict=True):
        for found in (image, table.gather(rows)):
            assert found.row_B is None and found.mask_IR is not None and found.boxes_IR4 is not None
            assert torch.equal(found.mask_IR, torch.arange(REGIONS) < counts[rows][:, None])
            assert torch.equal(found.boxes_IR4, torch.stack([stored_box[ids[row]] for row in rows.tolist()]))
            assert found.regions_IRC.shape == (len(rows), REGIONS, CHANNELS)


@pytest.mark.parametrize("home", HOMES)
def test_where_every_image_of_the_table_is_full_there_is_no_mask(home: str, tmp_path: Path) -> None:
    cache = written(tmp_path / "a.h5", "a", [5, 1, 5], where=["region_count"])
    image = load([cache], ["a2", "a0"], home).gather(torch.tensor([1, 0]))
    assert image.mask_IR is None and image.boxes_IR4 is None
    assert load([cache], ["a2", "a1"], home).gather(torch.tensor([0])).mask_IR is not None
    plain = written(tmp_path / "b.h5", "b", [5, 5], where=[])
    assert load([plain], ["b0"], home).gather(torch.tensor([0]))[1:] == (None, None, None)


@pytest.mark.parametrize("where", [[], ["boxes"], ["region_count"]])
def test_caches_that_say_more_and_less_are_not_mixed(where: list[str], tmp_path: Path) -> None:
    full, less = written(tmp_path / "full.h5", "a", [2, 3]), written(tmp_path / "less.h5", "b", [5, 5], where=where)
    lacking = sorted({*WHERE} - {*where})[-1]
    for caches in ([full, less], [less, full]):
        with pytest.raises(
            InputError, match=rf"full\.h5 holds /{lacking} and .*less\.h5 does not; make the latter anew"
        ):
            FeatureTable.load(caches, ["a0", "b0"], CPU)

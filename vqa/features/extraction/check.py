"""Looking at a feature cache: what it holds, and whether it still is what the encoder gives.

Legend: `N` sampled images, `R` regions, `C` channels.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache, dequantise, dtype_name, identity, quantise
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.precision import LEAST_COSINE
from vqa.models.contracts import Image

LARGEST_SHIFT = 0.02  # of a side of a box, as a share of the image's
LARGEST_RATIO = 1.05  # of the lengths of two rows, which the cosine does not see


@dataclass(frozen=True)
class RowCheck:
    """One stored row beside the features extracted anew.

    Attributes:
        image_id: which image.
        path: where it was read.
        cosine: between stored and new features, or NaN when there are no new ones.
        largest_difference: of any one number, or NaN.
        problem: what is wrong, "" when nothing is.
    """

    image_id: str
    path: Path
    cosine: float
    largest_difference: float
    problem: str


def describe_cache(path: Path) -> dict[str, Any]:
    """What a cache holds: its attributes, `images`, `done`, `regions`, `channels`, `boxes`, `dtype` and `bytes`.

    `real_regions` is there where the file counts them; otherwise all of them are real.

    Raises:
        InputError: when the file is missing, truncated, or no feature cache.
    """
    cache = FeatureCache(path)
    base = cache.attributes.get("base")  # of a second stage: the encoder below, in JSON
    counts: dict[str, Any] = {}
    if cache.count_I is not None and cache.done_I.any():
        done_N = cache.count_I[torch.from_numpy(cache.done_I)]
        counts["real_regions"] = {"least": int(done_N.min()), "mean": float(done_N.double().mean()),
                                  "most": int(done_N.max())}  # fmt: skip
    return {
        "file": str(path),
        "images": len(cache),
        "done": int(cache.done_I.sum()),
        "regions": cache.regions,
        "channels": cache.channels,
        **counts,
        "boxes": cache.boxed,
        "dtype": dtype_name(cache.dtype),
        "bytes": path.stat().st_size,
        **cache.attributes,
        **({} if base is None else {"base": json.loads(base)}),
    }


def check_cache(
    path: Path, images: ImageTable, encoder: ImageEncoder, sample: int = 16, seed: int = 0
) -> list[RowCheck]:
    """Extract a sample of a cache's images again and compare with the stored rows.

    Args:
        path: the cache.
        images: where its images lie now; ids that the cache does not hold are passed over.
        encoder: built with the arguments of the extraction, on the device to use.
        sample: how many done rows to take, at random.
        seed: of the choice.

    Returns:
        One row a sampled image, in the cache's order. An image whose file has changed since, or that cannot be
        read, or whose features differ, has a `problem`.

    Raises:
        InputError: when the cache cannot be read, contradicts the encoder (weights, layer, size, preprocessing; the
            message names each), or shares no done image with `images`.
    """
    cache = FeatureCache(path)
    stated = encoder.attributes()
    origin = ("weights", "weights_origin", "code")  # the same weights and code may come from another place
    others = {key: value for key, value in stated.items() if key not in origin}
    wrong = cache.contradictions(others | identity(stated))
    if wrong:
        raise InputError("\n".join([*wrong, "The cache was made by another encoder or preprocessing."]))
    path_of = dict(zip(images.ids, images.paths, strict=True))
    candidates = [row for row in np.flatnonzero(cache.done_I).tolist() if cache.image_ids[row] in path_of]
    if not candidates:
        raise InputError(f"{path}: none of its finished images is among the {len(images.ids):,} that were given")
    chosen = np.random.default_rng(seed).choice(candidates, min(sample, len(candidates)), replace=False)
    return [_check_row(cache, row, path_of[cache.image_ids[row]], encoder) for row in sorted(chosen.tolist())]


def _check_row(cache: FeatureCache, row: int, path: Path, encoder: ImageEncoder) -> RowCheck:
    """Compare one row."""
    nothing = float("nan")
    image_id = cache.image_ids[row]
    try:
        image = encoder.load(path)
    except InputError as error:
        return RowCheck(image_id, path, nothing, nothing, str(error))
    if image.digest != cache.image_digests[row]:
        return RowCheck(image_id, path, nothing, nothing, "the image's file has changed since it was extracted")
    device = next(encoder.parameters()).device
    new = encoder.images(image.pixels_3SS.unsqueeze(0).to(device), torch.tensor([image.size]))
    new_1RC = new.regions_IRC.cpu()
    if cache.scale_I is not None:  # in the same steps, or an image with one very large number would seem to differ
        new_1RC = dequantise(*quantise(new_1RC), torch.float16)
    new_RC = new_1RC[0].half().double()
    stored_RC = cache.read(np.array([row]))[0].double()
    largest = float((new_RC - stored_RC).abs().max())
    # Two all-zero rows agree, though their cosine is not defined.
    cosine = 1.0 if largest == 0 else float(torch.cosine_similarity(new_RC.flatten(), stored_RC.flatten(), dim=0))
    ratio = 1.0 if largest == 0 else float(stored_RC.norm() / new_RC.norm())
    problem = ""
    if not cosine >= LEAST_COSINE:
        problem = f"the stored features differ (cosine {cosine:.4f})"
    elif not 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
        problem = f"the stored features differ (they are {ratio:.2f} times as large)"
    return RowCheck(image_id, path, cosine, largest, problem or _different_boxes(cache, row, new))


def _different_boxes(cache: FeatureCache, row: int, new: Image) -> str:
    """What is wrong with how many regions of a row are real, or with where they lie."""
    if cache.count_I is not None:
        count, expected = int(cache.count_I[row]), cache.regions if new.mask_IR is None else int(new.mask_IR.sum())
        if count != expected:
            return f"{count} regions are stored as real, and {expected} are"
    if cache.boxed and new.boxes_IR4 is not None:
        difference = float((cache.read_boxes(np.array([row])) - new.boxes_IR4.cpu()).abs().max())
        if not difference <= LARGEST_SHIFT:
            return f"the stored boxes differ (by {difference:.2f} of the image's side)"
    return ""

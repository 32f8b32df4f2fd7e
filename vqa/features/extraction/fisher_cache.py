"""From one feature cache to another: what `vqa features fisher` calls.

Legend: `N` some images, `R` regions, `C` channels, `P` descriptors.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ImageTable
from vqa.data.formats import image_table
from vqa.data.formats.table import PLAIN, TableOptions
from vqa.errors import InputError
from vqa.features.cache.reader import IDENTITY, FeatureCache, differences, identity
from vqa.features.cache.writer import ROWS_AT_ONCE, CacheWriter, require_writable
from vqa.features.extraction.fisher import FISHER, FisherCode, describe, fisher_preprocessing, fit_code, read_code
from vqa.features.precision import STATED_AS
from vqa.progress import console, progress_bar

IMAGES_SAMPLED = 5000  # the most whose descriptors the fit looks at


@dataclass(frozen=True)
class FisherSettings:
    """How projection and mixture are fitted.

    Attributes:
        components: `K` of the mixture.
        dimensions: `D` after the projection.
        seed: of the sample and of the mixture's start.
        sample: descriptors that the fit looks at.
        data, format, splits: whose images it may look at; None and () are all of the cache's.
        options: how a table is read.
    """

    components: int = 16
    dimensions: int = 64
    seed: int = 0
    sample: int = 100_000
    data: Path | None = None
    format: str | None = None
    splits: Sequence[str] = ()
    options: TableOptions = PLAIN


def fisher_cache(
    source: Path, out: Path, settings: FisherSettings, *, like: Path | None = None, command: str = ""
) -> int:
    """Write the Fisher vectors of a cache's maps into another cache; goes on where an earlier call stopped.

    Args:
        source: a cache with several regions an image, of any encoder.
        out: the cache, made or completed; it keeps the parameters, so that new images can be encoded.
        settings: of the fit; when `out` is there its parameters are used, and must have been fitted so.
        like: a cache of Fisher vectors whose parameters are used instead of a fit: those of the training images for
            another split's.
        command: what the user ran; stated in the cache.

    Returns:
        How many images were encoded now.

    Raises:
        InputError: naming the file and item.
    """
    require_writable(out)
    cache = FeatureCache(source)
    if cache.regions < 2:
        raise InputError(f"{source}: one region an image, and a Fisher vector needs a map of several")
    if cache.count_I is not None and bool((cache.count_I < cache.regions).any()):
        raise InputError(f"{source}: its images differ in regions (/region_count), and a Fisher vector needs a map")
    code = _parameters(cache, out, settings, like)
    images = ImageTable(cache.image_ids, tuple(map(Path, cache.image_paths)))
    attributes = _attributes(cache, code, out, command)
    with CacheWriter(out, images, attributes, 1, code.length, extra=code.arrays()) as writer:
        _require_same_images(cache, FeatureCache(out))
        row_I = np.flatnonzero(cache.done_I & ~writer.done_I)
        with writer.interruptible(command):
            _encode_rows(cache, code, writer, row_I)
    missing = int((~cache.done_I).sum())
    if missing:
        console.print(f"{source}: {missing:,} of its images are not extracted yet, so {out} lacks them too")
    return len(row_I)


def _parameters(cache: FeatureCache, out: Path, settings: FisherSettings, like: Path | None) -> FisherCode:
    """The parameters that `out` or `like` holds, or new ones."""
    other = out if out.exists() else like
    if other is None:
        return _fit(cache, settings)
    code, base = read_code(other)
    wrong = differences(cache.attributes, identity(base), cache.path)
    if wrong:
        raise InputError("\n".join([*wrong, f"{other} was made of other features."]))
    if like is None:
        asked = _stated(settings, _fit_ids(cache, settings))
        wrong = differences(code.settings, {key: asked[key] for key in asked if key != "images"}, other)
        if wrong:
            raise InputError("\n".join([*wrong, "Remove it, or choose another --out."]))
    elif other != like and dict(read_code(like)[0].settings) != dict(code.settings):
        raise InputError(f"{out}: was made with other parameters than those in {like}")
    return code


def _fit_ids(cache: FeatureCache, settings: FisherSettings) -> tuple[str, ...]:
    """The images that the fit may look at."""
    if settings.data is None and settings.format is None and not settings.splits:
        return cache.image_ids
    if settings.data is None or settings.format is None or not settings.splits:
        raise InputError("give --data, --format and --split together: they say whose images the fit may look at")
    return image_table(settings.data, settings.format, settings.splits, settings.options).ids


def _stated(settings: FisherSettings, ids: Sequence[str]) -> dict[str, Any]:
    return {
        "components": settings.components,
        "dimensions": settings.dimensions,
        "seed": settings.seed,
        "sample": settings.sample,
        "fitted_on_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
        "images": min(len(ids), IMAGES_SAMPLED, settings.sample),
    }


def _fit(cache: FeatureCache, settings: FisherSettings) -> FisherCode:
    """Sample descriptors and fit."""
    ids = _fit_ids(cache, settings)
    if settings.sample < 1:
        raise InputError(f"a sample of {settings.sample} descriptors: must be at least 1")
    stated = _stated(settings, ids)
    row_N = cache.rows(ids)
    descriptor_PC = _sample(cache, row_N, stated["images"], settings)
    if not np.isfinite(descriptor_PC).all():
        raise InputError(
            f"{cache.path}: has features that are not finite (NaN, or too large for float16); extract again"
        )
    whose = ", ".join(settings.splits) if settings.splits else "all of the cache"
    console.print(
        f"Fitting {settings.components} components in {settings.dimensions} dimensions on {len(descriptor_PC):,} "
        f"descriptors of {stated['images']:,} of {len(ids):,} images ({whose}), seed {settings.seed} …"
    )
    begin = time.perf_counter()
    code = fit_code(descriptor_PC, settings.components, settings.dimensions, settings.seed, stated)
    kept = float(np.var(code.project(descriptor_PC), axis=0).sum() / np.var(descriptor_PC.astype(np.float64), 0).sum())
    console.print(f"… {time.perf_counter() - begin:.1f} s; the projection keeps {100 * kept:.1f}% of the variance")
    return code


def _sample(
    cache: FeatureCache, row_N: NDArray[np.int64], images: int, settings: FisherSettings
) -> NDArray[np.float16]:
    """Descriptors `[P, C]`: a random sample of the places of each image of a random sample, without repetition."""
    random = np.random.default_rng(settings.seed)
    chosen = np.sort(random.permutation(row_N)[:images])
    each = min(cache.regions, -(-settings.sample // len(chosen)))
    parts = []
    with progress_bar() as bar:
        task = bar.add_task("Sampling descriptors", total=len(chosen), note="")
        for row in chosen.tolist():
            places = np.sort(random.permutation(cache.regions)[:each])
            parts.append(cache.read(np.array([row]))[0].numpy()[places])
            bar.update(task, advance=1)
    return np.concatenate(parts)[: settings.sample]


def _attributes(cache: FeatureCache, code: FisherCode, out: Path, command: str) -> dict[str, Any]:
    """What the new cache states."""
    base = cache.attributes
    kept = {key: base[key] for key in ("layer", "image_size", "torch", "torchvision") if key in base}
    below = {key: base[key] for key in (*IDENTITY, "weights", "weights_origin", STATED_AS) if key in base}
    return kept | {
        "encoder": f"{FISHER}{base['encoder']}",
        "weights": str(out),
        "weights_sha256": code.digest(base["weights_sha256"]),
        "weights_origin": f"{base.get('weights_origin', '')}; {describe(code.settings)}",
        "preprocessing": fisher_preprocessing(base["preprocessing"], code),
        "base": below,
        "command": command,
    }


def _require_same_images(cache: FeatureCache, made: FeatureCache) -> None:
    """Refuse to go on when images were extracted anew below."""
    for row in np.flatnonzero(made.done_I).tolist():
        if made.image_digests[row] != cache.image_digests[row]:
            raise InputError(
                f"{made.path}: image {made.image_ids[row]} has changed in {cache.path} since; remove {made.path} "
                "or choose another --out"
            )


def _encode_rows(cache: FeatureCache, code: FisherCode, writer: CacheWriter, row_I: NDArray[np.int64]) -> None:
    with progress_bar() as bar:
        task = bar.add_task("Fisher vectors", total=len(cache), completed=len(cache) - len(row_I), note="")
        for start in range(0, len(row_I), ROWS_AT_ONCE):
            row_N = row_I[start : start + ROWS_AT_ONCE]
            vector_N1V = code.encode(cache.read(row_N))
            finite_N = vector_N1V.isfinite().all(dim=2)[:, 0]
            if not finite_N.all():
                name = cache.image_ids[row_N[int((~finite_N).nonzero()[0])]]
                raise InputError(f"{cache.path}: image {name} has no Fisher vector: its features are not finite")
            writer.write(row_N, vector_N1V, [cache.image_digests[row] for row in row_N.tolist()])
            writer.commit_if_due()
            bar.update(task, advance=len(row_N))

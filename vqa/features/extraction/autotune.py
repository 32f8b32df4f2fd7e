"""Which way of computing an encoder uses: measured at the start of an extraction, on a few of its images.

A way is taken only when its features agree with those of float32 on the weights in use. Random weights are for tests
and demonstrations, which should come out the same on every machine: there nothing is measured unless it is asked for.

Legend: `N` sampled images, `B` batch, `S` side of an image, `R` regions, `C` channels.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vqa.errors import InputError, first_line, unknown_name
from vqa.features.encoders.image_encoder import RANDOM_WEIGHTS, ImageEncoder, fastest_convolutions
from vqa.features.precision import AS_BEFORE, AUTO, LEAST_COSINE, NUMBER_TYPES, Precision
from vqa.progress import console
from vqa.tables import Column, Row, Table, print_table

IMAGES_SAMPLED = 8
FEWEST_IMAGES = 300  # with fewer nothing is measured
SHORT_SECONDS = 20.0  # an extraction that takes no longer is not measured either
COMPILE_SECONDS, COMPILE_SECONDS_A_LAYER = 10.0, 0.4  # what compiling is taken to cost before it is tried
COMPILED_SAVES = 0.25  # of the time that is left; measured: a fifth to a half
LONG_ENOUGH_SECONDS = 0.4  # one measurement


@dataclass(frozen=True)
class Measurement:
    """What one way of computing reached.

    Attributes:
        precision: the way.
        rate: images a second, once warm.
        cosine: with the features of float32, the least over the sampled images.
        warm_up: seconds until the first result, compiling included.
        problem: why it cannot be used, "" when it can.
    """

    precision: Precision
    rate: float
    cosine: float
    warm_up: float
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether it may stand for float32."""
        return not self.problem and self.cosine >= LEAST_COSINE


def choose_precision(
    encoder: ImageEncoder,
    paths: Sequence[Path],
    batch_size: int,
    number_type: str = AUTO,
    compiled: bool | None = None,
) -> Precision:
    """The fastest way that agrees with float32; prints what was measured, or why nothing was.

    Args:
        encoder: in float32, on the device to use.
        paths: the images that are still to be encoded.
        batch_size: images encoded together; a compiled network takes batches of this size only.
        number_type: to keep to, or "auto".
        compiled: whether to compile; None where it pays.

    Raises:
        InputError: when the number type is unknown, or what was asked for is not possible here.
    """
    if number_type not in (AUTO, *NUMBER_TYPES):
        raise InputError(unknown_name("precision", number_type, (AUTO, *NUMBER_TYPES)))
    fixed = Precision("float32" if number_type == AUTO else number_type, compiled=bool(compiled))
    _require_possible(encoder, fixed)
    if number_type != AUTO and compiled is not None:
        console.print(f"Encoder: {fixed}, as asked for")
        return fixed
    if encoder.weights == RANDOM_WEIGHTS and number_type == AUTO and compiled is None:
        console.print(f"Encoder: {fixed}; nothing is measured with random weights")
        return fixed
    few = f"Encoder: {fixed}; {len(paths):,} images"
    if len(paths) < FEWEST_IMAGES:
        console.print(f"{few} are too few to measure others")
        return fixed
    sample_N3SS = _sample(encoder, paths)
    if not len(sample_N3SS):
        console.print(f"Encoder: {fixed}; no sampled image could be read, so nothing was measured")
        return fixed
    with fastest_convolutions():
        measured = measure_all(encoder, sample_N3SS, batch_size, len(paths), number_type, compiled)
    if len(measured) == 1:
        console.print(f"{few} take about {len(paths) / measured[0].rate:.0f} s, too short to measure others")
        return fixed
    chosen = fastest([one for one in measured if one.precision.compiled] if compiled else measured, number_type)
    print_table(_table(measured, len(sample_N3SS), batch_size))
    for one in measured:
        if one.problem:
            console.print(f"{one.precision}: {one.problem}")
    if chosen.problem:
        raise InputError(f"{encoder.name}: {chosen.precision} was asked for: {chosen.problem}")
    doubt = "" if chosen.agrees else f"; it does NOT agree with float32 (cosine {chosen.cosine:.4f}), but was asked for"
    console.print(f"Encoder: {chosen.precision}, {chosen.rate:.1f} images/s{doubt}")
    return chosen.precision


def _require_possible(encoder: ImageEncoder, asked: Precision) -> None:
    """Raises InputError when the encoder cannot compute in this number type here, before a cache is begun with it."""
    if asked.dtype == torch.float32:
        return
    image_13SS = torch.zeros(1, 3, encoder.image_size, encoder.image_size, dtype=torch.uint8, device=_device(encoder))
    try:
        encoder.with_precision(replace(asked, compiled=False))(image_13SS)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{encoder.name}: {asked.number_type} was asked for: not possible here: {first_line(error)}"
        ) from None


def measure_all(
    encoder: ImageEncoder,
    sample_N3SS: Tensor,
    batch_size: int,
    images: int,
    number_type: str = AUTO,
    compiled: bool | None = None,
) -> list[Measurement]:
    """Every way that was not ruled out; of the compiled ones only that of the fastest other way that agrees.

    The first is float32, channels_last. Where that alone would take less than `SHORT_SECONDS` for all `images`, it
    is the only one.
    """
    reference_NRC = encoder(sample_N3SS.to(_device(encoder))).cpu()

    def reached(way: Precision) -> Measurement:
        return measure(encoder, way, sample_N3SS, reference_NRC, batch_size)

    measured = [reached(AS_BEFORE)]
    if images / measured[0].rate < SHORT_SECONDS:
        return measured
    if number_type != "bfloat16":
        measured.append(reached(Precision(channels_last=False)))
    if number_type != "float32":
        measured.append(reached(Precision("bfloat16")))
    best = fastest(measured, number_type)
    if compiled or (compiled is None and _compiling_pays(encoder, images / best.rate)):
        console.print(f"Compiling the encoder ({best.precision}) …")
        measured.append(reached(replace(best.precision, compiled=True)))
    return measured


def compiling_seconds(encoder: ImageEncoder) -> float:
    """About how long compiling a network takes, by the number of its layers."""
    layers = sum(not list(module.children()) for module in encoder.network.modules())
    return COMPILE_SECONDS + COMPILE_SECONDS_A_LAYER * layers


def _compiling_pays(encoder: ImageEncoder, left: float) -> bool:
    """Whether compiling can save more of the `left` seconds than it takes; says so where it cannot."""
    takes, saves = compiling_seconds(encoder), COMPILED_SAVES * left
    if saves <= takes:
        console.print(
            f"Compiling is not tried: it takes about {takes:.0f} s, and may save {saves:.0f} s of {left:.0f} s"
        )
    return saves > takes


def fastest(measured: Sequence[Measurement], number_type: str) -> Measurement:
    """The fastest that agrees with float32; a number type that was asked for need not agree."""
    if number_type == "bfloat16":
        usable = [one for one in measured if one.precision.number_type == "bfloat16" and not one.problem]
    else:
        usable = [one for one in measured if one.agrees]
    return max(usable, key=lambda one: one.rate, default=measured[0])


def measure(
    encoder: ImageEncoder, precision: Precision, sample_N3SS: Tensor, reference_NRC: Tensor, batch_size: int
) -> Measurement:
    """Time one way of computing and compare its features with those of float32.

    On a CPU a few images tell the rate of a whole batch; a GPU and a compiled network get whole batches.
    """
    device = _device(encoder)
    whole = precision.compiled or device.type != "cpu"
    size = batch_size if whole else min(len(sample_N3SS), batch_size)
    repeats = -(-size // len(sample_N3SS))
    batch_B3SS = sample_N3SS.repeat(repeats, 1, 1, 1)[:size].to(device)
    try:
        begin = time.perf_counter()
        other = encoder.with_precision(precision)
        feature_BRC = other(batch_B3SS).cpu()
        warm_up = time.perf_counter() - begin
    except Exception as error:  # a compiler raises almost anything
        if precision == AS_BEFORE:
            raise
        return Measurement(precision, 0.0, 0.0, 0.0, f"not possible here: {first_line(error)}")
    rate = _rate(other, batch_B3SS, warm_up)
    return Measurement(precision, rate, least_cosine(feature_BRC[: len(reference_NRC)], reference_NRC), warm_up)


def least_cosine(feature_NRC: Tensor, reference_NRC: Tensor) -> float:
    """The least cosine of two encodings of the same images; 1 where both are zero, NaN where they are not finite."""
    feature_NF = feature_NRC.flatten(1).double()
    reference_NF = reference_NRC[: len(feature_NRC)].flatten(1).double()
    cosine_N = torch.cosine_similarity(feature_NF, reference_NF)
    cosine_N[(feature_NF == reference_NF).all(1)] = 1.0
    return float(cosine_N.min())


def _rate(encoder: ImageEncoder, batch_B3SS: Tensor, warm_up: float) -> float:
    """Images a second, by the fastest of some repetitions."""
    if warm_up > 10 * LONG_ENOUGH_SECONDS and not encoder.precision.compiled:
        return len(batch_B3SS) / warm_up  # so slow that one look is enough
    times: list[float] = []
    while not times or (sum(times) < LONG_ENOUGH_SECONDS and len(times) < 20):
        begin = time.perf_counter()
        encoder(batch_B3SS).cpu()
        times.append(time.perf_counter() - begin)
    return len(batch_B3SS) / min(times)


def _sample(encoder: ImageEncoder, paths: Sequence[Path]) -> Tensor:
    """Some images from all over the list, uint8 `[N, 3, S, S]`; those that cannot be read are left out."""
    step = max(1, len(paths) // IMAGES_SAMPLED)
    pixels: list[Tensor] = []
    for path in paths[::step][:IMAGES_SAMPLED]:
        try:
            pixels.append(encoder.load(path).pixels_3SS)
        except InputError:
            continue  # the extraction itself names it
    side = encoder.image_size
    return torch.stack(pixels) if pixels else torch.empty(0, 3, side, side, dtype=torch.uint8)


def _table(measured: Sequence[Measurement], sample: int, batch_size: int) -> Table:
    """What was measured, for the terminal."""
    rows = tuple(
        Row(str(one.precision), (None, None, None) if one.problem else (one.rate, one.cosine, one.warm_up))
        for one in measured
    )
    columns = (Column("images/s", decimals=1), Column("cosine", decimals=5), Column("warm-up s", decimals=1))
    caption = (
        f"{sample} images of this extraction, batches of up to {batch_size}; cosine: the least with float32, "
        f"at least {LEAST_COSINE} to be used."
    )
    return Table("Ways to compute the encoder", caption, columns, rows, row_heading="Way", best="none")


def _device(encoder: ImageEncoder) -> torch.device:
    return next(encoder.parameters()).device

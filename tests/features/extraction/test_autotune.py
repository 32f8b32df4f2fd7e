"""The way an encoder computes: only one that agrees with float32, the same for the whole life of a cache."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.features import SIDE, render_images, small_encoder
from torch import nn

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.registry import ImageEncoder, build_image_encoder
from vqa.features.extraction import autotune
from vqa.features.extraction.autotune import Measurement, choose_precision, fastest, least_cosine, measure
from vqa.features.extraction.dataset import ExtractOptions, precision_for
from vqa.features.extraction.extract import extract
from vqa.features.precision import AS_BEFORE, Precision
from vqa.progress import console

BFLOAT16 = Precision("bfloat16")
WAYS = [
    Precision(number_type, *options)
    for number_type in ("float32", "bfloat16")
    for options in product((True, False), repeat=3)
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageTable:
    return render_images(tmp_path_factory.mktemp("images"), 10)


def trained_encoder() -> ImageEncoder:
    """The small encoder, said to have been trained."""
    encoder = small_encoder()
    encoder.weights = "file.pth"
    return encoder


@pytest.fixture
def eager_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "FEWEST_IMAGES", 1)
    monkeypatch.setattr(autotune, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(autotune, "LONG_ENOUGH_SECONDS", 0.01)


def test_every_way_has_a_name_that_is_read_back() -> None:
    assert len({str(way) for way in WAYS}) == len(WAYS)
    assert [Precision.parse(str(way)) for way in WAYS] == WAYS
    for text in ("float16", "float32 compiled channels_last", "float32 sparse"):
        with pytest.raises(InputError, match="not known here"):
            Precision.parse(text)


def test_another_precision_is_another_encoder_and_leaves_the_first_alone() -> None:
    encoder = small_encoder()
    pixels = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    before = encoder(pixels)
    half = encoder.with_precision(BFLOAT16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder(pixels), before)
    network = small_encoder().network.bfloat16()
    with torch.inference_mode():
        expected = network(encoder.normalise(pixels).bfloat16())["output"].flatten(2).transpose(1, 2).float()
    assert torch.equal(half(pixels), expected) and not torch.equal(expected, before)
    assert half.attributes() == encoder.attributes()
    plain = encoder.with_precision(Precision(channels_last=False))
    torch.testing.assert_close(plain(pixels), before, rtol=1e-4, atol=1e-5)
    convolution = next(module for module in plain.modules() if isinstance(module, nn.Conv2d))
    assert convolution.weight.is_contiguous()
    with pytest.raises(ValueError, match="start from float32"):
        half.with_precision(AS_BEFORE)


@pytest.mark.parametrize(("name", "layer"), [("alexnet", "classifier.5"), ("googlenet", "avgpool")])
def test_dropout_and_batch_normalisation_stay_as_in_inference(name: str, layer: str | None) -> None:
    encoder = build_image_encoder(name, layer=layer, image_size=64, weights="random")
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    other = encoder.with_precision(Precision(channels_last=False))
    assert not any(module.training for module in other.network.modules())
    torch.testing.assert_close(other(pixels), encoder(pixels), rtol=1e-3, atol=1e-4)


def test_the_least_cosine_is_that_of_the_worst_image() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(4, 3, 5)), random.normal(size=(4, 3, 5))
    one[2] = other[2] = 0
    expected = min(
        float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
        for a, b in zip(one, other, strict=True)
        if a.any()
    )
    assert least_cosine(torch.tensor(one), torch.tensor(other)) == pytest.approx(expected)
    assert least_cosine(torch.tensor(one[2:3]), torch.tensor(other[2:3])) == 1.0
    one[0, 0, 0] = np.nan
    assert not least_cosine(torch.tensor(one), torch.tensor(other)) >= -1


def test_the_fastest_way_that_agrees_is_taken() -> None:
    plain = Measurement(AS_BEFORE, 10.0, 1.0, 0.1)
    half = Measurement(BFLOAT16, 40.0, 0.9995, 0.1)
    wrong = Measurement(BFLOAT16, 40.0, 0.9989, 0.1)
    broken = Measurement(Precision("float32", compiled=True), 99.0, 1.0, 0.1, "no compiler")
    assert fastest([plain, half, broken], "auto") == half
    assert fastest([plain, wrong, broken], "auto") == plain
    assert fastest([plain, wrong, broken], "bfloat16") == wrong
    assert fastest([plain, Measurement(BFLOAT16, 40.0, float("nan"), 0.1)], "auto") == plain


def test_a_network_that_amplifies_rounding_keeps_float32(images: ImageTable, eager_to_measure: None) -> None:
    encoder = trained_encoder()

    class Amplifying(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return (pixels * 1e3).sin()

    encoder.network, encoder.read_output = Amplifying(), lambda output: output
    encoder.register_parameter("device", nn.Parameter(torch.zeros(1)))
    with console.capture() as captured:
        chosen = choose_precision(encoder, images.paths, 4, compiled=False)
    assert chosen.number_type == "float32"
    said = captured.get()
    assert "bfloat16 channels_last" in said and f"Encoder: {chosen}" in said
    with console.capture() as captured:
        assert choose_precision(encoder, images.paths, 4, number_type="bfloat16") == BFLOAT16
    assert "does NOT agree" in captured.get()


def test_random_weights_are_measured_only_when_asked(images: ImageTable, eager_to_measure: None) -> None:
    with console.capture() as captured:
        assert choose_precision(small_encoder(), images.paths, 4) == AS_BEFORE
    assert "nothing is measured" in captured.get()
    with console.capture() as captured:
        choose_precision(small_encoder(), images.paths, 4, compiled=False)
    assert "Ways to compute the encoder" in captured.get()


def test_few_or_quick_images_are_not_measured(images: ImageTable, monkeypatch: pytest.MonkeyPatch) -> None:
    with console.capture() as captured:
        assert choose_precision(trained_encoder(), images.paths, 4) == AS_BEFORE
    assert "10 images are too few to measure others" in captured.get()
    monkeypatch.setattr(autotune, "FEWEST_IMAGES", 1)
    with console.capture() as captured:
        assert choose_precision(trained_encoder(), images.paths, 4) == AS_BEFORE
    assert "too short to measure others" in captured.get()
    assert choose_precision(trained_encoder(), images.paths, 4, "bfloat16", True) == Precision("bfloat16", True, True)
    with pytest.raises(InputError, match="unknown precision 'bfloat17' \\(did you mean 'bfloat16'"):
        choose_precision(trained_encoder(), images.paths, 4, "bfloat17")


def test_a_way_that_does_not_work_here_is_said_and_not_taken(
    images: ImageTable, eager_to_measure: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nsecond line")

    monkeypatch.setattr(torch, "compile", no_compiler)
    monkeypatch.setattr(autotune, "COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(autotune, "COMPILE_SECONDS_A_LAYER", 0.0)
    with console.capture() as captured:
        assert not choose_precision(trained_encoder(), images.paths, 4).compiled
    assert "compiled: not possible here: no C++ compiler\n" in captured.get()
    with pytest.raises(InputError, match="was asked for: not possible here: no C"):
        choose_precision(trained_encoder(), images.paths, 4, compiled=True)


def test_compiling_is_tried_only_where_the_images_left_can_pay_for_it(
    images: ImageTable, eager_to_measure: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Precision] = []

    def measured(_: ImageEncoder, way: Precision, *__: object) -> Measurement:
        tried.append(way)
        return Measurement(way, 12.0 if way.compiled else 10.0, 1.0, 0.1)

    monkeypatch.setattr(autotune, "measure", measured)
    encoder = trained_encoder()
    sample = torch.stack([encoder.load(path).pixels_3SS for path in images.paths[:2]])
    enough = autotune.compiling_seconds(encoder) / autotune.COMPILED_SAVES * 10.0  # images, at 10 a second
    for count, compiles in ((enough * 0.9, False), (enough * 1.1, True)):
        tried.clear()
        with console.capture() as captured:
            autotune.measure_all(encoder, sample, 4, int(count))
        assert any(way.compiled for way in tried) == compiles
        assert ("Compiling is not tried: it takes about" in captured.get()) != compiles
    tried.clear()
    autotune.measure_all(encoder, sample, 4, 10, compiled=True)  # asked for
    assert any(way.compiled for way in tried)
    larger = build_image_encoder("resnet18", layer="layer4", image_size=64, weights="random")
    assert autotune.compiling_seconds(larger) > autotune.compiling_seconds(encoder) + 10


def test_a_cache_is_completed_in_the_precision_that_began_it(tmp_path: Path, images: ImageTable) -> None:
    encoder, out = small_encoder(), tmp_path / "cache.h5"
    extract(images, encoder, tmp_path / "whole.h5", batch_size=4, precision=BFLOAT16)
    lost = images.paths[6].read_bytes()
    images.paths[6].write_bytes(b"damaged")
    try:
        extract(images, encoder, out, batch_size=4, precision=BFLOAT16)
    finally:
        images.paths[6].write_bytes(lost)
    assert FeatureCache(out).attributes["arithmetic"] == str(BFLOAT16)
    with pytest.raises(InputError, match="arithmetic is 'bfloat16 channels_last', expected 'float32 channels_last'"):
        extract(images, encoder, out, batch_size=4)
    for precision, compiled in (("float32", None), ("auto", True), ("bfloat16", True)):
        with pytest.raises(InputError, match="was begun with an encoder in bfloat16 channels_last, asked for"):
            precision_for(out, images, encoder, 4, ExtractOptions(precision, compiled))
    begun = precision_for(out, images, encoder, 4, ExtractOptions())
    assert extract(images, encoder, out, batch_size=4, precision=begun).extracted_now == 1
    rows = np.arange(10)
    assert torch.equal(FeatureCache(out).read(rows), FeatureCache(tmp_path / "whole.h5").read(rows))


@pytest.mark.slow
def test_a_compiled_encoder_agrees_and_keeps_its_batch_size(tmp_path: Path, images: ImageTable) -> None:
    encoder, way = small_encoder(), Precision("float32", compiled=True)
    sample = torch.stack([encoder.load(path).pixels_3SS for path in images.paths[:3]])
    assert measure(encoder, way, sample, encoder(sample), batch_size=4).agrees
    sizes = set()

    def noting(self: object, pixels: torch.Tensor) -> torch.Tensor:
        sizes.add(len(pixels))
        return type(encoder).forward(encoder, pixels)

    other = small_encoder()
    other.__class__ = type("Noting", (type(encoder),), {"forward": noting})
    extract(images, other, tmp_path / "compiled.h5", batch_size=4, precision=way)
    assert sizes == {4}
    extract(images, encoder, tmp_path / "whole.h5", batch_size=4)
    rows = np.arange(10)
    compiled, whole = (FeatureCache(tmp_path / f"{name}.h5").read(rows).float() for name in ("compiled", "whole"))
    assert least_cosine(compiled, whole) > 0.9999

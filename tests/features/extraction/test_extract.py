"""Extraction: every row right, each content once, every bad image named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.features import SIDE, render_images, small_encoder, stored

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.registry import ImageEncoder
from vqa.features.extraction.extract import extract
from vqa.progress import console


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    return small_encoder()


def test_rows_are_the_encoders_features(tmp_path: Path, encoder: ImageEncoder) -> None:
    images = render_images(tmp_path / "images", 11)
    out = tmp_path / "cache.h5"
    report = extract(images, encoder, out, batch_size=4, command="vqa features extract …")
    assert (report.images, report.extracted_now, report.already_done, report.unreadable) == (11, 11, 0, [])
    cache = FeatureCache(out)
    assert cache.done_I.all()
    for row in (0, 5, 10):
        alone = encoder(encoder.load_image(images.paths[row]).unsqueeze(0))
        torch.testing.assert_close(cache.read(cache.rows([images.ids[row]])), alone.half(), rtol=1e-2, atol=1e-3)
    assert cache.contradictions(encoder.attributes()) == []
    assert cache.attributes["torch"] == torch.__version__
    before = out.read_bytes()
    again = extract(images, encoder, out, batch_size=4)
    assert (again.extracted_now, again.already_done) == (0, 11)
    assert out.read_bytes() == before


def test_a_file_that_several_rows_name_is_encoded_once(tmp_path: Path) -> None:
    class Counting(ImageEncoder):
        encoded = 0

        def forward(self, image_B3SS: torch.Tensor) -> torch.Tensor:
            Counting.encoded += len(image_B3SS)
            return super().forward(image_B3SS)

    encoder = small_encoder()
    encoder.__class__ = Counting
    few = render_images(tmp_path / "images", 3)
    images = ImageTable(tuple("abcdefg"), tuple(few.paths[i] for i in (0, 1, 0, 2, 1, 0, 2)))
    extract(images, encoder, tmp_path / "cache.h5", batch_size=2)
    assert Counting.encoded == 3
    cache = FeatureCache(tmp_path / "cache.h5")
    feature = cache.read(cache.rows(list("acfbedg")))
    assert torch.equal(feature[0], feature[1]) and torch.equal(feature[0], feature[2])
    assert torch.equal(feature[3], feature[4]) and torch.equal(feature[5], feature[6])
    assert not torch.equal(feature[0], feature[3])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_files_of_the_same_content_are_encoded_once(tmp_path: Path, encoder: ImageEncoder, dtype: str) -> None:
    images = render_images(tmp_path / "images", 9)
    copies = {1: 0, 4: 2, 7: 0, 8: 6}  # 1 in the block of 0, 8 in that of 6, the others later
    for copy, source in copies.items():
        images.paths[copy].write_bytes(images.paths[source].read_bytes())
    out = tmp_path / "cache.h5"
    report = extract(images, encoder, out, batch_size=3, dtype=dtype)
    assert (report.encoded, report.extracted_now) == (5, 9)
    cache = FeatureCache(out)
    feature = cache.read(np.arange(9))
    for copy, source in copies.items():
        assert torch.equal(feature[copy], feature[source])
        assert cache.image_digests[copy] == cache.image_digests[source]
    kept = [row for row in range(9) if row not in copies]
    assert len({feature[row].numpy().tobytes() for row in kept}) == len(kept)
    lone = ImageTable(images.ids[4:5], images.paths[4:5])
    extract(lone, encoder, tmp_path / "lone.h5", batch_size=3, dtype=dtype)
    torch.testing.assert_close(FeatureCache(tmp_path / "lone.h5").read(np.arange(1))[0], feature[4])


def test_a_copy_of_an_image_that_an_earlier_run_did_is_not_encoded(tmp_path: Path, encoder: ImageEncoder) -> None:
    images = render_images(tmp_path / "images", 6)
    images.paths[5].write_bytes(images.paths[0].read_bytes())
    extract(images, encoder, tmp_path / "whole.h5", batch_size=2)
    images.paths[5].write_bytes(b"damaged")
    out = tmp_path / "cache.h5"
    extract(images, encoder, out, batch_size=2)
    images.paths[5].write_bytes(images.paths[0].read_bytes())
    report = extract(images, encoder, out, batch_size=2)
    assert (report.encoded, report.extracted_now) == (0, 1)
    assert stored(out) == stored(tmp_path / "whole.h5")


def test_missing_images_stop_it_before_any_work(tmp_path: Path, encoder: ImageEncoder) -> None:
    images = render_images(tmp_path / "images", 5)
    images.paths[3].unlink()
    with pytest.raises(InputError, match="1 of 5 images are missing") as error:
        extract(images, encoder, tmp_path / "cache.h5")
    assert str(images.paths[3]) in str(error.value)
    assert not (tmp_path / "cache.h5").exists()
    with pytest.raises(InputError, match="no images"):
        extract(ImageTable((), ()), encoder, tmp_path / "cache.h5")


def test_an_unreadable_image_is_named_and_repaired_by_the_next_run(tmp_path: Path, encoder: ImageEncoder) -> None:
    images = render_images(tmp_path / "images", 9)
    extract(images, encoder, tmp_path / "whole.h5", batch_size=4)
    good = images.paths[5].read_bytes()
    images.paths[5].write_bytes(good[:60])
    out = tmp_path / "cache.h5"
    report = extract(images, encoder, out, batch_size=4, command="vqa features extract X")
    assert report.extracted_now == 8
    assert [path for path, _ in report.unreadable] == [images.paths[5]]
    assert str(images.paths[5]) in report.unreadable[0][1]
    with pytest.raises(InputError, match="1 of 9 images are not extracted yet, first: 5"):
        FeatureCache(out).rows(images.ids)
    images.paths[5].write_bytes(good)
    assert extract(images, encoder, out, batch_size=4).extracted_now == 1
    assert stored(out) == stored(tmp_path / "whole.h5")


def test_features_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    images = render_images(tmp_path / "images", 3)
    for value, shown in ((1e9, "gives 1e\\+09|gives [0-9.]+e\\+"), (float("nan"), "gives nan")):
        encoder = small_encoder()
        with torch.no_grad():
            next(encoder.parameters()).fill_(value)
        with pytest.raises(InputError, match=shown) as error:
            extract(images, encoder, tmp_path / f"{value}.h5", batch_size=2)
        assert str(images.paths[0]) in str(error.value)
        assert not FeatureCache(tmp_path / f"{value}.h5").done_I.any()


def test_interrupting_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path, encoder: ImageEncoder) -> None:
    class Interrupted(ImageEncoder):
        calls = 0

        def forward(self, image_B3SS: torch.Tensor) -> torch.Tensor:
            Interrupted.calls += 1
            if Interrupted.calls == 3:
                raise KeyboardInterrupt
            return super().forward(image_B3SS)

    images = render_images(tmp_path / "images", 10)
    stopping, out = small_encoder(), tmp_path / "cache.h5"
    stopping.__class__ = Interrupted
    with console.capture() as captured, pytest.raises(KeyboardInterrupt):
        extract(images, stopping, out, batch_size=2, command="vqa features extract A B")
    assert "4 of 10 images" in captured.get()
    assert "Go on with: vqa features extract A B" in captured.get()
    assert extract(images, encoder, out, batch_size=2).already_done == 4
    extract(images, encoder, tmp_path / "whole.h5", batch_size=2)
    assert stored(out) == stored(tmp_path / "whole.h5")


def test_wrong_settings_are_refused(tmp_path: Path, encoder: ImageEncoder) -> None:
    images = render_images(tmp_path / "images", 2)
    with pytest.raises(InputError, match="at least 1"):
        extract(images, encoder, tmp_path / "cache.h5", batch_size=0)
    extract(images, encoder, tmp_path / "cache.h5")
    with pytest.raises(InputError, match=f"image_size is {SIDE}, expected 48"):
        extract(images, small_encoder(48), tmp_path / "cache.h5")


def test_images_that_were_replaced_are_found_out(tmp_path: Path, encoder: ImageEncoder) -> None:
    images = render_images(tmp_path / "images", 6)
    out = tmp_path / "cache.h5"
    extract(images, encoder, out, batch_size=4)
    before = out.read_bytes()
    other = render_images(tmp_path / "others", 9)
    for path, replacement in zip(images.paths, other.paths[3:], strict=True):
        Path(path).write_bytes(Path(replacement).read_bytes())
    with pytest.raises(InputError, match="other images"):
        extract(images, encoder, out, batch_size=4)
    assert out.read_bytes() == before

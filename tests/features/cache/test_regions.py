"""How many regions of an image are real and where they lie, in caches: written, read, checked, completed, merged."""

import base64
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.training import PROJECT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.imports import import_features
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import WHERE, CacheWriter
from vqa.features.extraction.check import describe_cache
from vqa.features.extraction.shards import merge_shards

ATTRIBUTES = {"encoder": "tiny", "layer": "top", "image_size": 8, "weights_sha256": "0", "preprocessing": {}}
ROWS, REGIONS, CHANNELS = 5, 3, 2
COUNT_I = torch.tensor([3, 1, 2, 3, 1])


def images(first: int = 0, count: int = ROWS) -> ImageTable:
    names = tuple(f"i{row}" for row in range(first, first + count))
    return ImageTable(names, tuple(Path(f"{name}.jpg") for name in names))


def boxes() -> torch.Tensor:
    """Ordered corners from 0 to 1, zeros where padded."""
    corner_IR22 = torch.rand(ROWS, REGIONS, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=2).values
    padded_IR = torch.arange(REGIONS) >= COUNT_I[:, None]
    return corner_IR22.flatten(2).masked_fill(padded_IR[:, :, None], 0)


def features() -> torch.Tensor:
    return torch.randn(ROWS, REGIONS, CHANNELS, generator=torch.Generator().manual_seed(1)).half()


def fill(
    path: Path, rows: list[int], table: ImageTable | None = None, dtype: str = "float16", **options: object
) -> None:
    """Rows `rows` of a table whose first image is row `first` of all."""
    first = int((table or images()).ids[0][1:])
    with CacheWriter(path, table or images(), ATTRIBUTES, REGIONS, CHANNELS, dtype, **options) as writer:  # type: ignore[arg-type]
        own = [row - first for row in rows]
        digests = [f"{row:064x}" for row in rows]
        writer.write(np.array(own), features()[rows], digests, COUNT_I[rows], boxes()[rows])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_counts_and_boxes_come_back_to_the_bit(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    fill(path, [0, 3], dtype=dtype, where=WHERE)
    assert FeatureCache(path).count_I is not None  # rows that are not done hold 0, and that is no fault
    fill(path, [1, 2, 4], dtype=dtype, where=WHERE)
    cache = FeatureCache(path)
    assert cache.count_I is not None and cache.boxed and cache.count_I.tolist() == COUNT_I.tolist()
    rows = np.array([4, 0, 0, 2])
    assert torch.equal(cache.read_boxes(rows), boxes()[rows])
    assert cache.read_boxes(np.array([], dtype=np.int64)).shape == (0, REGIONS, 4)
    with h5py.File(path) as file:
        assert file["region_count"].dtype == np.int32 and file["boxes"].dtype == np.float32
        assert np.array_equal(file["boxes"][:], boxes().numpy())
    said = describe_cache(path)
    assert said["boxes"] and said["real_regions"] == {"least": 1, "mean": 2.0, "most": 3}


def test_a_copied_row_has_its_sources_count_and_boxes(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    with CacheWriter(path, images(), ATTRIBUTES, REGIONS, CHANNELS, where=WHERE) as writer:
        writer.write(np.array([2]), features()[[2]], ["0" * 64], COUNT_I[[2]], boxes()[[2]])
        writer.copy(2, [0, 4], "0" * 64)
    cache = FeatureCache(path)
    assert cache.count_I is not None and cache.count_I.tolist() == [2, 0, 2, 0, 2]
    assert torch.equal(cache.read_boxes(np.array([4])), boxes()[[2]])


def test_a_cache_begun_without_is_completed_without_and_never_the_other_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.h5"
    fill(path, [0])
    fill(path, [1, 2, 3, 4], where=WHERE)
    cache = FeatureCache(path)
    assert cache.count_I is None and not cache.boxed and cache.done_I.all()
    assert "begun without /region_count and /boxes, and is completed so" in " ".join(capsys.readouterr().out.split())
    fill(tmp_path / "new.h5", [0], where=WHERE)
    with pytest.raises(InputError, match=r"new\.h5: holds /region_count, which these features lack"):
        fill(tmp_path / "new.h5", [1])


def test_counts_alone_default_to_all_regions_and_boxes_must_be_given(tmp_path: Path) -> None:
    with CacheWriter(tmp_path / "c.h5", images(), ATTRIBUTES, REGIONS, CHANNELS, where=["region_count"]) as writer:
        writer.write(np.arange(ROWS), features(), ["0" * 64] * ROWS)
    cache = FeatureCache(tmp_path / "c.h5")
    assert cache.count_I is not None and cache.count_I.tolist() == [REGIONS] * ROWS and not cache.boxed
    with (
        CacheWriter(tmp_path / "b.h5", images(), ATTRIBUTES, REGIONS, CHANNELS, where=["boxes"]) as writer,
        pytest.raises(ValueError, match="boxes of 3 regions are needed"),
    ):
        writer.write(np.arange(ROWS), features(), ["0" * 64] * ROWS)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_merged_shards_are_what_one_process_writes(dtype: str, tmp_path: Path) -> None:
    first, second = images(0, 2), images(2, 3)
    fill(tmp_path / "a.h5", [0, 1], first, dtype, where=WHERE)
    fill(tmp_path / "b.h5", [2, 3, 4], second, dtype, where=WHERE)
    merge_shards(images(), tmp_path / "all.h5", {tmp_path / "a.h5": [0, 1], tmp_path / "b.h5": [2, 3, 4]})
    fill(tmp_path / "one.h5", [0, 1, 2, 3, 4], dtype=dtype, where=WHERE)
    with h5py.File(tmp_path / "all.h5") as merged, h5py.File(tmp_path / "one.h5") as whole:
        for name in whole:
            assert np.array_equal(merged[name][:], whole[name][:]), name


def test_shards_of_different_meaning_are_not_merged(tmp_path: Path) -> None:
    fill(tmp_path / "a.h5", [0, 1], images(0, 2))
    fill(tmp_path / "b.h5", [2, 3, 4], images(2, 3), where=WHERE)
    with pytest.raises(InputError, match=r"b\.h5 holds /region_count and .*a\.h5 does not"):
        merge_shards(images(), tmp_path / "all.h5", {tmp_path / "a.h5": [0, 1], tmp_path / "b.h5": [2, 3, 4]})


def rewritten(path: Path, name: str, values: np.ndarray) -> Path:
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, data=values)
    return path


@given(count_I=arrays.arrays(np.int64, ROWS, elements=st.integers(-2, REGIONS + 2)), wide=st.booleans())
def test_counts_read_where_and_only_where_they_are_from_one_to_all(
    count_I: np.ndarray, wide: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("counts") / "c.h5"
    fill(path, [0, 1, 3], where=WHERE)
    rewritten(path, "region_count", count_I if wide else count_I.astype(np.int32))
    done = count_I[[0, 1, 3]]
    if ((done >= 1) & (done <= REGIONS)).all():
        cache = FeatureCache(path)
        assert cache.count_I is not None and cache.count_I.tolist() == count_I.tolist()
        fill(path, [2], where=WHERE)  # in the file's own type
        assert int(FeatureCache(path).count_I[2]) == int(COUNT_I[2])  # type: ignore[index]
        return
    with pytest.raises(InputError, match=r"/region_count is -?\d+ in row [013], expected 1 to 3"):
        FeatureCache(path)


NUMBERS = st.one_of(st.floats(0, 1, width=32), st.sampled_from([-1e-6, 1.0001, np.nan, np.inf, -np.inf, 2.0]))


@given(box_IR4=arrays.arrays(np.float32, (ROWS, REGIONS, 4), elements=NUMBERS))
def test_boxes_read_where_and_only_where_they_lie_on_the_image(
    box_IR4: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("boxes") / "c.h5"
    fill(path, [0, 1, 2, 3, 4], where=WHERE)
    rewritten(path, "boxes", box_IR4)
    right = all(
        0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1 for x1, y1, x2, y2 in box_IR4.reshape(-1, 4).astype(float).tolist()
    )
    if right:
        assert np.array_equal(FeatureCache(path).read_boxes(np.arange(ROWS)).numpy(), box_IR4)
        return
    with pytest.raises(InputError, match="expected x1, y1, x2, y2 from 0 to 1"):
        FeatureCache(path)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("region_count", np.ones(ROWS, np.int16), "/region_count is int16"),
        ("region_count", np.ones(ROWS, ">i4"), "/region_count is big-endian int32"),
        ("region_count", np.ones(ROWS, np.float32), "/region_count is float32"),
        ("region_count", np.ones(ROWS, np.uint32), "/region_count is uint32"),
        ("region_count", np.ones(ROWS - 1, np.int32), "/region_count has 4 rows and /features 5"),
        ("region_count", np.ones((ROWS, 1), np.int32), "/region_count is int32 [5, 1]"),
        ("boxes", np.zeros((ROWS, REGIONS, 4), np.float64), "/boxes is float64"),
        ("boxes", np.zeros((ROWS, REGIONS, 4), np.float16), "/boxes is float16"),
        ("boxes", np.zeros((ROWS, REGIONS, 6), np.float32), "/boxes is [5, 3, 6] and /features [5, 3, 2]"),
        ("boxes", np.zeros((ROWS, REGIONS + 1, 4), np.float32), "/boxes is [5, 4, 4] and /features [5, 3, 2]"),
        ("boxes", np.zeros((ROWS + 1, REGIONS, 4), np.float32), "/boxes has 6 rows and /features 5"),
        ("boxes", np.zeros((ROWS, 4), np.float32), "/boxes is float32 [5, 4]"),
    ],
)
def test_other_types_and_shapes_are_refused(name: str, values: np.ndarray, words: str, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    fill(path, [0], where=WHERE)
    rewritten(path, name, values)
    with pytest.raises(InputError) as error:
        FeatureCache(path)
    assert words in str(error.value)


def test_an_old_cache_has_neither() -> None:
    cache = FeatureCache(PROJECT / "tests" / "data" / "old" / "cache.h5")
    assert cache.count_I is None and not cache.boxed
    assert "real_regions" not in describe_cache(cache.path) and describe_cache(cache.path)["boxes"] is False


def write_tsv(path: Path, box_of: dict[str, list[list[float]]], width: int = 200, height: int = 100) -> None:
    """One line an image: its boxes in pixels, their features 1, 2, ..."""
    lines = []
    for name, corners in box_of.items():
        features = np.arange(1, len(corners) + 1, dtype=np.float32)[:, None] * np.array([1000, 1], np.float32)
        packed = [base64.b64encode(np.asarray(one, np.float32).tobytes()).decode() for one in (corners, features)]
        lines.append("\t".join([name, str(width), str(height), str(len(corners)), *packed]))
    path.write_text("\n".join(lines) + "\n")


TWO: list[list[float]] = [[0, 0, 100, 50], [50.0, 20, 201, 100]]  # a pixel beyond the edge, as detectors round


def test_imports_write_counts_and_boxes_in_place_of_zero_rows(tmp_path: Path) -> None:
    write_tsv(tmp_path / "a.tsv", {"9": TWO, "25": TWO[:1]})
    for dtype in ("float16", "int8"):  # beside int8 too, whose one scale an image would lose shares among the channels
        path = tmp_path / f"{dtype}.h5"
        import_features("bottom-up-attention", [tmp_path / "a.tsv"], path, dtype=dtype)
        cache = FeatureCache(path)
        assert (cache.regions, cache.channels) == (2, 2)
        assert cache.count_I is not None and cache.count_I.tolist() == [2, 1]
        expected = [[[0, 0, 0.5, 0.5], [0.25, 0.2, 1, 1]], [[0, 0, 0.5, 0.5], [0, 0, 0, 0]]]
        torch.testing.assert_close(cache.read_boxes(np.arange(2)), torch.tensor(expected))
        again = import_features("bottom-up-attention", [tmp_path / "a.tsv"], path, dtype=dtype)
        assert again.imported_now == 0
    import_features("bottom-up-attention", [tmp_path / "a.tsv"], tmp_path / "glued.h5", geometry="channels")
    glued = FeatureCache(tmp_path / "glued.h5")
    assert glued.channels == 2 + 6 and glued.boxed
    torch.testing.assert_close(glued.read(np.array([0]))[0, 0, 2:].float(), torch.tensor([0, 0, 0.5, 0.5, 0.5, 0.5]))
    with pytest.raises(InputError, match="unknown geometry 'nowhere'"):
        import_features("bottom-up-attention", [tmp_path / "a.tsv"], tmp_path / "x.h5", geometry="nowhere")


def test_imports_of_other_boxes_are_not_gone_on_with(tmp_path: Path) -> None:
    write_tsv(tmp_path / "a.tsv", {"9": TWO, "25": TWO[:1]})
    import_features("bottom-up-attention", [tmp_path / "a.tsv"], tmp_path / "c.h5")
    write_tsv(tmp_path / "a.tsv", {"9": [TWO[0], TWO[0]], "25": TWO[:1]})
    with pytest.raises(InputError, match="holds the features of other files"):
        import_features("bottom-up-attention", [tmp_path / "a.tsv"], tmp_path / "c.h5")


@pytest.mark.parametrize("box", [[0, 0, 300, 50], [100, 0, 50, 50], [0, 0, np.nan, 50], [-50, 0, 10, 10]])
def test_a_box_outside_the_image_is_refused(box: list[float], tmp_path: Path) -> None:
    write_tsv(tmp_path / "a.tsv", {"9": [TWO[0], box]})
    with pytest.raises(InputError, match=r"image 9 has a box at .*outside the image or is turned round"):
        import_features("bottom-up-attention", [tmp_path / "a.tsv"], tmp_path / "c.h5")


def test_files_without_boxes_give_counts_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("9", 3), ("25", 2)):
        np.savez(tmp_path / f"{name}.npz", x=np.ones((2, count), np.float32))
    import_features("openvqa", [tmp_path], tmp_path / "c.h5")
    cache = FeatureCache(tmp_path / "c.h5")
    assert cache.count_I is not None and sorted(cache.count_I.tolist()) == [2, 3] and not cache.boxed
    assert "so the cache has no /boxes" in " ".join(capsys.readouterr().out.split())

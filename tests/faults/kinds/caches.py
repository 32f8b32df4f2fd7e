"""Damaged and home-made feature caches, and the files of other projects that `features import` reads."""

import base64
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from faults.case import Case, thinned
from faults.mutate import UNFILES, WRONG_VALUES, replace_by
from faults.world import ENCODER

EITHER = frozenset({0, 2})
TRAIN = ["train", "e.yaml", "name=new"]
INFO = ["features", "info", "cache.h5"]
CHECK = ["features", "check", "cache.h5", "--data", "data", "--format", "vqa_v2", "--split", "val", "--sample", "2"]
GO_ON = ["features", "extract", "--data", "data", "--format", "vqa_v2", "--split", "train", "--split", "val", "--split",
         "test", *ENCODER, "--workers", "1", "--no-compile", "--out", "cache.h5"]  # fmt: skip
FISHER = ["features", "fisher", "cache.h5", "--out", "fisher.h5", "--components", "2", "--dimensions", "2"]
READERS = {"train": TRAIN, "info": INFO, "check": CHECK, "extract": GO_ON, "fisher": FISHER}
Damage = Callable[[h5py.File], object]


def edit(change: Damage) -> Callable[[Path], None]:
    """Alter the cache in place."""

    def prepare(folder: Path) -> None:
        with h5py.File(folder / "cache.h5", "r+") as file:
            change(file)

    return prepare


def replaced(name: str, value: Any, **options: Any) -> Damage:
    """A data set with other content."""

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, data=value, **options)

    return change


def as_type(name: str, kind: Any) -> Damage:
    return lambda file: replaced(name, file[name][:].astype(kind))(file)


def attribute(name: str, value: Any) -> Damage:
    return lambda file: file.attrs.__setitem__(name, value)


def without(name: str) -> Damage:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def without_attribute(name: str) -> Damage:
    def change(file: h5py.File) -> None:
        del file.attrs[name]

    return change


def declared(name: str, shape: tuple[int, ...], kind: Any, **options: Any) -> Damage:
    """A data set that states a size without holding it."""

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, shape, kind, **options)

    return change


def grouped(name: str) -> Damage:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file.create_group(name)

    return change


def linked(name: str, to: Any) -> Damage:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = to

    return change


def with_where(name: str, change: Damage) -> Damage:
    """A cache that says which regions are real, or where they lie, and what is wrong with that."""

    def both(file: h5py.File) -> None:
        rows, regions, _ = file["features"].shape
        right = np.full(rows, regions, "i4") if name == "region_count" else np.tile(WHOLE_IMAGE, (rows, regions, 1))
        file.create_dataset(name, data=right)
        change(file)

    return both


WHERE = ("region_count", "boxes")
WHOLE_IMAGE = np.array([0, 0, 1, 1], "f4")
DATA_SETS = ("features", "image_id", "image_path", "image_digest", "done")
EVERY = (*DATA_SETS, *WHERE)
ATTRIBUTES = (
    "format_version", "encoder", "layer", "image_size", "weights", "weights_sha256", "weights_origin", "arithmetic",
    "preprocessing", "torch", "torchvision", "command",
)  # fmt: skip
COMPOUND = np.dtype([("a", "u1"), ("b", "u1")])
HEADERS: dict[str, Damage] = {
    **{f"no {name}": without(name) for name in DATA_SETS},
    **{f"no attribute {name}": without_attribute(name) for name in ATTRIBUTES},
    **{f"{name} is a group": grouped(name) for name in EVERY},
    **{f"{name} is a number": replaced(name, 5) for name in EVERY},
    **{f"{name} is empty": replaced(name, np.zeros(0)) for name in EVERY},
    **{f"{name} is null": replaced(name, h5py.Empty("f")) for name in EVERY},
    **{f"{name} is a matrix": replaced(name, np.zeros((3, 4, 2, 2))) for name in EVERY},
    **{f"{name} is of 4e9 rows": declared(name, (4_000_000_000,), "S64") for name in EVERY},
    **{f"{name} is compressed": declared(name, (60, 1, 4), "f2", chunks=(1, 1, 4), compression="gzip")
       for name in EVERY},
    **{f"{name} links outside": linked(name, h5py.ExternalLink("nowhere.h5", "/x")) for name in EVERY},
    **{f"{name} links nowhere": linked(name, h5py.SoftLink("/nothing")) for name in EVERY},
    "ids that are numbers": replaced("image_id", np.arange(60)),
    "ids that are floats": replaced("image_id", np.arange(60.0)),
    "ids twice": lambda file: file["image_id"].__setitem__(1, file["image_id"][0]),
    "ids of control characters": lambda file: file["image_id"].__setitem__(0, "\x1b[2J[/b]"),
    "ids of broken UTF-8": lambda file: replaced("image_id", np.asarray([b"\xff\xfe"] * len(file["image_id"])))(file),
    "ids of any length": lambda file: replaced(
        "image_id", [f"x{i}" for i in range(len(file["image_id"]))], dtype=h5py.string_dtype()
    )(file),
    "digests that are numbers": replaced("image_digest", np.arange(60)),
    "digests beyond ASCII": lambda file: replaced("image_digest", np.asarray([b"\xff"] * len(file["done"])))(file),
    "a compound done": lambda file: replaced("done", np.zeros(len(file["done"]), COMPOUND))(file),
    "done of floats": as_type("done", "f4"),
    "done of NaN": lambda file: replaced("done", np.full(len(file["done"]), np.nan))(file),
    "done of text": lambda file: replaced("done", np.asarray([b"yes"] * len(file["done"])))(file),
    "nothing done": lambda file: file["done"].__setitem__(slice(None), 0),
    "one less done": lambda file: replaced("done", file["done"][:-1])(file),
    "big-endian features": as_type("features", ">f2"),
    "features of float32": as_type("features", "f4"),
    "features of float64": as_type("features", "f8"),
    "features of int16": as_type("features", "i2"),
    "features of bool": as_type("features", "?"),
    "features of complex": as_type("features", "c8"),
    "compound features": lambda file: replaced("features", np.zeros(file["features"].shape, COMPOUND))(file),
    "int8 without scale": as_type("features", "i1"),
    "int8 with one scale": lambda file: (as_type("features", "i1")(file), replaced("scale", np.ones(1, "f4"))(file)),
    "int8 with scale of text": lambda file: (as_type("features", "i1")(file), replaced("scale", [b"x"] * 60)(file)),
    "int8 with scale of NaN": lambda file: (
        as_type("features", "i1")(file), replaced("scale", np.full(len(file["done"]), np.nan, "f4"))(file)),
    "counts of no region": with_where("region_count", lambda file: file["region_count"].__setitem__(3, 0)),
    "counts beyond the regions": with_where("region_count", lambda file: file["region_count"].__setitem__(3, 2**30)),
    "boxes outside": with_where("boxes", lambda file: file["boxes"].__setitem__((0, 0), [-1, 0, 2, 1])),
    "boxes turned round": with_where("boxes", lambda file: file["boxes"].__setitem__((0, 0), [1, 1, 0, 0])),
    "boxes of NaN": with_where("boxes", lambda file: file["boxes"].__setitem__(slice(None), np.nan)),
    "counts alone": with_where("region_count", lambda file: None),
    "boxes alone": with_where("boxes", lambda file: None),
    "features without regions": lambda file: replaced("features", np.zeros((len(file["done"]), 0, 4), "f2"))(file),
    "features without channels": lambda file: replaced("features", np.zeros((len(file["done"]), 4, 0), "f2"))(file),
    "features of NaN": lambda file: file["features"].__setitem__(slice(None), np.nan),
    "features of infinity": lambda file: file["features"].__setitem__(slice(None), np.inf),
    "features never written": declared("features", (60, 10**6, 10**6), "f2"),
    "no groups at all": lambda file: [file.pop(name) for name in list(file)],
    "no attributes at all": lambda file: [file.attrs.pop(name) for name in list(file.attrs)],
    **{f"attribute {name} is a number": attribute(name, 5) for name in ATTRIBUTES if name != "image_size"},
    **{f"attribute {name} is an array": attribute(name, np.arange(6)) for name in ATTRIBUTES},
    **{f"attribute {name} is bytes": attribute(name, np.bytes_(b"\xff\xfe")) for name in ATTRIBUTES[1:]},
    **{f"attribute {name} is escape codes": attribute(name, "\x1b[2J\x1b[31m[/b][x]") for name in ATTRIBUTES[1:]},
    **{f"attribute {name} is null": attribute(name, h5py.Empty("S1")) for name in ATTRIBUTES[:9]},
    "preprocessing is broken JSON": attribute("preprocessing", "{"),
    "preprocessing is a list": attribute("preprocessing", "[1]"),
    "preprocessing is null": attribute("preprocessing", "null"),
    "preprocessing is deep": attribute("preprocessing", "[" * 20_000 + "]" * 20_000),
    "preprocessing is of NaN": attribute("preprocessing", '{"resize": NaN, "mean": 1e999}'),
    "image_size is negative": attribute("image_size", -1),
    "image_size is huge": attribute("image_size", 2**62),
    "image_size is NaN": attribute("image_size", float("nan")),
    "image_size is text": attribute("image_size", "x"),
    "encoder is code": attribute("encoder", "os:system"),
    "encoder is nothing": attribute("encoder", ""),
    "encoder is imported": attribute("encoder", "import:x"),
    "layer is unknown": attribute("layer", "fc99"),
    "weights are /dev/zero": attribute("weights", "/dev/zero"),
    "a command of 60,000 letters": attribute("command", "x" * 60_000),
}  # fmt: skip


def cases() -> Iterator[Case]:
    names = list(READERS)
    for number, (what, change) in enumerate(HEADERS.items()):
        for reader in (names[number % len(names)],):
            changes = ("cache.h5",) if reader == "extract" else ()
            yield Case(f"caches: {reader}, {what}", READERS[reader], edit(change), EITHER | {1}, changes)
    yield from thinned(file_cases(), 2)
    yield from import_cases()
    yield from thinned(layout_cases(), 2)
    yield from option_cases()


def file_cases() -> Iterator[Case]:
    """Files that are none."""
    for kind in UNFILES:
        for reader, typed in READERS.items():
            if kind in ("latin-1", "utf-16", "byte order mark") and reader != "info":
                continue
            anew = reader == "extract" and kind in ("missing", "broken link")
            changes = ("cache.h5",) if anew else ()
            yield Case(
                f"caches: {reader}, the file is {kind}", typed,
                lambda folder, k=kind: replace_by(folder / "cache.h5", k),  # type: ignore[misc]
                EITHER if anew else frozenset({2}), changes,
            )  # fmt: skip


def option_cases() -> Iterator[Case]:
    """What is typed after extract, check, info, fisher."""
    extract = ["features", "extract", "--data", "data", "--format", "vqa_v2", "--split", "val", "--out", "x.h5"]
    for more in (
        ["--encoder", "vgg17"], ["--encoder", ""], ["--encoder", "os:system"], ["--encoder", "a:b:c"],
        ["--encoder", "hf:nowhere/none"], ["--encoder", "detector:none"], [*ENCODER, "--layer", "nothing"],
        [*ENCODER, "--weights", "nowhere.pt"], [*ENCODER, "--weights", "e.yaml"], [*ENCODER, "--weights", "data"],
        [*ENCODER, "--weights", "/dev/zero"], [*ENCODER, "--weights", "imagenet"], [*ENCODER, "--image-size", "5"],
        [*ENCODER, "--workers", "0"], [*ENCODER, "--batch-size", "0"], [*ENCODER, "--split", "nothing"],
        [*ENCODER, "--data", "nowhere"], [*ENCODER, "--data", "e.yaml"], [*ENCODER, "--format", "x"],
        [*ENCODER, "--out", "data"], [*ENCODER, "--out", "full"], [*ENCODER, "--out", "/proc/x.h5"],
        [*ENCODER, "--out", "e.yaml"], [*ENCODER, "--out", "e.yaml/x.h5"], [*ENCODER, "--out", "n" * 300],
        [*ENCODER, "--out", "results.json"], [*ENCODER, "--resize", "none"], [*ENCODER, "--dtype", "float8"],
    ):  # fmt: skip
        yield Case(f"caches: extract {' '.join(more)[:60]}", [*extract, *more])
    for more in (
        ["--components", "0"], ["--components", "100000"], ["--dimensions", "100000"], ["--seed", "-1"],
        ["--seed", str(10**30)], ["--sample", "1"], ["--like", "cache.h5"], ["--like", "nowhere"], ["--data", "data"],
        ["--out", "cache.h5"], ["--out", "e.yaml"], ["--out", "data"], ["--out", "full"], ["--like", "e.yaml"],
    ):  # fmt: skip
        yield Case(f"caches: fisher {' '.join(more)[:60]}", [*FISHER, *more])
    for path in ("nowhere", "/dev/zero", "/dev/null", "/proc/self/mem", "data", "n" * 5000, "a\x00b", "e.yaml", ""):
        yield Case(f"caches: info {path[:12]!r}", ["features", "info", path])
    same = ["features", "check", "cache.h5", "--data", "data", "--format", "vqa_v2"]
    for more in (["--split", "none"], ["--split", "val", "--sample", "0"], ["--split", "val", "--weights", "e.yaml"]):
        yield Case(f"caches: check {' '.join(more)}", [*same, *more])


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("f4").tobytes()).decode()


def _tsv(folder: Path, **changed: str) -> None:
    """One image of two boxes in the layout bottom-up-attention."""
    row = {"id": "5", "w": "40", "h": "30", "n": "2", "boxes": _base64(np.ones(8)), "features": _base64(np.ones(6))}
    (folder / "p.tsv").write_text("\t".join({**row, **changed}.values()) + "\n")


TSV: dict[str, dict[str, str]] = {
    "whole": {}, "no boxes": {"n": "0"}, "negative boxes": {"n": "-1"}, "boxes of text": {"n": "x"},
    "10**30 boxes": {"n": str(10**30)}, "width of text": {"w": "x"}, "width 0": {"w": "0"}, "width inf": {"w": "inf"},
    "no base64": {"boxes": "$$$"}, "features cut": {"features": _base64(np.ones(6))[:-3]}, "an id of text": {"id": "x"},
    "an id of control": {"id": "\x1b[31m"}, "NaN": {"features": _base64(np.full(6, np.nan))},
    "infinity": {"features": _base64(np.full(6, np.inf))}, "features empty": {"features": ""},
    "a huge id": {"id": str(10**40)}, "one more column": {"features": _base64(np.ones(6)) + "\t5"},
}  # fmt: skip
PICKLES: dict[str, Any] = {"a list": [1], "a number": 5, "ids of text": {"a": "b"}, "negative rows": {1: -1},
                           "rows too far": {1: 99}, "nothing": {}}  # fmt: skip


class Evil:
    """A pickle that runs a command where it is read carelessly."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code ran",))


def typed(layout: str, *files: str) -> list[str]:
    return ["features", "import", *files, "--from", layout, "--out", "new.h5"]


def import_cases() -> Iterator[Case]:
    """Damaged files of the layouts."""
    for what, changed in TSV.items():
        status = frozenset({0}) if what == "whole" else EITHER
        yield Case(f"caches: import tsv, {what}", typed("bottom-up-attention", "p.tsv"),
                   lambda folder, c=changed: _tsv(folder, **c), status)  # type: ignore[misc]  # fmt: skip
    yield from pickle_cases()


def layout_cases() -> Iterator[Case]:
    """Each layout given what it is not."""
    layouts = ("bottom-up-attention", "hengyuan-hu", "openvqa", "cyanogenoid", "vqa-lstm-cnn", "none")
    for layout in layouts:
        for file in ("nowhere", "e.yaml", "data", "/dev/null", "cache.h5", "bench.json", "fifo", "link"):

            def special(folder: Path) -> None:
                import os

                os.mkfifo(folder / "fifo")
                (folder / "link").symlink_to("/dev/zero")

            yield Case(f"caches: import {layout} of {file}", typed(layout, file), special)


def pickle_cases() -> Iterator[Case]:
    """Ids in a pickle, in HDF5, in JSON, and arrays in .npz."""
    for what, value in {**PICKLES, "code": Evil()}.items():

        def with_pickle(folder: Path, value: Any = value) -> None:
            with h5py.File(folder / "x.hdf5", "w") as file:
                file["image_features"] = np.ones((2, 3, 4), "f4")
            (folder / "x_imgid2idx.pkl").write_bytes(pickle.dumps(value))

        yield Case(f"caches: import hengyuan-hu, a pickle of {what}", typed("hengyuan-hu", "x.hdf5"), with_pickle)
    yield from npz_cases()
    for what, ids in (("floats", np.ones(2)), ("text", [b"a", b"b"]), ("one", np.ones(1, "i8")), ("same", [1, 1])):

        def with_ids(folder: Path, ids: Any = ids) -> None:
            with h5py.File(folder / "x.h5", "w") as file:
                file["features"], file["ids"] = np.ones((2, 3, 2, 2), "f2"), ids

        yield Case(f"caches: import cyanogenoid, ids {what}", typed("cyanogenoid", "x.h5"), with_ids, EITHER)
    for name, wrong in list(WRONG_VALUES.items())[:10]:

        def with_names(folder: Path, wrong: Any = wrong) -> None:
            with h5py.File(folder / "data_img.h5", "w") as file:
                file["images_train"] = np.ones((2, 5), "f4")
            (folder / "data_prepro.json").write_text(json.dumps({"unique_img_train": wrong}))

        yield Case(f"caches: import vqa-lstm-cnn, names are {name}", typed("vqa-lstm-cnn", "data_img.h5"), with_names)


def npz_cases() -> Iterator[Case]:
    arrays: dict[str, dict[str, Any]] = {
        "no x": {"y": np.ones(3)}, "x of text": {"x": np.asarray(["a"])}, "x of one axis": {"x": np.ones(3)},
        "x of objects": {"x": np.asarray([{}, 1], dtype=object)}, "x empty": {"x": np.zeros((0, 0))},
        "boxes odd": {"x": np.ones((4, 2)), "bbox": np.ones(3), "image_w": 5, "image_h": 5},
        "width 0": {"x": np.ones((4, 2)), "bbox": np.ones((2, 4)), "image_w": 0, "image_h": 0},
        "width text": {"x": np.ones((4, 2)), "bbox": np.ones((2, 4)), "image_w": "x", "image_h": "y"},
    }  # fmt: skip
    for what, content in arrays.items():

        def prepare(folder: Path, content: dict[str, Any] = content) -> None:
            (folder / "peer").mkdir()
            np.savez(folder / "peer/1.npz", **content)

        yield Case(f"caches: import openvqa, {what}", typed("openvqa", "peer"), prepare, EITHER)

    def claims(folder: Path) -> None:
        """An array that says it has a hundred billion numbers."""
        (folder / "peer").mkdir()
        header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 1000000), }"
        with zipfile.ZipFile(folder / "peer/1.npz", "w") as archive:
            archive.writestr("x.npy", header.ljust(127) + b"\n" + b"\0" * 64)

    yield Case("caches: import openvqa, an array of 400 GB", typed("openvqa", "peer"), claims)

    def bomb(folder: Path) -> None:
        (folder / "peer").mkdir()
        with zipfile.ZipFile(folder / "peer/1.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", bytes(50_000_000))

    yield Case("caches: import openvqa, a bomb of zeros", typed("openvqa", "peer"), bomb)
    yield Case("caches: import over the cache", [*typed("openvqa", "peer")[:-1], "cache.h5"],
               lambda folder: shutil.copytree(folder / "data", folder / "peer"))  # fmt: skip

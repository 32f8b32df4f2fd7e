"""Damaged files of other projects end in one sentence that names the file, without a hang or a huge allocation."""

import base64
import io
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from vqa.errors import InputError
from vqa.features.cache.imports import import_features

FEATURE_RC = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@contextmanager
def little_memory(megabytes: int = 300) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes * 1024


def answered(layout: str, path: Path, expected: str = "") -> None:
    """Imported, or refused in one sentence that names a file."""
    out = path.with_name("out.h5")
    out.unlink(missing_ok=True)
    try:
        with little_memory():
            import_features(layout, [path], out)
        assert not expected
    except InputError as error:
        assert path.stem in str(error) and len(str(error)) < 900, str(error)
        assert expected in str(error), str(error)


def npz(path: Path) -> None:
    np.savez(path, x=FEATURE_RC.T, bbox=np.zeros((3, 4)), image_w=5, image_h=5)


def tsv(path: Path) -> None:
    packed = [base64.b64encode(array.tobytes()).decode() for array in (np.zeros((3, 4), np.float32), FEATURE_RC)]
    path.write_text("\t".join(["9", "640", "480", "3", *packed]) + "\n")


def hdf5(path: Path, **arrays: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


HEADERS = {
    "huge": (header((2**40, 2**20)), "more than 1 GiB"), "objects": (header((3, 4), "|O"), "expected numbers"),
    "flat": (header((3,)), "expected numbers [channels"), "text": (header((3, 4), "<U9"), "expected numbers"),
    "no numpy": (b"GIF89a", "or damaged"), "version 9": (b"\x93NUMPY\x09\x09" + bytes(90), "or damaged"),
    "endless": (b"\x93NUMPY\x01\x00\xff\xff{" + b"(" * 60_000, "or damaged"), "empty": (b"", "or damaged"),
    "negative": (header((-3, 4)), "expected numbers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADERS)
def test_heads_of_npz_files(kind: str, tmp_path: Path) -> None:
    content, message = HEADERS[kind]
    with zipfile.ZipFile(tmp_path / "7.npz", "w") as archive:
        archive.writestr("x.npy", content)
    answered("openvqa", tmp_path / "7.npz", message)
    with zipfile.ZipFile(tmp_path / "8.npz", "w") as archive:  # in what stands beside the features
        for name in ("x", "image_w", "image_h"):
            plain = io.BytesIO()
            np.save(plain, FEATURE_RC.T if name == "x" else np.array(5))
            archive.writestr(f"{name}.npy", plain.getvalue())
        archive.writestr("bbox.npy", content)
    answered("openvqa", tmp_path / "8.npz")


BOMBS = {
    "code": (b"cos\nsystem\n.", "asks for GLOBAL"),
    "deep tuples": (b"(" + b"K\x01" + b"\x85" * 5000 + b".", "asks for TUPLE1"),
    "a far place": (b"\x80\x02}r\xff\xff\xff\x7f.", "asks for LONG_BINPUT"),
    "a long text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**60), "not a plain pickled dict"),
    "bytes reserved": (b"\x80\x05\x96" + struct.pack("<Q", 2**40), "not a plain pickled dict"),
    "persistent": (b"Pabc\n.", "asks for PERSID"), "nothing": (b"", "not a plain"), "numbers": (b"I5\n.", "no dict"),
    "long number": (b"I" + b"9" * 5000 + b"\n.", ""), "values texts": (pickle.dumps({"1": "2"}), "no dict"),
    "negative rows": (pickle.dumps({"1": -1}), "do not fit"), "huge rows": (pickle.dumps({"1": 2**70}), "do not fit"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_pickles(kind: str, tmp_path: Path) -> None:
    hdf5(tmp_path / "a.hdf5", image_features=FEATURE_RC[None])
    content, message = BOMBS[kind]
    (tmp_path / "a_imgid2idx.pkl").write_bytes(content)
    answered("hengyuan-hu", tmp_path / "a.hdf5", message)


LINES = {
    "boxes huge": ("9\t1\t1\t999999999999\tAA\tAA", "999999999999 boxes"),
    "boxes minus": ("9\t1\t1\t-1\tA\tA", "boxes"),
    "boxes text": ("9\t1\t1\tthree\tAA\tAA", "no whole number"),
    "boxes long": ("9\t1\t1\t" + "9" * 5000 + "\tA\tA", ""),
    "columns": ("9\t1", "2 columns"), "no base64": ("9\t1\t1\t1\t*\t*", "boxes of 0 numbers"),
    "cut base64": ("9\t1\t1\t1\tA\tA", "damaged"), "width": ("9\tx\t1\t1\t\t", "boxes of 0 numbers"),
    "nothing": ("", "empty"), "zero bytes": ("\0" * 5000, "1 columns"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LINES)
def test_lines_of_text(kind: str, tmp_path: Path) -> None:
    content, message = LINES[kind]
    (tmp_path / "a.tsv").write_text(content)
    answered("bottom-up-attention", tmp_path / "a.tsv", message)


def endless(file: h5py.File, name: str, shape: tuple[int, ...], kind: str) -> None:
    file.create_dataset(name, shape, kind, chunks=(min(shape[0], 1 << 16), *shape[1:]))


HDF5: dict[str, tuple[str, Callable[[h5py.File], object]]] = {
    "4e9 images": ("the file holds less", lambda file: endless(file, "features", (4_000_000_000, 4, 1, 1), "f2")),
    "never written": ("the file holds less", lambda file: file.create_dataset("features", (9, 4, 1, 1), "f2")),
    "text": ("no array of numbers", lambda file: file.create_dataset("features", data=["a"])),
    "compound": ("no array of numbers", lambda file: file.create_dataset("features", (2,), [("a", "f4")])),
    "group": ("no array of numbers", lambda file: file.create_group("features")),
    "nothing": ("holds ids, and no features", lambda file: None),
    "empty": ("does not lie in this file", lambda file: file.create_dataset("features", data=h5py.Empty("f4"))),
    "soft link": ("no array of numbers", lambda file: file.__setitem__("features", h5py.SoftLink("/ids"))),
    "dangling": ("no array of numbers", lambda file: file.__setitem__("features", h5py.SoftLink("/x"))),
    "external": (
        "no array of numbers",
        lambda file: file.__setitem__("features", h5py.ExternalLink("/etc/hosts", "x")),
    ),
    "outside": (
        "does not lie in this file",
        lambda file: file.create_dataset("features", (1, 4, 1, 1), "f2", external=[("/etc/passwd", 0, 8)]),
    ),
    "flat": ("needs features [images", lambda file: file.create_dataset("features", data=np.ones(4))),
}


@pytest.mark.parametrize("kind", HDF5)
def test_hdf5_files(kind: str, tmp_path: Path) -> None:
    message, change = HDF5[kind]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ids"] = np.arange(2)
        change(file)
    answered("cyanogenoid", tmp_path / "a.h5", message)


@pytest.mark.parametrize("layout", ["openvqa", "bottom-up-attention", "hengyuan-hu"])
def test_files_that_are_cut_or_damaged_anywhere(layout: str, tmp_path: Path) -> None:
    hdf5(tmp_path / "a.hdf5", image_features=FEATURE_RC[None])
    path = {"openvqa": tmp_path / "7.npz", "bottom-up-attention": tmp_path / "a.tsv"}.get(layout, tmp_path / "a.hdf5")
    damaged = path if layout != "hengyuan-hu" else tmp_path / "a_imgid2idx.pkl"  # of the pair, the pickle
    if layout == "hengyuan-hu":
        damaged.write_bytes(pickle.dumps({f"{n}": n for n in range(1)}, protocol=2))
    else:
        (npz if layout == "openvqa" else tsv)(path)
    whole = damaged.read_bytes()
    answered(layout, path)
    random = np.random.default_rng(0)
    for turn in range(60):
        content = bytearray(whole[: random.integers(0, len(whole))] if turn % 3 == 0 else whole)
        for place in random.integers(0, max(1, len(content)), 3).tolist() if content else ():
            content[place] = random.integers(0, 256)
        damaged.write_bytes(content)
        answered(layout, path)

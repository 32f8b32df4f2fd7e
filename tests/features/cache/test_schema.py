"""Damaged and home-made caches: a sentence that lists all that is wrong, or a file that reads; nothing else, ever."""

import json
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers.training import PROJECT

import vqa.cli
from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.attributes import OPTIONAL, REQUIRED
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.schema import DATASETS, MAY_LACK, RANKS
from vqa.features.cache.writer import WHERE, CacheWriter
from vqa.features.extraction.check import check_cache, describe_cache
from vqa.features.extraction.dataset import encoder_of
from vqa.features.precision import Precision

IDS = ("7", "train/8", "bild ä", "12")
FEATURE_IRC = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float16)
BOX_IR4 = torch.tensor([0.1, 0.0, 0.5, 1.0]).expand(4, 3, 4)
IMAGES = ImageTable(IDS, tuple(Path(f"/images/{name}.jpg") for name in IDS))
ATTRIBUTES: dict[str, Any] = {
    "encoder": "tiny", "layer": "top", "image_size": 32, "weights": "tiny.pth", "weights_sha256": "ab" * 32,
    "weights_origin": "made up", "preprocessing": {"resize": "squash", "background": "white"}, "torch": "2",
    "torchvision": "1", "arithmetic": "float32 channels_last", "command": "vqa features extract --encoder tiny",
}  # fmt: skip
Change = Callable[[h5py.File], None]


def made(path: Path, dtype: str = "float16") -> Path:
    with CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5, dtype, where=WHERE) as writer:
        digests = [f"{row:064x}" for row in range(4)]
        writer.write(np.arange(4), torch.from_numpy(FEATURE_IRC), digests, torch.tensor([3, 1, 2, 3]), BOX_IR4)
    return path


def attribute(name: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        file.attrs[name] = value

    return change


def without_attribute(name: str) -> Change:
    def change(file: h5py.File) -> None:
        del file.attrs[name]

    return change


def without(name: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]

    return change


def dataset(name: str, data: Any, **options: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data, **options)

    return change


def link(name: str, to: object) -> Change:
    def change(file: h5py.File) -> None:
        file.move(name, "elsewhere")
        file[name] = to

    return change


def external(file: h5py.File) -> None:
    del file["done"]
    file.create_dataset("done", (4,), np.uint8, external=[("/etc/passwd", 0, 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), np.uint8)
    layout[:] = h5py.VirtualSource(".", "elsewhere", (4,), np.uint8)
    file.move("done", "elsewhere")
    file.create_virtual_dataset("done", layout)


def endless_ids(file: h5py.File) -> None:
    """Four thousand million ids that take no byte of the file."""
    del file["image_id"]
    file.create_dataset("image_id", (4_000_000_000,), "S11", chunks=(1 << 20,))


def endless(name: str) -> Change:
    """A contiguous data set that was never written, of far more than the file holds."""

    def change(file: h5py.File) -> None:
        del file[name]
        dtype = {"done": "u1", "image_digest": "S64", "features": "f2", "boxes": "f4", "region_count": "i4"}
        shape = (1_000_000_000, 3, 5 if name == "features" else 4) if name in RANKS else (4_000_000_000,)
        file.create_dataset(name, shape, dtype.get(name, "S11"))

    return change


def empty(name: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=h5py.Empty("f2"))

    return change


def group(name: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return change


TEXT = np.array([one.encode() for one in IDS], dtype=h5py.string_dtype("utf-8", 8))
JSON_FAULTS = {
    "no JSON": "{", "a list": "[1]", "a text": '"squash"', "nothing": "", "deep": "[" * 100_000,
    "deep mapping": '{"a":' * 300 + "1" + "}" * 300, "NaN": '{"mean": [NaN]}', "resize": '{"resize": 5}',
    "scaled": '{"scaled_decoding": "no"}', "background": '{"background": "sky"}', "range": '{"range": [0, 1]}',
    "range lacks": '{"range": {"uint16": 5}}',
    "range infinite": '{"range": {"uint16": 1e999, "int32": 1, "float32": 1}}',
    "range zero": '{"range": {"uint16": 0, "int32": 1, "float32": 1}}', "fisher": '{"fisher": 1}',
    "regions": '{"regions": 3}',
}  # fmt: skip
ALWAYS = [name for name in DATASETS if name != "scale"]
FILTERS: dict[str, dict[str, Any]] = {
    "chunked": {"chunks": True}, "compressed": {"compression": "gzip"}, "checked": {"fletcher32": True},
    "shuffled": {"shuffle": True},
}  # fmt: skip
REFUSED: dict[str, tuple[str, Change]] = {
    **{f"no {name}": (f"attribute {name} is missing", without_attribute(name)) for name in REQUIRED},
    **{f"{name} a list": (f"attribute {name} ", attribute(name, [1, 2])) for name in REQUIRED},
    **{f"{name} a float": (f"attribute {name} ", attribute(name, 1.5)) for name in (*REQUIRED, *OPTIONAL)},
    **{f"{name} empty": (f"attribute {name} ", attribute(name, h5py.Empty("f4"))) for name in REQUIRED},
    **{f"{name} a number": (f"attribute {name} ", attribute(name, 7)) for name in OPTIONAL},
    **{f"{name} no UTF-8": (f"attribute {name} ", attribute(name, np.bytes_(b"\xff\xfe"))) for name in OPTIONAL},
    **{f"no text {name}": (f"attribute {name} ", attribute(name, "")) for name in REQUIRED},
    **{f"JSON {k}": ("attribute preprocessing", attribute("preprocessing", v)) for k, v in JSON_FAULTS.items()},
    **{f"base {k}": ("attribute base", attribute("base", JSON_FAULTS[k])) for k in ("no JSON", "deep", "a list")},
    "base lacks all": ("attribute base: encoder is missing", attribute("base", '{"a": 1}')),
    "version text": ("attribute format_version", attribute("format_version", "1")),
    "version 2": ("format_version 2 instead of 1", attribute("format_version", 2)),
    "version huge": ("format_version 9223372036854775808 instead of 1", attribute("format_version", 2**63)),
    "size negative": ("attribute image_size", attribute("image_size", -1)),
    "size huge": ("attribute image_size", attribute("image_size", 2**40)),
    "size bool": ("attribute image_size", attribute("image_size", True)),
    **{f"no /{name}": (f"/{name} is missing", without(name)) for name in ALWAYS if name not in MAY_LACK},
    **{f"/{name} a group": (f"/{name} is no data set", group(name)) for name in ALWAYS},
    **{f"/{name} nothing": (f"/{name} holds nothing", empty(name)) for name in ALWAYS},
    **{f"/{name} scalar": (f"/{name} is ", dataset(name, 5)) for name in ALWAYS},
    **{f"/{name} endless": (f"/{name} ", endless(name)) for name in ALWAYS},
    **{
        f"/{name} soft link": (f"/{name} is a link", link(name, h5py.SoftLink("/elsewhere")))
        for name in ALWAYS
    },
    **{
        f"/{name} external link": (f"/{name} is a link", link(name, h5py.ExternalLink("/etc/passwd", "/x")))
        for name in ALWAYS
    },
    **{
        f"/{name} {kind}": (f"/{name} is not contiguous", dataset(name, data, **options))
        for name, data in {"features": FEATURE_IRC, "image_id": TEXT, "done": np.ones(4, np.uint8)}.items()
        for kind, options in FILTERS.items()
    },
    **{
        f"features {kind}": ("/features is ", dataset("features", FEATURE_IRC.astype(kind)))
        for kind in (">f2", "f4", "f8", "i2", "u1", "c8")
    },
    "features flat": ("/features is ", dataset("features", FEATURE_IRC[0])),
    "features 4-D": ("/features is ", dataset("features", FEATURE_IRC[None])),
    "no images": ("/features is empty", dataset("features", FEATURE_IRC[:0])),
    "no regions": ("/features is empty", dataset("features", FEATURE_IRC[:, :0])),
    "no channels": ("/features is empty", dataset("features", FEATURE_IRC[..., :0])),
    "fewer rows": ("has 4 rows and /features 3", dataset("features", FEATURE_IRC[:3])),
    "ids numbers": ("/image_id is int64", dataset("image_id", np.arange(4))),
    "ids of any length": ("/image_id is text of variable length", dataset("image_id", list(IDS))),
    "ids endless": ("/image_id is not contiguous", endless_ids),
    "ids twice": ("/image_id holds 1 ids again", dataset("image_id", TEXT[[0, 1, 2, 0]])),
    "an id empty": ("/image_id is empty in row 2", dataset("image_id", np.array([b"a", b"b", b"", b"d"]))),
    "ids no UTF-8": ("/image_id cannot be read", dataset("image_id", np.array([b"a", b"b", b"\xff", b"d"]))),
    "ids too few": ("/image_id has 3 rows", dataset("image_id", TEXT[:3])),
    "ids 2-D": ("/image_id is ", dataset("image_id", TEXT[None])),
    "paths no UTF-8": ("/image_path cannot be read", dataset("image_path", np.array([b"a", b"b", b"\xff", b"d"]))),
    "digests short": ("/image_digest is ", dataset("image_digest", np.zeros(4, "S32"))),
    "digests odd": ("/image_digest of row 0 is neither", dataset("image_digest", np.full(4, b"x" * 64))),
    "digests capital": ("/image_digest of row 0 is neither", dataset("image_digest", np.full(4, b"A" * 64))),
    "digests cut": ("/image_digest of row 0 is neither", dataset("image_digest", np.full(4, b"ab", "S64"))),
    "done compound": ("/done is compound", dataset("done", np.zeros(4, [("a", "u1"), ("b", "u1")]))),
    "done int64": ("/done is int64", dataset("done", np.ones(4, np.int64))),
    "done 7": ("/done is 7 in row 0", dataset("done", np.full(4, 7, np.uint8))),
    "done too long": ("/done has 9 rows", dataset("done", np.ones(9, np.uint8))),
    "done external": ("/done lies in another file", external),
    "done virtual": ("/done is not contiguous", virtual),
    "int8 without scale": ("/scale is missing", dataset("features", FEATURE_IRC.astype(np.int8))),
}  # fmt: skip


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        FeatureCache(path)
    assert str(path) in str(error.value) and "features_cache/README.md" in str(error.value)
    return str(error.value)


@contextmanager
def limited(seconds: int = 5, megabytes: int = 300) -> Iterator[None]:
    """No hang, no huge allocation."""

    def late(*_: object) -> None:
        raise AssertionError(f"took longer than {seconds} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes * 1024


def use(path: Path) -> None:
    """All that is done with a cache that opens, on every path that looks at attributes."""
    cache = FeatureCache(path)
    cache.read(np.flatnonzero(cache.done_I))
    cache.find(IDS)
    json.dumps(describe_cache(path))
    assert cache.completing_command
    for attempt in (
        lambda: Precision.of_cache(cache.attributes),
        lambda: encoder_of(cache.attributes, None, path),
        lambda: encoder_of(cache.attributes, "random", path),
        lambda: CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5, where=WHERE).close(),
        lambda: cache.contradictions(ATTRIBUTES),
    ):
        try:
            attempt()
        except InputError as error:
            assert str(error)


@pytest.mark.parametrize("kind", REFUSED)
def test_each_kind_of_fault_is_named(kind: str, tmp_path: Path) -> None:
    path = made(tmp_path / "cache.h5")
    words, change = REFUSED[kind]
    with h5py.File(path, "a") as file:
        change(file)
    with limited():
        message = refused(path)
    assert words in message and len(message) < 2000, message
    content = path.read_bytes()
    with pytest.raises(InputError):  # nor does a writer go on with it
        CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5, where=WHERE)
    assert path.read_bytes() == content


def test_there_are_many_kinds() -> None:
    assert len(REFUSED) > 120


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.ones(4, np.float64), "/scale is float64"), (np.ones(4, ">f4"), "/scale is big-endian float32"),
        (np.ones((4, 1), np.float32), "/scale is float32 [4, 1]"), (np.ones(3, np.float32), "/scale has 3 rows"),
        (np.array([1, np.nan, 1, 1], np.float32), "/scale is nan in row 1"),
        (np.array([1, 1, np.inf, 1], np.float32), "/scale is inf in row 2"),
        (np.array([1, 1, 1, -1], np.float32), "/scale is -1.0 in row 3"),
    ],
)  # fmt: skip
def test_scales_are_numbers_from_zero_on(data: np.ndarray, words: str, tmp_path: Path) -> None:
    path = made(tmp_path / "cache.h5", "int8")
    use(path)
    with h5py.File(path, "a") as file:
        dataset("scale", data)(file)
    assert words in refused(path)


@pytest.mark.parametrize("name", [*OPTIONAL, "image_path", "region_count", "boxes"])
def test_what_may_be_absent_crashes_nothing(name: str, tmp_path: Path) -> None:
    path = made(tmp_path / "cache.h5")
    with h5py.File(path, "a") as file:
        (without if name in DATASETS else without_attribute)(name)(file) if name in (*file, *file.attrs) else None
    use(path)
    with pytest.raises(InputError):
        check_cache(path, IMAGES, encoder_of(FeatureCache(path).attributes, None, path))


@pytest.mark.parametrize(
    "change",
    [
        attribute("encoder", np.bytes_(b"tiny")), attribute("image_size", np.uint8(32)), attribute("image_size", 0),
        attribute("mine", [1, 2]), attribute("mine", h5py.Empty("f4")), attribute("mine", np.nan),
        attribute("mine", np.bytes_(b"\xff")), attribute("preprocessing", "{}"), attribute("encoder", "import:mine"),
        attribute("encoder", "fisher:mine"), attribute("encoder", "vgg16"), attribute("encoder", "hf:nowhere/at-all"),
        attribute("encoder", "module:Class"), attribute("arithmetic", "float7"), attribute("layer", "no such layer"),
        attribute("base", json.dumps({**ATTRIBUTES, "format_version": 1, "encoder": "fisher:x"})),
        dataset("done", np.ones(4, bool)), dataset("done", np.zeros(4, np.uint8)),
        dataset("image_digest", np.zeros(4, "S64")), dataset("image_id", TEXT.astype("S90")),
    ],
)  # fmt: skip
def test_other_files_read_and_are_answered_everywhere(change: Change, tmp_path: Path) -> None:
    path = made(tmp_path / "cache.h5")
    with h5py.File(path, "a") as file:
        if "scale" not in file:
            file["scale"] = np.ones(4, np.float32)
        change(file)
    use(path)
    assert torch.equal(FeatureCache(path).read(np.arange(4)), torch.from_numpy(FEATURE_IRC))


def test_everything_that_is_wrong_is_listed_by_info(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(tmp_path / "cache.h5")
    with h5py.File(path, "a") as file:
        for change in (without_attribute("layer"), attribute("image_size", -3), without("image_digest")):
            change(file)
        for change in (dataset("image_id", np.arange(4)), REFUSED["done compound"][1]):
            change(file)
    monkeypatch.setattr(sys, "argv", ["vqa", "features", "info", str(path)])
    with pytest.raises(SystemExit) as ended:
        vqa.cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "Traceback" not in said
    for words in (
        "5 things are missing or wrong", "attribute layer is missing: text", "attribute image_size is -3",
        "/image_digest is missing", "/image_id is int64 [4], expected [images] UTF-8", "/done is compound",
    ):  # fmt: skip
        assert words in said, said


def test_a_cache_written_by_hand_after_the_readme_loads(tmp_path: Path) -> None:
    """The very lines of the README, run as they stand there."""
    text = (PROJECT / "features_cache" / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text[text.index("Write one by hand") :], re.DOTALL)
    code = "\n".join(blocks)  # the second one adds counts and boxes
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    (path,) = tmp_path.glob("*.h5")
    cache = FeatureCache(path)
    assert cache.boxed and cache.count_I is not None and cache.count_I.tolist() == [49, 36, 10]
    assert len(cache) == 3 and cache.done_I.all() and cache.read(np.arange(3)).isfinite().all()
    use(path)


def test_a_block_before_the_file_shifts_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "shifted.h5"
    with h5py.File(made(tmp_path / "cache.h5"), "r") as cache, h5py.File(path, "w", userblock_size=1024) as file:
        for name, value in cache.attrs.items():
            file.attrs[name] = value
        for name in cache:
            file.create_dataset(name, data=cache[name][:], dtype=cache[name].dtype)
    use(path)
    assert torch.equal(FeatureCache(path).read(np.arange(4)), torch.from_numpy(FEATURE_IRC))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "cache.h5")
    whole = path.read_bytes()
    with limited(20):
        for size in sorted({*range(0, len(whole), 97), len(whole) - 1}):
            path.write_bytes(whole[:size])
            refused(path)


DAMAGE = """
import sys
from pathlib import Path
import numpy as np
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache

path = Path(sys.argv[1])
whole, opened = path.read_bytes(), 0
random = np.random.default_rng(int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    damaged = bytearray(whole)
    for place in random.integers(0, len(whole) - 120, random.integers(1, 9)).tolist():  # the last are the features
        damaged[place] = random.choice([0, 1, 255, 128, damaged[place] ^ 1 << int(random.integers(8))])
    path.write_bytes(damaged)
    try:
        cache = FeatureCache(path)
        cache.read(np.flatnonzero(cache.done_I))
        opened += 1
    except InputError:
        pass
print(opened)
"""


def test_random_damage_ends_in_a_sentence_or_a_cache(tmp_path: Path) -> None:
    """In a process of its own, because a crash of HDF5 itself would take this one along."""
    path = made(tmp_path / "cache.h5", "int8")
    command = [sys.executable, "-c", DAMAGE, str(path), "0", "150"]

    def least_memory() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))

    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False, preexec_fn=least_memory
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert 0 < int(ended.stdout) < 150

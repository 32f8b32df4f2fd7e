"""Downloads from a server of our own that breaks off, lies, ignores ranges and serves hostile archives."""

import hashlib
import io
import re
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import vqa.data.download as module
from vqa.data.addresses import DOWNLOADS, Archive
from vqa.data.download import RECORD, download
from vqa.errors import InputError

BODY = bytes(range(256)) * 2000  # 512 kB


def zipped(files: dict[str, bytes], link: str | None = None) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return data.getvalue()


def tarred(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, "/etc/passwd", 3 if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(b"abc"))
    return data.getvalue()


class Server:
    """Serves `files`; each transfer ends after `breaks_after` bytes when that is set."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.breaks_after: int | None = None
        self.ranges = True
        self.states_sizes = True
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                body = server.files.get(self.path.lstrip("/"))
                self.send_response(404 if body is None else 200)
                if body is not None and server.states_sizes:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()

            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                server.requests.append((self.path, asked))
                body = server.files.get(self.path.lstrip("/"))
                if body is None:
                    self.send_error(404)
                    return
                start = int(re.findall(r"\d+", asked)[0]) if asked and server.ranges else 0
                if asked and server.ranges and start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                stop = None if server.breaks_after is None else start + server.breaks_after
                self.wfile.write(body[start:stop])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def get(self, *names: str, **facts: object) -> dict[str, tuple[Archive, ...]]:
        return {"set": (Archive(tuple(f"{self.address}/{name}" for name in names), **facts),)}  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    thread = threading.Thread(target=serving.http.serve_forever, args=(0.01,))
    thread.start()
    yield serving
    serving.http.shutdown()
    thread.join()
    serving.http.server_close()


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., list[Path]]:
    return lambda downloads, **options: download(
        "set", tmp_path / "out", downloads=downloads, **({"wait": 0.0} | options)
    )


def test_an_archive_is_unpacked_recorded_and_not_fetched_again(
    server: Server, fetch: Callable[..., list[Path]]
) -> None:
    server.files["a.zip"] = zipped({"folder/one.json": b"{}", "two.json": b"[]"})
    first = fetch(server.get("a.zip"))
    assert [path.read_bytes() for path in first] == [b"{}", b"[]"]
    assert fetch(server.get("a.zip")) == first and len(server.requests) == 1
    assert not (first[1].parent / "a.zip").exists() and (first[1].parent / RECORD).is_file()
    first[0].write_bytes(b"{ ")  # the same size: trusted
    first[1].write_bytes(b"")  # another size: fetched again
    fetch(server.get("a.zip"))
    assert len(server.requests) == 2 and first[1].read_bytes() == b"[]"


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(server: Server, fetch: Callable[..., list[Path]]) -> None:
    server.files["a.json"] = BODY
    server.breaks_after = 200_000
    checksum = "sha256:" + hashlib.sha256(BODY).hexdigest()
    (path,) = fetch(server.get("a.json", bytes=len(BODY), checksum=checksum))
    assert path.read_bytes() == BODY
    assert [asked for _, asked in server.requests] == [None, "bytes=196608-", "bytes=393216-"]


def test_a_server_without_ranges_sends_the_file_again_and_it_is_still_right(
    server: Server, fetch: Callable[..., list[Path]], tmp_path: Path
) -> None:
    server.files["a.json"] = BODY
    server.ranges = False
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".a.json.part").write_bytes(BODY[:1000])
    assert fetch(server.get("a.json"))[0].read_bytes() == BODY


def test_giving_up_keeps_the_part_and_the_next_call_goes_on(server: Server, fetch: Callable[..., list[Path]]) -> None:
    server.files["a.json"] = BODY
    server.breaks_after = 200_000
    with pytest.raises(InputError, match="broke off 2 times"):
        fetch(server.get("a.json"), attempts=2)
    server.breaks_after = None
    assert fetch(server.get("a.json"))[0].read_bytes() == BODY
    assert server.requests[-1][1] == "bytes=393216-"


def test_a_whole_part_is_kept_and_one_that_is_too_long_is_fetched_anew(
    server: Server, fetch: Callable[..., list[Path]], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    for name, part in (("a.json", BODY), ("b.json", BODY + b"x")):
        server.files[name] = BODY
        (tmp_path / "out" / f".{name}.part").write_bytes(part)
        assert fetch(server.get(name))[0].read_bytes() == BODY


@pytest.mark.parametrize("facts", [{"checksum": "sha256:" + "0" * 64}, {"checksum": "md5:" + "0" * 32}, {"bytes": 7}])
def test_a_wrong_checksum_or_size_is_named_and_leaves_nothing(
    server: Server, fetch: Callable[..., list[Path]], tmp_path: Path, facts: dict[str, object]
) -> None:
    server.files["a.zip"] = zipped({"one.json": b"{}"})
    with pytest.raises(InputError, match=r"a\.zip: .*(hash|bytes)"):
        fetch(server.get("a.zip", **facts))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_checksum_that_is_published_in_part_is_checked(
    server: Server, fetch: Callable[..., list[Path]], tmp_path: Path
) -> None:
    server.files["a.json"] = BODY
    digest = hashlib.sha256(BODY).hexdigest()
    with pytest.raises(InputError, match=rf"a\.json: its SHA-256 begins with {digest[:8]}, not with .* 00000000"):
        fetch(server.get("a.json", sha256_begins="00000000"))
    assert list((tmp_path / "out").iterdir()) == []
    server.files["lies/a.json"], begins = BODY[1:], digest[:8]
    assert fetch(server.get("lies/a.json", "a.json", sha256_begins=begins))[0].read_bytes() == BODY


def test_mirrors_are_tried_in_order(server: Server, fetch: Callable[..., list[Path]]) -> None:
    server.files["mirror/a.json"] = BODY
    assert fetch(server.get("a.json", "mirror/a.json"))[0].read_bytes() == BODY
    with pytest.raises(InputError, match=r"404[\s\S]*404"):
        fetch(server.get("b.json", "mirror/b.json"))


HOSTILE = {
    "up.zip": zipped({"good.json": b"{}", "../evil": b"x"}),
    "root.zip": zipped({"/evil": b"x"}),
    "windows.zip": zipped({"..\\evil": b"x"}),
    "drive.zip": zipped({"C:\\evil": b"x"}),
    "link.zip": zipped({}, link="innocent"),
    "record.zip": zipped({RECORD: b"{}"}),
    "up.tar": tarred("../evil"),
    "root.tar": tarred("/evil"),
    "symlink.tar": tarred("innocent", tarfile.SYMTYPE),
    "hardlink.tar": tarred("innocent", tarfile.LNKTYPE),
    "device.tar": tarred("innocent", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_write_nothing(
    server: Server, fetch: Callable[..., list[Path]], tmp_path: Path, name: str
) -> None:
    server.files[name] = HOSTILE[name]
    with pytest.raises(InputError, match="not to be trusted; it was removed"):
        fetch(server.get(name))
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]
    good = {"fine.json": b"{}"}
    server.files[name] = zipped(good) if name.endswith("zip") else tarred("fine.json")
    assert [path.name for path in fetch(server.get(name))] == ["fine.json"]  # nothing is in the way of the next call


def encrypted(data: bytes) -> bytes:
    """The zip of one small file with its flags, in both headers, saying that it is encrypted."""
    place = data.index(b"PK\x01\x02")
    return data[:6] + b"\x01" + data[7 : place + 8] + b"\x01" + data[place + 9 :]


def scrambled(data: bytes) -> bytes:
    """The zip of one file with compressed bytes that no compressor writes."""
    start = data.index(b"one.json") + len("one.json")
    return data[:start] + b"\xff" * 8 + data[start + 8 :]


STUBBORN = {
    "encrypted.zip": (encrypted(zipped({"one.json": b"{}"})), "cannot be unpacked .*(encrypted|password)"),
    "scrambled.zip": (scrambled(zipped({"one.json": b"{}" * 500})), "damaged archive"),
    "clash.zip": (zipped({"one": b"1", "one/two": b"2"}), "cannot be unpacked"),
    "long.zip": (zipped({"x" * 300: b"1"}), "cannot be unpacked"),
}


@pytest.mark.parametrize("name", STUBBORN)
def test_archives_that_do_not_unpack_are_named(server: Server, fetch: Callable[..., list[Path]], name: str) -> None:
    server.files[name], words = STUBBORN[name]
    with pytest.raises(InputError, match=words) as error:
        fetch(server.get(name))
    assert name in str(error.value) and "it was removed, run again" in str(error.value)
    server.files[name] = zipped({"fine.json": b"{}"})
    assert [path.name for path in fetch(server.get(name))] == ["fine.json"]


def test_an_archive_that_only_lacks_room_stays_and_is_not_fetched_again(
    server: Server, fetch: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a.zip"] = zipped({"one.json": b"{}" * 50_000})
    room = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room._replace(free=20_000))
    with pytest.raises(InputError, match="takes 100 kB unpacked"):
        fetch(server.get("a.zip"))
    monkeypatch.undo()
    asked = len([path for path, _ in server.requests if path == "/a.zip"])
    assert [path.name for path in fetch(server.get("a.zip"))] == ["one.json"]
    assert len([path for path, _ in server.requests if path == "/a.zip"]) == asked


def test_the_server_is_asked_for_sizes_that_are_not_published(
    server: Server, fetch: Callable[..., list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["a.json"], server.files["b.json"] = BODY, BODY
    fetch(server.get("a.json"))
    assert "1 file, 512 kB to fetch" in " ".join(capsys.readouterr().out.split())
    server.states_sizes = False
    fetch(server.get("b.json"))
    assert "neither published nor said by the server" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_a_damaged_archive_is_removed_and_named(
    server: Server, fetch: Callable[..., list[Path]], tmp_path: Path, name: str
) -> None:
    whole = zipped({"one.json": b"{}" * 50}) if name == "a.zip" else tarred("one.txt")
    server.files[name] = whole[:30] + b"\xff" * 30 + whole[60 : -20 if name == "a.zip" else None]
    with pytest.raises(InputError, match="damaged archive"):
        fetch(server.get(name))
    assert not list((tmp_path / "out").glob("a.*"))


def test_a_good_tar_is_unpacked(server: Server, fetch: Callable[..., list[Path]]) -> None:
    server.files["a.tar"] = tarred("folder/one.txt")
    assert fetch(server.get("a.tar"))[0].read_bytes() == b"abc"


def test_too_little_disk_is_said_before_anything_is_fetched(
    server: Server, fetch: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(InputError, match=r"about 10 MB of disk .* too little"):
        fetch(server.get("a.zip", bytes=500_000))
    server.files["bomb.zip"] = zipped({"zeros": bytes(2_000_000)})
    with pytest.raises(InputError, match=r"takes 2 MB unpacked, but 1 MB are free"):
        fetch(server.get("bomb.zip"))
    assert len(server.requests) == 1


def test_names_are_checked_and_the_table_is_sound(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'vqa_v2'"):
        download("vqa_v3", tmp_path)
    for name, archives in DOWNLOADS.items():
        assert len({archive.name for archive in archives}) == len(archives) > 0, name
        for archive in archives:
            assert all(url.startswith(("https://", "http://")) for url in archive.urls)
            assert archive.checksum is None or re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", archive.checksum)

"""Hostile and damaged archives: packed submissions, and what a server sends to `data download`."""

import io
import json
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from faults.case import Case
from faults.mutate import UNFILES, as_json, damaged, replace_by
from faults.world import RUN, TEST_QUESTIONS

CHECK = ["submit", "--check", "test.zip", "--questions", TEST_QUESTIONS]
EITHER = frozenset({0, 2})
NAME = "vqa_OpenEnded_mscoco_test2015_mine_results.json"


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def called(name: str) -> Callable[[bytes], bytes]:
    """A zip of one member of this name."""
    return lambda content: zipped({name: content})


def linked(name: str, to: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16
        archive.writestr(info, to)
    return data.getvalue()


def encrypted(content: bytes) -> bytes:
    """The same zip with the flags that say it is encrypted."""
    data = bytearray(content)
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def tarred(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"abc") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        info.size = len(content) if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def sparse_zip(name: str, claimed: int) -> bytes:
    """A zip whose list of contents claims more bytes than there are."""
    data = bytearray(zipped({name: b"x" * 100}))
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = claimed.to_bytes(4, "little")
    return bytes(data)


NAMES = ("../evil.json", "../../evil.json", "/nowhere/evil.json", "a/../../evil.json", "..\\evil.json", "C:evil.json",
         "n" * 300, "a\x1b[2J[/b].json", ".", "..", "a/", "a/b/c.json", "-", " .json", ".downloads.json")  # fmt: skip


def cases() -> Iterator[Case]:
    yield from submission_cases()
    yield from download_cases()
    yield Case("archives: submit a run whose folder is read-only", ["submit", RUN, "--split", "test"],
               lambda folder: (folder / RUN / "submission").symlink_to("/proc"),
               EITHER, (f"{RUN}/*",))  # fmt: skip


def submission_cases() -> Iterator[Case]:
    def packed(make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        def prepare(folder: Path) -> None:
            (folder / "test.zip").write_bytes(make((folder / "test.json").read_bytes()))

        return prepare

    for name in NAMES:
        sound = name in ("a/b/c.json", "-", " .json", "n" * 300, ".downloads.json", "a\x1b[2J[/b].json")
        yield Case(f"archives: check, a member {name[:14]!r}", CHECK, packed(called(name)),
                   EITHER if sound else frozenset({2}))  # fmt: skip
    archives: dict[str, Callable[[bytes], bytes]] = {
        "nothing in it": lambda content: zipped({}), "two members": lambda content: zipped({"a.json": content,
        "b": b""}),
        "a member twice": lambda content: zipped({NAME: content}) + zipped({NAME: content}),
        "a link": lambda content: linked(NAME, "/etc/passwd"),
        "encrypted": lambda content: encrypted(zipped({NAME: content})),
        "a bomb": lambda content: zipped({NAME: b"[" + b" " * 500_000_000 + b"]"}),
        "a false size": lambda content: sparse_zip(NAME, 2**32 - 2),
        "another text": lambda content: zipped({NAME: b"x"}),
        "a zip in it": lambda content: zipped({"a.zip": zipped({NAME: content})}),
        "a broken check sum": lambda content: zipped({NAME: content}).replace(content[:4], b"????", 1)[:-30],
        "10,000 members": lambda content: zipped({f"{i}.json": b"" for i in range(10_000)}),
        "half": lambda content: zipped({NAME: content})[:300], "a tar": lambda content: tarred(NAME, content=content),
        "deep lists": lambda content: zipped({NAME: b"[" * 100_000}),
    }  # fmt: skip
    for what, make in archives.items():
        yield Case(
            f"archives: check, {what}", CHECK, packed(make), EITHER if what == "a member twice" else frozenset({2})
        )
    for kind in UNFILES:
        yield Case(f"archives: check, the zip is {kind}", CHECK,
                   lambda folder, k=kind: replace_by(folder / "test.zip", k),  # type: ignore[misc]
                   EITHER if kind in ("byte order mark", "latin-1") else frozenset({2}))  # fmt: skip
    for what, value in damaged({"question_id": 1, "answer": "yes"}, 6):

        def prepare(folder: Path, value: Any = value) -> None:
            items = json.loads((folder / "test.json").read_text())
            (folder / "test.json").write_bytes(
                as_json([{**items[0], **value} if len(value) == 2 else value, *items[1:]])
            )

        typed = ["submit", "--check", "test.json", "--questions", TEST_QUESTIONS]
        yield Case(f"archives: check a list, {what}", typed, prepare, EITHER)
    yield Case("archives: check without questions", ["submit", "--check", "test.zip"])
    yield Case("archives: check with other questions", [*CHECK[:-1], "e.yaml"])


class Sent:
    """What a server sends for the one file that is asked for."""

    def __init__(self, body: bytes, status: int = 200, length: str | None = None, slow: bool = False) -> None:
        self.body, self.status, self.length, self.slow = body, status, length, slow


def served(sent: Sent, name: str) -> Callable[[Path], AbstractContextManager[object]]:
    """A server of our own in the process, and its file as one that `data download` knows, named "mine"."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._head()

        def do_GET(self) -> None:
            self._head()
            if sent.slow:
                time.sleep(60)
            self.wfile.write(sent.body)

        def _head(self) -> None:
            self.send_response(sent.status)
            self.send_header("Content-Length", sent.length or str(len(sent.body)))
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    @contextmanager
    def around(folder: Path) -> Iterator[None]:
        import functools

        import vqa.data.download as module
        from vqa.data.addresses import DOWNLOADS, Archive

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        DOWNLOADS["mine"] = (Archive((f"http://127.0.0.1:{server.server_address[1]}/{name}",)),)
        module.download = functools.partial(module.download, attempts=2, wait=0.05)
        yield

    return around


def download_cases() -> Iterator[Case]:
    fetch = ["data", "download", "mine", "fetched"]
    content = {"a.txt": b"a" * 1000}
    zips: dict[str, bytes] = {
        "nothing in it": zipped({}), "a link": linked("a", "/etc/passwd"), "half": zipped(content)[:80],
        "encrypted": encrypted(zipped(content)), "a false size": sparse_zip("a", 2**32 - 2), "a text": b"hello",
        "noise": bytes(range(256)) * 9, "a file and a folder of one name": zipped({"a": b"x", "a/b": b"y"}),
        "the record": zipped({".downloads.json": b"{}"}), "a name of 255": zipped({"n" * 255: b"x"}),
        "a bomb": zipped({"a": bytes(300_000_000)}), "nothing sent": b"",
    }  # fmt: skip
    fine = {"nothing in it", "a name of 255", "a bomb", "a false size"}
    for what, body in zips.items():
        yield Case(f"archives: download, a zip with {what}", fetch, around=served(Sent(body), "x.zip"),
                   allowed=EITHER if what in fine else frozenset({2}), after=not_left)  # fmt: skip
    for name in NAMES:
        sound = name in ("a/b/c.json", "-", " .json", "a/", "a\x1b[2J[/b].json")
        body = zipped({name: b"x"})
        yield Case(f"archives: download, a zip with {name[:14]!r}", fetch, around=served(Sent(body), "x.zip"),
                   allowed=EITHER if sound else frozenset({2}), after=not_left)  # fmt: skip
    kinds = {"a link": tarfile.SYMTYPE, "a hard link": tarfile.LNKTYPE, "a device": tarfile.CHRTYPE,
             "a block device": tarfile.BLKTYPE, "a fifo": tarfile.FIFOTYPE}  # fmt: skip
    for what, kind in kinds.items():
        sent = Sent(tarred("a", kind))
        yield Case(f"archives: download, a tar with {what}", fetch, around=served(sent, "x.tar"), after=not_left)
    for name in ("../evil", "/nowhere/evil", "a/../../evil"):
        sent = Sent(tarred(name))
        yield Case(f"archives: download, a tar with {name}", fetch, around=served(sent, "x.tar"), after=not_left)
    answers = {
        "404": Sent(b"", 404), "500": Sent(b"", 500), "a length too large": Sent(b"x" * 100, length="1000"),
        "a length of text": Sent(b"x", length="x"), "a length of 10**15": Sent(b"x", length=str(10**15)),
        "a negative length": Sent(b"x", length="-5"), "206 unasked": Sent(b"x", 206), "416": Sent(b"", 416),
    }  # fmt: skip
    for what, sent in answers.items():
        allowed = EITHER if what in ("a length of text", "206 unasked", "a negative length") else frozenset({2})
        yield Case(f"archives: download, a server that answers {what}", fetch, around=served(sent, "x.txt"),
                   allowed=allowed, may_leave=True)  # fmt: skip
    for out in ("e.yaml", "/proc/x", "n" * 5000, "a\x00b", "null", "e.yaml/x"):
        yield Case(f"archives: download into {out[:9]!r}", ["data", "download", "mine", out],
                   around=served(Sent(b"x"), "x.txt"))  # fmt: skip
    for record in ("[]", "{", "5", '{"x.txt": 5}', '{"x.txt": {"sha256": 5, "files": []}}', "[" * 100_000):

        def prepare(folder: Path, record: str = record) -> None:
            (folder / "fetched").mkdir()
            (folder / "fetched/.downloads.json").write_text(record)

        yield Case(f"archives: download, a record of {record[:20]!r}", fetch, prepare,
                   around=served(Sent(b"x"), "x.txt"))  # fmt: skip
    yield Case("archives: download an unknown name", ["data", "download", "vqa_v9", "fetched"])


def not_left(folder: Path) -> str:
    """A refused archive is not there for the next call, and nothing is outside the folder."""
    evil = list(folder.rglob("evil*")) + list(folder.parent.glob("evil*"))
    left = [path.name for path in (folder / "fetched").glob("x.*")] if (folder / "fetched").is_dir() else []
    return f"wrote {evil[0]}" if evil else f"the archive stays: {left[0]}" if left else ""

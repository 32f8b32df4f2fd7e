"""A local stand-in of the Hugging Face hub: answers what huggingface_hub asks about data sets, with no network."""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves `repositories`: by name, files by path. The next transfer of one ends after `breaks_after[path]` bytes."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.converted: dict[str, dict[str, bytes]] = {}  # the branch of parquet that the hub makes itself
        self.breaks_after: dict[str, int] = {}
        self.waits: dict[str, threading.Event] = {}  # before a file is sent
        self.fetched: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                about = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/(.+))?", path)
                file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
                if about:
                    self.describe(about[1], about[2])
                elif file:
                    self.send_file(hub.files(file[1], file[2]), file[3], body)
                else:
                    self.refuse("EntryNotFound")

            def describe(self, name: str, revision: str | None) -> None:
                files = hub.files(name, revision or "main")
                if files is None:
                    self.refuse("RepoNotFound" if name not in hub.repositories else "RevisionNotFound")
                    return
                commit = hub.commit(name, revision or "main")
                siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
                content = json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode()
                self.send(200, {"Content-Type": "application/json"}, content)

            def send_file(self, files: Mapping[str, bytes] | None, path: str, body: bool) -> None:
                if files is None or path not in files:
                    self.refuse("EntryNotFound")
                    return
                content = files[path]
                begin = re.fullmatch(r"bytes=(\d+)-.*", self.headers.get("Range", ""))
                start = int(begin[1]) if begin else 0
                headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                if body:
                    hub.fetched.append(path)
                    if path in hub.waits:
                        hub.waits[path].wait()
                stop = hub.breaks_after.pop(path, None) if body else None
                self.send(206 if start else 200, headers, content[start:], body, stop)

            def send(
                self,
                status: int,
                headers: Mapping[str, str],
                content: bytes,
                body: bool = True,
                stop: int | None = None,
            ) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    with suppress(BrokenPipeError, ConnectionResetError):  # whoever asked was killed
                        self.wfile.write(content[:stop])
                if stop is not None:
                    self.close_connection = True

            def refuse(self, code: str) -> None:
                self.send(404, {"X-Error-Code": code, "X-Error-Message": "not found"}, b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def files(self, name: str, revision: str) -> dict[str, bytes] | None:
        """The files of a revision."""
        converted = revision == "refs/convert/parquet" or revision == COMMIT[::-1]
        return self.converted.get(name) if converted else self.repositories.get(name)

    def commit(self, name: str, revision: str) -> str:
        """The commit that a revision stands for."""
        return COMMIT[::-1] if self.files(name, revision) is self.converted.get(name) else COMMIT

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

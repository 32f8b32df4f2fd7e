"""A server that speaks as much of W&B as one run needs: it takes a run, its rows, its summary, its files.

What it has taken is kept by run; how it behaves may be changed at any time.
"""

import gzip
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWN, GZIP = "me", b"\x1f\x8b"  # the entity, and what compressed data begin with


@dataclass
class Kept:
    """What the server has of one run."""

    name: str
    project: str
    variables: dict[str, Any] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(row) for row in self.rows]

    def bucket(self) -> dict[str, Any]:
        return {
            "id": self.name, "name": self.name, "displayName": self.name, "description": "", "sweepName": None,
            "config": self.variables.get("config") or "{}", "historyLineCount": len(self.rows),
            "eventsLineCount": 0, "logLineCount": 0, "historyTail": json.dumps(self.rows[-1:]), "eventsTail": "[]",
            "summaryMetrics": json.dumps(self.summary), "tags": [], "wandbConfig": '{"t": 1}',
            "project": {"id": "1", "name": self.project, "entity": {"id": "1", "name": OWN}},
        }  # fmt: skip


class StandIn:
    """The server; `address` is for WANDB_BASE_URL.

    Attributes:
        runs: what it has, by id.
        hanging: seconds that it waits before it takes rows.
        breaking: whether it breaks off instead of taking rows.
        asked: the names of the operations that it was asked for.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Kept] = {}
        self.hanging, self.breaking, self.asked = 0.0, False, list[str]()
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def body(self) -> bytes:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return gzip.decompress(sent) if sent[:2] == GZIP else sent

            def answer(self, content: Any) -> None:
                data = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self) -> None:
                sent = self.body()
                if self.path.startswith("/graphql"):
                    self.answer(outer.graphql(json.loads(sent)))
                    return
                if outer.hanging:
                    time.sleep(outer.hanging)
                if outer.breaking:
                    self.close_connection = True
                    self.connection.close()
                    return
                if "file_stream" in self.path:
                    outer.take(self.path.split("/")[-2], json.loads(sent))
                self.answer({})

            def do_PUT(self) -> None:
                self.body()
                self.answer({})

            def do_GET(self) -> None:
                self.answer({})

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that has gone
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def graphql(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, given = asked.get("query", ""), asked.get("variables") or {}
        name = asked.get("operationName") or query.split("(")[0].split("{")[0].strip()
        self.asked.append(name)
        if "upsertBucket" in query:
            run = str(given.get("name") or given.get("id"))
            with self.lock:
                new = run not in self.runs
                kept = self.runs.setdefault(run, Kept(run, given.get("project") or "vqa"))
                kept.variables |= {key: value for key, value in given.items() if value is not None}
            return {"data": {"upsertBucket": {"bucket": kept.bucket(), "inserted": new}}}
        if "historyLineCount" in query:
            kept_or_none = self.runs.get(given.get("name", ""))
            bucket = kept_or_none and kept_or_none.bucket()
            return {"data": {"model": {"id": "1", "name": "vqa", "entity": {"id": "1", "name": OWN}, "bucket": bucket}}}
        if "createRunFiles" in query:
            files = [{"name": one, "uploadUrl": f"{self.address}/put"} for one in given.get("files", [])]
            return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
        viewer = {"id": "1", "flags": "{}", "entity": OWN, "username": OWN, "teams": {"edges": []}}
        info = {"features": [], "cliVersionInfo": {"max_cli_version": "9.9.9"}}
        return {"data": {"viewer": viewer, "serverInfo": info}}

    def take(self, run: str, sent: dict[str, Any]) -> None:
        with self.lock:
            kept = self.runs[run]
            files = sent.get("files") or {}
            if "wandb-history.jsonl" in files:
                part = files["wandb-history.jsonl"]
                kept.rows[part["offset"] :] = part["content"]
            for line in (files.get("wandb-summary.json") or {}).get("content", []):
                kept.summary = json.loads(line)
            if sent.get("complete"):
                kept.exit_code = sent.get("exitcode")

    def close(self) -> None:
        self.server.shutdown()

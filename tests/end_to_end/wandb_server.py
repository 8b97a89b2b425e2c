"""A stand-in of W&B's server on loopback: what its client asks when a run is sent, answered.

It keeps what arrives: configuration, history, summary, exit code, files, artifacts; and it knows a
run that is resumed. The answers hold the fields that wandb 0.31 asks for, and no more.
"""

import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import lightning.pytorch as pl

KEY = "a" * 40
"""What the client takes for an API key."""


@dataclass
class SentRun:
    """One run, as the server knows it."""

    config: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    lines: dict[str, dict[int, Any]] = field(default_factory=dict)
    """Lines of each streamed file, by their number."""
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    sessions: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows logged."""
        return [row for _, row in sorted(self.lines.get("wandb-history.jsonl", {}).items())]

    @property
    def summary(self) -> dict[str, Any]:
        """What stands beside the run."""
        return self.lines.get("wandb-summary.json", {}).get(0, {})


class WandbServer:
    """Listens while it is entered; `url` is for WANDB_BASE_URL."""

    def __init__(self) -> None:
        """Take a free port."""
        self.runs: dict[str, SentRun] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.stand_in = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "WandbServer":
        """Begin to listen."""
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Refuse connections from now on."""
        self._http.shutdown()
        self._http.server_close()

    def stream(self, run: str, sent: dict[str, Any]) -> None:
        """Take lines of history and summary, and how the run ended."""
        for name, part in sent.get("files", {}).items():
            lines = self.runs[run].lines.setdefault(name, {})
            for number, line in enumerate(part["content"], start=part["offset"]):
                lines[number] = json.loads(line) if name.endswith(("jsonl", "json")) else line
        if sent.get("complete"):
            self.runs[run].exit_code = sent["exitcode"]

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """Answer a GraphQL query by its name; one that the client can do without, with nothing."""
        (name,) = re.findall(r"(?:query|mutation)\s+(\w+)", query)[:1]
        answer = getattr(self, f"_{name}", None)
        return answer(given) if answer else {}

    def _Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        teams: dict[str, Any] = {"edges": []}
        who = {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}"}
        return {"viewer": {**who, "teams": teams}}

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["name"] not in self.runs:
            return {"model": None}
        run = self.runs[given["name"]]
        tails = {
            f"{kind}Tail": json.dumps([json.dumps(row) for row in _sorted(lines)[-1:]])
            for kind, lines in (("history", run.lines.get("wandb-history.jsonl")), ("events", {}))
        }
        bucket = {
            "id": "bucket",
            "name": given["name"],
            "displayName": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "config": json.dumps(run.config),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            **tails,
            "tags": [],
            "notes": None,
            "wandbConfig": json.dumps({"t": {}}),
        }
        model = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
        return {"model": {**model, "bucket": bucket}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        new = given["name"] not in self.runs
        run = self.runs.setdefault(given["name"], SentRun())
        run.config |= json.loads(given["config"] or "{}")
        run.name = given["displayName"] or run.name
        run.sessions += given["entity"] is None  # the first question of a session
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {
            "id": "bucket",
            "name": given["name"],
            "displayName": run.name,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        place = f"{self.url}/upload/{given['run']}"
        files = [{"name": name, "uploadUrl": f"{place}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}

    def _ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}  # there is none of this name yet

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        sent = given["input"]
        number = f"artifact-{len(self.artifacts)}"
        self.artifacts[number] = {
            "name": sent["artifactCollectionName"],
            "type": sent["artifactTypeName"],
            "aliases": {each["alias"] for each in sent["aliases"]},
            "metadata": json.loads(sent["metadata"] or "{}"),
            "files": {},
            "committed": False,
        }
        sequence = {"id": "s", "latestArtifact": None}
        artifact = {"id": number, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "uploadUrl": f"{self.url}/manifest", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        nodes = [
            {
                "storagePath": file["name"],
                "uploadUrl": f"{self.url}/artifact/{file['artifactID']}/{file['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        self.views.append(given | {"spec": json.loads(given["spec"])})
        view = {"id": "v", "name": given["name"]}
        return {"upsertView": {"view": view, "inserted": True}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[given["artifactID"]]["committed"] = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "d"}}}


class StopServer(pl.Callback):
    """Takes the server away in the midst of training."""

    server: WandbServer | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop it after the second step."""
        if trainer.global_step == 2 and self.server is not None:
            self.server.__exit__(None, None, None)
            StopServer.server = None


class _Handler(BaseHTTPRequestHandler):
    """Takes the requests apart."""

    def do_POST(self) -> None:
        """Answer GraphQL and streamed lines; what W&B measures of itself is thrown away."""
        body = self._body()
        found: dict[str, Any] = {}
        with self.stand_in.lock:
            if self.path == "/graphql":
                sent = json.loads(body)
                found = {"data": self.stand_in.answer(sent["query"], sent.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                self.stand_in.stream(self.path.split("/")[-2], json.loads(body))
        self._reply(found)

    def do_PUT(self) -> None:
        """Take a file of a run or an artifact."""
        body = self._body()
        _, kind, *rest = self.path.split("/", 3)
        with self.stand_in.lock:
            if kind == "upload":
                self.stand_in.runs[rest[0]].files[rest[1]] = body
            elif kind == "artifact":
                self.stand_in.artifacts[rest[0]]["files"][rest[1]] = body
        self._reply({})

    @property
    def stand_in(self) -> WandbServer:
        """The server that remembers."""
        return self.server.stand_in  # type: ignore[attr-defined,no-any-return]

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, value: dict[str, Any]) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def _sorted(lines: dict[int, Any] | None) -> list[Any]:
    return [line for _, line in sorted((lines or {}).items())]

"""A real HTTP server that speaks the OpenAI protocol as a script says: chat completions, files and batches."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[dict[str, Any], int], Any]
"""(request, its number from 1) -> the reply's text, an HTTP status, or keys of a completion to put in its place."""


class OpenAiServer:
    """Answers /v1/chat/completions by `say`; keeps every request. usage: tokens it reports, None for none."""

    def __init__(self, say: Say, usage: tuple[int, int] | None = (1000, 200)) -> None:
        self.say, self.usage = say, usage
        self.bodies: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.uploads = self.created = 0
        self.on_batch: Callable[[OpenAiServer, dict[str, Any]], None] = finish
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path == "/v1/chat/completions":
                    self.send(*server.complete(json.loads(raw)))
                elif self.path == "/v1/files":
                    self.send(*server.upload(raw, self.headers["content-type"]))
                elif self.path == "/v1/batches":
                    self.send(*server.create(json.loads(raw)))
                elif self.path.endswith("/cancel"):
                    batch = server.batches[self.path.split("/")[3]]
                    batch["status"] = "cancelled"
                    self.send(200, batch)
                else:
                    self.send(404, {"error": {"message": "no such address"}})

            def do_GET(self) -> None:
                if self.path.startswith("/v1/batches?") or self.path == "/v1/batches":
                    data = list(server.batches.values())[::-1]
                    self.send(200, {"object": "list", "data": data, "has_more": False})
                elif self.path.startswith("/v1/batches/"):
                    self.send(*server.look(self.path.rsplit("/", 1)[1]))
                elif self.path.startswith("/v1/files/"):
                    raw = server.files.get(self.path.split("/")[3])
                    self.send(404 if raw is None else 200, raw or {"error": {"message": "gone"}})
                else:
                    self.send(404, {"error": {"message": "no such address"}})

            def send(self, status: int, answer: Any) -> None:
                raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"] for body in self.bodies]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def complete(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.bodies.append(body)
            number = len(self.bodies)
        said = self.say(body, number)
        if isinstance(said, int):
            return said, {"error": {"message": "the script says so"}}
        more = said if isinstance(said, dict) else {}
        text = more.pop("text", "") if more else said
        completion = {
            "id": f"c{number}", "object": "chat.completion", "created": 1, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": more.pop("finish_reason", "stop"),
                         "message": {"role": "assistant", "content": text}}],
        }  # fmt: skip
        if self.usage:
            sent, received = self.usage
            total = sent + received
            completion["usage"] = {
                "prompt_tokens": sent,
                "completion_tokens": received,
                "total_tokens": total,
            }
        return 200, completion | more

    def upload(self, raw: bytes, kind: str) -> tuple[int, dict[str, Any]]:
        boundary = re.search(r"boundary=(\S+)", kind)
        assert boundary
        parts = raw.split(b"--" + boundary[1].strip('"').encode())
        held = next(part for part in parts if b'filename="' in part)
        assert any(b'name="purpose"' in part and b"batch" in part for part in parts)
        self.uploads += 1
        name = f"file-{self.uploads}"
        self.files[name] = held.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        return 200, {"id": name, "object": "file", "bytes": len(self.files[name]), "created_at": 1,
                     "filename": "in.jsonl", "purpose": "batch", "status": "processed"}  # fmt: skip

    def create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        self.created += 1
        batch = {"id": f"batch_{self.created}", "object": "batch", "status": "validating",
                 "created_at": self.created, **asked}  # fmt: skip
        self.batches[batch["id"]] = batch
        return 200, batch

    def look(self, name: str) -> tuple[int, dict[str, Any]]:
        batch = self.batches.get(name)
        if batch is None:
            return 404, {"error": {"message": "no such batch"}}
        if batch["status"] in ("validating", "in_progress"):
            self.on_batch(self, batch)
        return 200, batch


def finish(
    server: OpenAiServer, batch: dict[str, Any], status: str = "completed", only: int | None = None
) -> None:
    """Answers a batch's requests (the first `only`) by the script, in turned order, errors in a file of their own."""
    requests = [json.loads(line) for line in server.files[batch["input_file_id"]].splitlines()]
    good, bad = [], []
    for request in requests[:only][::-1]:
        code, body = server.complete(request["body"])
        line = {"id": "r", "custom_id": request["custom_id"], "error": None,
                "response": {"status_code": code, "request_id": "x", "body": body}}  # fmt: skip
        (good if code == 200 else bad).append(line)
    for request in requests[len(requests) if only is None else only :]:
        bad.append({"id": "r", "custom_id": request["custom_id"], "response": None,
                    "error": {"code": "batch_expired", "message": "not in time"}})  # fmt: skip
    for key, rows in (("output_file_id", good), ("error_file_id", bad)):
        if rows:
            name = f"{batch['id']}-{key}"
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            server.files[name] = text.encode()
            batch[key] = name
    batch["status"] = status

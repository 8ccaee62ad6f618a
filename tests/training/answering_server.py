"""A real HTTP server that streams chat answers as OpenAI's does; `say` decides, every question is kept."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class AnsweringServer:
    """say: the last question -> the answer's text, or an HTTP status. model: the name it answers under."""

    def __init__(
        self,
        say: Callable[[str], str | int],
        model: str = "toy",
        pause_s: float = 0.0,
        finish: str = "stop",
    ) -> None:
        self.asked: list[str] = []
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                question = body["messages"][-1]["content"]
                with lock:
                    server.asked.append(question)
                time.sleep(pause_s)
                said = say(question)
                self.send_response(said if isinstance(said, int) else 200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                if isinstance(said, int):
                    return
                for delta, reason in (({"content": said}, None), ({}, finish)):
                    choice = {"index": 0, "delta": delta, "finish_reason": reason}
                    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}  # fmt: skip
                    self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def file(self, folder: Path, name: str = "server", more: str = "") -> str:
        """A model's file that names this server."""
        path = folder / f"{name}.toml"
        path.write_text(
            f'name = "{name}"\ntitle_zh = "{name}"\ntitle_en = "{name}"\nengine = "remote"\n'
            f'base_url = "http://127.0.0.1:{self.http.server_port}/v1"\nmodel = "toy"\n{more}',
            encoding="utf-8",
        )
        return str(path)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

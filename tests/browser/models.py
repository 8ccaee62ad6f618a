"""Models that say what a test wants, and when: a server of the OpenAI protocol in the test's own process."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TALKER = "talker"
CONTESTANTS = {
    "qingnang-7": ("青囊七号", "Qingnang Seven"),
    "xinglin-3": ("杏林三号", "Xinglin Three"),
}
SAYS = {
    TALKER: "您好。先考虑**紧张型头痛**。\n\n1. 怕光吗？\n2. 血压多少？\n\n请到神经内科就诊。",
    "qingnang-7": "您好。先考虑**紧张型头痛**，也要排除血压高。\n\n1. 怕光怕吵吗？\n2. 平时血压多少？",
    "xinglin-3": "疼多久了？先量个血压，挂神经内科看看。",
}
CUT = object()
"""A step of an answer: the connection ends here, before the answer does."""
LONGEST_GATE_S = 1800
"""An event that a failed test never set holds its answer so long."""

Step = str | int | threading.Event | object
"""Text; an HTTP status instead of an answer; an event that is waited for; CUT."""


class Models(ThreadingHTTPServer):
    """A server of models that speaks the OpenAI protocol and says what it was told to say."""

    daemon_threads = True
    request_queue_size = 64
    cut = CUT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[tuple[str, list[dict[str, str]]]] = []
        self._plans: dict[tuple[str, str], list[list[Step]]] = {}
        self._guard = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def plan(self, model: str, question: str, *attempts: list[Step]) -> None:
        """What `model` answers to `question`: the first time, the second, and so on."""
        self._plans[model, question] = list(attempts)

    def both(self, question: str, *steps: Step) -> None:
        """The same answer by both contestants."""
        for model in CONTESTANTS:
            self.plan(model, question, list(steps))

    def steps(self, model: str, messages: list[dict[str, str]]) -> list[Step]:
        """What to say now."""
        with self._guard:
            self.asked.append((model, messages))
            attempts = self._plans.get((model, messages[-1]["content"]))
            if not attempts:
                return [SAYS[model]]
            return attempts.pop(0) if len(attempts) > 1 else attempts[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that hung up is nothing to report."""


class _Answer(BaseHTTPRequestHandler):
    server: Models
    model = ""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.model = asked["model"]
        steps = self.server.steps(self.model, asked["messages"])
        status = steps[0] if isinstance(steps[0], int) else 200
        self.send_response(status)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for step in steps if status == 200 else []:
            if isinstance(step, threading.Event):
                step.wait(LONGEST_GATE_S)
            elif isinstance(step, str):
                for start in range(0, len(step), 8):
                    self._send({"content": step[start : start + 8]}, None)
            elif step is CUT:
                return
        if status == 200:
            self._send({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, delta: dict[str, str], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": self.model}
        self.wfile.write(f"data: {json.dumps({**event, 'choices': [choice]})}\n\n".encode())

    def log_message(self, *_: Any) -> None:
        """Quiet."""

"""A server that speaks the chat protocol as far as the annotator needs it, and fails on request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAIR = {"question": "Is there a lemon?", "answer": "Yes, a yellow one."}
GOOD = {
    "Caption": "A lemon lies left of a bowl.",
    "QA": [PAIR, {"question": "What colour is the bowl?", "answer": "Blue."}],
    "CR": [{"question": "Place the yellow fruit inside the bowl", "answer": "I will put the lemon in the bowl."}],
    "CC": [{"question": "I want to make lemonade later", "answer": "I will put the lemon in the bowl to keep it."}],
}


@dataclass
class Reply:
    """``text``: what the model says; ``status`` other than 200: an error; ``hang``: no answer until the server ends;
    ``raw``: these bytes instead of a completion; ``counted``: the tokens are told, else left out as one or
    another server does."""

    text: str = json.dumps(GOOD)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    raw: bytes | None = None
    counted: bool = True


@dataclass
class ChatServer:
    url: str
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)


@contextmanager
def chat_server(reply: Callable[[int], Reply]) -> Iterator[ChatServer]:
    """``reply`` of the request's number, from 0."""
    lock, closing = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(found.requests)
                found.requests.append(body)
                found.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = reply(number)
            if answer.hang:
                closing.wait(60)
                return
            message = {"role": "assistant", "content": answer.text}
            content = {
                "id": str(number), "object": "chat.completion", "created": 0, "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
            }  # fmt: skip
            if not answer.counted:
                content["usage"] = {} if number % 2 else None
            data = json.dumps(content if answer.status == 200 else {"error": {"message": "as asked"}}).encode()
            data = data if answer.raw is None else answer.raw
            self.send_response(answer.status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
                **answer.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()

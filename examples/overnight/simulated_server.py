"""A simulated model server: it speaks the shape of OpenAI's chat completions, and no model is behind it.

    python3 simulated_server.py                              stays up until Ctrl-C
    python3 simulated_server.py --dies-after 12 --for 20     goes away for 20 s after 12 answers, then comes back

It reads one file that the task names, asks a person where the task says so, and answers with a sentence that begins
with "[simulated server, no LLM]". While it is dead nobody listens at its port, and what it was at is broken off.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LABEL = "[simulated server, no LLM]"
MODELS = ("night-small", "night-large")
FILE = re.compile(r"shop/[\w./-]+\.(?:md|csv)")


class Life:
    """How long the server lives: it dies once after so many answers, for so many seconds."""

    def __init__(self, dies_after: int, dead_seconds: float, answer_seconds: float) -> None:
        self.dies_after = dies_after
        self.dead_seconds = dead_seconds
        self.answer_seconds = answer_seconds
        self.answers = 0
        self.is_dead = threading.Event()
        self._lock = threading.Lock()

    def answered(self) -> None:
        with self._lock:
            self.answers += 1
            if self.answers == self.dies_after:
                self.is_dead.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--port", type=int, default=8791)
    parser.add_argument("--seconds", type=float, default=0.3, help="how long an answer takes")
    parser.add_argument("--dies-after", type=int, default=0, metavar="N", help="die once, after N answers")
    parser.add_argument("--for", dest="dead_seconds", type=float, default=20.0, metavar="SECONDS", help="how long")
    asked = parser.parse_args()
    life = Life(asked.dies_after, asked.dead_seconds, asked.seconds)
    while True:
        serve(asked.port, life)
        say(f"dead for {life.dead_seconds:g} s")
        time.sleep(life.dead_seconds)
        life.is_dead.clear()


def serve(port: int, life: Life) -> None:
    """Serve until death."""
    with Server(("127.0.0.1", port), handler(life)) as server:
        say(f"listens at http://127.0.0.1:{server.server_address[1]}/v1 with {' and '.join(MODELS)}")
        threading.Thread(target=lambda: (life.is_dead.wait(), server.shutdown()), daemon=True).start()
        server.serve_forever(poll_interval=0.05)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


def say(text: str) -> None:
    print(f"{LABEL} {text}", flush=True)


def handler(life: Life) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]}
            self.send(200 if self.path == "/v1/models" else 404, listed)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", "0"))))
            if body.get("model") not in MODELS:
                told = f"no model {body.get('model')!r}"
                self.send(404, {"error": {"message": told, "code": "model_not_found"}})
                return
            time.sleep(life.answer_seconds)
            if life.is_dead.is_set():
                self.close_connection = True  # the process that was at it is gone: not a byte is said
                return
            message = next_message(body)
            if body.get("stream"):
                self.stream(body, message)
            else:
                self.send(200, completion(body, message))
            life.answered()

        def send(self, status: int, data: Any) -> None:
            text = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def stream(self, body: dict[str, Any], message: dict[str, Any]) -> None:
            whole = completion(body, message)
            calls = [{"index": n} | call for n, call in enumerate(message.get("tool_calls", []))]
            delta = {"role": "assistant", "content": message["content"]} | ({"tool_calls": calls} if calls else {})
            finish = whole["choices"][0]["finish_reason"]
            pieces = [
                {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
                {"choices": [], "usage": whole["usage"]},
            ]
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for piece in pieces:
                frame = {"id": "simulated", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
                self.wfile.write(f"data: {json.dumps(frame | piece)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: Any) -> None:
            say(format % args)

    return Handler


def completion(body: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    sent = len(json.dumps([body["messages"], body.get("tools", [])])) // 4
    said = len(json.dumps(message)) // 4
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    return {
        "id": "simulated", "object": "chat.completion", "created": 0, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": sent, "completion_tokens": said, "total_tokens": sent + said},
    }  # fmt: skip


def next_message(body: dict[str, Any]) -> dict[str, Any]:
    """What the conversation is answered with: a question to a person, a look into a file, or the end."""
    task = next((each["content"] for each in body["messages"] if each["role"] == "user"), "")
    told = [each["content"] for each in body["messages"] if each["role"] == "tool"]
    tools = {tool["function"]["name"] for tool in body.get("tools", [])}
    files = list(dict.fromkeys(FILE.findall(task)))
    if "Ask a person" in task and "desk__ask" in tools and not told:
        return using("desk__ask", question="Is the money for order 1051 given back, or are packets sent?")
    read = len(told) - ("Ask a person" in task)
    if "files__read" in tools and read < len(files):
        return using("files__read", path=files[max(0, read)])
    source = f" [{files[0]}:1]" if files and read else ""
    heard = f" A person said: {answer_in(told[0])}" if "Ask a person" in task and told else ""
    return {"role": "assistant", "content": f"{LABEL} A draft would stand here.{heard}{source}"}


def using(name: str, **arguments: str) -> dict[str, Any]:
    call = {"id": f"call_{name}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def answer_in(told: str) -> str:
    found = re.search(r'"answer": ?"([^"]*)"', told)
    return found[1] if found else "nothing"


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("ended")

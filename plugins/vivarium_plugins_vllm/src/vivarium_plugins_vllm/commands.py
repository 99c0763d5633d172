"""The room of ``vivarium vllm``: a model server of one's own, started and kept running."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from vivarium_kernel import Conflict, NotFound

HOST = "127.0.0.1"
# What a village wants of a server, unless its operator says otherwise.
WANTED: tuple[tuple[str, ...], ...] = (
    ("--scheduling-policy", "priority"),
    ("--enable-auto-tool-choice",),
    ("--tool-call-parser", "hermes"),
    ("--enable-prompt-tokens-details",),
    # A model that may put blanks anywhere into its JSON can fill its whole answer with them.
    ("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
)


@click.group()
def vllm() -> None:
    """Run a vLLM server for the village."""


@vllm.command()
@click.option("--model", required=True, help="A model's folder, or its name on the hub that vLLM loads it from.")
@click.option("--port", type=click.IntRange(1, 65_535), default=8000, show_default=True, help="Where it answers.")
@click.option("--name", help="What the village calls the model; its folder's or its own name if not given.")
@click.option("--vllm", "command", help="The vllm command; if not given, the one beside this Python or in PATH.")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def serve(model: str, port: int, name: str | None, command: str | None, extra: tuple[str, ...]) -> None:
    """Start a vLLM server, and again whenever it dies, until stopped.

    What follows `--` goes to `vllm serve` as it is, and is stronger than what is set here.
    """
    from vivarium_plugins_vllm.supervising import Service, supervise

    if any(word.partition("=")[0] in ("--port", "--served-model-name") for word in extra):
        raise click.UsageError("--port and --name go before the `--`.")
    folder = Path(model).expanduser()
    served = name or (folder.resolve().name if folder.is_dir() else model)
    _refuse_taken(port)
    line = command_line(found(command), str(folder.resolve()) if folder.is_dir() else model, port, served, extra)
    click.echo(f"http://{HOST}:{port} is going to serve {served}. Into vivarium.toml:\n\n{advice(port, served, line)}")
    asyncio.run(supervise(Service(line, HOST, port, os.environ), lambda text: click.echo(text, err=True)))


def found(command: str | None) -> str:
    """The vllm command; raises NotFound."""
    beside = Path(sys.executable).with_name("vllm")
    places = [command] if command else [str(beside), "vllm"]
    there = next((path for path in map(shutil.which, places) if path), None)
    if there is None:
        raise NotFound(
            "vllm.command",
            f"There is no command {command or 'vllm'}.",
            "pip install 'vivarium-plugins-vllm[server]', or name another environment's with --vllm.",
        )
    return there


def command_line(command: str, model: str, port: int, served: str, extra: Sequence[str]) -> list[str]:
    """The whole command: what a village wants, without what ``extra`` says itself."""
    said = {word.partition("=")[0].replace("_", "-") for word in extra if word.startswith("--")}
    wanted = [("--host", HOST), ("--port", str(port)), ("--served-model-name", served), *WANTED]
    return [command, "serve", model, *(word for words in wanted if words[0] not in said for word in words), *extra]


def advice(port: int, served: str, line: Sequence[str]) -> str:
    """What to put into vivarium.toml."""
    last = max(place for place, word in enumerate(line) if word.startswith("--scheduling-policy"))
    policy = line[last].partition("=")[2] or line[last + 1]
    return (
        f'[plugins.vllm]\nservers = ["http://{HOST}:{port}"]\nscheduling_policy = "{policy}"\n\n'
        f'[models]\nsmall = "vllm:{served}"\n'
    )


def _refuse_taken(port: int) -> None:
    """Refuse a port at which somebody answers: the server would die of it minutes later, and start again."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            told = f"Port {port} can't be used: {error.strerror}."
            raise Conflict("vllm.port", told, "Name another with --port.") from None

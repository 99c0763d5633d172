"""The room of the files that pages are made of: scripts, styles and pictures, kept by a browser for ever.

Their address changes with their content, so that nothing is asked for twice and nothing old is shown.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files

from attrs import frozen
from starlette.responses import Response

from vivarium_kernel.api.operations import FILE, Call, Operation
from vivarium_kernel.errors import NotFound

MEDIA = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FOR_EVER = "public, max-age=31536000, immutable"


def operations() -> list[Operation]:
    """The routes of this room."""
    return [Operation("GET /pages/{version}/{file}", "Read a file that the pages are made of.", _file, gives=FILE)]


def base() -> str:
    """The folder of the files, as pages name it."""
    return f"/pages/{_files().version}"


@frozen
class Files:
    """The files by name, and the digest of them all."""

    version: str
    content: Mapping[str, bytes]


@functools.cache
def _files() -> Files:
    folder = files("vivarium_kernel.api") / "pages" / "static"
    content = {
        each.name: each.read_bytes()
        for each in sorted(folder.iterdir(), key=lambda each: each.name)
        if each.name.rpartition(".")[2] in MEDIA
    }
    digest = sha256(b"".join(name.encode() + body for name, body in content.items()))
    return Files(digest.hexdigest()[:12], content)


async def _file(call: Call) -> Response:
    name = call.path["file"]
    found = _files()
    if name not in found.content:
        raise NotFound("panel.file", f"The pages have no file {name!r:.80}.")
    # A page of before an upgrade asks for files that are gone: it gets those of now, and is told not to keep them.
    kept = _FOR_EVER if call.path["version"] == found.version else "no-store"
    return Response(found.content[name], 200, {"Cache-Control": kept}, MEDIA[name.rpartition(".")[2]])

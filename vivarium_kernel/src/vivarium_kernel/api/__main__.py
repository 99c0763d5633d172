"""The room of ``python -m vivarium_kernel.api FILE``: writes the API's OpenAPI page to a file."""

from __future__ import annotations

import sys
from pathlib import Path

from vivarium_kernel.api.openapi import document, text
from vivarium_kernel.api.routes import operations

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(document(operations())), encoding="utf-8")

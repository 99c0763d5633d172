"""The room of the API keys: one file a provider, which only its owner may read, or a variable of the environment.

A key is read anew at each call, so that a running village takes a new one at once. It goes to its provider and nowhere
else: no prompt, log, event, error or page holds it, and commands can't read its folder (``commands.places``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

from vivarium_kernel.errors import Invalid, NotFound, StoreError

FOLDER = "keys"
MOST_CHARACTERS = 4_096


@frozen
class Key:
    """A provider's key and where it came from: a variable's name, or the path of its file."""

    secret: str = field(repr=False)
    source: str

    @property
    def masked(self) -> str:
        """What may be shown: its length, and of a long one the last four characters."""
        return f"…{self.secret[-4:]} ({len(self.secret)} characters)" if len(self.secret) >= 16 else "set"


def variable(provider: str) -> str:
    """The variable of the environment that has the provider's key; it is stronger than the file."""
    return re.sub(r"[^A-Z0-9]", "_", provider.upper()) + "_API_KEY"


def find(folder: Path, environ: Mapping[str, str], provider: str) -> Key | None:
    """The key as it is now. Raises StoreError for a file that cannot be read or that others may read."""
    name = variable(provider)
    if environ.get(name, "").strip():
        return Key(environ[name].strip(), name)
    path = _path(folder, provider)
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise StoreError("key.mode", f"{path} may be read by others (mode {mode & 0o777:o}).",
                                 f"chmod 600 {path}")  # fmt: skip
            secret = file.read(MOST_CHARACTERS).strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError("key.file", f"{path} can't be read: {error}.", "Set the key again.") from None
    return Key(secret, str(path)) if secret else None


def save(folder: Path, provider: str, secret: str) -> Path:
    """Keep a key in a file of its own with mode 0600; returns its path. Raises Invalid for what can be no key."""
    secret = secret.strip()
    if not secret or len(secret) > MOST_CHARACTERS or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise Invalid("key.text", "That is no API key: one word of ASCII characters is.", "Copy it again.", field="key")
    path = _path(folder, provider)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    ignored = path.with_name(".gitignore")
    if not ignored.exists():
        ignored.write_text("*\n", encoding="utf-8")  # a village may lie in a repository, and a key must not
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    return path


def clear(folder: Path, provider: str) -> Path:
    """Forget a key that was kept; raises NotFound when there is none."""
    path = _path(folder, provider)
    try:
        path.unlink()
    except FileNotFoundError:
        raise NotFound("key.none", f"No key of {provider} is kept in {path.parent}.",
                       "See `vivarium key status`.") from None  # fmt: skip
    return path


def kept(folder: Path) -> list[str]:
    """The providers whose keys are kept here."""
    try:
        return sorted(entry.name for entry in (folder / FOLDER).iterdir() if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _path(folder: Path, provider: str) -> Path:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", provider):
        raise Invalid("key.provider", f"{provider!r} is no name of a provider.", "For example: groq.", field="provider")
    return folder / FOLDER / provider

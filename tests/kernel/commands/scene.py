"""A village folder with secrets, links that lead out of it, and a neighbour that nobody may read."""

from pathlib import Path

from attrs import frozen

MARK = "what-stands-in-here-is-for-nobody"
LINES = 9797
UNLISTED = "a-name-that-no-argument-has"


@frozen
class Scene:
    village: Path
    outside: Path

    @property
    def files(self) -> Path:
        return self.village / "files"


def build(base: Path) -> Scene:
    village, outside = base / "village", base / "outside"
    for folder in (village / "files", village / "src", village / "keys", outside):
        folder.mkdir(parents=True)
    for protected in ("vivarium.db", "vivarium.db-wal", "vivarium.lock", "host.key", ".secrets.toml", "keys/ada"):
        (village / protected).write_text(MARK + "\n")
    (outside / "secret.txt").write_text((MARK + "\n") * LINES)
    (outside / UNLISTED).touch()
    (village / "notes.txt").write_text("one\ntwo\nthree\n")
    (village / "src" / "app.py").write_text("print('hello')\n")
    (village / "src" / "link_out").symlink_to(outside / "secret.txt")
    (village / "src" / "folder_out").symlink_to(outside)
    (village / "top_out").symlink_to(outside)
    (village / "src" / "link_db").symlink_to("../vivarium.db")
    (village / "files" / "hard_link").hardlink_to(village / "vivarium.db")
    return Scene(village, outside)

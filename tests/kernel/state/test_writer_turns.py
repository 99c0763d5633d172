"""Promises about the writer's turn: nothing that goes wrong keeps it, and whoever waits for it gets an answer."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from vivarium_kernel.audit import emit
from vivarium_kernel.errors import StoreError
from vivarium_kernel.store import Tx
from vivarium_kernel.village import Village, With

from vivarium_kernel import Invalid, writer

pytestmark = pytest.mark.promise("nothing that goes wrong in a commit keeps others from writing")


@pytest.fixture
def village(tmp_path: Path) -> Any:
    (tmp_path / "vivarium.toml").write_text('residents = ["ada"]\n', encoding="utf-8")
    with Village(tmp_path, With(threaded=True, load_plugins=False), environ={}) as opened:
        yield opened


def note(tx: Tx, word: str) -> str:
    emit(tx, "test.noted", "system:test", word=word)
    return word


class Held:
    """Another process's turn, as far as this one can tell: a lock on a descriptor of its own."""

    def __init__(self, village: Village) -> None:
        self._fd = os.open(village.folder / "vivarium.lock", os.O_RDWR)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def let_go(self) -> None:
        os.close(self._fd)


def test_a_request_that_exits_leaves_the_turn(village: Village) -> None:
    def leaves(tx: Tx, _: None) -> None:
        raise KeyboardInterrupt

    async def main() -> str:
        with pytest.raises(KeyboardInterrupt):
            await village.store.write(leaves, None)
        return str(await village.store.write(note, "after"))

    assert asyncio.run(main()) == "after"
    assert village.store.call(note, "and after") == "and after"


def test_what_is_to_be_done_now_goes_ahead_of_what_waits(village: Village) -> None:
    """Also where more waits than one commit takes; and nothing of that is lost or done out of its order."""
    done: list[str] = []

    def noted(tx: Tx, word: str) -> None:
        done.append(word)

    async def main() -> None:
        many = [village.store.write(noted, str(number)) for number in range(3 * writer.MOST_REQUESTS)]
        await asyncio.gather(*many[:1], village.store.write(noted, "first", now=True))
        await asyncio.gather(*many)

    asyncio.run(main())
    assert done == ["first", *map(str, range(3 * writer.MOST_REQUESTS))]


def test_a_rollback_that_fails_leaves_the_turn(village: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    real = village.store._writer.committer._connection

    class Broken:
        """Fails at the first ROLLBACK, as a disk may."""

        left = 1

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def execute(self, sql: str, *more: Any) -> Any:
            if sql == "ROLLBACK" and self.left:
                self.left -= 1
                raise sqlite3.OperationalError("disk I/O error")
            return real.execute(sql, *more)

    def faints(tx: Tx, _: None) -> None:
        note(tx, "lost")
        raise ValueError("it fainted")

    monkeypatch.setattr(village.store._writer.committer, "_connection", Broken())

    async def main() -> str:
        with pytest.raises(ValueError, match="fainted"):
            await village.store.write(faints, None)
        return str(await village.store.write(note, "after"))

    assert asyncio.run(main()) == "after"
    assert village.store.call(note, "and after") == "and after"


def test_a_village_is_closed_on_the_loop_while_a_write_waits_for_another_process(tmp_path: Path) -> None:
    async def main() -> None:
        with Village(tmp_path, With(threaded=True, load_plugins=False), environ={}) as village:
            other = Held(village)
            asking = asyncio.ensure_future(village.store.write(note, "waits"))
            await asyncio.sleep(0.05)  # the thread waits for the other now
            asyncio.get_running_loop().call_later(0.1, other.let_go)
            await asyncio.sleep(0.12)
        assert await asking == "waits"

    (tmp_path / "vivarium.toml").write_text('residents = ["ada"]\n', encoding="utf-8")
    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_loop_that_stopped_while_its_write_waited_keeps_nobody_waiting(village: Village) -> None:
    loop = asyncio.new_event_loop()
    other = Held(village)

    async def ask() -> None:
        asyncio.ensure_future(village.store.write(note, "left behind"))
        await asyncio.sleep(0.05)

    loop.run_until_complete(ask())
    other.let_go()
    assert village.store.call(note, "after") == "after"
    loop.close()
    assert village.store.call(note, "and after") == "and after"


def test_what_a_closed_loop_left_behind_is_no_matter_of_the_next(village: Village) -> None:
    loop = asyncio.new_event_loop()

    async def ask() -> None:
        village.store.write(note, "left behind")

    loop.run_until_complete(ask())
    loop.close()

    async def main() -> str:
        return str(await asyncio.wait_for(village.store.write(note, "after"), 5))

    assert asyncio.run(main()) == "after"


def test_a_listener_of_a_closed_loop_is_no_matter_of_who_writes(village: Village) -> None:
    def raises() -> None:
        raise RuntimeError("Event loop is closed")

    def opens(tx: Tx, _: None) -> str:
        tx.opened = True
        return note(tx, "opened")

    village.store.share.on_opened.append(raises)

    async def main() -> str:
        await village.store.write(opens, None)
        return str(await asyncio.wait_for(village.store.write(note, "after"), 5))

    assert asyncio.run(main()) == "after"


def test_a_transaction_inside_a_transaction_is_refused_not_waited_for(village: Village) -> None:
    def nests(tx: Tx, _: None) -> None:
        village.store.call(note, "inside")

    with pytest.raises(Invalid, match="transaction is open here"):
        village.store.call(nests, None)
    assert village.store.call(note, "after") == "after"


def test_a_closed_village_says_so(tmp_path: Path) -> None:
    (tmp_path / "vivarium.toml").write_text('residents = ["ada"]\n', encoding="utf-8")
    village = Village(tmp_path, With(threaded=True, load_plugins=False), environ={})
    village.close()
    with pytest.raises(StoreError, match="closed"):
        village.store.call(note, "late")

    async def main() -> None:
        with pytest.raises(StoreError, match="closed"):
            await village.store.write(note, "late")

    asyncio.run(main())


def test_who_waits_for_long_is_told_for_what(
    village: Village, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "LOCKED_SECONDS", 0.05)
    other = Held(village)

    async def main() -> str:
        asyncio.get_running_loop().call_later(0.3, other.let_go)
        return str(await village.store.write(note, "waits"))

    with caplog.at_level(logging.WARNING, "vivarium"):
        assert asyncio.run(main()) == "waits"
    assert "holds vivarium.lock" in caplog.text


@pytest.mark.parametrize("slow", [False, True])
def test_a_disk_that_turns_slow_is_left_to_the_thread(
    village: Village, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    village.store._writer.committer.sync_seconds = 1.0 if slow else 0.0
    elsewhere: list[str] = []
    finish = village.store._writer._finish_elsewhere
    monkeypatch.setattr(
        village.store._writer, "_finish_elsewhere", lambda *words: (elsewhere.append("thread"), finish(*words))
    )

    async def main() -> list[str]:
        return list(await asyncio.gather(*(village.store.write(note, word) for word in "abc")))

    assert asyncio.run(main()) == ["a", "b", "c"]
    assert bool(elsewhere) == slow


def test_what_comes_while_a_turn_is_waited_for_joins_that_commit(village: Village) -> None:
    """And goes in its own order: a lease is renewed before what waited with it is judged by it."""

    async def main() -> None:
        held, before = Held(village), village.store.commits
        first = asyncio.ensure_future(village.store.write(note, "first"))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(village.store.write(note, "second"))
        await asyncio.sleep(0.1)
        assert not first.done()
        held.let_go()
        assert (await first, await second) == ("first", "second")
        assert village.store.commits == before + 1

    asyncio.run(main())

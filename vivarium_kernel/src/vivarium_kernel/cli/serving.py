"""The room of ``vivarium up``, ``serve`` and ``work``: a village that stays open until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vivarium_kernel.cli.choosing import once, once_options
from vivarium_kernel.cli.living import (
    Say,
    end_on_signals,
    post,
    residents_option,
    sandbox_line,
    say_if_all_are_driven,
    say_if_it_stands,
    say_what_is_wrong,
    settings_and_tasks,
    supervised,
)
from vivarium_kernel.cli.opening import folder_of, operator, village_argument
from vivarium_kernel.cli.refusing import answered
from vivarium_kernel.cli.showing import safe, shortened
from vivarium_kernel.cli.spooling import spooled
from vivarium_kernel.errors import Conflict, Invalid
from vivarium_kernel.watchdog import asks_to_stop, side_by_side
from vivarium_kernel.wording import url_of

if TYPE_CHECKING:
    from vivarium_kernel.cli.reading import Held, News
    from vivarium_kernel.records import NewTask
    from vivarium_kernel.runtime import Runtime
    from vivarium_kernel.settling import Settled
    from vivarium_kernel.village import Village


def _address(command: Any) -> Any:
    command = click.option(
        "--port", type=click.IntRange(0, 65_535), metavar="N",
        help="The port; by default 8420. 0 takes a free one.",
    )(command)  # fmt: skip
    return click.option(
        "--host", metavar="ADDRESS",
        help="The address; by default 127.0.0.1, which is this machine alone.",
    )(command)  # fmt: skip


@click.command()
@village_argument
@_address
@residents_option
@once_options
def up(
    village: Path | None, host: str | None, port: int | None, count: int | None, without: tuple[str, ...],
    with_only: str | None,
) -> int:  # fmt: skip
    """Open the API and let residents work, until stopped.

    Prints the address and a login link that works once. Ctrl-C finishes what is running; a second one stops at once.
    """
    folder = folder_of(village)
    chosen = once(folder, without, with_only)
    settings, tasks = settings_and_tasks(folder, chosen)
    host, port = settings.api.host if host is None else host, settings.api.port if port is None else port
    refuse_taken(folder, host, port)
    return supervised(folder, partial(_up, tasks=tasks, host=host, port=port, count=count), chosen)


@click.command()
@village_argument
@_address
@once_options
def serve(
    village: Path | None, host: str | None, port: int | None, without: tuple[str, ...], with_only: str | None
) -> int:
    """Open the API alone, until stopped.

    Its residents work elsewhere: in `vivarium work`, here or on other machines.
    """
    folder = folder_of(village)
    chosen = once(folder, without, with_only)
    settings, _ = settings_and_tasks(folder, chosen)
    host, port = settings.api.host if host is None else host, settings.api.port if port is None else port
    refuse_taken(folder, host, port)
    return supervised(folder, partial(_serve, host=host, port=port), chosen)


@click.command()
@village_argument
@residents_option
@click.option("--url", metavar="URL", help="Work for the village at this address, over HTTP.")
@click.option(
    "--token", metavar="TOKEN", envvar="VIVARIUM_TOKEN", help="The worker's token, for --url (VIVARIUM_TOKEN)."
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    metavar="N",
    help="How many processes work side by side, where one core is too little. Without --residents they share those "
    "of the village who are at work in no other process, at least one each; with it each has so many, and residents "
    "are made where the village has too few.",
)
@once_options
def work(
    village: Path | None, count: int | None, url: str | None, token: str | None, processes: int,
    without: tuple[str, ...], with_only: str | None,
) -> int:  # fmt: skip
    """Let more residents work on a village, here or over HTTP.

    In a further process on the same folder; or with --url on another machine, where VILLAGE is a folder in which the
    commands of its tasks run.
    """
    if url is None:
        folder = folder_of(village)
        chosen = once(folder, without, with_only)
        _, tasks = settings_and_tasks(folder, chosen)
        alone = processes == 1
        shares = [] if alone else [count] * processes if count else _shares(_free_residents(folder), processes)
        if not shares:
            return supervised(folder, partial(_work, tasks=tasks, count=count), chosen)
        return _side_by_side(
            len(shares),
            lambda number: supervised(
                folder, partial(_work, tasks=tasks, count=shares[number - 1], number=number), chosen
            ),
        )
    if without or with_only is not None:
        raise click.UsageError("With --url the village there decides which plugins are on.")
    if token is None:
        raise Invalid(
            "work.token", f"Working for {url} takes a token.",
            "Make one there: vivarium token create NAME --role worker; then --token or VIVARIUM_TOKEN.", field="token",
        )  # fmt: skip
    here = village or Path.cwd()

    def one(number: int | None = None) -> int:
        return answered(lambda: _spooled(_work_for(url, token, count or 1, here, number)))

    return one() if processes == 1 else _side_by_side(processes, one)


def _shares(residents: int, processes: int) -> list[int]:
    """How many residents each process has, so that nobody is made and nobody left over."""
    processes = min(processes, residents)
    return [residents // processes + (place < residents % processes) for place in range(processes)]


def _side_by_side(processes: int, run: Callable[[int], int]) -> int:
    """Run it in so many processes, each with a number of its own from 1 on, which it draws as it begins."""
    drawn, put = os.pipe()
    try:
        os.write(put, bytes(range(1, processes + 1)))
        os.close(put)
        return side_by_side(processes, lambda: run(os.read(drawn, 1)[0]))
    finally:
        os.close(drawn)


def _free_residents(folder: Path) -> int:
    """How many active residents are at work in no live process."""
    from vivarium_kernel.cli.opening import tell_if_lost
    from vivarium_kernel.processes import present
    from vivarium_kernel.village import Village, With

    tell_if_lost(folder)
    with Village(folder, With(load_plugins=False)) as village, village.store.view() as view:
        at_work = {one.id for one in present(view) if not one.gone}
        return sum(
            process not in at_work for (process,) in view.rows("SELECT process FROM residents WHERE state = 'active'")
        )


def refuse_taken(folder: Path, host: str, port: int) -> None:
    """Raise Conflict for an address that can't be had, before anything is opened."""
    from vivarium_kernel.api.server import listen
    from vivarium_kernel.cli.opening import is_founded, looking
    from vivarium_kernel.processes import present

    try:
        listen(host, port).close()
    except Conflict as taken:
        if is_founded(folder):
            with looking(folder) as view:
                ours = [one for one in present(view) if not one.gone and one.address == url_of(host, port)]
            for one in ours:
                raise Conflict(
                    taken.rule, f"This village is served at {one.address} already, by `{one.kind}` (pid {one.pid}).",
                    "Let more residents work with `vivarium work`, or serve it once more with --port 0.", field="port",
                ) from taken  # fmt: skip
        raise


async def _up(village: Village, *, tasks: Sequence[NewTask], host: str, port: int, count: int | None) -> int:
    from vivarium_kernel.api import server

    say = await _begin(village, tasks)
    async with _living(village, count, "up", say) as runtime:
        ready = partial(_open, village, say)
        serving = asyncio.create_task(server.serve(village, host=host, port=port, runtime=runtime, ready=ready))
        await _first(serving, runtime.run())
    return 0


async def _serve(village: Village, *, host: str, port: int) -> int:
    from vivarium_kernel.api import server

    say = await _begin(village, ())
    return await _until_ended(server.serve(village, host=host, port=port, ready=partial(_open, village, say)))


async def _work(village: Village, *, tasks: Sequence[NewTask], count: int | None, number: int | None = None) -> int:
    say = await _begin(village, tasks, number)
    async with _living(village, count, "work", say, number) as runtime:
        at_work = f"{', '.join(runtime.residents[:10])} at work" if runtime.residents else "Waiting for residents"
        say(f"{at_work}; Ctrl-C ends it")
        await runtime.run()
    return 0


def _spooled(life: Coroutine[Any, Any, int]) -> int:
    with spooled():
        return asyncio.run(life)


async def _work_for(url: str, token: str, count: int, folder: Path, number: int | None) -> int:
    from vivarium_kernel.cli.refusing import log_to
    from vivarium_kernel.remote import Worker

    say = _saying(number)
    log_to(lambda line: click.echo(f"{_mark(number)}{line}", err=True))

    def tell(settled: Settled) -> None:
        why = f"  ({shortened(settled.reason, 160)})" if settled.reason and settled.task_state != "done" else ""
        say(f"{datetime.now():%H:%M:%S}  {settled.task_state.ljust(9)}  {safe(settled.task)}{why}")

    async with Worker(url, token, count, folder, on_settled=tell) as worker:
        end_on_signals(worker, say)
        say(f"{', '.join(worker.residents[:10])} at work for {url}; Ctrl-C ends it")
        await worker.run()
    return 0


def _mark(number: int | None) -> str:
    """What is before a line of one of several processes."""
    return "" if number is None else f"[{number}] "


def _saying(number: int | None) -> Say:
    return lambda line: click.echo(f"{_mark(number)}{line}")


async def _begin(village: Village, tasks: Sequence[NewTask], number: int | None = None) -> Say:
    """Post the tasks, and say where this is; of several processes the first says it for all."""
    from vivarium_kernel.cli.refusing import log_to

    say = _saying(number)
    log_to(lambda line: click.echo(f"{_mark(number)}{line}", err=True))
    first = number in (None, 1)
    await asyncio.to_thread(post, village, tasks, say if first else lambda _: None)
    if not first:
        return say
    say_what_is_wrong(village, say)
    say(f"Village {village.settings.name} in {village.folder}")
    say(sandbox_line(village))
    say_if_it_stands(village, say)
    return say


class _Own:
    """The endings of one of several processes: those of its residents. What was nobody's the first one tells."""

    def __init__(self, number: int, runtime: Runtime, say: Say) -> None:
        from vivarium_kernel.cli.progress import Endings

        self._number = number
        self._runtime = runtime
        self._endings = Endings()
        self._mine: set[str] = set()  # also those that it has let go: what they ended is told after that
        self.say = say

    def tell(self, news: Sequence[News]) -> None:
        self._mine.update(self._runtime.residents)
        for item in news:
            if item.resident in self._mine or (item.resident is None and self._number == 1):
                self.say(self._endings.line(item))

    def draw(self, counts: Mapping[str, int], held: Sequence[Held], now: int) -> None:
        pass

    def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def _living(village: Village, count: int | None, kind: str, say: Say, number: int | None = None) -> Any:
    """Residents at work, their endings told as lines."""
    from vivarium_kernel.cli import reading
    from vivarium_kernel.cli.progress import Lines, Progress, watch
    from vivarium_kernel.runtime import Runtime

    with village.store.view() as view:
        seen = reading.last_event(view)
    runtime: Runtime
    async with Runtime(village, count, kind=kind) as runtime:
        end_on_signals(runtime, say)
        say_if_all_are_driven(count, runtime.residents, say)
        lines: Progress = Lines() if number is None else _Own(number, runtime, say)
        watching = asyncio.create_task(watch(village, lines, seen, False))
        watching.add_done_callback(partial(_drain_unread, runtime))
        try:
            yield runtime
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


def _drain_unread(runtime: Runtime, watching: asyncio.Task[None]) -> None:
    """What happens can't be told: mostly nobody reads it (``… | head``), and programs whose reader has gone end."""
    if not watching.cancelled() and watching.exception() is not None:
        runtime.drain()


async def _open(village: Village, say: Say, url: str) -> None:
    """The API listens: say where, and make the link that lets its operator in."""
    from vivarium_kernel import people
    from vivarium_kernel.api.login import link_for

    link = link_for(village, url, operator().name.partition(":")[2])
    await village.store.write(people.make_token, link.token)
    say(f"Open at {url}")
    say(f"Log in, once, within 10 minutes: {link.url}")


async def _first(serving: asyncio.Task[None], living: Awaitable[None]) -> None:
    """Both, until one of them ends; then the other is ended, too. Raises what went wrong in either."""
    life = asyncio.ensure_future(living)
    await asyncio.wait({serving, life}, return_when=asyncio.FIRST_COMPLETED)
    for task in (serving, life):
        task.cancel()
    ended = await asyncio.gather(serving, life, return_exceptions=True)
    for error in ended:
        if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
            raise error


async def _until_ended(doing: Awaitable[Any]) -> int:
    """Do it until a signal that asks to stop; the first asks it to end."""
    task = asyncio.ensure_future(doing)
    loop = asyncio.get_running_loop()
    for number in asks_to_stop():
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return 0

"""The room of commands that stay: a village that lives in a watched process of its own until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from vivarium_kernel.cli.choosing import Once
from vivarium_kernel.cli.refusing import answered
from vivarium_kernel.cli.showing import safe, several
from vivarium_kernel.problems import InputError, Problem

if TYPE_CHECKING:
    from vivarium_kernel.records import NewTask
    from vivarium_kernel.settings import Settings
    from vivarium_kernel.village import Village
    from vivarium_kernel.watchdog import Mark

Say = Callable[[str], None]
Life = Callable[["Village"], Coroutine[Any, Any, int]]
TOGETHER_SECONDS = 0.3  # signals that come so soon after another are the same one, passed on by the parents


def residents_option(command: Any) -> Any:
    """``--residents N``: the parameter ``count``."""
    return click.option(
        "--residents", "-n", "count", type=click.IntRange(1, 10_000), metavar="N",
        help="How many residents are at work here; by default those of the village.",
    )(command)  # fmt: skip


def settings_and_tasks(folder: Path, once: Once) -> tuple[Settings, list[NewTask]]:
    """The settings, and the tasks of the files that they name; raises with everything that is wrong in all of them.

    Nothing is opened yet, so that a mistake in a file changes nothing.
    """
    from vivarium_kernel import registry, taskfile
    from vivarium_kernel.builtin.commands import allowed_commands
    from vivarium_kernel.commands import BadAllow
    from vivarium_kernel.commands.places import resolved, unfit_roots
    from vivarium_kernel.settings import SettingsError, load

    settings = load(folder).settings
    runs_commands = "command_execution" not in {*once.without, *registry.read(folder).disabled}
    named = settings.commands.read_roots if runs_commands else ()
    roots = [resolved(Path(root), folder.resolve()) for root in named]
    faults = [(f"commands.{fault}", "name another folder, or take it out") for fault in unfit_roots(folder, roots)]
    try:
        allowed_commands(settings, strict=True)
    except BadAllow as error:
        faults += [(what, mend) for what, _, mend in (fault.partition("; ") for fault in error.faults)]
    if faults:
        file = str(folder / "vivarium.toml")
        raise SettingsError([Problem("", "", what, mend, file) for what, mend in faults])
    tasks: list[NewTask] = []
    problems: list[Problem] = []
    for name in settings.tasks:
        try:
            tasks += taskfile.read(folder / name)
        except InputError as error:
            problems += error.problems
    if problems:
        raise taskfile.TaskFileError(problems)
    return settings, tasks


def supervised(folder: Path, life: Life, once: Once) -> int:
    """Live in a child process that the watchdog may end and begin again; returns its exit status."""
    from vivarium_kernel.cli.opening import tell_if_lost
    from vivarium_kernel.watchdog import Mark, supervise

    tell_if_lost(folder)
    mark = Mark()

    def child(restarts: int, switched_off: dict[tuple[str, str], str]) -> int:
        return answered(lambda: _opened(folder, life, mark, switched_off, once))

    try:
        return supervise(child, mark)
    finally:
        mark.close()


def _opened(folder: Path, life: Life, mark: Mark, switched_off: dict[tuple[str, str], str], once: Once) -> int:
    from vivarium_kernel.cli.spooling import spooled
    from vivarium_kernel.village import Village, With

    how = With(threaded=True, mark=mark, switched_off=switched_off, without=once.without, only=once.only)
    with spooled(), Village(folder, how) as village:
        return asyncio.run(_watched(village, life, mark))


async def _watched(village: Village, life: Life, mark: Mark) -> int:
    from vivarium_kernel.runtime import tune_process
    from vivarium_kernel.watchdog import Heart

    tune_process()
    heart = Heart(mark, lambda: _stuck_seconds(village, mark))
    heart.start()
    try:
        return await life(village)
    finally:
        await heart.stop()


def _stuck_seconds(village: Village, mark: Mark) -> float:
    """How long a plugin has held the writer. A writer that waits for another program's lock is not stuck."""
    since = village.store.busy_since
    return 0.0 if since is None or mark.writer.read() is None else village.clock.monotonic() - since


def post(village: Village, tasks: Sequence[NewTask], say: Say) -> None:
    """Post the tasks of the files, those that are not on the board yet.

    One that has ended and was edited since stays as it was, which is said: nobody is kept from work by it.
    """
    from vivarium_kernel import board
    from vivarium_kernel.cli.opening import operator

    village.check_modes(tasks)
    with village.store.view() as view:
        edited = board.edited_since_ended(view, tasks)
    for name, state in edited.items():
        say(
            f"task {safe(name)} is {state} and was edited since: it stays as it was; give it another id to have it done"
        )
    left = [task for task in tasks if task.id not in edited]
    if left:
        village.post(left, operator())


def say_what_is_wrong(village: Village, say: Say) -> None:
    """Plugins that are left out, missing or changed, and hooks that the watchdog switched off."""
    from vivarium_kernel.standing import notices

    for failed in village.failed:
        for error in failed.errors:
            say(f"plugin {failed.name} is left out: {safe(str(error))}")
    for notice in notices(village.choice()):
        say(safe(notice))
    for plugin, hooks in village.health.switched_off.items():
        for hook, cause in hooks.items():
            say(f"plugin {plugin} is off on {hook}: {safe(cause)}")


def say_if_it_stands(village: Village, say: Say, told: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Whether the village is halted or paused, and what ends that, but for what was ``told`` before; returns it all."""
    times = village.times()
    found = ((times.halted, "halted", "unhalt"), (times.paused, "paused", "resume"))
    lines = tuple(
        f"The village is {name}: nothing runs until `vivarium {end}`" for stands, name, end in found if stands
    )
    for line in lines:
        if line not in told:
            say(line)
    if told and not lines:
        say("The village goes on")
    return lines


def sandbox_of(village: Village) -> str:
    """What confines commands here; empty when no commands are run."""
    runner = getattr(village.plugins.get("command_execution"), "runner", None)
    return "" if runner is None else str(runner.active)


def sandbox_line(village: Village) -> str:
    """The same as a sentence for the start of a run."""
    active, asked = sandbox_of(village), village.settings.commands.sandbox
    if not active:
        return "Commands are not run: the plugin command_execution is off"
    if active != "none":
        return f"Commands are confined by {active}"
    if asked == "landlock":
        return "Commands that the operator added are refused: this kernel has no Landlock to confine them (see doctor)"
    why = "by the settings" if asked == "none" else "because this kernel has no Landlock"
    return f"Commands run without a sandbox, {why}; the rules for their arguments and limits stand"


class Drainable(Protocol):
    """Residents at work, here or for a village elsewhere."""

    @property
    def running(self) -> Sized: ...

    def drain(self) -> None: ...


def say_if_all_are_driven(count: int | None, residents: Sized, say: Say) -> None:
    """Nobody is made to keep a further process busy: say why it has nothing to do by itself."""
    if count is None and not residents:
        say("Every active resident is at work in another process already; --residents N brings more of them")


def end_on_signals(work: Drainable, say: Say) -> None:
    """The first signal that asks to stop lets running tasks finish, the second ends everything at once."""
    from vivarium_kernel.watchdog import asks_to_stop

    loop = asyncio.get_running_loop()
    told, last = 0, 0.0

    def on_signal() -> None:
        nonlocal told, last
        since, last = loop.time() - last, loop.time()
        if told and since < TOGETHER_SECONDS:
            return
        told += 1
        running = len(work.running)
        work.drain()
        with contextlib.suppress(OSError):  # who reads may have ended by the same key
            if told == 1 and running:
                tasks = several(running, "running task")
                say(f"Finishing {tasks}; press Ctrl-C again to stop at once (nothing is lost)")
            elif told == 1:
                say("Ending; nothing is running")
            elif told == 2:
                say("Stopping now; what was running is put back on the board, or to review if it must not run twice")

    for number in asks_to_stop():
        loop.add_signal_handler(number, on_signal)

"""The room of refusals on the command line: every error as words on stderr and an exit status, never a traceback."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vivarium_kernel.errors import READ_ONLY_STEP, StoreFull, VivariumError

REFUSED, FAILED, INTERRUPTED, CUT_OFF = 2, 1, 130, 141


def answered(run: Callable[[], Any]) -> int:
    """The exit status of a command: what it returns, 0 for None, and for each kind of error its own."""
    try:
        result = run()
        sys.stdout.flush()
    except click.ClickException as error:
        _with_hint(error).show()
        return error.exit_code
    except BrokenPipeError:
        _forget_output()  # who read it has gone (`| head`): nothing is wrong, and not all may be done
        return CUT_OFF
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, OSError):
            _forget_output()  # if it was the output that could not be written, it can't be at the exit either
        text, status = _answer(error)
        click.echo(text, err=True)
        return status
    return result if isinstance(result, int) else 0


def _with_hint(error: click.ClickException) -> click.ClickException:
    """Some commands take the village as an argument and others by an option: tell who took one for the other."""
    found = re.search(r"unexpected extra arguments? \((\S+)", error.message)
    if found is None or not isinstance(error, click.UsageError) or error.ctx is None:
        return error
    if not any("--village" in each.opts for each in error.ctx.command.params):
        return error
    return click.UsageError(f"{error.message}. Did you mean -v {found[1].rstrip(')')}?", error.ctx)


def _forget_output() -> None:
    """Let Python not try again to write what is left of the output when it exits, which would be another failure."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _answer(error: BaseException) -> tuple[str, int]:
    if isinstance(error, VivariumError):
        return told(error), REFUSED
    if isinstance(error, OSError):
        return told(_of_the_system(error)), REFUSED
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "\nstopped", INTERRUPTED
    return fault(error), FAILED


def told(error: VivariumError) -> str:
    """A refusal as people read it: what is wrong with its rule, and the next step."""
    from vivarium_kernel.problems import InputError

    if isinstance(error, InputError):
        lines = error.message.splitlines()
        head = "1 problem" if len(error.problems) == 1 else f"{len(error.problems)} problems"
        return "\n".join([f"vivarium: {head}, nothing was changed [{error.rule}]", *(f"  {line}" for line in lines)])
    return f"vivarium: {error.message} [{error.rule}]" + (f"\n  {error.next_step}" if error.next_step else "")


def _of_the_system(error: OSError) -> VivariumError:
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull("store.full", f"The disk is full{':' if where else ''}{where}.", "Free some space, try again.")
    step = READ_ONLY_STEP if error.errno == errno.EROFS else "Check the path."
    return VivariumError("system", f"The system refused{where}: {error.strerror or error}.", step)


def fault(error: BaseException) -> str:
    """A fault of Vivarium itself: one line, and where the details are."""
    return (
        f"vivarium: a fault of Vivarium itself: {type(error).__name__}: {error}\n"
        f"  What was committed is safe. Details to report: {_details(error)}"
    )


def _details(error: BaseException) -> Path:
    handle, name = tempfile.mkstemp(prefix="vivarium-fault-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)))
    return Path(name)


class OneLine(logging.Handler):
    """What the kernel logs while it runs, one line each; a traceback goes to the file of details."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            text += f": {type(error).__name__}: {error} (details: {_details(error)})"
        self._say(f"vivarium: {text}")


def log_to(say: Callable[[str], None]) -> None:
    """Let the kernel's log speak through ``say``."""
    log = logging.getLogger("vivarium")
    log.handlers[:] = [OneLine(say)]
    log.propagate = False

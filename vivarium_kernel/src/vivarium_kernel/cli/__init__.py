"""The room of the command line: ``vivarium`` and the table of its commands, each imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

    from vivarium_kernel.cli.lazy import Sections


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit status: 0 for success, 2 for a refusal that changed nothing, else 1."""
    from vivarium_kernel.cli.refusing import answered

    return answered(lambda: root().main(arguments, prog_name="vivarium", standalone_mode=False))


def root() -> click.Group:
    """The whole command tree."""
    import click

    from vivarium_kernel.cli.lazy import LazyGroup

    group = LazyGroup(
        "vivarium",
        sections=sections(),
        guests=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        help="Villages of residents who do real work: post tasks, let residents do them, see what came of it.",
        epilog="A command finds its village in the folder it is called in or one above it; --village names another.",
        no_args_is_help=True,
    )
    return click.version_option(package_name="vivarium-kernel", prog_name="vivarium")(group)


def sections() -> Sections:
    """Every command by section: its place, and the first line of its own help page."""
    from vivarium_kernel.cli.lazy import Entry

    return {
        "Life": {
            "init": Entry("founding:init", "Make a new village in a folder."),
            "run": Entry("run:run", "Let residents work until the board is empty."),
            "up": Entry("serving:up", "Open the API and let residents work, until stopped."),
            "serve": Entry("serving:serve", "Open the API alone, until stopped."),
            "work": Entry("serving:work", "Let more residents work on a village, here or over HTTP."),
            "status": Entry("status:status", "Show how the village is."),
        },
        "Work": {
            "task": Entry("tasks:task", "Post, read and decide tasks."),
            "resident": Entry("residents:resident", "Who lives here."),
            "do": Entry("doing:do", "Do an action of a plugin, or list what can be done."),
            "missed": Entry("missed:missed", "Plugins' parts of endings that failed and are still to be run."),
        },
        "Plugins": {
            "plugins": Entry("plugins:plugins", "Install, switch, examine and write plugins."),
            "explain": Entry("explain:explain", "Why a task goes to whom, and who wrote a prompt."),
        },
        "Models": {
            "key": Entry("keys:key", "The keys of model providers."),
            "models": Entry("models:models", "List, try and price models."),
        },
        "Switches": {
            "pace": Entry("controls:pace", "Set how many seconds pass between two looks at an empty board."),
            "residents": Entry("controls:residents", "Set how many residents are at work."),
            "pause": Entry("controls:pause", "Let running tasks finish and start no more."),
            "resume": Entry("controls:resume", "End a pause."),
            "halt": Entry("controls:halt", "End everything that runs, at once."),
            "unhalt": Entry("controls:unhalt", "End a halt."),
        },
        "Records": {
            "report": Entry("morning:report", "Tell what was done, spent, refused and parked, and why."),
            "log": Entry("logs:log", "Read, follow, export and verify the log."),
            "ledger": Entry("ledgers:ledger", "Read and verify the ledger."),
            "costs": Entry(
                "costs:costs", "Show what models cost: spent, reserved, the rate, and when a cap is reached."
            ),
        },
        "Upkeep": {
            "token": Entry("tokens:token", "Make, list and revoke credentials."),
            "settings": Entry("settings:settings", "Show what is set, and where."),
            "backup": Entry("backup:backup", "Copy the database while it is in use, and verify the copy."),
            "doctor": Entry("doctor:doctor", "Find out what is wrong, and how to mend it."),
        },
    }

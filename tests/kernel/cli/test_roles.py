"""Promises about who acts on the command line: the folder's owner is operator, ``--as`` does what its token may do."""

from __future__ import annotations

from pathlib import Path

import pytest
from vivarium_kernel.api.roles import ROLES

from .running import Here, village

# Every command that changes something, and the route whose callers may do it.
ACTS = [
    (("task", "add", "--", "ls"), "POST /tasks"),
    (("task", "approve", "a"), "POST /tasks/{task}/approve"),
    (("task", "answer", "a", "yes"), "POST /tasks/{task}/answer"),
    (("task", "reject", "a"), "POST /tasks/{task}/reject"),
    (("task", "requeue", "a"), "POST /tasks/{task}/requeue"),
    (("task", "cancel", "a"), "POST /tasks/{task}/cancel"),
    (("task", "acknowledge", "a"), "POST /tasks/{task}/acknowledge"),
    (("task", "clear", "done"), "operators alone"),
    (("resident", "add", "dora"), "POST /residents"),
    (("resident", "pause", "ada"), "POST /residents/{resident}/state"),
    (("resident", "resume", "ada"), "POST /residents/{resident}/state"),
    (("resident", "quarantine", "ada"), "POST /residents/{resident}/state"),
    (("resident", "ban", "ada", "--yes"), "POST /residents/{resident}/state"),
    (("resident", "retire", "ada", "--yes"), "POST /residents/{resident}/state"),
    (("pace", "3"), "POST /control/pace"),
    (("residents", "3"), "POST /control/residents"),
    (("pause",), "POST /control/pause"),
    (("resume",), "POST /control/resume"),
    (("halt",), "POST /control/halt"),
    (("unhalt",), "POST /control/unhalt"),
    (("token", "create", "x"), "POST /tokens"),
    (("token", "revoke", "1"), "POST /tokens/{token}/revoke"),
    (("missed", "retry"), "operators alone"),
    (("do",), "POST /actions/{action}"),
    (("plugins", "enable", "verifier"), "PUT /plugins/{name}"),
    (("plugins", "disable", "verifier"), "PUT /plugins/{name}"),
    (("plugins", "install", "vivarium-plugins-never-was"), "operators alone"),
    (("plugins", "uninstall", "vivarium-plugins-never-was"), "operators alone"),
    (("plugins", "sync"), "operators alone"),
    (("plugins", "retry"), "operators alone"),
    (("key", "set", "groq"), "operators alone"),
    (("key", "clear", "groq"), "operators alone"),
    (("models", "test"), "POST /tasks"),
]


@pytest.fixture
def tokens(here: Here) -> dict[str, str]:
    def made(role: str, *more: str) -> str:
        return here("token", "create", "ada" if role == "resident" else f"a-{role}", "--role", role, *more).out.strip()

    roles = {role: made(role) for role in ("operator", "human", "resident", "worker")}
    return roles | {"narrow": made("operator", "--scope", "read")}


@pytest.mark.promise("actor-is-the-credential")
@pytest.mark.parametrize(("command", "route"), ACTS, ids=[" ".join(command) for command, _ in ACTS])
def test_a_token_may_do_here_what_it_may_over_http(
    here: Here, tokens: dict[str, str], command: tuple[str, ...], route: str
) -> None:
    before = len(here("log", "show", "--json").document)
    allowed = ROLES.get(route, ("operator",))
    typed = [word for word in command if word != "--"]
    for role in ("human", "resident", "worker", "narrow", "nobody"):
        if role in allowed or (role == "narrow" and command == ("do",)):  # an action's own name is a scope, too
            continue
        options = ("--as", tokens.get(role, "a-token-that-never-was"))
        done = here(*_with(command, options))
        assert done.status == 2, (role, done.out)
        assert any(rule in done.err for rule in ("[role]", "[scope]", "[token.invalid]")), done.err
    assert len(here("log", "show", "--json").document) == before, f"{typed} changed something"
    for role in {"operator", "human"} & set(allowed):
        done = here(*_with(command, ("--as", tokens[role])))
        assert "[role]" not in done.err


def _with(command: tuple[str, ...], options: tuple[str, ...]) -> list[str]:
    if "--" in command:
        cut = command.index("--")
        return [*command[:cut], *options, *command[cut:]]
    return [*command, *options]


@pytest.mark.promise("actor-is-the-credential")
def test_the_log_names_the_credential_that_acted(here: Here, tokens: dict[str, str]) -> None:
    here("task", "add", "--id", "mine", "--", "ls")
    here("task", "add", "--id", "theirs", "--as", tokens["human"], "--", "ls")
    posted = here("log", "show", "--kind", "task.posted", "--json").document
    mine, theirs = (event["actor"] for event in posted)
    assert mine.startswith("cli:")
    assert theirs == "human:a-human"


def test_a_revoked_token_is_no_token(here: Here, tokens: dict[str, str]) -> None:
    here("token", "revoke", "1")
    done = here("pace", "3", "--as", tokens["operator"])
    assert done.status == 2
    assert "[token.invalid]" in done.err
    assert "vivarium token create" in done.err


def test_a_login_link_is_no_token_for_commands(here: Here) -> None:
    link = here("token", "create", "boss", "--login").out.splitlines()[0]
    done = here("pace", "3", "--as", link.partition("token=")[2])
    assert done.status == 2


def test_the_list_of_tokens_shows_what_they_are_narrowed_to(here: Here) -> None:
    here("token", "create", "whole")
    assert "scope" not in here("token", "list").out
    here("token", "create", "narrow", "--scope", "read", "--scope", "desk.ask")
    head, narrow, whole = here("token", "list").out.splitlines()
    assert "  scope  " in head
    assert "  read, desk.ask  " in narrow
    assert "read" not in whole
    assert [one["scope"] for one in here("token", "list", "--json").document] == [["read", "desk.ask"], None]


def test_every_act_is_in_the_table(tmp_path: Path) -> None:
    """A command that takes --as is tried above with every role."""
    from . import pages

    village(tmp_path)
    acting = {
        path.removeprefix("vivarium ")
        for path, command, _ in pages.commands()
        if any("--as" in parameter.opts for parameter in command.params)
    }
    tried = {" ".join(word for word in command[:2] if word.isalpha()) for command, _ in ACTS}
    assert acting == {"task clear" if name == "task clear done" else name for name in tried}

"""The room of ``vivarium explain``: why a task goes to whom, and who wrote a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vivarium_kernel.cli.lazy import Entry, LazyGroup
from vivarium_kernel.cli.opening import folder_of, json_option, looking, make_ready, village_option
from vivarium_kernel.cli.showing import fields, print_json, safe, several, shortened, state_text, table
from vivarium_kernel.errors import NotFound
from vivarium_kernel.wording import when

if TYPE_CHECKING:
    from vivarium_kernel.explaining import Explanation, Past
    from vivarium_kernel.records import Verdict
    from vivarium_kernel.store import View
    from vivarium_kernel.written import Prompt, Written

explain = LazyGroup(
    "explain",
    help="Why a task goes to whom, and who wrote a prompt.",
    no_args_is_help=True,
    sections={
        "Commands": {
            "claim": Entry("explain:claim", "Show what residents make of a task now, and why it was claimed before."),
            "prompt": Entry("explain:prompt", "Show which plugin wrote which section of an attempt's prompt."),
        }
    },
)


@click.command()
@click.argument("task", metavar="TASK")
@click.option("--resident", "-r", metavar="R", help="Ask for this resident alone; by default for each active one.")
@village_option
@json_option
def claim(task: str, resident: str | None, village: Path | None, as_json: bool) -> None:
    """Show what residents make of a task now, and why it was claimed before.

    With --resident, what every plugin says of the two now: filters, scores with their weights, what the resident may
    use, and what else stands in the way. Nothing is written. Of claims that were made, the scores and earlier
    refusals that are kept with the attempt.
    """
    import asyncio

    import msgspec

    from vivarium_kernel.explaining import claims
    from vivarium_kernel.village import Village, With

    folder = folder_of(village)
    make_ready(folder)
    with Village(folder, With()) as opened:
        found = asyncio.run(claims(opened, task, resident))
        now = opened.clock.now()
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    if resident is not None:
        _print_explanation(found.now[0], found.safety)
    else:
        click.echo(f"{click.style(safe(task), bold=True)}  {state_text(found.state)}")
        fields([("  reason", found.reason), ("  safety", _stopped(found.safety))])
        _print_residents(list(found.now))
    _print_past(list(found.past), now)


def _stopped(safety: Verdict | None) -> str:
    """What a claim would come to for safety's sake; nothing where that lets it pass."""
    if safety is None or safety.answer == "allow":
        return ""
    return f"{'refuses it' if safety.answer == 'deny' else 'asks a person first'}: {safety}"


def _print_residents(told: list[Explanation]) -> None:
    table(
        ("!resident", "may", ">place", ">score", "*why"),
        (
            (
                each.resident,
                "yes" if each.may else "no",
                f"{each.place} of {each.wishes}" if each.place is not None else "",
                "" if each.score is None else f"{each.score:.3f}",
                shortened("; ".join(_obstacles(each)) or (_instead(each)), 200),
            )
            for each in told
        ),
    )


def _obstacles(told: Explanation) -> list[str]:
    return [reason.what for reason in told.reasons] + [
        f"{said.plugin} {said.answer}" for said in told.filters if said.refuses
    ]


def _instead(told: Explanation) -> str:
    return "" if told.first in (None, told.task) else f"would take {told.first} first"


def _print_explanation(told: Explanation, safety: Verdict | None) -> None:
    from vivarium_kernel.explaining import limits

    name = click.style(safe(told.resident), bold=True)
    if not told.may:
        verdict = f"{name} would not get {safe(told.task)} now"
    elif told.place == 1:
        verdict = f"{name} would take {safe(told.task)} now, before {several(told.wishes - 1, 'other')}"
    else:
        verdict = f"{name} may take {safe(told.task)}, which is number {told.place} of {told.wishes}: {_instead(told)}"
    click.echo(verdict)
    fields(
        [
            ("task", told.state),
            ("in the way", "\n".join(reason.what for reason in told.reasons)),
            ("safety", _stopped(safety)),
            ("may use", limits(told.entitlement)),
            ("score", "" if told.score is None else f"{told.score:.3f} of 1, the weighted mean"),
            ("weighed", several(told.weighed, "task")),
            ("asked at the claim", ", ".join(told.reserves)),
        ]
    )
    click.echo()
    rows: list[tuple[str, str, str, str, str]] = []
    for hook, answers in (("entitle", told.entitled), ("claim_filter", told.filters)):
        rows += [(hook, said.plugin, said.answer, "", _ms(said.milliseconds)) for said in answers]
    rows += [
        ("claim_score", each.plugin, each.note if each.score is None else f"{each.score:.3f}", f"{each.weight:g}",
         _ms(each.milliseconds))
        for each in told.scores
    ]  # fmt: skip
    table(("hook", "plugin", "*says", ">weight", ">ms"), rows)


def _ms(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.3f}"


def _print_past(before: list[Past], now: int) -> None:
    for each in before:
        how = each.ending or each.state
        head = click.style(f"Attempt {each.number}", bold=True)
        who, at = safe(each.resident), when(each.started_at, now)
        click.echo(f"\n{head} by {who} at {at}: {how} (attempt {each.attempt} of the log)")
        if each.kept is None:
            click.echo("  how it was weighed was not kept: a version of Vivarium before this one claimed it")
            continue
        kept = each.kept
        place = "its first wish" if kept.place == 1 else f"its wish number {kept.place}, for others were quicker"
        fields(
            [
                (
                    "  chosen as",
                    f"{place}; {several(kept.wishes, 'wish', 'wishes')} of {several(kept.weighed, 'task')}",
                ),
                ("  score", f"{kept.score:.3f}"),
                (
                    "  scores",
                    "\n".join(f"{name} {score:.3f}, weight {weight:g}" for name, score, weight in kept.scores),
                ),
                ("  refused before", kept.refused),
            ]
        )


@click.command()
@click.argument("attempt", metavar="ATTEMPT")
@village_option
@json_option
def prompt(attempt: str, village: Path | None, as_json: bool) -> None:
    """Show which plugin wrote which section of an attempt's prompt.

    ATTEMPT is an attempt's number as the log has it, or a task's id: then its newest attempt that has a prompt. Shows
    tokens, what was dropped to fit and what safety denied; the text of a private section is shown to nobody.
    """
    from attrs import asdict

    from vivarium_kernel import written
    from vivarium_kernel.settings import load

    folder = folder_of(village)
    limit = load(folder).settings.models.prompt_tokens
    with looking(folder) as view:
        found = written.prompt(view, _attempt(view, attempt), limit)
    if as_json:
        print_json(asdict(found))
        return
    _print_prompt(found)


def _attempt(view: View, asked: str) -> int:
    """The number of the attempt that is meant."""
    row = view.row("SELECT id FROM attempts WHERE task = ? ORDER BY prompt IS NULL, id DESC LIMIT 1", (asked,)) or (
        view.row("SELECT id FROM attempts WHERE id = ?", (int(asked),)) if _is_number(asked) else None
    )
    if row is None:
        raise NotFound(
            "explain.attempt", f"There is no attempt {asked}, and no task of that name that was tried.",
            "See `vivarium task list` and `vivarium log`.", field="ATTEMPT",
        )  # fmt: skip
    return int(row[0])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _use(section: Written) -> str:
    """What became of a section: a denied one is recorded as left out, too."""
    return "denied" if section.denied else "dropped" if section.dropped else "yes"


def _print_prompt(found: Prompt) -> None:
    denied = [section for section in found.sections if section.denied]
    dropped = [section for section in found.sections if section.dropped and not section.denied]
    used = len(found.sections) - len(dropped) - len(denied)
    click.echo(
        f"Attempt {click.style(str(found.attempt), bold=True)} at {safe(found.task)} by {safe(found.resident)}: "
        f"{found.tokens:,} tokens in {several(used, 'section')}"
        + (
            f"; {several(len(dropped), 'section')} with {sum(each.tokens for each in dropped):,} tokens dropped to fit "
            f"{found.limit:,}"
            if dropped
            else ""
        )
        + (f"; {several(len(denied), 'section')} denied by safety" if denied else "")
    )
    table(
        ("slot", "plugin", ">tokens", "used", "*text"),
        (
            (section.slot, section.plugin, "" if section.denied else f"{section.tokens:,}", _use(section),
             "" if section.denied else "(private)" if section.text is None else shortened(section.text, 120))
            for section in found.sections
        ),
    )  # fmt: skip

"""The room of what can be set: one frozen record of a village's settings.

Each setting is one attrs field with its documentation, its check and its default. The file, the variables, the
commented example that ``vivarium init`` writes and ``vivarium settings show`` are all read off these fields, so that
they can't drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from vivarium_kernel.amounts import amount
from vivarium_kernel.checks import (
    Check,
    between,
    each,
    matching,
    model_name,
    model_wish,
    one_of,
    plugin_name,
    resident_name,
    text,
    validator,
)
from vivarium_kernel.problems import InputError, Problem, key_path, quoted
from vivarium_kernel.terms import MICROS

PREFIX = "VIVARIUM_"


def setting(doc: str, default: Any, check: Check, *, key: str | None = None, aliases: tuple[str, ...] = ()) -> Any:
    """A field that is one setting. ``aliases`` are further variables for it."""
    metadata: dict[str, Any] = {"doc": doc, "aliases": aliases}
    if key is not None:
        metadata["key"] = key
    return field(default=default, validator=validator(check, key or ""), metadata=metadata)


def money_setting(doc: str, default: int | None, key: str) -> Any:
    """A setting that people write as a decimal and the program holds in millionths; default None is no cap at all."""

    def parse(value: object) -> int | None:
        if default is None and value == "none":
            return None
        try:
            return amount(value, "")
        except InputError as error:
            or_none = ', or "none" for no cap' if default is None else ""
            raise InputError(
                Problem("", problem.value, problem.message, problem.next_step + or_none) for problem in error.problems
            ) from None

    def check(value: Any) -> Any:
        if value is None and default is None:
            return []
        return between(0, 10**15, "micros", whole=True)(value)

    metadata = {"doc": doc, "aliases": (), "key": key, "parse": parse}
    return field(default=default, validator=validator(check, key), metadata=metadata)


def _programs(value: Any) -> Any:
    name_check = matching(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}", "a command's name, without a slash", "rename it")
    must = 'a program\'s name, its absolute path, or "{python}"'
    program_check = matching(r"\{python\}|[A-Za-z0-9_][A-Za-z0-9._+-]*|(/[^/\0\n]+)+", must, "write the whole path")
    for name, program in value.items():
        for problem in (*name_check(name), *program_check(program)):
            yield problem.below(key_path(name))


def _passed_on(value: Any) -> Any:
    yield from each(matching(r"[A-Za-z_][A-Za-z0-9_]*", "a variable's name", "write the name alone"), 100)(value)
    for index, name in enumerate(value):
        if name == "PATH" or name.startswith(PREFIX):
            why = "the kernel sets it" if name == "PATH" else "it may hold a credential of the village"
            yield Problem(f"[{index}]", quoted(name), f"can't pass on {quoted(name)}: {why}", "remove it")


def _allowed_plugin(value: Any) -> Any:
    return () if value == "*" else plugin_name(value)


def _plugin_tables(value: Any) -> Any:
    for name in value:
        yield from (problem.below(key_path(name)) for problem in plugin_name(name))


@frozen
class Commands:
    """What command tasks may run, and within which bounds."""

    sandbox: str = setting(
        "How the commands of [commands.allow] are confined: landlock (refused where the kernel lacks it), "
        "auto (landlock where the kernel has it, else not at all, said at start) or none.",
        "landlock",
        one_of("landlock", "auto", "none"),
    )
    read_roots: tuple[str, ...] = setting(
        "Folders outside the village that commands may read: absolute, or relative to the village.",
        (),
        each(text(1_000), 100),
    )
    timeout_max_seconds: float = setting(
        "The longest that any command may run, whatever its task asks for.",
        3_600.0,
        between(0, 86_400, "seconds", above=True),
    )
    output_bytes: int = setting(
        "How much of stdout and of stderr is kept; the rest is cut and marked.",
        65_536,
        between(0, 16_777_216, "bytes", whole=True),
    )
    memory_bytes: int = setting(
        "Address space of one command.", 2_147_483_648, between(16_777_216, 2**50, "bytes", whole=True)
    )
    cpu_seconds: int = setting("Processor time of one command.", 600, between(1, 86_400, "seconds", whole=True))
    processes: int = setting(
        "Processes and threads that the user may have while a command runs; the system counts those of the whole user.",
        4_096,
        between(1, 4_194_304, whole=True),
    )
    env: tuple[str, ...] = setting(
        "Variables that commands inherit; all others are removed, and PATH is /usr/bin:/bin.",
        ("LANG", "LC_ALL", "TZ"),
        _passed_on,
    )
    allow: Mapping[str, str] = field(
        factory=dict,
        validator=validator(_programs),
        metadata={
            "doc": "Commands that tasks may run besides the shipped ls pwd echo cat head tail wc rg: "
            'NAME = program, looked up in /usr/bin:/bin, or its absolute path; "{python}" is the running Python.',
            "example": '#sort = "sort"',
        },
    )


@frozen
class Budgets:
    """What may be spent. People write decimals, here they are millionths."""

    task_usd_micros: int = money_setting(
        "Budget of a task that names none, in US dollars.", MICROS // 10, key="task_usd"
    )
    resident_day_usd_micros: int | None = money_setting(
        "What one resident may spend in a real UTC day, in US dollars.", None, key="resident_day_usd"
    )
    village_day_usd_micros: int | None = money_setting(
        "What the village may spend in a real UTC day, in US dollars.", None, key="village_day_usd"
    )
    village_usd_micros: int | None = money_setting(
        "What the village may ever spend, in US dollars.", None, key="village_usd"
    )
    start_aid_micros: int = money_setting("What a new resident is given, in aiDollar.", 100 * MICROS, key="start_aid")
    reward_cap_aid_micros: int | None = money_setting(
        "What task rewards may mint in a village day, in aiDollar.", None, key="reward_cap_aid"
    )


@frozen
class Retries:
    """When a task is tried again."""

    backoff_seconds: float = setting("Pause before the second try; it doubles.", 0.5, between(0, 3_600, "seconds"))
    backoff_max_seconds: float = setting("The longest such pause.", 300.0, between(0, 86_400, "seconds"))
    jitter: float = setting("The part of a pause that chance decides.", 0.2, between(0, 1))
    deadline_seconds: float = setting(
        "How long faults of providers and workers are tried again, in real seconds, for tasks that do not say.",
        86_400.0,
        between(0, 31_536_000, "seconds"),
    )

    def __attrs_post_init__(self) -> None:
        if self.backoff_seconds > self.backoff_max_seconds:
            message = f"must be at least backoff_seconds ({self.backoff_seconds:g}), not {self.backoff_max_seconds:g}"
            shown = quoted(self.backoff_max_seconds)
            raise InputError([Problem("backoff_max_seconds", shown, message, "raise it or lower backoff_seconds")])


def _model_class(value: Any) -> Any:
    return () if value == "" else model_name(value)


def _model_names(value: Any) -> Any:
    for name in value:
        yield from (problem.below(key_path(name)) for problem in model_name(name))


@frozen
class ModelPrice:
    """What a model costs, instead of what its provider knows of it."""

    in_micros: int = field(metadata={"key": "in_usd", "parse": lambda value: amount(value, "")}, default=0)
    out_micros: int = field(metadata={"key": "out_usd", "parse": lambda value: amount(value, "")}, default=0)
    cached_micros: int | None = field(
        metadata={"key": "cached_usd", "parse": lambda value: amount(value, "")}, default=None
    )
    second_micros: int = field(metadata={"key": "second_usd", "parse": lambda value: amount(value, "")}, default=0)


def _whole(least: int) -> Check:
    def check(value: Any) -> Any:
        return () if value is None else between(least, 10**12, whole=True)(value)

    return check


def _limit(key: str, least: int = 0) -> Any:
    return field(default=None, validator=validator(_whole(least), key))


def _limited_models(value: Any) -> Any:
    if value is not None:
        yield from each(text(250), 1_000)(value)


@frozen
class Limit:
    """What a resident may use, where no other plugin says more strictly. None is no limit."""

    models: tuple[str, ...] | None = field(default=None, validator=validator(_limited_models, "models"))
    requests_per_minute: int | None = _limit("requests_per_minute", 1)
    tokens_per_day: int | None = _limit("tokens_per_day")
    concurrency: int | None = _limit("concurrency", 1)
    tool_calls: int | None = _limit("tool_calls")
    priority: int | None = field(
        default=None,
        validator=validator(lambda v: () if v is None else between(-1_000, 1_000, whole=True)(v), "priority"),
    )


def _limited(value: Any) -> Any:
    for name in value:
        if name != "default":
            yield from (problem.below(key_path(name)) for problem in resident_name(name))


@frozen
class Models:
    """Which models may be called, and how."""

    allow: tuple[str, ...] = setting(
        'Models that may be called: PROVIDER:NAME, "PROVIDER:*", or "*" for all.', ("*",), each(text(250), 1_000)
    )
    small: str = setting("The model of the class small, as PROVIDER:NAME; empty is none.", "", _model_class)
    medium: str = setting("The model of the class medium; empty is none.", "", _model_class)
    large: str = setting("The model of the class large; empty is none.", "", _model_class)
    max_tokens: int = setting(
        "The most that a model may write in one call.", 1_024, between(1, 1_000_000, "tokens", whole=True)
    )
    call_seconds: float = setting(
        "How long a model may take for one call; one that takes longer has failed, and the task is tried again.",
        120.0,
        between(0, 86_400, "seconds", above=True),
    )
    prompt_tokens: int = setting(
        "The longest prompt; of a longer one the least important sections are left out.",
        6_000,
        between(100, 10_000_000, "tokens", whole=True),
    )
    steps: int = setting(
        "The most steps of one attempt's thought: calls of the model and of tools.", 40, between(1, 10_000, whole=True)
    )
    steps_without_progress: int = setting(
        "After how many steps in a row that bring nothing new a thought is stopped.", 6, between(1, 1_000, whole=True)
    )
    attempt_tokens: int = setting(
        "The most tokens that one attempt may read and write.", 200_000, between(1, 10**12, "tokens", whole=True)
    )
    prices: Mapping[str, ModelPrice] = field(
        factory=dict,
        validator=validator(_model_names),
        metadata={
            "doc": "Prices in US dollars for a million tokens, where the provider's own are not known or not right: "
            '"PROVIDER:NAME" = { in_usd = "0.10", out_usd = "0.40", cached_usd = "0.05", second_usd = "0" }; '
            "second_usd is for a second of local compute.",
            "example": '#"vllm:tiny" = { second_usd = "0.0001" }',
        },
    )


@frozen
class Api:
    """The HTTP API."""

    host: str = setting(
        "Address to listen on; any other than a loopback address opens the village to the network.",
        "127.0.0.1",
        matching(r"[A-Za-z0-9._:-]{1,253}", "an address or host name", "127.0.0.1 is this machine alone"),
    )
    port: int = setting("Port to listen on; 0 takes a free one.", 8420, between(0, 65_535, whole=True))
    hosts: tuple[str, ...] = setting(
        "Host names that requests may carry besides the address itself and localhost.",
        (),
        each(matching(r"[A-Za-z0-9._:\[\]-]{1,260}", "a host name", "write it without http://"), 100),
    )
    body_bytes: int = setting("The largest request body.", 1_000_000, between(1_000, 100_000_000, "bytes", whole=True))
    requests_per_minute: int = setting(
        "Requests that one token may make in a real minute.", 600, between(1, 1_000_000, whole=True)
    )


@frozen
class Settings:
    """All settings of one village."""

    name: str = setting("The village's name; without one it is the folder's.", "village", text(80))
    tasks: tuple[str, ...] = setting(
        "Task files, relative to the village folder; run, up and work post what is not yet on the board.",
        (),
        each(matching(r"[^\0\n]+\.(toml|jsonl)", "a file that ends in .toml or .jsonl", "rename the file"), 1_000),
    )
    residents: tuple[str, ...] = setting(
        "Residents that are made when the village is first opened.", ("ada", "ben", "cyn"), each(resident_name, 10_000)
    )
    model: str = setting(
        "The model of residents and tasks that name none: PROVIDER:NAME, small, medium, large or auto; or several with "
        "commas between them, the best first.",
        "scripted:echo",
        model_wish,
    )
    pace_seconds: float = setting(
        "Seconds between two looks at an empty board, when the village is new; `vivarium pace` changes it live.",
        2.0,
        between(0, 300, "seconds"),
        aliases=("VIVARIUM_WAIT_SECONDS",),
    )
    lease_seconds: float = setting(
        "How long a claim holds without being renewed.", 30.0, between(0.1, 3_600, "seconds")
    )
    hour_seconds: float = setting(
        "Seconds of a village hour at a pace of 2.0.", 10.0, between(0, 86_400, "seconds", above=True)
    )
    safety_required: tuple[str, ...] = setting(
        "Plugins without which the village does not open: safety checks, and any other that must not be missing, such "
        "as a reviewer.",
        ("command_policy", "text_policy"),
        each(plugin_name, 100),
    )
    plugins_allow: tuple[str, ...] = setting(
        'Installed plugins that may load, by name; "*" is every one. Where it names them, a plugin whose files have '
        "changed since it was enabled is refused.",
        ("*",),
        each(_allowed_plugin, 1_000),
    )
    write_policy: str = setting(
        "What residents' own tools may write below files/: `documents` is markdown in the library's three folders "
        "alone, `work` is their workspaces and all of the library too. Command tasks are not limited by it.",
        "documents",
        one_of("documents", "work"),
    )
    human_review: bool = setting("Whether a person must approve every outcome.", False, lambda value: ())
    auto_approve: float = setting(
        "Confidence of the review from which an outcome is accepted without a person.", 0.90, between(0, 1)
    )
    commands: Commands = field(factory=Commands, metadata={"doc": "Commands that tasks may run."})
    budgets: Budgets = field(
        factory=Budgets, metadata={"doc": 'Money: decimals in quotes, such as "0.10"; "none" is no cap.'}
    )
    models: Models = field(factory=Models, metadata={"doc": "Models: which may be called, their classes and limits."})
    limits: Mapping[str, Limit] = field(
        factory=dict,
        validator=validator(_limited),
        metadata={
            "doc": "What residents may use, by name, or for all others under `default`: models (names or classes), "
            "requests_per_minute, tokens_per_day, concurrency, tool_calls, priority.",
            "example": '#default = { models = ["small"], tokens_per_day = 20000 }',
        },
    )
    retries: Retries = field(factory=Retries, metadata={"doc": "Retries."})
    api: Api = field(factory=Api, metadata={"doc": "The HTTP API."})
    plugins: Mapping[str, Mapping[str, Any]] = field(
        factory=dict,
        validator=validator(_plugin_tables),
        metadata={"doc": "Each plugin's own settings; `vivarium plugins` switches plugins on and off.", "example": ""},
    )

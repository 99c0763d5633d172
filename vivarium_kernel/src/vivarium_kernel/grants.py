"""The room of what plugins are handed: a transaction and a snapshot, narrowed to what a plugin may touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vivarium_kernel import board, holds, ledger, people, village_time
from vivarium_kernel.board import Posting
from vivarium_kernel.errors import Forbidden, Invalid
from vivarium_kernel.plugins import Plugin, name_of
from vivarium_kernel.records import NewTask, Resident, Task, Verdict
from vivarium_kernel.settling import Settlement, settle
from vivarium_kernel.store import Row, Tx, View
from vivarium_kernel.terms import Actor


class PluginView:
    """A read snapshot for a plugin: its own tables and the kernel's, without tokens and private texts."""

    def __init__(self, view: View | Tx, plugin: str) -> None:
        self._view = view
        self._plugin = plugin
        self._once: dict[tuple[str, tuple[Any, ...]], list[Row]] = {}

    def of(self, plugin: Plugin) -> PluginView:
        """The same snapshot for another plugin: what a service that was handed the asker's reads its own tables by.

        Raises Forbidden for what is no plugin.
        """
        return PluginView(self._view, name_of(plugin))

    @property
    def now(self) -> int:
        """Microseconds of Unix time."""
        return self._view.now

    @property
    def hours_micros(self) -> int:
        """The village's one clock, in millionths of a village hour: it stands still while the village is halted."""
        return village_time.read_times(self._view).hours_micros_at(self._view.now)

    @property
    def hour(self) -> int:
        """The village hour."""
        return village_time.read_times(self._view).hour(self._view.now)

    @property
    def day(self) -> int:
        """The village day."""
        return self.hour // village_time.HOURS_A_DAY

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a SELECT; raises ``sqlite3.DatabaseError`` for a table that is not the plugin's or the kernel's."""
        return self._view.rows_as(self._plugin, sql, params)

    def read_once(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """The same, run once for this snapshot: for what a hook asks anew for each of many residents or tasks."""
        key = (sql, tuple(params))
        if key not in self._once:
            self._once[key] = self.read(sql, params)
        return self._once[key]

    def balance(self, account: str, currency: str = "aid") -> int:
        """An account's balance in millionths."""
        return ledger.balance(self._view, account, currency)

    def resident(self, name: str) -> Resident:
        return people.resident(self._view, name)


def for_reading(given: PluginView | PluginTx, plugin: str) -> PluginView:
    """What one plugin was handed, as another may read it."""
    return PluginView(given._view if isinstance(given, PluginView) else given._tx, plugin)


class PluginTx:
    """The open transaction for a plugin: it writes its own tables, and reaches the rest through these functions.

    ``actor`` is whoever's act this is; a plugin may move its own accounts, that actor's, and mint under its policies.
    """

    def __init__(
        self, tx: Tx, plugin: str, actor: Actor | None = None, endings: list[Settlement] | None = None
    ) -> None:
        """``endings`` takes how the actor's own attempt is to end once the act, its last step, is written down."""
        self._tx = tx
        self._plugin = plugin
        self._endings = endings
        self.actor = actor

    def of(self, plugin: Plugin) -> PluginTx:
        """The same transaction for another plugin: what a service that was handed the asker's works on its own by.

        It is still the same actor's act. Raises Forbidden for what is no plugin.
        """
        return PluginTx(self._tx, name_of(plugin), self.actor, self._endings)

    @property
    def now(self) -> int:
        """Microseconds of Unix time, the same for the whole transaction."""
        return self._tx.now

    @property
    def day(self) -> int:
        """The village day."""
        return self._tx.day

    @property
    def hours_micros(self) -> int:
        """The village's one clock, in millionths of a village hour: it stands still while the village is halted."""
        return self._tx.times.hours_micros_at(self._tx.now)

    @property
    def hour(self) -> int:
        """The village hour."""
        return self._tx.hour

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a statement that writes the plugin's own ``<plugin>_*`` tables; returns its rows."""
        return self._tx.run_as(self._plugin, sql, params)

    def read(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a SELECT on the plugin's own tables and the kernel's.

        Money that this transaction moves and events that it emits are written at its end: for money ask ``balance``.
        """
        return self._tx.rows_as(self._plugin, sql, params)

    def resident(self, name: str) -> Resident:
        """A resident by name; raises NotFound."""
        return people.resident(self._tx, name)

    def balance(self, account: str, currency: str = "aid") -> int:
        """An account's balance in millionths, with what this transaction has moved."""
        return self._tx.books.account(account, currency).balance

    def transfer(
        self, payer: str, payee: str, micros: int, *, key: str, reason: str, ref: str, currency: str = "aid"
    ) -> bool:
        """Move money; False when this very transfer was made before.

        Raises Forbidden for an account that is not the plugin's or the actor's, Conflict when the payer lacks it.
        """
        self._may_pay(payer)
        return self._tx.books.transfer(
            f"{self._plugin}:{key}", payer, payee, currency, micros, reason, self._plugin, self._by(), ref
        )

    def mint(self, policy: str, payee: str, micros: int, *, key: str, reason: str, ref: str) -> bool:
        """Make new ``aid`` under a policy that this plugin declared; raises OverBudget at its cap."""
        return ledger.mint(
            self._tx, f"{self._plugin}.{policy}", payee, micros, key=f"{self._plugin}:{key}", reason=reason,
            actor=self._by(), ref=ref,
        )  # fmt: skip

    def declare_policy(self, policy: str, cap_per_day_micros: int) -> None:
        """Declare a minting policy with its cap a village day."""
        ledger.declare_policy(self._tx, f"{self._plugin}.{policy}", cap_per_day_micros)

    def hold(
        self, payer: str, micros: int, *, key: str, ref: str, currency: str = "aid", expires_at: int | None = None
    ) -> int:
        """Set money aside until it is settled, released or expires; returns the hold's number."""
        self._may_pay(payer)
        return holds.hold(
            self._tx, payer, currency, micros, key=f"{self._plugin}:{key}", owner=self._plugin, actor=self._by(),
            ref=ref, expires_at=expires_at,
        )  # fmt: skip

    def settle_hold(self, number: int, payees: Sequence[tuple[str, int]], *, reason: str) -> bool:
        """Pay (account, millionths) from a hold of this plugin; the rest returns to its payer."""
        return holds.settle_hold(self._tx, number, payees, owner=self._plugin, reason=reason, actor=self._by())

    def release_hold(self, number: int) -> bool:
        """Return a hold of this plugin to its payer."""
        return holds.release_hold(self._tx, number, owner=self._plugin, actor=self._by())

    def post_task(self, task: NewTask) -> Task:
        """Post a task in the plugin's name. What a resident at work hands on remembers through whom it came.

        Raises Forbidden where it has been handed on too often (docs/rules.md, "Safety").
        """
        if self.actor is not None and self.actor.attempt is not None:
            task = board.handed_on(self._tx, task, self.actor.attempt)
        return board.post(self._tx, Posting((task,), f"plugin:{self._plugin}"))[0]

    def park(self, attempt: int, waits_for: str, reason: str, wake_at: int | None = None) -> None:
        """Park a running attempt until it is woken, or until ``wake_at``; the next attempt continues it."""
        self._end(Settlement(attempt, None, "parked", reason, parked_for=waits_for, wake_at=wake_at, hold=True,
                             actor=f"plugin:{self._plugin}"))  # fmt: skip

    def give_up(self, attempt: int, reason: str, *, declined: bool = False) -> None:
        """Give a running attempt's task back, uncounted. ``declined``: its resident is not offered it again."""
        self._end(Settlement(attempt, None, "released", reason, declined=declined, actor=self._by()))

    def rest(self, hours: int) -> int:
        """Let the actor, a resident, rest: it is offered no task for so many village hours. Returns the hour after."""
        if self.actor is None or self.actor.role != "resident":
            raise Invalid("resident.rest", "Only a resident rests, by an act of its own.")
        until = self.hour + hours
        self._tx.run("UPDATE residents SET rests_until_hour = ? WHERE name = ?", (until, self.actor.name))
        self._tx.log.add("resident.rests", self._by(), {"until_hour": until}, resident=self.actor.name)
        return until

    def _end(self, settlement: Settlement) -> None:
        if self._endings is not None and self.actor is not None and self.actor.attempt == settlement.attempt:
            self._endings.append(settlement)
            return
        answer = settle(self._tx, [settlement])[0]
        if isinstance(answer, Exception):
            raise answer

    def wake(self, task_id: str) -> bool:
        """Open a parked task. False when it is not parked."""
        woken = self._tx.run(
            "UPDATE tasks SET state = 'open', parked_for = NULL, wake_at = NULL WHERE id = ? AND state = 'parked'",
            (task_id,),
        )
        if woken:
            self._tx.opened = True
            self._tx.log.add("task.woken", f"plugin:{self._plugin}", {"from": "parked"}, task=task_id)
        return bool(woken)

    def decide(self, task_id: str, verdict: Verdict) -> None:
        """Decide a task in review: allow accepts its outcome, deny rejects it."""
        from vivarium_kernel.deciding import Decision, decide

        if verdict.answer == "ask":
            raise Invalid("board.decide", "A decision is allow or deny.", field="answer")
        decide(
            self._tx,
            Decision(task_id, "approve" if verdict.answer == "allow" else "reject", f"plugin:{self._plugin}",
                     verdict.reason),
        )  # fmt: skip

    def emit(
        self,
        kind: str,
        /,
        *,
        resident: str | None = None,
        task: str | None = None,
        attempt: int | None = None,
        **data: Any,
    ) -> None:
        """Append an event of the plugin's own kind ``<plugin>.<kind>``; it carries ids, never hidden values."""
        self._tx.log.add(f"{self._plugin}.{kind}", self._by(), data, resident, task, attempt)

    def _by(self) -> str:
        return str(self.actor) if self.actor is not None else f"plugin:{self._plugin}"

    def _may_pay(self, payer: str) -> None:
        if payer.startswith(f"plugin:{self._plugin}:"):
            return
        if self.actor is not None and ledger.may_pay(self.actor, payer):
            return
        raise Forbidden(
            "ledger.payer",
            f"The plugin {self._plugin} may not move money of {payer}.",
            f"It may pay from plugin:{self._plugin}:… and from the accounts of the action's actor.",
        )

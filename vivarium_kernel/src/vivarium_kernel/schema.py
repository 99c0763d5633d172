"""The room of the kernel's tables: what is in ``vivarium.db``, and the migrations that make it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

VERSION = 5  # PRAGMA user_version: the number of kernel migrations that have run

# Text columns that plugins may not read through a view, and tables that they may not read at all.
PRIVATE_COLUMNS = frozenset({("steps", "private_text"), ("steps", "private_result")})
PRIVATE_TABLES = frozenset({"tokens"})

_TABLES = """
CREATE TABLE village (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  created_at INTEGER NOT NULL,
  paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  halted INTEGER NOT NULL DEFAULT 0 CHECK (halted IN (0, 1)),
  halt_reason TEXT NOT NULL DEFAULT '',
  pace_seconds REAL NOT NULL CHECK (pace_seconds BETWEEN 0 AND 300),
  hour_seconds REAL NOT NULL CHECK (hour_seconds > 0),
  residents INTEGER,
  hours_micros INTEGER NOT NULL DEFAULT 0,
  since_at INTEGER NOT NULL
);
CREATE TABLE residents (
  name TEXT PRIMARY KEY,
  state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'quarantined', 'banned', 'retired')),
  cycles INTEGER NOT NULL DEFAULT 0,
  model TEXT,
  reason TEXT NOT NULL DEFAULT '',
  process INTEGER,
  created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  key TEXT UNIQUE,
  digest BLOB NOT NULL,
  mode TEXT NOT NULL,
  spec TEXT NOT NULL,
  priority INTEGER NOT NULL,
  max_micros INTEGER NOT NULL CHECK (max_micros >= 0),
  wanted TEXT,
  by TEXT NOT NULL,
  posted_at INTEGER NOT NULL,
  retry_until_at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN
    ('waiting', 'open', 'claimed', 'parked', 'review', 'done', 'failed', 'cancelled', 'blocked')),
  attempts INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0,
  faults INTEGER NOT NULL DEFAULT 0,
  declined TEXT,
  parked_for TEXT CHECK ((state = 'parked') = (parked_for IS NOT NULL)),
  wake_at INTEGER,
  reason TEXT NOT NULL DEFAULT '',
  continues INTEGER,
  held_for TEXT,
  approved TEXT,
  ended_at INTEGER
);
CREATE INDEX tasks_open ON tasks (priority DESC, seq) WHERE state = 'open' AND held_for IS NULL;
CREATE INDEX tasks_held ON tasks (held_for, priority DESC, seq) WHERE state = 'open' AND held_for IS NOT NULL;
CREATE INDEX tasks_wake ON tasks (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX tasks_moving ON tasks (state) WHERE state IN ('claimed', 'parked', 'review', 'waiting');
CREATE INDEX tasks_unhappy ON tasks (state) WHERE state IN ('failed', 'cancelled', 'blocked');
CREATE TABLE dependencies (
  needs TEXT NOT NULL,
  task TEXT NOT NULL REFERENCES tasks (id),
  PRIMARY KEY (needs, task)
) WITHOUT ROWID;
CREATE INDEX dependencies_task ON dependencies (task);
CREATE TABLE processes (
  id INTEGER PRIMARY KEY,
  machine TEXT NOT NULL,
  pid INTEGER NOT NULL,
  pid_started TEXT NOT NULL,
  kind TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  lease_until_at INTEGER NOT NULL,
  host INTEGER NOT NULL DEFAULT 0,
  ended_at INTEGER
);
CREATE UNIQUE INDEX processes_host ON processes (host) WHERE host = 1;
CREATE TABLE attempts (
  id INTEGER PRIMARY KEY,
  task TEXT NOT NULL REFERENCES tasks (id),
  resident TEXT NOT NULL REFERENCES residents (name),
  number INTEGER NOT NULL,
  cycle INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('running', 'review', 'ended')),
  ending TEXT,
  reason TEXT NOT NULL DEFAULT '',
  process INTEGER REFERENCES processes (id),
  lease_until_at INTEGER,
  token BLOB,
  continues INTEGER REFERENCES attempts (id),
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  model TEXT,
  prompt TEXT,
  exit_code INTEGER,
  seconds REAL,
  stdout TEXT,
  stderr TEXT,
  answer TEXT,
  confidence REAL,
  facts TEXT,
  reserved_micros INTEGER NOT NULL DEFAULT 0 CHECK (reserved_micros >= 0),
  spent_micros INTEGER NOT NULL DEFAULT 0 CHECK (spent_micros >= 0),
  pending_micros INTEGER NOT NULL DEFAULT 0 CHECK (pending_micros >= 0),
  budget_day INTEGER,
  CHECK ((state = 'ended') = (ending IS NOT NULL)),
  CHECK (spent_micros + pending_micros <= reserved_micros)
);
CREATE UNIQUE INDEX attempts_one_cycle ON attempts (resident) WHERE state = 'running';
CREATE INDEX attempts_task ON attempts (task);
CREATE UNIQUE INDEX attempts_token ON attempts (token) WHERE token IS NOT NULL;
CREATE TABLE steps (
  attempt INTEGER NOT NULL REFERENCES attempts (id),
  number INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('model', 'tool', 'command')),
  name TEXT NOT NULL,
  effect TEXT NOT NULL CHECK (effect IN ('pure', 'idempotent', 'once')),
  state TEXT NOT NULL CHECK (state IN ('intended', 'done', 'unknown', 'void')),
  arguments TEXT,
  digest TEXT NOT NULL,
  private_text TEXT,
  result TEXT,
  worst_micros INTEGER NOT NULL DEFAULT 0 CHECK (worst_micros >= 0),
  spent_micros INTEGER NOT NULL DEFAULT 0 CHECK (spent_micros >= 0),
  aid_hold INTEGER,
  tokens_in INTEGER NOT NULL DEFAULT 0,
  tokens_out INTEGER NOT NULL DEFAULT 0,
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  meter TEXT,
  meter_day INTEGER,
  worst_tokens INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (attempt, number)
) WITHOUT ROWID;
CREATE INDEX steps_metered ON steps (meter, meter_day) WHERE meter IS NOT NULL;
CREATE TABLE accounts (
  name TEXT NOT NULL,
  currency TEXT NOT NULL CHECK (currency IN ('aid', 'usd')),
  balance INTEGER NOT NULL DEFAULT 0,
  floor INTEGER,
  PRIMARY KEY (name, currency),
  CHECK (floor IS NULL OR balance >= floor)
) WITHOUT ROWID;
CREATE TABLE transfers (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  payer TEXT NOT NULL,
  payee TEXT NOT NULL,
  currency TEXT NOT NULL,
  micros INTEGER NOT NULL CHECK (micros > 0),
  reason TEXT NOT NULL,
  source TEXT NOT NULL,
  actor TEXT NOT NULL,
  ref TEXT NOT NULL,
  at INTEGER NOT NULL,
  CHECK (payer <> payee)
);
CREATE INDEX transfers_ref ON transfers (ref);
CREATE TABLE holds (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  payer TEXT NOT NULL,
  currency TEXT NOT NULL,
  micros INTEGER NOT NULL CHECK (micros > 0),
  owner TEXT NOT NULL,
  ref TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'released', 'expired')),
  expires_at INTEGER,
  at INTEGER NOT NULL
);
CREATE INDEX holds_expiry ON holds (expires_at) WHERE state = 'held' AND expires_at IS NOT NULL;
CREATE TABLE budgets (
  scope TEXT NOT NULL,
  currency TEXT NOT NULL CHECK (currency IN ('aid', 'usd')),
  cap INTEGER NOT NULL CHECK (cap >= 0),
  reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
  spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
  PRIMARY KEY (scope, currency),
  CHECK (reserved + spent <= cap)
) WITHOUT ROWID;
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  day INTEGER NOT NULL,
  hour INTEGER NOT NULL,
  kind TEXT NOT NULL,
  actor TEXT NOT NULL,
  resident TEXT,
  task TEXT,
  attempt INTEGER,
  cycle INTEGER,
  model TEXT,
  data TEXT NOT NULL,
  hash BLOB NOT NULL
);
CREATE INDEX events_task ON events (task) WHERE task IS NOT NULL;
CREATE TABLE tokens (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  role TEXT NOT NULL CHECK (role IN ('operator', 'human', 'resident', 'worker')),
  name TEXT NOT NULL,
  scope TEXT,
  kind TEXT NOT NULL CHECK (kind IN ('bearer', 'session', 'login')),
  note TEXT NOT NULL DEFAULT '',
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER
);
CREATE TABLE missed (
  id INTEGER PRIMARY KEY,
  plugin TEXT NOT NULL,
  hook TEXT NOT NULL,
  task TEXT NOT NULL,
  attempt INTEGER,
  inputs TEXT NOT NULL,
  error TEXT NOT NULL,
  tries INTEGER NOT NULL DEFAULT 1,
  at INTEGER NOT NULL
);
CREATE TABLE plugins (
  name TEXT PRIMARY KEY,
  physics TEXT,
  cursor INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE replies (
  key TEXT PRIMARY KEY,
  digest BLOB NOT NULL,
  reply TEXT NOT NULL,
  at INTEGER NOT NULL
) WITHOUT ROWID;
"""

# What is known of plugins at work: which hooks are switched off and why, and what each process's calls cost. And of a
# budget the cap that it can't have yet, because more is reserved and spent: until then it has not a millionth to give.
_WATCHED = """
ALTER TABLE attempts ADD COLUMN weighed TEXT;
ALTER TABLE budgets ADD COLUMN wanted INTEGER
  CHECK (wanted IS NULL OR (wanted >= 0 AND wanted < cap AND cap = reserved + spent));
CREATE TABLE breakers (
  plugin TEXT NOT NULL,
  hook TEXT NOT NULL,
  cause TEXT NOT NULL,
  probed INTEGER NOT NULL DEFAULT 0 CHECK (probed IN (0, 1)),
  process INTEGER,
  at INTEGER NOT NULL,
  PRIMARY KEY (plugin, hook)
) WITHOUT ROWID;
CREATE TABLE timings (
  process INTEGER NOT NULL,
  plugin TEXT NOT NULL,
  hook TEXT NOT NULL,
  calls INTEGER NOT NULL,
  errors INTEGER NOT NULL,
  slow INTEGER NOT NULL,
  micros INTEGER NOT NULL,
  slowest_micros INTEGER NOT NULL,
  last_error TEXT NOT NULL,
  PRIMARY KEY (process, plugin, hook)
) WITHOUT ROWID;
"""


# What residents think with: results that only a continued attempt reads, until when a resident rests; and of a plugin
# the digest of the file whose migrations ran here.
_THINKING = """
ALTER TABLE steps ADD COLUMN private_result TEXT;
ALTER TABLE residents ADD COLUMN rests_until_hour INTEGER;
ALTER TABLE plugins ADD COLUMN migrated TEXT;
"""

# Which steps are copies of what an earlier attempt did: calls that were not made again.
_REPLAYED = """
ALTER TABLE steps ADD COLUMN replayed INTEGER NOT NULL DEFAULT 0 CHECK (replayed IN (0, 1));
UPDATE steps SET replayed = 1 WHERE state = 'done' AND tokens_in = 0 AND tokens_out = 0 AND worst_micros = 0
  AND started_at = ended_at AND EXISTS (SELECT 1 FROM attempts a JOIN steps p ON p.attempt = a.continues
  AND p.number = steps.number AND p.kind = steps.kind AND p.state = 'done'
  AND (p.kind = 'model' OR p.digest = steps.digest) WHERE a.id = steps.attempt);
"""

# Where a process that serves the API can be reached.
_SERVING = """
ALTER TABLE processes ADD COLUMN address TEXT;
"""


def table_names() -> frozenset[str]:
    """The names of the kernel's tables."""
    lines = (_TABLES + _WATCHED).splitlines()
    return frozenset(line.split()[2] for line in lines if line.startswith("CREATE TABLE"))


def kernel_migrations() -> Migrations:
    """The kernel's migrations; sqlite-utils is imported here because it costs 0.1 s that ``status`` need not pay."""
    from sqlite_utils import Migrations

    migrations = Migrations("vivarium_kernel")

    @migrations()
    def m001_village(db):  # type: ignore[no-untyped-def]
        _run(db, _TABLES, 1)

    @migrations()
    def m002_plugins_at_work(db):  # type: ignore[no-untyped-def]
        _run(db, _WATCHED, 2)

    @migrations()
    def m003_thinking(db):  # type: ignore[no-untyped-def]
        _run(db, _THINKING, 3)

    @migrations()
    def m004_replayed_steps(db):  # type: ignore[no-untyped-def]
        _run(db, _REPLAYED, 4)

    @migrations()
    def m005_addresses(db):  # type: ignore[no-untyped-def]
        _run(db, _SERVING, 5)

    return migrations


def _run(db: Database, statements: str, version: int) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {version}")

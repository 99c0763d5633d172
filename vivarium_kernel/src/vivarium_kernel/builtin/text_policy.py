"""The room of the text policy: what the texts of tasks, prompts, tool calls, outcomes and messages may not hold."""

from __future__ import annotations

import re
import unicodedata

from vivarium_kernel.plugins import Plugin, hookimpl
from vivarium_kernel.records import Subject, Verdict

LONGEST = 200_000
_ALLOW = Verdict("allow", "text_policy")
_SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgsk_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|"
    r"\bghp_[A-Za-z0-9]{36}\b|\bxox[bap]-[A-Za-z0-9-]{10,}"
)
# Each of the patterns has one of these; looking for them first takes a tenth of the time.
_SECRET_SIGNS = ("PRIVATE KEY-----", "AKIA", "gsk_", "sk-", "ghp_", "xox")
_INJECTION_SIGNS = (
    "ignore ",
    "disregard ",
    "forget ",
    "reveal ",
    "print ",
    "show ",
    "send ",
    " yourself ",
    "exfiltrate ",
)
# Soft hyphens, joiners, marks of direction, tags: they hide a word from a search and from nobody else.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_INJECTION = re.compile(
    r"(ignore|disregard|forget) (all |any )?(of )?(the |your )?(previous|prior|above|earlier) "
    r"(instructions|rules|directions)|(reveal|print|show|send) (me )?(the |your )?(system prompt|api keys?)|"
    r"(copy|replicate) yourself (to|onto)|exfiltrate "
)


class TextPolicy(Plugin):
    """Refuses texts that carry a secret, try to undo the rules, or are longer than anything honest."""

    name = "text_policy"
    guards = ("task", "prompt", "tool_call", "outcome", "message")

    @hookimpl
    async def check_safety(self, subject: Subject) -> Verdict | None:
        return judge(subject.text, outcome=subject.kind == "outcome")


def judge(text: str, *, outcome: bool = False) -> Verdict:
    """One text's verdict. An outcome may quote anything but a secret: it is data, and nobody obeys it."""
    if len(text) > LONGEST and not outcome:
        return Verdict(
            "deny", "text_policy.length", f"the text has {len(text):,} characters, more than {LONGEST:,}",
            "put long material into a file and name it",
        )  # fmt: skip
    if _has_secret(text) or (not text.isascii() and _has_secret(shown(text))):
        return Verdict("deny", "text_policy.secret", "the text holds what looks like a key or token",
                       "remove it; keys belong in the environment")  # fmt: skip
    if not outcome and _is_injection(plain(text)):
        return Verdict("deny", "text_policy.injection", "the text tries to undo rules or to send out what is private",
                       "say what is to be done instead")  # fmt: skip
    return _ALLOW


def _has_secret(text: str) -> bool:
    return _holds(text, _SECRET_SIGNS) and _SECRETS.search(text) is not None


def _is_injection(text: str) -> bool:
    return _holds(text, _INJECTION_SIGNS) and _INJECTION.search(text) is not None


def _holds(text: str, signs: tuple[str, ...]) -> bool:
    for sign in signs:  # noqa: SIM110 - any() takes four times as long, and every text of a cycle comes through here
        if sign in text:
            return True
    return False


def plain(text: str) -> str:
    """Text as a reader sees it: compatibility characters folded, case and white space evened out."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(shown(text).casefold().split())


def shown(text: str) -> str:
    """Text without what no reader sees, and with each look-alike of a plain character as that character."""
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))

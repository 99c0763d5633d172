"""A message in capitals is refused."""

from vivarium_kernel import Plugin, Subject, Verdict, hookimpl


class NoShouting(Plugin):
    name = "no_shouting"
    guards = ("message",)

    @hookimpl
    async def check_safety(self, subject: Subject) -> Verdict | None:
        if subject.text.isupper() and len(subject.text) > 10:
            return Verdict("deny", "no_shouting.capitals", "it is all in capitals", "write it in small letters")
        return Verdict("allow", "no_shouting.capitals")

"""An answer of more than 1,000 characters is for a person to judge."""

from vivarium_kernel import Outcome, Plugin, Review, Task, hookimpl


class Brevity(Plugin):
    name = "brevity"

    @hookimpl
    async def review_outcome(self, task: Task, outcome: Outcome) -> Review | None:
        if len(outcome.answer) <= 1_000:
            return None
        return Review("human", 0.5, f"the answer has {len(outcome.answer):,} characters")

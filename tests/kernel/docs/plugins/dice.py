"""Does tasks of the mode "dice": it rolls as many as the task's data says."""

from vivarium_kernel import Job, Outcome, Plugin, hookimpl


class Dice(Plugin):
    name = "dice"
    modes = ("dice",)

    @hookimpl
    async def execute_task(self, job: Job) -> Outcome | None:
        if job.task.mode != "dice":
            return None
        count = job.task.data.get("count", 1)
        if type(count) is not int or not 1 <= count <= 100:
            return Outcome(fault="invalid", reason=f"data.count must be a whole number from 1 to 100, not {count!r}")
        rolled = await job.begin("tool", "dice.roll", "pure", {"count": count})
        if rolled is None:
            rolled = [self.village.clock.chance.randint(1, 6) for _ in range(count)]
            job.end("done", rolled)
        return Outcome(answer=" ".join(map(str, rolled)))

"""Tasks that leave a file when they are done, shared between processes without talking: task k is of share k mod n."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from mpjax.errors import InputError
from mpjax.progress import Progress

Say = Callable[[str], None]
POLL_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A piece of work.

    Attributes:
        name: for messages.
        needs: names of tasks that must be done before.
        done: whether its result is there, whoever made it.
        run: makes the result.
    """

    name: str
    needs: tuple[str, ...]
    done: Callable[[], bool]
    run: Callable[[], None]


def parse_share(text: str) -> tuple[int, int]:
    """`i/n` as (i, n).

    Raises:
        InputError: not two numbers, or i is not below n.
    """
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal()) or int(first) >= int(second):
        raise InputError(f"--share is {text}: give I/N with I from 0 to N − 1, for example 0/2 and 1/2")
    return int(first), int(second)


def work(tasks: Sequence[Task], share: tuple[int, int], say: Say) -> None:
    """Does the tasks of one share that are not done; waits where one needs a task of another share.

    Args:
        tasks: all tasks, in an order in which each comes after what it needs.
        share: (i, n).
        say: receives one line of progress at a time.
    """
    index, count = share
    by_name = {task.name: (number, task) for number, task in enumerate(tasks)}
    mine = [task for number, task in enumerate(tasks) if number % count == index]
    pending = [task for task in mine if not task.done()]
    if len(pending) < len(mine):
        say(f"{len(mine) - len(pending)} of {len(mine)} cells and timings done already")
    progress = Progress(len(mine) - len(pending), len(mine), say, every=0.0)
    waiting: set[str] = set()
    while pending:
        ready = next((task for task in pending if all(by_name[name][1].done() for name in task.needs)), None)
        if ready is None:
            missing = [name for task in pending for name in task.needs if not by_name[name][1].done()]
            for name in dict.fromkeys(missing):
                if name not in waiting:
                    other = by_name[name][0] % count
                    say(f"waiting for {name}, which --share={other}/{count} computes: start it if it does not run")
                    waiting.add(name)
            time.sleep(POLL_SECONDS)
            continue
        say(f"== {ready.name}")
        ready.run()
        pending.remove(ready)
        progress.update(len(mine) - len(pending), f"cells and timings ({ready.name})")

"""Which process of a group has gone missing, from what the others hear of it.

Every process says two numbers now and then: how often it has spoken, which grows while it runs at all, and how many
updates it has begun. A process is missing if it has not spoken for `timeout` seconds, or if it has stood at one
update for that long while another one is further. A group that waits for one process, as in a collective operation,
stands still as a whole: the one with the fewest updates is the one that it waits for.
"""

import dataclasses


@dataclasses.dataclass
class _Heard:
    spoken: int
    updates: int
    spoke: float
    moved: float


class Ledger:
    """What one process has heard of all.

    Args:
        count: processes of the group.
        timeout: seconds.
        now: on the clock of the calls below, in seconds.
    """

    def __init__(self, count: int, timeout: float, now: float):
        self._timeout = timeout
        self._heard = {index: _Heard(-1, -1, now, now) for index in range(count)}

    def hear(self, index: int, spoken: int, updates: int, now: float) -> None:
        """Notes what a process said."""
        heard = self._heard[index]
        if spoken != heard.spoken:
            heard.spoken, heard.spoke = spoken, now
        if updates != heard.updates:
            heard.updates, heard.moved = updates, now

    def missing(self, now: float) -> dict[int, str]:
        """Processes that are missing, each with what is known of it."""
        furthest = max(heard.updates for heard in self._heard.values())
        found = {}
        for index, heard in self._heard.items():
            if now - heard.spoke > self._timeout:
                found[index] = f"has said nothing for {now - heard.spoke:.0f} s"
            elif heard.updates < furthest and now - heard.moved > self._timeout:
                found[index] = f"has stood still for {now - heard.moved:.0f} s while others wait for it"
        return found

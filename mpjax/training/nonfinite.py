"""What a run does about an update whose loss or gradient norm is not finite.

`stop` ends the run. `skip` leaves such an update out: weights, averages, optimizer and carry stay as they were, and the
next update has its own batch, t and noise. `roll_back` also takes back the updates that led there: weights, averages,
optimizer and carry of the last checkpoint that lies on the schedule, while the data go on behind the bad update. A
learning-rate schedule counts the updates that were applied.

All is decided by numbers that a checkpoint holds, so that a run that is killed and continued decides the same.
"""

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp

from mpjax.errors import InputError


class Faults(flax.struct.PyTreeNode):
    """Updates that were not finite; int32 scalars.

    Attributes:
        skipped: how many were not applied.
        first: number of the first one since the last return to a checkpoint, counted from 1; 0: there was none.
        rolled_back: returns to a checkpoint.
    """

    skipped: jax.Array
    first: jax.Array
    rolled_back: jax.Array

    @classmethod
    def none(cls) -> "Faults":
        """At the start of a run."""
        zero = jnp.zeros((), jnp.int32)
        return cls(skipped=zero, first=zero, rolled_back=zero)

    def after(self, number: jax.Array, finite: jax.Array) -> "Faults":
        """With update `number` counted."""
        first = jnp.where(finite | (self.first > 0), self.first, number)
        return self.replace(skipped=self.skipped + ~finite, first=first)


class Policy(Protocol):
    """What to do.

    Attributes:
        counts: the state has `Faults`, and no update that is not finite is applied.
        goes_back: to a checkpoint, of which there is one from the start.
    """

    kind: ClassVar[str]
    counts: ClassVar[bool]
    goes_back: ClassVar[bool]

    def problem(self, values: dict[str, float], faults: Faults | None) -> str | None:
        """Why the run ends here; None: it goes on. `values` are metrics, `faults` is on the host."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stop:
    """Ends the run where it is seen: when something is logged, drawn or saved."""

    kind: ClassVar[str] = "stop"
    counts: ClassVar[bool] = False
    goes_back: ClassVar[bool] = False

    def problem(self, values: dict[str, float], faults: Faults | None) -> str | None:
        """See `Policy`."""
        loss, norm = values["loss"], values["gradient_norm"]
        return None if math.isfinite(loss) and math.isfinite(norm) else f"loss {loss} with gradient norm {norm}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skip:
    """Leaves the update out.

    Attributes:
        limit: skipped updates of the whole run after which it ends.
    """

    kind: ClassVar[str] = "skip"
    counts: ClassVar[bool] = True
    goes_back: ClassVar[bool] = False
    limit: int = 10

    def __post_init__(self):
        _check(self.limit)

    def problem(self, values: dict[str, float], faults: Faults | None) -> str | None:
        """See `Policy`."""
        assert faults is not None
        if faults.skipped <= self.limit:
            return None
        return (
            f"{faults.skipped} updates were not finite and skipped, more than training.nonfinite.limit = {self.limit}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollBack:
    """Goes back to the last checkpoint on the schedule.

    Attributes:
        limit: returns of the whole run after which it ends.
    """

    kind: ClassVar[str] = "roll_back"
    counts: ClassVar[bool] = True
    goes_back: ClassVar[bool] = True
    limit: int = 3

    def __post_init__(self):
        _check(self.limit)

    def problem(self, values: dict[str, float], faults: Faults | None) -> str | None:
        """See `Policy`."""
        assert faults is not None
        if not faults.first or faults.rolled_back < self.limit:
            return None
        return f"update {faults.first} was not finite, after training.nonfinite.limit = {self.limit} returns"


AnyPolicy = Stop | Skip | RollBack


def _check(limit: int) -> None:
    if limit < 1:
        raise InputError(f"limit is {limit}: it must be at least 1; kind='stop' allows none")


def kept_unless(finite: jax.Array, before: Any, after: Any) -> Any:
    """`after` where `finite` (bool scalar), else `before`, leaf by leaf."""
    return jax.tree.map(lambda old, new: jnp.where(finite, new, old), before, after)

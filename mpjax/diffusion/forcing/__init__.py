"""Forcing: where a segment's history comes from in training. One file a family, `base` says what an arm is."""

from mpjax.diffusion.forcing.base import Carry, Forcing, ForcingContext
from mpjax.diffusion.forcing.corrupted import Helios, HistoryNoise
from mpjax.diffusion.forcing.estimated import Direct, LossTime, LowNoise, Resampling, SeparateTime
from mpjax.diffusion.forcing.plain import Student, Teacher
from mpjax.diffusion.forcing.recycled import ErrorRecycling
from mpjax.diffusion.forcing.residual import Echo, Residual

AnyForcing = (
    Teacher | HistoryNoise | Helios | Direct | Residual | Echo | Student | Resampling | ErrorRecycling
)  # what a config may ask for

__all__ = [
    "AnyForcing",
    "Carry",
    "Direct",
    "Echo",
    "ErrorRecycling",
    "Forcing",
    "ForcingContext",
    "Helios",
    "HistoryNoise",
    "LossTime",
    "LowNoise",
    "Resampling",
    "Residual",
    "SeparateTime",
    "Student",
    "Teacher",
]

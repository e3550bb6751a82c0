"""Long, consistent video generation in JAX. `mpjax.load` is the way in from Python; see `mpjax.api`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpjax.api import MeshShape, Model, Quantization, SamplingRequest, load

__all__ = ["MeshShape", "Model", "Quantization", "SamplingRequest", "load"]


def __getattr__(name: str) -> Any:
    """Imports JAX and the network only when they are asked for."""
    if name in __all__:
        from mpjax import api

        return getattr(api, name)
    raise AttributeError(f"module 'mpjax' has no attribute {name!r}")

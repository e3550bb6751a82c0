"""One small memory of every kind and variant, and a harness around its module."""

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.models.bank_memory import LongWindow, Retrieval
from mpjax.models.memory import Context, Memory, MemoryKind
from mpjax.models.segment_memory import FirstSegment, MeanPool
from mpjax.models.semanticpack import SemanticPack

SMALL = {"patch": (1, 2, 2), "depth": 1, "heads": 2}
KINDS: dict[str, MemoryKind] = {
    "A": SemanticPack(**SMALL),
    "A_gate": SemanticPack(**SMALL, gate="channel"),
    "A_zero": SemanticPack(**SMALL, initial="zero"),
    "B": SemanticPack(**SMALL, squeeze="B"),
    "B_image_gate": SemanticPack(**SMALL, squeeze="B", initial="image", gate="scalar"),
    "C": SemanticPack(**SMALL, squeeze="C"),
    "C_gate": SemanticPack(**SMALL, squeeze="C", gate="channel"),
    "mean_pool": MeanPool(**SMALL),
    "first_segment": FirstSegment(**SMALL),
    "retrieval": Retrieval(**SMALL, segments=3, top_k=2),
    "long_window": LongWindow(**SMALL, segments=3),
}
WIDTH, MLP = 16, 32
SEGMENT = (2, 4, 4)  # 8 tokens
POOLED, IMAGE = 10, 14  # widths of the prompt and of the image that a memory is read with


class Harness:
    """The module of a kind with random parameters: `start`, `update`, `read` for two videos, float32."""

    def __init__(self, spec: MemoryKind, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.spec, self.module = spec, spec.module(WIDTH, MLP, jnp.float32)
        self.image, self.text = (jnp.asarray(rng.normal(size=(2, n, WIDTH)), jnp.float32) for n in (1, 4))
        self.mask = jnp.array([[True, True, False, False], [True] * 4])
        self.condition = tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, POOLED), (2, 3, IMAGE)))
        self.segments = jnp.asarray(rng.normal(size=(6, 2, *SEGMENT, 3)), jnp.float32)

        def everything(module):
            memory = module.update(module.start(2, self.context, SEGMENT), self.segments[0])
            return module.read(memory, *self.condition)

        shapes = jax.eval_shape(lambda key: self.module.init(key, method=everything), jax.random.key(0))["params"]
        shapes = jax.tree.map(lambda x: x.value, shapes, is_leaf=lambda x: hasattr(x, "value"))
        draw = lambda x: jnp.asarray(rng.normal(size=x.shape) * x.shape[0] ** -0.5, jnp.float32)  # noqa: E731
        self.params = jax.tree.map(draw, shapes)
        self.update = jax.jit(lambda *args: self.apply("update", *args))

    def apply(self, method, *args, params=None):
        return self.module.apply({"params": self.params if params is None else params}, *args, method=method)

    @property
    def context(self) -> Context:
        return lambda t: (self.image, self.text + t, self.mask)

    def start(self) -> Memory:
        return self.apply("start", 2, self.context, SEGMENT)

    def after(self, count: int, segments=None) -> Memory:
        """ψ_count."""
        memory = self.start()
        for segment in (self.segments if segments is None else segments)[:count]:
            memory = self.update(memory, segment)
        return memory

    def read(self, memory: Memory):
        return tuple(np.asarray(x) for x in self.apply("read", memory, *self.condition))

    def memorized(self, n: int) -> np.ndarray:
        """What Memorize makes of segment n, float64."""
        tokens = self.module.apply({"params": self.params}, self.segments[n], method=lambda m, x: m.memorize(x))
        return np.asarray(tokens, np.float64)

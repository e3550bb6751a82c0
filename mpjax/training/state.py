"""The training state: everything an update reads and writes besides its batch, and how it begins."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mpjax.data.batch import Batch
from mpjax.diffusion.forcing import Carry
from mpjax.errors import InputError
from mpjax.models.lora import Lora, init_adapter, scales
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import Quantization, with_zeros
from mpjax.models.targets import target_kernels
from mpjax.parallel.host_memory import brought_back, compute, in_host
from mpjax.parallel.rules import tree_shardings
from mpjax.parameters import merge, pruned
from mpjax.training.curriculum import Stage
from mpjax.training.nonfinite import Faults
from mpjax.training.trainable import partition


class TrainState(flax.struct.PyTreeNode):
    """One pytree, checkpointed and sharded as a whole.

    Attributes:
        step: updates made, int32 scalar.
        params: float32 parameters.
        ema: their exponential moving average; validation and generation use it.
        opt_state: Optax state of the current stage, for its trainable parameters only.
        carry: what the stage's forcing keeps between updates.
        key: the run's random key; update n uses `fold_in(key, n)`.
        faults: updates that were not finite; None where the run ends at the first (`training.nonfinite`).
        base: what the network reads besides `params` and the run neither trains, averages nor saves: weights that no
            stage trains, and the scales of an adapter; None where the run owns the whole network.
    """

    step: jax.Array
    params: Any
    ema: Any
    opt_state: optax.OptState
    carry: Carry
    key: jax.Array
    faults: Faults | None = None
    base: Any = None

    @property
    def averaged(self) -> Any:
        """The averages, with what is needed besides: the parameters of the whole network, on their devices."""
        return merge(brought_back(self.ema), self.base)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateFactory:
    """Makes training states of one run, sharded over its mesh.

    Attributes:
        denoiser: the network.
        seed: of initialisation; it does not depend on the mesh.
        batch: shapes of a batch (`jax.ShapeDtypeStruct` leaves).
        mesh: devices.
        counts_faults: whether the states have `faults`.
        lora: the adapter to train, if any.
        base_dtype: what the `base` of the states is held in, all that no stage trains; None where they have none. An
            adapter needs one.
        base_quantization: which of its kernels are quantised, and how; None: none.
        trained: names of the trainable sets of all stages; needed with `base_dtype`.
        waiting: fields of the states whose arrays are in the host's memory between updates; scalars stay on devices.
    """

    denoiser: Denoiser
    seed: int
    batch: Batch
    mesh: Mesh
    counts_faults: bool = False
    lora: Lora | None = None
    base_dtype: str | None = None
    base_quantization: Quantization | None = None
    trained: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    def __post_init__(self):
        if self.lora is not None and self.base_dtype is None:
            raise ValueError("an adapter is trained beside a base: give base_dtype")

    def _carry(self, stage: Stage) -> Carry:
        """What the forcing of a stage keeps, before its first update, boxed where it is sharded as the batch."""
        carry = stage.forcing.init(self.batch.segments.shape)
        if not stage.forcing.carry_by_video:
            return carry
        return jax.tree.map(lambda x: nn.LogicallyPartitioned(x, ("batch", *[None] * (x.ndim - 1))), carry)

    def _parts(self, key: jax.Array) -> tuple[dict, dict | None]:
        """Fresh parameters and the base, boxed with logical axis names."""
        params = self.denoiser.init(
            jax.random.fold_in(key, 0),
            jax.tree.map(lambda x: jnp.zeros((1, *x.shape[2:]), x.dtype), self.batch.prompts),
            jnp.zeros((1, *self.batch.reference.shape[1:])),
            jnp.zeros((1, *self.batch.segments.shape[2:])),
        )
        dtype = self.base_dtype
        if dtype is None:
            return params, None
        adapter, constants = None, None
        if self.lora is not None:
            adapter = init_adapter(self.lora, jax.random.fold_in(key, 2), params)
            constants = scales(self.lora, params)
        own, rest = partition(merge(params, adapter), *self.trained)
        base = jax.tree.map(lambda x: x.astype(dtype), pruned(rest))
        if (spec := self.base_quantization) is not None:
            frozen = {path for path, *_ in target_kernels(".*", base)}
            if trained := ["/".join(path) for path, *_ in target_kernels(spec.targets, params) if path not in frozen]:
                raise InputError(
                    f"training.base_quantization.targets takes {', '.join(trained)}, which a stage trains: "
                    "quantise frozen layers alone"
                )
            base = with_zeros(spec, base)
        return pruned(own), merge(base, constants)

    def _boxed(self, stage: Stage) -> TrainState:
        """A fresh state whose parameters and carry are boxed with logical axis names."""
        key = jax.random.key(self.seed)
        params, base = self._parts(key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema=jax.tree.map(jnp.copy, params),
            opt_state=stage.optimizer.transformation(stage.steps).init(partition(params, stage.trainable)[0]),
            carry=self._carry(stage),
            key=jax.random.fold_in(key, 1),
            faults=Faults.none() if self.counts_faults else None,
            base=base,
        )

    def shardings(self, stage: Stage) -> TrainState:
        """Shardings of every leaf of a state in this stage."""
        boxed = jax.eval_shape(lambda: self._boxed(stage))
        shapes, shardings = nn.unbox(boxed), tree_shardings(boxed, self.mesh)
        waiting = {
            name: jax.tree.map(
                lambda x, sharding: in_host(sharding) if x.ndim else sharding,
                getattr(shapes, name),
                getattr(shardings, name),
            )
            for name in self.waiting
        }
        return shardings.replace(**waiting)

    def create(self, stage: Stage) -> TrainState:
        """A fresh state at step 0, still without its base (`initialize.with_base`)."""
        shardings = self.shardings(stage).replace(base=None)
        return compute(lambda: nn.unbox(self._boxed(stage)).replace(base=None), shardings)

    def fresh_base(self, stage: Stage) -> Any:
        """A base drawn at random, where its weights do not matter, as in a timing; None where states have none."""
        make = jax.jit(lambda: nn.unbox(self._boxed(stage)).base, out_shardings=self.shardings(stage).base)
        return make()

    def abstract(self, stage: Stage) -> TrainState:
        """Shapes, dtypes and shardings of a state in this stage, to restore into."""
        shapes = jax.eval_shape(lambda: nn.unbox(self._boxed(stage)))
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, self.shardings(stage)
        )

    def enter(self, stage: Stage, state: TrainState) -> TrainState:
        """The same weights at the start of a stage: a new optimizer state and a new carry."""
        shardings = self.shardings(stage)

        def fresh(params: Any) -> tuple:
            transformation = stage.optimizer.transformation(stage.steps)
            return transformation.init(partition(params, stage.trainable)[0]), nn.unbox(self._carry(stage))

        opt_state, carry = compute(fresh, (shardings.opt_state, shardings.carry), state.params)
        return state.replace(opt_state=opt_state, carry=carry)

"""A training run, top to bottom.

The run folder:
    run.json        the resolved experiment, its fingerprint, and what decodes its latents (codec, fps, size)
    checkpoints/    Orbax steps (`training.checkpoints`)
    log.jsonl, tensorboard/, samples/

The same command goes on where it stopped, with the same bits: batch n depends on (seed, n), update n on
`fold_in(key, n)`, and a checkpoint holds the rest. A folder that another experiment wrote is refused.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np

from mpjax.compilation import keep_compiled
from mpjax.data.batch import Batch
from mpjax.data.pipeline import on_device, read_from
from mpjax.datasets import Datasets, open_datasets
from mpjax.errors import InputError
from mpjax.experiment import Experiment
from mpjax.models.memorypack import Denoiser
from mpjax.models.quantization import with_kernels
from mpjax.parallel import sharded_attention
from mpjax.parallel.processes import barrier, began, check_count, is_first, reached_stop
from mpjax.parallel.rows import local_rows, place_rows
from mpjax.parallel.rules import batch_sharding
from mpjax.progress import Progress
from mpjax.stopping import StopRequest, stop_request
from mpjax.training.checkpoints import Checkpoints
from mpjax.training.compiled_step import stage_step, state_factory
from mpjax.training.curriculum import Stage, stage_at, total_steps
from mpjax.training.initialize import check_weights, with_base, with_weights
from mpjax.training.instruments import NO_INSTRUMENTS, Instruments, Profile
from mpjax.training.metrics import Log, MetricsLog, NoLog
from mpjax.training.mirror import Mirror
from mpjax.training.nonfinite import Faults
from mpjax.training.numerics import explain
from mpjax.training.observer import Observer
from mpjax.training.retention import Retention
from mpjax.training.roll_back import last_good
from mpjax.training.run_folder import claim
from mpjax.training.state import TrainState

Say = Callable[[str], None]


def _say_nothing(_: str) -> None:
    """What a process says that leaves it to another one."""


def train(
    experiment: Experiment,
    folder: Path,
    *,
    init: Path | None = None,
    mirror: str | None = None,
    instruments: Instruments = NO_INSTRUMENTS,
    say: Say = print,
) -> int:
    """Trains to the end of the last stage.

    Args:
        experiment: what to run.
        folder: run folder; continued if it holds this very experiment.
        init: run folder whose EMA weights to start from, or a PyTorch checkpoint as `convert` reads it
            (`weights.stored_weights`); parameters it lacks start fresh and are listed.
        mirror: URL of a folder of an object store, where the checkpoints are copied to; a run folder without them, or
            with older ones, gets them from there.
        instruments: what it is watched with.
        say: receives one line of progress at a time.

    Returns:
        Updates made in total.

    Raises:
        InputError: before anything is computed or written.
        Stopped: SIGTERM or Ctrl-C came; the update was finished and saved.
    """
    # -- Check -----------------------------------------------------------------------------------------------------
    check_count(experiment.processes)
    mesh = experiment.mesh.build()
    stages, training = experiment.training.stages, experiment.training
    placement = batch_sharding(mesh, training.batch_size)
    if experiment.processes.count > 1 and mesh.size != jax.device_count():
        raise InputError(
            f"the mesh has {mesh.size} devices, but the processes have {jax.device_count()}: let mesh take all of them"
        )
    rows = local_rows(placement, training.batch_size)
    datasets = open_datasets(experiment, rows)
    if not is_first():
        say = _say_nothing
    total = total_steps(stages)
    denoiser = Denoiser(experiment.model, experiment.guidance)
    size, policy = training.batch_size, training.nonfinite
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), datasets.train[0])
    if (name := training.base_field) is not None and init is None:
        raise InputError(f"training.{name} trains beside weights that stay where they are: name them, --init=RUN")
    factory = state_factory(experiment, denoiser, example, mesh)
    if init is not None and not (folder / "run.json").is_file():
        check_weights(factory.abstract(stages[0]), init)
    retention = Retention(training.keep_checkpoints, training.keep_checkpoints_every)
    copy = Mirror(folder, mirror, retention, say) if mirror is not None and is_first() else None
    if is_first():
        if copy is not None:
            copy.fetch_description()
        claim(folder, experiment, datasets, init)
        if copy is not None:
            copy.fetch_newest()
    barrier("the run folder", patient=mirror is not None)
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder} is not the same folder on every host: give --run one that all of them share")
    if instruments.compilation_cache is not None:
        keep_compiled(instruments.compilation_cache)
    if datasets.max_segments is not None and training.segments > datasets.max_segments:
        say(
            f"training.segments is {training.segments}, but the dataset was encoded with max_segments = "
            f"{datasets.max_segments}: the rest of every video is padding; set it to that, or encode longer clips"
        )

    with ExitStack() as copying, Checkpoints(folder / "checkpoints", retention, say) as checkpoints:
        if checkpoints.latest() == total:
            if copy is not None:
                copying.enter_context(copy)
            say(f"{folder}: finished already, {total} updates")
            return total

        # -- State: a checkpoint, else --init, else scratch ----------------------------------------------------------
        # A checkpoint carries the optimizer state of the stage that made its last update.
        restored = checkpoints.restore_newest(
            lambda step: factory.abstract(stages[stage_at(stages, max(step - 1, 0))[0]]),
            None if copy is None else copy.fetch_newest,
        )
        if copy is not None:  # only now: what is damaged here must not be copied there
            copying.enter_context(copy)
        state = factory.create(stages[0]) if restored is None else restored
        if training.held_in is not None:
            assert init is not None  # checked above
            state = with_base(state, factory.abstract(stages[0]).base, training, init)
        if restored is not None:
            say(f"{folder}: going on at update {int(state.step)}")
        elif init is not None:
            state = with_weights(state, init, say)
        whole = (state.params, with_kernels(state.base))
        parameters, frozen = (sum(x.size for x in jax.tree.leaves(tree)) for tree in whole)
        beside = f" beside {frozen:,} that stay as they are" if frozen else ""
        say(f"{parameters:,} parameters{beside} on {mesh.size} {jax.devices()[0].platform} device(s)")
        if mesh.shape["context"] > 1:
            way = sharded_attention.explain(experiment.model.heads, mesh)
            say(f"{mesh.shape['context']} devices share a sequence: {way}")

        if policy.goes_back and restored is None:
            checkpoints.save(state)

        # -- Loop ----------------------------------------------------------------------------------------------------
        go_back = functools.partial(last_good, checkpoints, factory, stages, training.checkpoint_every)
        profile = Profile(folder / "profile", instruments.profile_steps, say)
        observe = Observer(experiment, datasets, denoiser, placement, folder, say)
        opened = MetricsLog(folder, int(state.step)) if is_first() else NoLog()
        alone = experiment.processes.count == 1
        with opened as log, stop_request(group=not alone) as stopping, jax.set_mesh(mesh), profile:
            for index, stage in enumerate(stages):
                first, last = sum(s.steps for s in stages[:index]), sum(s.steps for s in stages[: index + 1])
                if int(state.step) >= last:
                    continue
                if index and int(state.step) == first:
                    state = factory.enter(stage, state)
                say(f"stage {index + 1}/{len(stages)}: {stage.forcing.kind} forcing, training {stage.trainable}")
                state = _run_stage(
                    experiment,
                    stage,
                    state,
                    last,
                    datasets,
                    denoiser,
                    placement,
                    checkpoints,
                    log,
                    observe,
                    stopping,
                    profile,
                    instruments.check_numerics,
                    go_back,
                    say,
                )
                if stopping.is_set():
                    break
        checkpoints.wait()
        done = int(state.step)
    say(f"{folder}: {'finished' if done == total else 'stopped and saved'} at update {done} of {total}")
    if stopping.is_set():  # even if it came with the last update: what a caller would do next is to be stopped too
        raise stopping.stopped()
    return done


def _run_stage(
    experiment: Experiment,
    stage: Stage,
    state: TrainState,
    last: int,
    datasets: Datasets,
    denoiser: Denoiser,
    placement: jax.sharding.NamedSharding,
    checkpoints: Checkpoints,
    log: Log,
    observe: Observer,
    stopping: StopRequest,
    profile: Profile,
    check_numerics: bool,
    go_back: Callable[[Faults], tuple[TrainState, int]],
    say: Say,
) -> TrainState:
    """Updates until the stage ends or a stop is requested; saves at intervals and at the end."""
    training, policy = experiment.training, experiment.training.nonfinite
    compiled = stage_step(
        experiment,
        stage,
        denoiser,
        state,
        placement.mesh,
        first_update=last - stage.steps,
        donate=not check_numerics,
    )

    def due_at(step: int, stop: bool) -> dict[str, bool]:
        def every(interval: int) -> bool:
            return bool(interval) and (step % interval == 0 or step == last)

        return {
            "log": every(training.log_every),
            "validate": every(training.validate_every),
            "sample": every(training.sample_every),
            "save": every(training.checkpoint_every) or stop,
        }

    step, rows = int(state.step), local_rows(placement, training.batch_size)
    progress = Progress(step, last, say)
    first, saved = step, step
    skipped = 0 if state.faults is None else int(state.faults.skipped)

    def batches_from(step: int) -> Iterator[Batch]:
        def place(batch: Batch) -> Batch:
            return place_rows(batch, rows, placement, training.batch_size)

        return on_device(read_from(datasets.train, step), place)

    batches = batches_from(step)
    while True:
        placed = next(batches)
        began(step + 1)  # with the batch in hand: whoever hangs in reading is behind those that wait for it
        before = state if check_numerics else None
        profile.begin(step + 1)
        with jax.profiler.StepTraceAnnotation("train", step_num=step + 1), jax.transfer_guard("disallow"):
            state, metrics = compiled.run(state, placed)
        step += 1
        profile.end(step, metrics)
        stop = reached_stop(stopping, step)  # asked once: a stop that comes later finds its update unsaved
        if step == first + 1:
            jax.block_until_ready(metrics)
            progress.restart(step)
        due = due_at(step, stop)
        cause = ""
        if before is not None and not np.isfinite(jax.device_get(metrics["loss"] + metrics["gradient_norm"])):
            cause = f", where {explain(compiled.make, before, placed)}"
            say(f"update {step} is not finite{cause}")
        if any(due.values()) or cause:
            values = {k: float(v) for k, v in jax.device_get(metrics).items() if v.ndim == 0}
            faults = jax.device_get(state.faults)
            if problem := policy.problem(values, faults):
                good = f"the last good checkpoint is that of update {saved}" if saved else "nothing was saved yet"
                raise InputError(f"{problem} at update {step}{cause}: lower optimizer.learning_rate; {good}")
            if policy.goes_back and faults.first:
                restored, good_step = go_back(faults)
                state = restored.replace(base=state.base)
                step = int(faults.first)  # the same, whenever it is seen
                batches, due = batches_from(step), due_at(step, stop)
                say(f"update {step} was not finite: going on behind it with the weights of update {good_step}")
                log.scalars(step, "train", {"rolled_back": int(faults.rolled_back) + 1})
                progress.restart(step)
            elif due["log"]:
                finite = {k: v for k, v in values.items() if np.isfinite(v)}
                counted = {} if faults is None else {"skipped": int(faults.skipped)}
                log.scalars(step, "train", finite | counted)
                progress.update(step, f"loss {values['loss']:.4f}")
            if faults is not None and not policy.goes_back and faults.skipped > skipped:
                skipped = int(faults.skipped)
                say(f"update {step}: not finite and skipped so far: {skipped}, the first was update {faults.first}")
        # Save last: a run that goes on from here has logged everything up to here, once.
        if due["validate"]:
            observe.validate(step, compiled.objective, state.averaged, log)
        if due["sample"]:
            observe.sample(step, state.averaged, log)
        if due["save"]:
            checkpoints.save(state)
            saved = step
        if step == last or stop:
            break
    return state

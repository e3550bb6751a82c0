"""python -m mpjax VERB …"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mpjax import verbs
from mpjax.errors import InputError, LostProcess


def _steps(text: str) -> tuple[int, int]:
    """The value of --profile_steps."""
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is no range of updates: give FIRST:LAST, for example 10:12")
    return int(first), int(last)


def _seconds(text: str) -> float:
    """The value of --deadline."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds above 0")
    return seconds


def _shift(text: str) -> float | str:
    """The value of --shift, as `generation.sampling.SamplingRequest` takes it."""
    try:
        return text if text == "dynamic" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time shift: give a number above 0, or dynamic") from None


def _size(text: str) -> str | tuple[int, int]:
    """The value of --size, as `generation.command.with_size` takes it."""
    if text == "auto":
        return text
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give HEIGHTxWIDTH, for example 480x832, or auto")
    return int(height), int(width)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="mpjax", description="Long, consistent video generation in JAX.", allow_abbrev=False
    )
    subparsers = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    fields = "any field (mpjax/experiment.py lists them), as"

    def add(name: str, run, text: str) -> argparse.ArgumentParser:
        verb = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        verb.set_defaults(run_verb=run)
        return verb

    verb = add("demo", verbs.demo, "Train on RecallWorld, generate a minute, measure, and write report.html.")
    verb.add_argument("--run", type=Path, default=Path("runs/demo"), help="output folder (default: runs/demo)")

    verb = add("encode", verbs.encode, "Turn a folder of videos into a dataset of latents.")
    verb.add_argument(
        "--input",
        type=Path,
        required=True,
        help="folder of videos, with manifest.jsonl, .txt captions or none; or a list of clips (clips.jsonl)",
    )
    verb.add_argument("--output", type=Path, help="dataset folder (default: data.path of the config)")
    verb.add_argument("--config", required=True, help=f"config file; {fields} --config.data.height=96")
    verb.add_argument(
        "--beam_runner",
        help="encode through Apache Beam: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner, … (default: here)",
    )
    verb.add_argument("--beam_options", default="", help="what the runner needs besides, in one word: '--region=…'")

    verb = subparsers.add_parser("data", help="Look at raw material, and choose clips of it.", allow_abbrev=False)
    data_verbs = verb.add_subparsers(dest="data_verb", required=True, metavar="VERB")

    def add_data(name: str, run, text: str) -> argparse.ArgumentParser:
        verb = data_verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        verb.set_defaults(run_verb=run)
        verb.add_argument("--videos", type=Path, help="folder that a table's paths are relative to (default: its own)")
        return verb

    raw = "folder of videos or tars, tar, or table (.csv, .jsonl, .parquet) of paths, or of MiraData or Sekai"
    verb = add_data("scan", verbs.scan, "Split videos into shots and whole segments, and filter them, for `encode`.")
    verb.add_argument("--input", type=Path, required=True, help=raw)
    verb.add_argument("--output", type=Path, required=True, help="folder for clips.jsonl, left_out.jsonl and scan.html")
    verb.add_argument("--config", required=True, help=f"config file; {fields} --config.data.filters.most_shots=1")
    verb.add_argument(
        "--deadline", type=_seconds, default=600.0, help="seconds that decoding one entry may take (default: 600)"
    )

    verb = add_data("inspect", verbs.inspect, "Counts, hours, buckets, segments, captions and frames of a place.")
    verb.add_argument("path", type=Path, metavar="PATH", help=f"{raw}; or what `data scan` or `encode` wrote")
    verb.add_argument("--html", type=Path, help="page to write, with frames")
    verb.add_argument(
        "--config", help="whose clips raw material is counted in (default: 24 fps, segments of 36 frames)"
    )

    verb = add("train", verbs.train, "Train a model; the same command again goes on where it stopped.")
    verb.add_argument(
        "--config",
        required=True,
        help=f"config file, FILE.py or FILE.py:smoke; {fields} --config.training.stages.0.steps=100",
    )
    verb.add_argument("--run", type=Path, required=True, help="run folder")
    verb.add_argument(
        "--init", type=Path, help="run folder, or what `convert --input` reads, whose weights to start from"
    )

    verb.add_argument("--mirror", help="s3://BUCKET/RUN or gs://…, where checkpoints are copied to and fetched from")
    verb.add_argument(
        "--platform", choices=("cpu", "gpu", "tpu"), help="devices to run on, or not at all (default: what JAX finds)"
    )

    verb.add_argument(
        "--profile_steps",
        type=_steps,
        metavar="FIRST:LAST",
        help="updates to trace into RUN/profile (default: none)",
    )
    verb.add_argument(
        "--check_numerics",
        action="store_true",
        help="look at every update, and name the array or module that first was not finite; holds the state twice",
    )
    verb.add_argument(
        "--compilation_cache",
        type=Path,
        metavar="FOLDER",
        help="keep compiled programs there (default: JAX_COMPILATION_CACHE_DIR, or nowhere)",
    )

    verb = add("ablate", verbs.ablate, "Train and measure every arm of an ablation with every seed, and compare them.")
    verb.add_argument(
        "--config", required=True, help="ablation file, FILE.py or FILE.py:ARGUMENT; fields as --config.seeds=[0,1]"
    )
    verb.add_argument("--run", type=Path, required=True, help="folder for the runs; the same command goes on with it")
    verb.add_argument(
        "--out", type=Path, help="folder for tables, figures and claims (default: results/recallworld/NAME of the file)"
    )
    verb.add_argument(
        "--share",
        default="0/1",
        metavar="I/N",
        help="do every Nth cell from the Ith on, so that N processes share the work (default: 0/1, all)",
    )

    verb = add("generate", verbs.generate, "Generate videos; the same command again goes on where it stopped.")
    verb.add_argument("--weights", type=Path, required=True, help="run folder of `train` or `convert`")
    verb.add_argument("--out", type=Path, required=True, help="mp4 to write (a folder with --prompts)")
    verb.add_argument("--prompt", action="append", default=None, help="prompt; repeat for a schedule, one a segment")
    verb.add_argument(
        "--prompts", type=Path, help="text file: a video a line; a line may be a JSON list, one prompt a segment"
    )
    verb.add_argument(
        "--image",
        type=Path,
        help="first frame, a picture or the first of a video (default: a held-out one of the run's dataset)",
    )
    verb.add_argument("--video", type=Path, help="clip to continue")
    verb.add_argument(
        "--size",
        type=_size,
        help="HEIGHTxWIDTH in pixels, or auto: FramePack's size nearest to the shape of --image (default: the run's)",
    )
    verb.add_argument(
        "--seconds", type=float, default=5.0, help="length of the video, the given clip included (default: 5)"
    )
    verb.add_argument("--seed", type=int, default=0, help="of the noise, and of the dataset's first frame (default: 0)")
    verb.add_argument(
        "--timing", action="store_true", help="write seconds and resident memory of each segment to OUT.timing.json"
    )
    verb.add_argument(
        "--least",
        type=int,
        default=256,
        help="smaller videos are enlarged to this many pixels, nearest neighbour (default: 256)",
    )
    verb.add_argument(
        "--encoders", type=Path, help="folder of LLaMA, CLIP and SigLIP, for weights without encoders of their own"
    )
    verb.add_argument(
        "--mesh",
        help="devices that share the weights and the work on a segment, for example context=4,tensor=2 (default: one)",
    )
    run_says = "(default: as the run's config says)"
    verb.add_argument("--sampler", choices=("euler", "unipc"), help=f"ODE sampler {run_says}")
    verb.add_argument("--steps", type=int, help=f"sampler steps a segment {run_says}")
    verb.add_argument("--shift", type=_shift, help=f"time shift: a number, or dynamic, by the frame's size {run_says}")
    verb.add_argument("--guidance", type=float, help=f"scale of classifier-free guidance, 1 is none {run_says}")
    verb.add_argument("--negative", help="prompt that --guidance leads away from (default: the empty prompt)")
    verb.add_argument(
        "--distilled-guidance", type=float, help=f"guidance scale that a distilled network reads {run_says}"
    )
    verb.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:WEIGHT]",
        help="LoRA of diffusers or musubi-tuner, or run folder of one, and how much of it (default: 1); repeatable",
    )
    verb.add_argument(
        "--lora-live", action="store_true", help="apply them at every layer (default: fold them into the weights once)"
    )
    verb.add_argument(
        "--quantize",
        metavar="FORMAT[:BLOCK[:TARGETS]]",
        help="keep the large weights in 8 bits, int8 or fp8, with a scale a block of so many inputs (default: 64), "
        "those of modules by a pattern on their path",
    )
    verb.add_argument(
        "--offload", action="store_true", help="keep the weights in the host's memory while the autoencoder decodes"
    )
    verb.add_argument(
        "--teacache",
        type=float,
        help="leave blocks out where little changes, up to this threshold (0.15 for FramePack)",
    )

    verb = add("recall", verbs.recall, "Measure what a run on RecallWorld remembers, or how far it drifts (D1, D2).")
    verb.add_argument("--weights", type=Path, required=True, help="run folder of `train`")
    verb.add_argument("--scene", help="R1 to R6, D1 or D2 (default: that of the run)")
    verb.add_argument("--gaps", default="0,1,2,4,8", help="hidden segments before the return (default: 0,1,2,4,8)")
    verb.add_argument("--clips", type=int, default=256, help="held-out clips a gap, or of a rollout (default: 256)")
    verb.add_argument("--control", default="none", help="change one thing of known effect (docs/recallworld.md)")
    verb.add_argument("--self-recall", action="store_true", help="also compare each return with the model's own reveal")
    verb.add_argument("--segments", type=int, default=24, help="generated segments of D1 and D2 (default: 24)")
    verb.add_argument("--seed", type=int, default=0, help="of clips and noise")
    verb.add_argument("--out", type=Path, help="output folder (default: recall in the run folder)")

    verb = add("plan", verbs.plan, "Compile a run for a TPU slice that is not here: memory, traffic, and time at best.")
    verb.add_argument("--config", required=True, help=f"config file; {fields} --config.model.remat=dots")
    verb.add_argument(
        "--topology",
        action="append",
        required=True,
        help="slice, such as v5p:8x8x8 or v6e:16x16; with --search a chip, such as v6e; repeatable",
    )
    verb.add_argument("--mesh", help="such as data=8,fsdp=64 (default: fsdp as far as its shares are whole tiles)")
    verb.add_argument(
        "--step",
        action="append",
        help="'stage 1', …, generate or decode; repeatable (default: all but decode)",
    )
    verb.add_argument("--segments", type=int, help="of a video in training (default: training.segments)")
    verb.add_argument("--memory", type=float, help="GB of another card that the chip stands in for (default: its own)")
    verb.add_argument("--offload", action="store_true", help="of decode, as of `generate`")
    verb.add_argument("--quick", action="store_true", help="let the compiler optimise less: a third of the time")
    verb.add_argument("--search", action="store_true", help="find the smallest slice that each stage fits")
    verb.add_argument("--compiles", type=int, default=10, help="of the search for a stage, at most (default: 10)")
    verb.add_argument(
        "--cache", type=Path, default=Path("runs/plan"), help="folder of what was compiled (default: runs/plan)"
    )
    verb.add_argument("--out", type=Path, help="folder for plan.md, plan.json and, with several slices, figures")

    verb = add("bench", verbs.bench, "Time this package and a rival, in turn, on the same weights and inputs.")
    verb.add_argument(
        "cases",
        nargs="+",
        metavar="CASE",
        help="forward, gradient, segment, vae_decode, vae_encode, train_step, length, data",
    )
    verb.add_argument(
        "--rival",
        help="a Python that has torch, diffusers and accelerate, for data webdataset (default: no rival is measured)",
    )
    verb.add_argument(
        "--variant",
        action="append",
        choices=("eager", "compile"),
        help="of the rival of the first five cases: as it is, or through torch.compile; repeatable (default: both)",
    )
    verb.add_argument("--out", type=Path, required=True, help="JSON file to write")
    verb.add_argument("--config", help=f"network, run or dataset of the cases (default: small ones); {fields} …")
    verb.add_argument("--rounds", type=int, help="times that each side runs a case (default: 12)")
    verb.add_argument("--threads", type=int, help="CPU cores of every side of the first five cases (default: all)")
    verb.add_argument("--weights", type=Path, help="run folder that case length generates with")
    verb.add_argument("--segments", type=int, help="of its video (default: 600)")
    verb.add_argument("--scratch", type=Path, help="folder for weights while a case runs (default: the system's)")

    verb = add("suite", verbs.suite, "Write the commands that generate the videos of a prompt or image suite.")
    verb.add_argument("--config", required=True, help="suite file; fields as --config.info=FILE")
    verb.add_argument("--weights", type=Path, required=True, help="run folder that is to generate")
    verb.add_argument("--out", type=Path, required=True, help="folder for the videos, manifest.jsonl and generate.sh")

    verb = add("study", verbs.study, "Write a page on which people compare videos of systems, blind and offline.")
    verb.add_argument("folders", type=Path, nargs="+", help="one folder of videos a system; equal names are compared")
    verb.add_argument("--out", type=Path, required=True, help="new folder for raters; the key is written beside it")
    verb.add_argument("--question", default="Which video is better?", help="heading of the page")
    verb.add_argument("--votes-per-rater", type=int, help="pairs that one rater sees (default: all)")

    verb = add("elo", verbs.elo, "Rate systems by the votes of a study, or say how many votes a lead needs.")
    verb.add_argument("votes", type=Path, nargs="*", help="files that the page of the study gave")
    verb.add_argument("--key", type=Path, help="the .key.json of the study")
    verb.add_argument("--out", type=Path, help="folder for elo.html, elo.json and elo.csv")
    verb.add_argument("--resample", default="votes", help="what the bootstrap draws: votes (default), raters or videos")
    verb.add_argument("--lead", type=float, help="Elo points: print the votes that this lead needs, and no more")

    verb = add("evaluate", verbs.evaluate, "Measure videos as VBench does, and how far they drift.")
    verb.add_argument("videos", type=Path, nargs="+", metavar="VIDEO", help="video, or folder of videos")
    verb.add_argument("--metrics", default="all", help="names with commas between them (default: all)")
    verb.add_argument("--weights", type=Path, help="folder of the networks' files (docs/evaluation.md)")
    verb.add_argument("--images", type=Path, help="folder of the pictures that videos began with, by the videos' names")
    verb.add_argument(
        "--segment-frames", type=int, help="frames of a generated segment, after the first frame; for the jump at joins"
    )
    verb.add_argument(
        "--backward", action="store_true", help="the videos were generated from their end: drift starts there"
    )
    verb.add_argument("--out", type=Path, default=Path("evaluation"), help="output folder (default: evaluation)")

    verb = add("report", verbs.report, "Compare systems on one page by what `evaluate` wrote for each.")
    verb.add_argument("folders", type=Path, nargs="+", help="output folders of `evaluate`, one a system")
    verb.add_argument("--out", type=Path, required=True, help="folder for report.html, report.json and report.csv")
    verb.add_argument("--elo", type=Path, help="elo.json of `elo`, for a column of ratings, and their intervals")
    verb.add_argument("--strips", type=int, default=12, help="videos of which frames are shown, at most (default: 12)")

    verb = add("convert", verbs.convert, "Turn a PyTorch checkpoint into a run folder, or the other way round.")
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input", type=Path, help="directory of the transformer's safetensors, or of a pipeline (transformer/, vae/)"
    )
    source.add_argument("--weights", type=Path, help="run folder to write in diffusers' layout")
    verb.add_argument("--output", type=Path, required=True, help="folder to write")
    verb.add_argument(
        "--lora-format",
        choices=("diffusers", "musubi", "hunyuan"),
        help="write the adapter of a run with training.lora as a LoRA file, --output, in these words",
    )
    verb.add_argument("--lora", type=Path, help="write this LoRA file instead, whose network --weights has")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights (default: as stored)")
    verb.add_argument("--vae", type=Path, help="directory of the VAE's safetensors (default: the pipeline's)")
    verb.add_argument(
        "--from-t2v", action="store_true", help="initialise what a text-to-video checkpoint lacks of FramePack"
    )
    verb.add_argument(
        "--layout",
        choices=("framepack_f1", "framepack_f0"),
        help="how the weights generate: F1 from the first frame on (default), F0 from the end of the video",
    )
    verb.add_argument("--fps", type=float, help="frames per second of generated videos (default: 30)")
    verb.add_argument("--height", type=int, help="their height in pixels (default: 480)")
    verb.add_argument("--width", type=int, help="their width in pixels (default: 832)")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb; bad input prints a sentence and returns 2, a lost host 75, a stop 130 (Ctrl-C) or 143 (SIGTERM)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    args, rest = parser().parse_known_args(arguments)
    args.words = arguments
    verb = f"{args.verb} {args.data_verb}" if args.verb == "data" else args.verb
    log = logging.getLogger("mpjax")
    log.setLevel(logging.INFO)
    log.handlers = [logging.StreamHandler()]  # to stderr: what was chosen for this machine
    try:
        args.run_verb(args, rest)
    except (InputError, LostProcess) as error:
        print(f"mpjax {verb}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt as stop:
        print(f"mpjax {verb}: stopped", file=sys.stderr)
        return getattr(stop, "status", 130)  # that of `stopping.Stopped`
    return 0


if __name__ == "__main__":
    sys.exit(main())

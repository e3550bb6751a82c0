"""VBench's metrics by name, with the files that their networks need."""

from collections.abc import Callable
from pathlib import Path

from mpjax.evaluation.metrics.flicker import TemporalFlickering
from mpjax.evaluation.metrics.metric import Metric
from mpjax.evaluation.metrics.registry import File, Offer
from mpjax.evaluation.vbench import dreamsim, vit
from mpjax.evaluation.vbench.consistency import Consistency, Fidelity
from mpjax.evaluation.vbench.dynamic import DynamicDegree
from mpjax.evaluation.vbench.long import Long, SlowFast, read_table
from mpjax.evaluation.vbench.networks import (
    aesthetic_probe,
    amt_probe,
    clip_image,
    dino_cropped,
    dino_cropped_picture,
    dino_whole,
    musiq_probe,
    raft_probe,
    vit_probe,
)
from mpjax.evaluation.vbench.quality import FrameQuality
from mpjax.evaluation.vbench.smoothness import MotionSmoothness

DINO = File(
    names=("dino_model/dino_vitbase16_pretrain.pth", "dino_vitbase16_pretrain.pth"),
    source="github.com/facebookresearch/dino, ViT-B/16, backbone only",
)
DINOV2 = File(names=("dinov2_vitb14_pretrain.pth",), source="github.com/facebookresearch/dinov2, ViT-B/14 distilled")
CLIP_B32 = File(names=("clip_model/ViT-B-32.pt", "ViT-B-32.pt"), source="github.com/openai/CLIP, ViT-B/32")
CLIP_L14 = File(names=("clip_model/ViT-L-14.pt", "ViT-L-14.pt"), source="github.com/openai/CLIP, ViT-L/14")
AESTHETIC = File(
    names=("aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth", "sa_0_4_vit_l_14_linear.pth"),
    source="github.com/LAION-AI/aesthetic-predictor",
)
MUSIQ_SPAQ = File(
    names=("pyiqa_model/musiq_spaq_ckpt-358bb6af.pth", "musiq_spaq_ckpt-358bb6af.pth"),
    source="github.com/chaofengc/IQA-PyTorch, release v0.1-weights",
)
RAFT_THINGS = File(
    names=("raft_model/models/raft-things.pth", "raft-things.pth"), source="github.com/princeton-vl/RAFT, models.zip"
)
AMT_S = File(names=("amt_model/amt-s.pth", "amt-s.pth"), source="github.com/MCG-NKU/AMT, AMT-S")
DREAMSIM = tuple(
    File(names=(f"dreamsim/{name}", name), source="github.com/ssundaram21/dreamsim, dreamsim_ensemble_checkpoint.zip")
    for name in ("clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar", "ensemble_lora")
)


def _config(name: str) -> File:
    place = f"vbench2_beta_long/configs/{name}"
    return File(names=(f"VBench/{place}", place), source="github.com/Vchitect/VBench, a clone as VBench/")


PARAMS = _config("slow_fast_params.yaml")
SUBJECT_TABLE = _config("subject_mapping_table.yaml")
BACKGROUND_TABLE = _config("background_mapping_table.yaml")


def _subject(dino: Path) -> Consistency:
    return Consistency(name="subject_consistency", probe=vit_probe(vit.DINO_B16, dino, dino_whole))


def _background(clip: Path) -> Consistency:
    return Consistency(name="background_consistency", probe=vit_probe(vit.CLIP_B32, clip, clip_image))


def _aesthetic(clip: Path, head: Path) -> FrameQuality:
    return FrameQuality(name="aesthetic_quality", probe=aesthetic_probe(clip, head), scale=10)


def _imaging(musiq: Path) -> FrameQuality:
    return FrameQuality(name="imaging_quality", probe=musiq_probe(musiq), scale=100)


def _i2v_subject(dino: Path) -> Fidelity:
    return Fidelity(
        name="i2v_subject",
        probe=vit_probe(vit.DINO_B16, dino, dino_cropped),
        picture_probe=vit_probe(vit.DINO_B16, dino, dino_cropped_picture),
    )


def _i2v_background(*files: Path) -> Fidelity:
    return Fidelity(
        name="i2v_background",
        probe=dreamsim.probe(*files, picture=False),
        picture_probe=dreamsim.probe(*files, picture=True),
    )


def _subject_slow_fast(dino: Path, dinov2: Path, table: Path, params: Path) -> SlowFast:
    fast = vit_probe(vit.DINOV2_B14, dinov2, dino_cropped)
    return SlowFast(inner=_subject(dino), probe=fast, table=read_table(table, params, "sb"))


def _background_slow_fast(clip: Path, table: Path, params: Path, *files: Path) -> SlowFast:
    fast = dreamsim.probe(*files, picture=False)
    return SlowFast(inner=_background(clip), probe=fast, table=read_table(table, params, "bg"))


SHORT = (
    Offer(name="subject_consistency", make=_subject, files=(DINO,)),
    Offer(name="background_consistency", make=_background, files=(CLIP_B32,)),
    Offer(name="motion_smoothness", make=lambda amt: MotionSmoothness(amt_probe(amt)), files=(AMT_S,)),
    Offer(name="dynamic_degree", make=lambda raft: DynamicDegree(raft_probe(raft)), files=(RAFT_THINGS,)),
    Offer(name="aesthetic_quality", make=_aesthetic, files=(CLIP_L14, AESTHETIC)),
    Offer(name="imaging_quality", make=_imaging, files=(MUSIQ_SPAQ,)),
    Offer(name="temporal_flickering", make=TemporalFlickering),
)


def _long(offer: Offer) -> Offer:
    make: Callable[..., Metric] = offer.make
    return Offer(name=f"long_{offer.name}", make=lambda *files: Long(make(*files)), files=offer.files)


VBENCH: tuple[Offer, ...] = (
    *SHORT,
    Offer(name="i2v_subject", make=_i2v_subject, files=(DINO,), flag="--images"),
    Offer(name="i2v_background", make=_i2v_background, files=(DINO, *DREAMSIM), flag="--images"),
    *map(_long, SHORT),
    Offer(
        name="long_subject_consistency_slow_fast",
        make=_subject_slow_fast,
        files=(DINO, DINOV2, SUBJECT_TABLE, PARAMS),
    ),
    Offer(
        name="long_background_consistency_slow_fast",
        make=_background_slow_fast,
        files=(CLIP_B32, BACKGROUND_TABLE, PARAMS, DINO, *DREAMSIM),
    ),
)

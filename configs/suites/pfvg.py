"""The 160 videos of the paper (PFVG): 60 of 10 s, 60 of 30 s, 40 of 60 s, from pictures of VBench-I2V.

    python -m mpjax suite --config=configs/suites/pfvg.py --config.info=VBENCH_I2V/vbench2_i2v_full_info.json \\
        --config.images=VBENCH_I2V/data --weights=RUN --out=videos/ours

The paper does not say which pictures; these are drawn by `seed`. Its prompts were rewritten by a language model, these
are VBench's.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.info = ""
    config.images = ""
    config.ratio = "16-9"
    config.dimensions = ("i2v_subject", "i2v_background")
    config.lengths = [dict(seconds=10.0, videos=60), dict(seconds=30.0, videos=60), dict(seconds=60.0, videos=40)]
    config.samples = 1
    config.seed = 0
    return config

"""Which frames the metrics without a network look at: about eight a second, as VBench's dynamic degree."""

from mpjax.evaluation.metrics.metric import NotComputed, Part

SAMPLES_PER_SECOND = 8


def sampled(part: Part) -> range:
    """Indices in the video of the frames of a part that are looked at: every k-th, k = max(1, round(fps / 8)).

    They are counted from the first frame of the video, so that all its parts look at the same ones; a part without any
    looks at its first.
    """
    step = interval(part.video.fps)
    return range(-(-part.start // step) * step, part.stop, step) or range(part.start, part.start + 1)


def interval(fps: float) -> int:
    """Frames from one sample to the next."""
    return max(1, round(fps / SAMPLES_PER_SECOND))


def whole_video(part: Part) -> None:
    """Refuses a part: what compares the start of a video with its end has no Δdrift besides."""
    if len(part) < part.video.frames:
        raise NotComputed("is of whole videos")

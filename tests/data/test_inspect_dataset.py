import numpy as np
import pytest

from mpjax import codecs
from mpjax.__main__ import main
from mpjax.data.clip_encoding import ClipEncoder
from mpjax.data.clips import encode_folder
from mpjax.data.inspect_dataset import inspect_dataset
from mpjax.data.video import read_frames
from tests.data.media import moving, psnr, write_video


def test_counts_captions_and_decoded_frames(tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    for i, frames in enumerate((21, 9, 5)):
        write_video(videos / f"{i}.mp4", moving(frames, 32, 48, seed=i))
    (videos / "1.txt").write_text("waves <é>")
    encoder = ClipEncoder(codec=codecs.create("dct", time_factor=2, space_factor=4, channels=24), segment_frames=2)
    encode_folder(
        videos, tmp_path / "data", encoder=encoder, fps=12, height=16, width=24, max_segments=2, progress=lambda _: None
    )
    found = inspect_dataset(tmp_path / "data")
    assert (len(found.videos), found.items, found.captioned, found.captions) == (3, 4, 1, ["waves <é>"])
    assert found.seconds == pytest.approx((9 + 9 + 9 + 5) / 12)
    assert found.buckets == {(16, 24): 4} and found.segments == {1: 1, 2: 3}
    assert len(found.thumbnails) == 4
    for frame, label in found.thumbnails:
        _, _, rest = label.partition(": ")
        truth = np.stack(list(read_frames(videos / rest.split(",")[0], fps=12, height=16, width=24)))
        assert max(psnr(frame, other) for other in truth) > 30
    assert main(["data", "inspect", str(tmp_path / "data"), f"--html={tmp_path / 'page.html'}"]) == 0
    text, page = capsys.readouterr().out, (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "3 videos, 4 items" in text and "waves <é>" in text
    assert "waves &lt;é&gt;" in page and page.count("<img") == 4
    assert main(["data", "inspect", str(tmp_path / "data"), f"--videos={videos}"]) == 2
    assert "is none: leave it out" in capsys.readouterr().err

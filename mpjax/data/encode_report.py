"""What became of every video: `encode_report.json` of a dataset, and the sentence where nothing came of any."""

from collections.abc import Mapping, Sequence
from typing import Any

from mpjax.data.folder_clips import Video
from mpjax.progress import counted

REPORT_FILE = "encode_report.json"


def report(videos: Sequence[Video], sides: Mapping[str, str]) -> dict[str, Any]:
    """The report as JSON; `sides` are the splits by the videos' hashes."""
    return {
        "videos": [_report_entry(video, sides) for video in videos],
        "used": sum(bool(video.clips) for video in videos),
        "seconds": round(sum(clip.frames / clip.fps for video in videos for clip in video.clips), 3),
    }


def none_usable(videos: Sequence[Video]) -> str:
    """Why there is nothing to encode."""
    if not videos:
        return "no clips are listed; give a clips.jsonl of `data scan` that has some"
    first = "; ".join(f"{video.name}: {video.reason}" for video in videos[:3])
    return f"not one of {counted(len(videos), 'video')} can be used ({first}); add videos"


def _report_entry(video: Video, sides: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"file": video.name, "used": bool(video.clips)}
    if not video.clips:
        return entry | {"reason": video.reason}
    entry |= {
        "split": sides[video.clips[0].source_hash],
        "clips": len(video.clips),
        "seconds": round(sum(clip.frames / clip.fps for clip in video.clips), 3),
    }
    return entry | ({"note": video.note} if video.note else {})

"""A blind comparison of systems by people: a folder with one page and the videos under names that tell nothing.

    FOLDER/index.html           opens from the disk, needs no network
    FOLDER/videos/TOKEN.mp4     copies
    FOLDER.key.json             which system made which; stays with the one who runs the study

Every two systems are compared on every video that both have. Order and sides are drawn for each rater.
"""

import hashlib
import itertools
import json
import shutil
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mpjax import markup
from mpjax.data.clip_sources import Source, find_sources
from mpjax.data.media import Media
from mpjax.errors import InputError
from mpjax.whole_files import write_file, write_json

QUESTION = "Which video is better?"
SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".ogv")  # those of VIDEO_SUFFIXES that browsers play

_STYLE = """
body { max-width: 100rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; } .pair > div { flex: 1 1 20rem; text-align: center; }
.pair video { width: 100%; max-height: 65vh; background: #000; }
button { font: inherit; padding: .5rem 1.2rem; margin: .3rem .3rem .3rem 0; }
[hidden] { display: none !important; }
"""

_BODY = """
<form id="start">
<p>You will see two videos side by side, and say which one you prefer. It is not said which system made them.</p>
<p><label>Your name, or any word that stands for you: <input id="rater" required maxlength="80"></label>
<button id="begin">Begin</button></p>
</form>
<main id="work" hidden>
<p class="note"><span id="progress"></span> · keys: 1 left, 2 right, 0 no difference, r again</p>
<div id="trial">
<p id="caption"></p>
<div class="pair">
<div><video id="left" controls muted loop playsinline></video>
<button data-choice="left" disabled>Left is better</button></div>
<div><video id="right" controls muted loop playsinline></video>
<button data-choice="right" disabled>Right is better</button></div>
</div>
<p><button data-choice="tie" disabled>No difference</button> <button id="replay">Play both again</button></p>
</div>
<p id="end" hidden>That was the last pair. Download your votes and send the file back. Thank you.</p>
<p><button id="download" disabled>Download votes</button>
<button id="undo" disabled>Take back the last vote</button></p>
</main>
<p id="notice" role="status"></p>
"""


def write_study(
    folders: Sequence[Path], out: Path, *, question: str = QUESTION, votes_per_rater: int | None = None
) -> list[str]:
    """Writes the study and returns what to tell.

    Args:
        folders: one a system, two or more, named as the systems; videos with the same path inside belong together,
            whatever their suffix. Captions as in `find_sources` are shown above a pair.
        out: folder to write, new or empty; the key is written beside it.
        question: heading of the page.
        votes_per_rater: pairs that one rater sees; None for all.

    Raises:
        InputError: fewer than two systems, names that repeat, no common video, a video that browsers do not play, or a
            folder that is not empty.
    """
    systems, missing = _systems(folders)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; give a new folder, so that no study is mixed with another")
    if votes_per_rater is not None and votes_per_rater < 1:
        raise InputError(f"--votes-per-rater {votes_per_rater}: give 1 or more")
    pairs = [
        (name, first, second)
        for first, second in itertools.combinations(systems, 2)
        for name in sorted(systems[first].keys() & systems[second].keys())
    ]
    if not pairs:
        raise InputError(f"{', '.join(map(str, folders))}: no video has the same name in two folders; name them alike")
    clips = {
        _token(system, systems[system][name]): (system, name)
        for system, name in sorted({(system, name) for name, *two in pairs for system in two})
    }
    tokens = {clip: token for token, clip in clips.items()}
    rows = []
    for name, first, second in pairs:
        # In the order of the tokens, which says nothing about the systems.
        two = sorted((tokens[first, name], tokens[second, name]))
        caption = systems[first][name].caption or systems[second][name].caption
        rows.append({"id": _hash(*two), "clips": two, "caption": caption})
    rows.sort(key=lambda row: str(row["id"]))
    # Votes belong together only where the raters saw and were asked the same: the question, videos and captions.
    study = _hash(json.dumps([question, rows]))
    (out / "videos").mkdir(parents=True, exist_ok=True)
    for token, (system, name) in clips.items():
        shutil.copyfile(systems[system][name].path, out / "videos" / token)
    page = {"id": study, "pairs": rows, "votes_per_rater": votes_per_rater}
    script = f"<script>{(Path(__file__).with_name('page.js')).read_text(encoding='utf-8')}</script>"
    body = [_BODY, markup.island("study", page), script]
    key = {
        "study": study,
        "question": question,
        "systems": list(systems),
        "clips": {token: {"system": system, "video": name} for token, (system, name) in clips.items()},
    }
    key_path = out.with_name(out.name + ".key.json")
    write_json(key_path, key)
    write_file(out / "index.html", markup.document(question, body, style=_STYLE))
    alone = sum(len(videos) for videos in systems.values()) - len(clips)
    return [
        f"{markup.counted(len(pairs), 'pair')} of {len(clips)} videos, {', '.join(map(escape, systems))}",
        *([f"in one folder only, and left out: {markup.counted(alone, 'video')}"] if alone else []),
        *([f"named by a manifest but not there, and left out: {markup.counted(missing, 'video')}"] if missing else []),
        f"give to raters: {out} (open index.html)",
        f"keep for yourself: {key_path}",
    ]


def _systems(folders: Sequence[Path]) -> tuple[dict[str, dict[str, Source]], int]:
    """System → name of a video → the video; and how many a manifest names that are not there."""
    if len(folders) < 2:
        raise InputError("a comparison needs two folders of videos or more: give one for each system")
    systems: dict[str, dict[str, Source]] = {}
    missing = 0
    for folder in folders:
        name = folder.resolve().name
        if name in systems:
            raise InputError(f"{folder}: a second folder is called {name}; rename one, for it names the system")
        systems[name] = {}
        for source in find_sources(folder):
            if not source.path.exists():  # the manifest of a suite that is not generated to its end
                missing += 1
                continue
            if source.path.suffix.lower() not in SUFFIXES:
                raise InputError(f"{source.path}: browsers do not play this; convert it to mp4 (H.264)")
            stem = source.name.rpartition(".")[0]
            if stem in systems[name]:
                raise InputError(f"{source.path}: {folder} has two videos called {stem}; keep one")
            systems[name][stem] = source
    return systems, missing


def _token(system: str, source: Source) -> str:
    return _hash(system, source.name, Media(path=source.path).content_hash()) + source.path.suffix.lower()


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

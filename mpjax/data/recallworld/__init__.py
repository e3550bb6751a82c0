"""RecallWorld: an exact, download-free benchmark of memory and drift.

Every clip is the rendering of a known state, so what a model remembers and how far it drifts is read off by exact
decoders instead of being judged. Rooms: `world` (the settings) · `scenes` (what happens, one module a scene) · `stream`
and `trajectories` (what they draw and how things move) · `sprites` (what a toy looks like) · `clips` (the true state,
from one integer) · `render` (state → frames) · `leaks` (what must not depend on the identity) · `batches` (the training
data) · `templates` and `decode` (frames → state).
"""

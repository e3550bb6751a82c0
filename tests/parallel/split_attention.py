"""Run as a script by `processes.run`: attention on meshes against float64, forward and backward.

Prints for each case how it was split, whether it goes in a loop, and the largest errors of output and gradients, over
their largest entries.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.models import attention as entry
from mpjax.parallel.mesh import MeshShape
from mpjax.parallel.sharded_attention import choose
from tests.parallel.processes import join


def reference(q, k, v, mask, direction):
    """Float64 `[b, n, h · d]` and the gradients of its product with `direction`."""
    scale = q.shape[-1] ** -0.5
    scores = np.where(mask[:, None], np.einsum("bnhd,bmhd->bhnm", q, k) * scale, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    out = np.einsum("bhnm,bmhd->bnhd", p, v)
    of_p = np.einsum("bnhd,bmhd->bhnm", direction, v)
    of_scores = p * (of_p - (p * of_p).sum(-1, keepdims=True)) * scale
    return (
        out,
        np.einsum("bhnm,bmhd->bnhd", of_scores, k),
        np.einsum("bhnm,bnhd->bmhd", of_scores, q),
        np.einsum("bhnm,bnhd->bmhd", p, direction),
    )


def case(mesh, b, n, m, heads, mask, dtype="float32", largest=None):
    """(kind, [error of output, of the gradients by query, key and value])."""
    rng = np.random.default_rng(0)
    q, k, v, direction = (rng.normal(size=(b, length, heads, 8)) for length in (n, m, m, n))
    q = 2 * q
    masks = {
        "none": None,
        # Whole parts of the keys are masked for some videos: the first one, and all but the last one.
        "keys": np.arange(m)[None] >= np.array([0, m // 2, m - 1, 3])[:b, None],
        "pairs": rng.random((b, n, m)) < 0.5,
    }
    mask = masks[mask]
    allowed = np.ones((b, n, m), bool)
    if mask is not None:
        mask[..., -1] = True
        allowed &= mask if mask.ndim == 3 else mask[:, None]
    q, k, v = (np.asarray(jnp.asarray(x, dtype), np.float64) for x in (q, k, v))
    want = reference(q, k, v, allowed, direction)
    built = MeshShape(**mesh).build()
    tensor = built.shape["tensor"]
    own = heads // tensor if heads % tensor == 0 else heads
    kind = choose(n, m, own, built.shape["context"], mask is not None and mask.ndim == 3).kind
    if largest:
        entry.LARGEST_SCORES = entry.CACHED_SCORES = largest

    def value(q, k, v):
        out = entry.attention(q, k, v, None if mask is None else jnp.asarray(mask))
        out = out.reshape(b, n, heads, 8)
        return (out.astype(jnp.float32) * direction).sum(), out

    try:
        with jax.set_mesh(built):
            arguments = [jnp.asarray(x, dtype) for x in (q, k, v)]
            run = jax.jit(jax.value_and_grad(value, (0, 1, 2), has_aux=True))
            (_, out), gradients = run(*arguments)
            text = run.lower(*arguments).as_text()
    finally:
        entry.LARGEST_SCORES, entry.CACHED_SCORES = 2**30, 2**22
    errors = [np.abs(np.float64(a) - b).max() / np.abs(b).max() for a, b in zip((out, *gradients), want, strict=True)]
    return {
        "kind": kind,
        "errors": errors,
        "ring": "collective_permute" in text,
        "exchange": "all_to_all" in text,
        "loop": "stablehlo.while" in text,
    }


if __name__ == "__main__":
    print(json.dumps({name: case(**fields) for name, fields in join(sys.argv[1:]).items()}))

"""The network a second time: float64 NumPy, written from the equations of docs/backbone.md, sharing no code with mpjax.

Loops where mpjax has array tricks: one patch, one token, one head, one complex rotation at a time.
"""

import math

import numpy as np

EPSILON = 1e-6


def linear(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


def silu(x):
    return x / (1.0 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def norm(x, p=None):
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    return y if p is None else y * p["scale"] + p["bias"]


def rms(x, p):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * p["scale"]


def sinusoid(t):
    out = np.zeros((len(t), 256))
    for b, value in enumerate(t):
        for i in range(128):
            angle = value * math.exp(-math.log(10000.0) * i / 128)
            out[b, i], out[b, 128 + i] = math.cos(angle), math.sin(angle)
    return out


def embedding(p, x):
    return linear(p["linear_2"], silu(linear(p["linear_1"], x)))


def feed_forward(p, x, activation=gelu):
    return linear(p["down"], activation(linear(p["up"], x)))


def modulation(p, temb, parts):
    return np.split(linear(p["linear"], silu(temb))[:, None], parts, -1)


def patch_embed(p, x, kernel):
    """A strided convolution, patch by patch; the weight of channel c at (i, j, k) is row (c, i, j, k) of the kernel."""
    (kt, kh, kw), c = kernel, x.shape[-1]
    weight = p["kernel"].reshape(c, kt, kh, kw, -1)
    pad = [(0, 0)] + [(0, (k - n % k) % k) for n, k in zip(x.shape[1:4], kernel, strict=True)] + [(0, 0)]
    x = np.pad(x, pad, mode="edge")
    tokens = []
    for t in range(0, x.shape[1], kt):
        for y in range(0, x.shape[2], kh):
            for z in range(0, x.shape[3], kw):
                patch = x[:, t : t + kt, y : y + kh, z : z + kw]
                tokens.append(np.einsum("bijkc,cijko->bo", patch, weight) + p["bias"])
    return np.stack(tokens, 1)


def attend(q, k, v, allowed):
    """`[b, n, heads, head_dim]` with allowed keys bool `[b, n, m]`, one query of one head at a time."""
    out = np.zeros_like(q)
    for b, n, h in np.ndindex(q.shape[:3]):
        keys = np.flatnonzero(allowed[b, n])
        scores = k[b, keys, h] @ q[b, n, h] / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max())
        out[b, n, h] = weights @ v[b, keys, h] / weights.sum()
    return out.reshape(*q.shape[:2], -1)


def rotations(frames, grid, axes, theta, rate):
    """Complex factors `[tokens, head_dim / 2]`; at rate r the mean over r³ neighbours of the edge-padded grid."""
    frequencies = [theta ** (-2 * j / n) for n in axes for j in range(n // 2)]
    axis_of = [a for a, n in enumerate(axes) for _ in range(n // 2)]
    last = (len(frames) - 1, grid[0] - 1, grid[1] - 1)
    rows = []
    for t in range(0, len(frames), rate):
        for y in range(0, grid[0], rate):
            for x in range(0, grid[1], rate):
                total = np.zeros(len(frequencies), complex)
                for dt, dy, dx in np.ndindex(rate, rate, rate):
                    place = (frames[min(t + dt, last[0])], min(y + dy, last[1]), min(x + dx, last[2]))
                    total += [np.exp(1j * place[a] * f) for a, f in zip(axis_of, frequencies, strict=True)]
                rows.append(total / rate**3)
    return np.stack(rows)


def rotate(x, factors):
    """Turns the channel pairs of the first tokens, `[b, n, heads, head_dim]`."""
    out = x.copy()
    n = len(factors)
    z = (x[:, :n, :, 0::2] + 1j * x[:, :n, :, 1::2]) * factors[None, :, None]
    out[:, :n, :, 0::2], out[:, :n, :, 1::2] = z.real, z.imag
    return out


def heads(x, count):
    return x.reshape(*x.shape[:2], count, -1)


def qkv(p, x, count):
    q, k, v = (heads(linear(p[name], x), count) for name in ("to_q", "to_k", "to_v"))
    return rms(q, p["norm_q"]), rms(k, p["norm_k"]), v


def refiner(p, text, mask, timestep, count, depth):
    pooled = (text * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    r = embedding(p["timestep_embedder"], sinusoid(timestep)) + embedding(p["text_embedder"], pooled)
    x = linear(p["proj_in"], text)
    allowed = mask[:, :, None] & mask[:, None, :]
    allowed[:, :, 0] = True
    for i in range(depth):
        block = p[f"block_{i}"]
        gate_attention, gate_mlp = modulation(block["norm_out"], r, 2)
        h = norm(x, block["norm1"])
        q, k, v = (heads(linear(block[name], h), count) for name in ("to_q", "to_k", "to_v"))
        x = x + gate_attention * linear(block["to_out"], attend(q, k, v, allowed))
        x = x + gate_mlp * feed_forward(block["ff"], norm(x, block["norm2"]), silu)
    return x


def dual_block(p, x, c, temb, factors, allowed, count):
    shift, scale, gate, shift_m, scale_m, gate_m = modulation(p["norm1"], temb, 6)
    c_shift, c_scale, c_gate, c_shift_m, c_scale_m, c_gate_m = modulation(p["norm1_context"], temb, 6)
    q, k, v = qkv(p["qkv"], norm(x) * (1 + scale) + shift, count)
    cq, ck, cv = qkv(p["qkv_context"], norm(c) * (1 + c_scale) + c_shift, count)
    q, k = rotate(q, factors), rotate(k, factors)
    joint = [np.concatenate(pair, 1) for pair in ((q, cq), (k, ck), (v, cv))]
    out = attend(*joint, allowed)
    n = x.shape[1]
    x = x + gate * linear(p["to_out"], out[:, :n])
    c = c + c_gate * linear(p["to_out_context"], out[:, n:])
    x = x + gate_m * feed_forward(p["ff"], norm(x) * (1 + scale_m) + shift_m)
    c = c + c_gate_m * feed_forward(p["ff_context"], norm(c) * (1 + c_scale_m) + c_shift_m)
    return x, c


def single_block(p, z, temb, factors, allowed, count):
    shift, scale, gate = modulation(p["norm"], temb, 3)
    h = norm(z) * (1 + scale) + shift
    q, k, v = qkv(p["qkv"], h, count)
    out = attend(rotate(q, factors), rotate(k, factors), v, allowed)
    merged = np.concatenate([out, gelu(linear(p["proj_mlp"], h))], -1)
    return z + gate * linear(p["proj_out"], merged)


def layer(p, i):
    """Parameters of layer i of a scanned stack."""
    return {k: layer(v, i) if isinstance(v, dict) else v[i] for k, v in p.items()}


def indices(arch, segments):
    """Frame indices (4x, 2x, clean 1x with the reference first, noisy) of docs/backbone.md."""
    f, (one, two, four) = arch.framepack.segment_frames, arch.framepack.history_frames
    newest = f * segments if arch.framepack.rope_layout == "global" else one + two + four
    past = list(range(newest - one - two - four + 1, newest + 1))
    return past[:four], past[four : four + two], [0, *past[four + two :]], list(range(newest + 1, newest + 1 + f))


def prediction(arch, p, x_t, timestep, history, condition, memory, guidance):
    """The whole network on float64 arrays; the dataclass fields are those of mpjax."""
    _, two, four = arch.framepack.history_frames
    f, h, w, c = x_t.shape[1:]
    s = arch.patch
    frames = history.frames
    streams = [
        (4, frames[:, :four]),
        (2, frames[:, four : four + two]),
        (1, np.concatenate([history.reference, frames[:, four + two :]], 1)),
    ]
    tokens = [patch_embed(p["clean_x_embedder"][f"proj_{r}x"], x, (r, r * s, r * s)) for r, x in streams]
    noisy = patch_embed(p["x_embedder"], x_t, (1, s, s))
    x = np.concatenate([*tokens, noisy], 1)
    places = zip((4, 2, 1, 1), indices(arch, int(history.segments)), strict=True)
    grid = (h // s, w // s)
    factors = np.concatenate([rotations(i, grid, arch.rope_axes, arch.rope_theta, r) for r, i in places])

    embed = p["time_text_embed"]
    temb = embedding(embed["timestep_embedder"], sinusoid(timestep))
    temb = temb + embedding(embed["text_embedder"], condition.pooled)
    temb = temb + embedding(embed["guidance_embedder"], sinusoid(guidance))
    project = p["image_projection"]
    image = linear(project["down"], silu(linear(project["up"], condition.image)))
    text = refiner(
        p["context_embedder"], condition.text, condition.text_mask, timestep, arch.heads, arch.refiner_blocks
    )
    context = np.concatenate([image, text, memory.tokens], 1)
    keys = [np.ones((len(x), x.shape[1] + image.shape[1]), bool), condition.text_mask, memory.valid]
    keys = np.concatenate(keys, 1)
    allowed = np.repeat(keys[:, None], keys.shape[1], 1)

    n = x.shape[1]
    for i in range(arch.dual_blocks):
        x, context = dual_block(layer(p["blocks"]["dual_blocks"], i), x, context, temb, factors, allowed, arch.heads)
    z = np.concatenate([x, context], 1)
    for i in range(arch.single_blocks):
        z = single_block(layer(p["blocks"]["single_blocks"], i), z, temb, factors, allowed, arch.heads)
    last = z[:, n - noisy.shape[1] : n]
    scale, shift = modulation(p["head"]["norm_out"], temb, 2)
    out = linear(p["head"]["proj_out"], norm(last) * (1 + scale) + shift)

    video = np.zeros((len(x), f, h, w, c))
    token = 0
    for t in range(f):
        for y in range(h // s):
            for z in range(w // s):
                patch = out[:, token].reshape(-1, c, s, s)
                video[:, t, y * s : (y + 1) * s, z * s : (z + 1) * s] = patch.transpose(0, 2, 3, 1)
                token += 1
    return video

"""Floating-point operations of one network evaluation, counted from the shapes it runs on.

A matrix product of [m, k] and [k, n] is 2 m k n operations; n tokens that attend to all n are 4 n² d (scores, then
values). Nothing else is counted: at full width norms, activations and RoPE are far below a hundredth. Masked tokens
count, since they are computed. XLA's own count is no substitute: it counts a scanned block once.
"""

import dataclasses

from mpjax.models.architecture import Architecture
from mpjax.models.framepack import RATES
from mpjax.models.layers import SINUSOID_FREQUENCIES, token_grid

SINUSOID_WIDTH = 2 * len(SINUSOID_FREQUENCIES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """How many tokens of each kind the network reads.

    Attributes:
        noisy: of the segment.
        history: at 1x (the reference frame among them), 2x and 4x.
        image, text, memory: of the context.
    """

    noisy: int
    history: tuple[int, int, int]
    image: int
    text: int
    memory: int

    @property
    def latents(self) -> int:
        """Tokens of the first stream: history and noisy ones."""
        return self.noisy + sum(self.history)

    @property
    def context(self) -> int:
        """Tokens of the second stream."""
        return self.image + self.text + self.memory


def token_counts(
    architecture: Architecture, latent_size: tuple[int, int], *, text: int, image: int, memory: int
) -> Tokens:
    """The tokens for latents of (height, width), with so many of the prompt, of the reference image and of ψ."""
    arch, pack = architecture, architecture.framepack
    near, *far = pack.history_frames

    def count(frames: int, rate: int) -> int:
        t, h, w = token_grid((frames, *latent_size), (rate, rate * arch.patch, rate * arch.patch))
        return t * h * w

    one, two, four = (count(frames, rate) for frames, rate in zip((1 + near, *far), RATES, strict=True))
    return Tokens(noisy=count(pack.segment_frames, 1), history=(one, two, four), image=image, text=text, memory=memory)


def velocity_flops(architecture: Architecture, tokens: Tokens, batch: int = 1) -> dict[str, int]:
    """Operations of `Denoiser.velocity` by part: embed, dual_blocks, single_blocks, head.

    `embed` has the token refiner, which reads the prompt anew at every step.
    """
    arch = architecture
    d, mlp, n = arch.width, arch.mlp_width, tokens.latents + tokens.context
    pixels = arch.channels * arch.patch**2

    def embedding(width: int) -> int:
        return 2 * width * d + 2 * d * d

    def attention(count: int) -> int:
        """Four projections, and all tokens over all."""
        return 4 * 2 * count * d * d + 4 * count * count * d

    patches = sum(2 * count * pixels * rate**3 * d for count, rate in zip(tokens.history, RATES, strict=True))
    patches += 2 * tokens.noisy * pixels * d
    conditioning = (1 + arch.guidance_embeds) * embedding(SINUSOID_WIDTH) + embedding(arch.pooled_width)
    image = 2 * tokens.image * (arch.image_width * 3 * d + 3 * d * d)
    refiner_block = 2 * d * 2 * d + attention(tokens.text) + 2 * tokens.text * 2 * d * mlp
    refiner = embedding(SINUSOID_WIDTH) + embedding(arch.text_width) + 2 * tokens.text * arch.text_width * d
    refiner += arch.refiner_blocks * refiner_block
    # The projection behind a single block's attention also takes its MLP, so both kinds need 2 n · 2 d · mlp for that.
    feed_forward = 2 * n * 2 * d * mlp
    parts = {
        "embed": patches + conditioning + image + refiner,
        "dual_blocks": arch.dual_blocks * (2 * 2 * d * 6 * d + attention(n) + feed_forward),
        "single_blocks": arch.single_blocks * (2 * d * 3 * d + attention(n) + feed_forward),
        "head": 2 * d * 2 * d + 2 * tokens.noisy * d * pixels,
    }
    return {name: batch * count for name, count in parts.items()}

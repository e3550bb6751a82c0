"""ODE samplers from noise (t = 0) to data (t = 1). A network is a function velocity(x `[b, …]`, t `[b]`) → `[b, …]`.

Samplers step along σ = 1 − t, from σ_0 = 1 to σ_n = 0 (docs/backbone.md, 2.4; Eq. (a) is that of `flow`):

    (1) σ_i = (a) of 1 − i/n with shift s
    (2) s = e^μ, μ = min(1/2 + (1.15 − 1/2) · (tokens − 256) / (4096 − 256), ln 7)      the dynamic shift

**Euler** is x_{i+1} = x_i + (t_{i+1} − t_i)·v(x_i, t_i).

**UniPC** (Zhao et al. 2023, arXiv 2302.04867) integrates the prediction of the data, m = x + σ·v. With λ = −ln σ and a
step h = λ_i − λ_{i−1}, what the flow does to x is exactly

    (3) x_i = e^{−h}·x_{i−1} + ∫₀¹ h·e^{−h(1−θ)}·m(λ_{i−1} + θh) dθ

and m is replaced by the polynomial in θ through its newest p values, which lie at θ = 0 and at
r_k = (λ_{i−1−k} − λ_{i−1}) / h < 0; the corrector's goes through m_i at r = 1 too:

    (4) m(θ) ≈ m_{i−1} + Σ_j c_j·θ^j,   Σ_j c_j·r_k^{j−1} = D_k = (m_{i−1−k} − m_{i−1}) / r_k
    (5) x_i = e^{−h}·x_{i−1} + (1 − e^{−h})·m_{i−1} + Σ_k g_k·D_k,   Σ_k r_k^{j−1}·g_k = ∫₀¹ h·e^{−h(1−θ)}·θ^j dθ

A single g is not solved for but set to B(h)/2, which keeps the order: B(h) = h in variant bh1, 1 − e^{−h} in bh2.
A step predicts x̃_i by (5), evaluates m_i there, once, and corrects x_i by (5) with m_i. The last m is the result:
nothing is ever evaluated at σ = 0, where λ ends.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mpjax.diffusion.flow import shift_sigma
from mpjax.errors import InputError

Velocity = Callable[[jax.Array, jax.Array], jax.Array]
# The same with a pytree that goes from one evaluation to the next.
StatefulVelocity = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]

VARIANTS = ("bh1", "bh2")
ORDER = 3  # of UniPC's predictor, once there are enough values of m

# Gauss-Legendre: exact to rounding for the integrals of Eq. (5), whose closed forms cancel where h is small.
_NODES, _MEASURE = np.polynomial.legendre.leggauss(32)


def dynamic_shift(tokens: int) -> float:
    """Eq. (2): more noisy tokens, more steps at high noise; 7 from 8798 tokens on."""
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    return math.exp(min(mu, math.log(7.0)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Grid(abc.ABC):
    """Where the samplers evaluate the network."""

    steps: int = 25
    shift: float | None = 1.0

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}: it must be at least 1")
        if self.shift is not None and not (self.shift > 0 and math.isfinite(self.shift)):
            raise InputError(f"shift is {self.shift}: it must be above 0, or None for the dynamic shift")

    def sigmas(self, tokens: int | None = None) -> np.ndarray:
        """The grid of Eq. (1), σ_0 = 1 > … > σ_steps = 0, float64 `[steps + 1]`.

        Args:
            tokens: noisy tokens of a segment, which the dynamic shift depends on; a fixed shift ignores them.

        Raises:
            ValueError: the shift is dynamic and `tokens` is None.
        """
        shift = self.shift
        if shift is None:
            if tokens is None:
                raise ValueError("the shift is dynamic: pass the number of noisy tokens")
            shift = dynamic_shift(tokens)
        return shift_sigma(np.linspace(1.0, 0.0, self.steps + 1), shift)

    def times(self, tokens: int | None = None) -> np.ndarray:
        """The same grid in flow time, t_0 = 0 < … < t_steps = 1, float32 `[steps + 1]`."""
        return np.asarray(1.0 - self.sigmas(tokens), np.float32)

    def sample(self, velocity: Velocity, noise: jax.Array, tokens: int | None = None) -> jax.Array:
        """Integrates from noise `[b, …]` at t = 0 to the data at t = 1; `tokens` as in `sigmas`."""
        return self.sample_with_state(lambda x, t, state: (velocity(x, t), state), noise, (), tokens)[0]

    @abc.abstractmethod
    def sample_with_state(
        self, velocity: StatefulVelocity, noise: jax.Array, state: Any, tokens: int | None = None
    ) -> tuple[jax.Array, Any]:
        """As `sample`, and the state after the last of the `steps` evaluations."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler(_Grid):
    """Euler steps on the shifted grid (diffusers 0.42 `FlowMatchEulerDiscreteScheduler`, sigmas = linspace(1, 0)).

    Attributes:
        steps: network evaluations.
        shift: s of Eq. (1), above 1 spends more steps at high noise; None is the dynamic one of Eq. (2).
    """

    kind: ClassVar[str] = "euler"

    def sample_with_state(
        self, velocity: StatefulVelocity, noise: jax.Array, state: Any, tokens: int | None = None
    ) -> tuple[jax.Array, Any]:
        """See `_Grid.sample_with_state`."""

        def step(carry: Any, interval: jax.Array) -> tuple[Any, None]:
            (x, state), (t, t_next) = carry, interval
            v, state = velocity(x, jnp.full(x.shape[:1], t), state)
            return (x + (t_next - t) * v, state), None

        times = jnp.asarray(self.times(tokens))
        (x, state), _ = jax.lax.scan(step, (noise, state), jnp.stack([times[:-1], times[1:]], -1))
        return x, state


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniPC(_Grid):
    """UniPC of order 3 on the shifted grid, as FramePack's demo samples.

    diffusers 0.42 `UniPCMultistepScheduler` does the same to x / √(1 + σ²) on these σ with `use_flow_sigmas` and
    `lower_order_final` off; its `use_flow_sigmas` counts λ = ln((1 − σ)/σ), which is another method.

    Attributes:
        steps: network evaluations.
        shift: s of Eq. (1), above 1 spends more steps at high noise; None is the dynamic one of Eq. (2).
        variant: B(h), `bh1` (FramePack's) or `bh2`.
    """

    kind: ClassVar[str] = "unipc"
    variant: str = "bh1"

    def __post_init__(self):
        super().__post_init__()
        if self.variant not in VARIANTS:
            raise InputError(f"variant is {self.variant!r}: it must be one of {', '.join(VARIANTS)}")

    def weights(self, tokens: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Eq. (5) of every step as weights of (x_{i−1}, m_{i−1}, m_{i−2}, m_{i−3}) and, in the corrector, m_i.

        Returns:
            predictor `[steps, 4]` and corrector `[steps, 5]`, float64; 0 where the order does not reach that far. The
            first step has no past: both weights leave x as it is.
        """
        lambdas = -np.log(self.sigmas(tokens)[:-1])
        predictor, corrector = np.zeros((self.steps, 1 + ORDER)), np.zeros((self.steps, 2 + ORDER))
        predictor[0, 0] = corrector[0, 0] = 1.0
        for i in range(1, self.steps):
            order = min(i, ORDER)
            h = lambdas[i] - lambdas[i - 1]
            past = (lambdas[i - order : i - 1][::-1] - lambdas[i - 1]) / h
            predictor[i, : 1 + order] = self._row(h, past)
            corrector[i, [*range(1 + order), -1]] = self._row(h, np.append(past, 1.0))
        return predictor, corrector

    def _row(self, h: float, ratios: np.ndarray) -> np.ndarray:
        """Eq. (5): weights of x_{i−1}, of m_{i−1}, and of the values of m that lie at the ratios r."""
        if len(ratios) == 1:
            gains: np.ndarray = np.array([h if self.variant == "bh1" else -math.expm1(-h)]) / 2
        else:
            powers, theta = np.arange(len(ratios))[:, None], (1 + _NODES) / 2
            integrals = theta ** (1 + powers) @ (h * np.exp(-h * (1 - theta)) * _MEASURE / 2)
            gains = np.linalg.solve(ratios**powers, integrals)
        shares = gains / ratios
        return np.array([math.exp(-h), -math.expm1(-h) - shares.sum(), *shares])

    def sample_with_state(
        self, velocity: StatefulVelocity, noise: jax.Array, state: Any, tokens: int | None = None
    ) -> tuple[jax.Array, Any]:
        """See `_Grid.sample_with_state`."""

        def step(carry: Any, inputs: tuple[jax.Array, ...]) -> tuple[Any, None]:
            x, past, state = carry
            t, sigma, predictor, corrector = inputs
            predicted = _combine(predictor, (x, *past))
            v, state = velocity(predicted, jnp.full(x.shape[:1], t), state)
            m = predicted + sigma * v
            return (_combine(corrector, (x, *past, m)), (m, *past[:-1]), state), None

        grid = (self.times(tokens)[:-1], self.sigmas(tokens)[:-1], *self.weights(tokens))
        start = (noise, (jnp.zeros_like(noise),) * ORDER, state)
        (_, (m, *_), state), _ = jax.lax.scan(step, start, tuple(jnp.asarray(x, noise.dtype) for x in grid))
        return m, state


Sampler = Euler | UniPC


def _combine(weights: jax.Array, arrays: Sequence[jax.Array]) -> jax.Array:
    """Σ weights[i] · arrays[i]."""
    return sum((weights[i] * array for i, array in enumerate(arrays[1:], 1)), weights[0] * arrays[0])

"""Prompts of a batch: one a segment, or one a video."""

import jax
import numpy as np
import pytest

from mpjax.data.batch import Batch
from mpjax.models.encoders import Condition


def batch_of(prompts):
    return Batch(reference=np.zeros((2, 1)), segments=np.zeros((2, 3)), prompts=prompts, weight=np.ones((2, 3)))


@pytest.mark.parametrize("count", [1, 3])
def test_prompts_of_a_segment(count):
    values = np.arange(2 * count * 4).reshape(2, count, 4)
    arrays = {name: values + i for i, name in enumerate(("text", "text_mask", "pooled", "image"))}
    for prompts in (values, Condition(**arrays)):
        batch = batch_of(prompts)
        traced = jax.jit(lambda n, batch=batch: batch.prompts_of(n))
        for n in range(3):
            want = jax.tree.map(lambda x, n=n: x[:, n if count == 3 else 0], prompts)
            jax.tree.map(np.testing.assert_array_equal, batch.prompts_of(n), want)
            jax.tree.map(np.testing.assert_array_equal, traced(n), want)
        jax.tree.map(np.testing.assert_array_equal, batch.first_prompts, batch.prompts_of(0))

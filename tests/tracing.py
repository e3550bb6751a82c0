"""What a traced function does."""

import math

import jax


def equations(jaxpr):
    """Of a trace and of all that is inside of it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in _inside(equation):
            yield from equations(inner)


def multiplications(jaxpr):
    """Operations of the matrix products and convolutions of a trace, a scanned body as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += repeats * sum(multiplications(inner) for inner in _inside(equation))
        places = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * places * math.prod(left[axis] for axis in contracted)
        if equation.primitive.name == "conv_general_dilated":
            kernel, (out, *_) = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
            total += 2 * places * math.prod(kernel) // kernel[out]
    return total


def _inside(equation):
    if not equation.outvars and not equation.effects:  # the compiler drops what does nothing
        return []
    inner = [getattr(p, "jaxpr", p) for p in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)]
    return [p for p in inner if hasattr(p, "eqns")]


def _is_jaxpr(leaf):
    return hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")

# ruff: noqa: E501 (a line of HLO is as long as it is)
"""Traffic of a program that is small enough to count by hand."""

import pytest

from mpjax.plan.hlo import Traffic, array_bytes, traffic

KB = 1024
# Four chips. A loop of three turns gathers a piece of stacked weights, multiplies, and passes a kernel.
TEXT = """
HloModule step, entry_computation_layout={(f32[3,64,16]{2,1,0}, f32[16,64]{1,0})->f32[16,64]{1,0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add.1 = f32[]{:T(128)} add(%a, %b)
}

%fused_piece (p0: f32[3,64,16], p1: s32[]) -> f32[64,16] {
  %p0 = f32[3,64,16]{2,1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %piece = f32[1,64,16]{2,1,0:T(8,128)} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,16}
  ROOT %bitcast.1 = f32[64,16]{1,0:T(8,128)} bitcast(%piece)
}

%all-reduce-scatter.1 (p0: f32[64,64]) -> f32[16,64] {
  %p0.1 = f32[64,64]{1,0:T(8,128)} parameter(0)
  %all-reduce.7 = f32[64,64]{1,0:T(8,128)} all-reduce(%p0.1), channel_id=3, replica_groups={{0,1,2,3}}, to_apply=%add
  %part = s32[]{:T(128)} constant(0)
  ROOT %cut = f32[16,64]{1,0:T(8,128)} dynamic-slice(%all-reduce.7, %part, %part), dynamic_slice_sizes={16,64}
}

%body (state: (s32[], f32[3,64,16], f32[16,64])) -> (s32[], f32[3,64,16], f32[16,64]) {
  %state = (s32[]{:T(128)}, f32[3,64,16]{2,1,0:T(8,128)}, /*index=2*/f32[16,64]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %stack = f32[3,64,16]{2,1,0:T(8,128)} get-tuple-element(%state), index=1
  %x = f32[16,64]{1,0:T(8,128)} get-tuple-element(%state), index=2
  %fusion.1 = f32[64,16]{1,0:T(8,128)} fusion(%stack, %i), kind=kLoop, calls=%fused_piece
  %gather-start = (f32[64,16]{1,0:T(8,128)}, f32[64,64]{1,0:T(8,128)S(1)}) all-gather-start(%fusion.1), channel_id=1, replica_groups=[1,4]<=[4], dimensions={1}
  %gather-done = f32[64,64]{1,0:T(8,128)S(1)} all-gather-done(%gather-start)
  %kernel = f32[16,64]{1,0:T(8,128)} custom-call(%x, %gather-done), custom_call_target="tpu_custom_call", metadata={op_name="splash_mha_fwd_segmented"}
  ROOT %tuple = (s32[]{:T(128)}, f32[3,64,16]{2,1,0:T(8,128)}, f32[16,64]{1,0:T(8,128)}) tuple(%i, %stack, %kernel)
}

%condition (state.1: (s32[], f32[3,64,16], f32[16,64])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[3,64,16]{2,1,0:T(8,128)}, f32[16,64]{1,0:T(8,128)}) parameter(0)
  ROOT %yes = pred[]{:T(256)} constant(true)
}

ENTRY %main (w: f32[3,64,16], x0: f32[16,64]) -> f32[16,64] {
  %w = f32[3,64,16]{2,1,0:T(8,128)} parameter(0)
  %x0 = f32[16,64]{1,0:T(8,128)} parameter(1)
  %i0 = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[3,64,16]{2,1,0:T(8,128)}, f32[16,64]{1,0:T(8,128)}) tuple(%i0, %w, %x0)
  %while.1 = (s32[]{:T(128)}, f32[3,64,16]{2,1,0:T(8,128)}, f32[16,64]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %y = f32[16,64]{1,0:T(8,128)} get-tuple-element(%while.1), index=2
  %permute = f32[16,64]{1,0:T(8,128)} collective-permute(%y), channel_id=2, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %wide = f32[64,64]{1,0:T(8,128)S(1)} broadcast(%permute), dimensions={0,1}
  ROOT %scatter = f32[16,64]{1,0:T(8,128)} fusion(%wide), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_collectives_are_weighed_by_how_often_they_run():
    found = traffic(TEXT)
    assert found.count == {"all-gather": 3, "collective-permute": 1, "reduce-scatter": 1}
    assert found.moved == {
        "all-gather": 3 * 3 / 4 * 16 * KB,  # three quarters of what comes out are those of others
        "collective-permute": 4 * KB,
        "reduce-scatter": 3 / 4 * 16 * KB,
    }
    assert found.kernels == {"splash_mha_fwd": 3}


@pytest.mark.parametrize("line", ["", '"brace":"}"', "%more = f32[64] all-reduce(%x)"])
def test_a_kernels_line_breaks_do_not_end_its_computation(line):
    """What Pallas says of a kernel stands on lines of its own; a collective behind it counts, and so does its name."""
    (kernel,) = (line for line in TEXT.splitlines() if "%kernel =" in line)
    late = "  %late = f32[16,64]{1,0:T(8,128)} all-reduce(%kernel), channel_id=4, replica_groups={{0,1,2,3}}, to_apply=%add"
    plain = TEXT.replace(kernel, f"{kernel}\n{late}")
    said = 'frontend_attributes={kernel_metadata={\n"xprof_metadata":"{\\"block_q\\": 16}"\n LINE\n}\n}, metadata'
    said = said.replace("LINE", line)
    broken = plain.replace(kernel, kernel.replace("metadata", said))
    assert broken.count("\n") == plain.count("\n") + 4
    assert traffic(broken) == traffic(plain) and traffic(broken).count["all-reduce"] == 3


def test_memory_counts_pieces_and_leaves_out_what_lies_on_the_chip():
    turn = (
        4 * KB + 4 * KB  # the piece of the stack that is read, and written
        + 4 + 4 * KB + 4 * KB  # the loop's number; what the collective reads, and its first result
        + 4 * KB + 4 * KB  # the kernel: x and its result; the gathered weights are in on-chip memory
    )  # fmt: skip
    entry = 2 * 4 * KB + 4 * KB + 4 * KB  # the permutation, the broadcast's source, what the scatter writes
    assert traffic(TEXT).memory == 3 * turn + entry


def test_a_collective_that_runs_beside_other_work_counts_once():
    """The compiler repeats it in each fusion that it runs beside."""
    gather = 'all-gather(%p), replica_groups={{0,1}}, dimensions={0}, frontend_attributes={chain_id="0"}'
    text = f"""
%begin (p: bf16[8]) -> bf16[16] {{
  %p = bf16[8]{{0}} parameter(0)
  %g.1 = bf16[16]{{0}} {gather}
  ROOT %c = bf16[16]{{0}} custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}}

%end (p: bf16[8]) -> bf16[16] {{
  %p = bf16[8]{{0}} parameter(0)
  %g.2 = bf16[16]{{0}} {gather}
  ROOT %c = bf16[16]{{0}} custom-call(%g.2), custom_call_target="AsyncCollectiveDone"
}}

ENTRY %main (x: bf16[8]) -> bf16[16] {{
  %x = bf16[8]{{0}} parameter(0)
  %a = bf16[16]{{0}} fusion(%x), kind=kCustom, calls=%begin
  ROOT %b = bf16[16]{{0}} fusion(%x), kind=kCustom, calls=%end
}}
"""
    found = traffic(text)
    assert found.count == {"all-gather": 1} and found.moved == {"all-gather": 16}


def test_a_loop_without_a_known_count_is_refused():
    unknown = TEXT.replace("known_trip_count", "unknown")
    with pytest.raises(ValueError, match=r"how often the loop while\.1 turns"):
        traffic(unknown)
    bound = "  %bound = s32[] constant(3)\n  %i.1 = s32[] get-tuple-element(%state.1), index=0\n  ROOT %yes = pred[] compare(%i.1, %bound), direction=LT"
    counted = unknown.replace("  ROOT %yes = pred[]{:T(256)} constant(true)", bound)
    assert traffic(counted) == traffic(TEXT)
    with pytest.raises(ValueError, match="no ENTRY"):
        traffic("HloModule empty")


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[]", 4),
        ("bf16[8,128]{1,0:T(8,128)(2,1)}", 2 * KB),
        ("(pred[3]{0}, s32[2]{0})", 11),
        ("u8[5]{0:S(1)}", 0),
        ("f8e4m3fn[16]{0}", 16),
        ("s4[16]{0}", 8),
        ("token[]", 0),
    ],
)
def test_bytes_of_a_shape(shape, size):
    assert array_bytes(shape) == size


def test_nothing_moves_in_an_empty_program():
    assert traffic("ENTRY %main (x: f32[8]) -> f32[8] {\n  ROOT %x = f32[8]{0} parameter(0)\n}") == Traffic()


@pytest.mark.parametrize(("bound", "step", "turns"), [(3, 1, 3), (16, 2, 8), (5, 2, 3)])
@pytest.mark.parametrize("kind", ["s32", "u32"])
def test_a_loop_counts_by_its_bound_and_step(kind, bound, step, turns):
    """XLA unrolls a product that it spreads over a ring of chips, and does not say how often that turns."""
    said = ', backend_config={"known_trip_count":{"n":"3"}}'
    compare = f"""  %last = {kind}[]{{:T(128)}} constant({bound})
  %now = {kind}[]{{:T(128)}} get-tuple-element(%state.1), index=0
  ROOT %yes = pred[]{{:T(256)}} compare(%now, %last), direction=LT"""
    add = f"""  %by = {kind}[]{{:T(128)}} constant({step})
  %more = {kind}[]{{:T(128)}} add(%i, %by)
"""
    text = TEXT.replace(said, "").replace("  ROOT %yes = pred[]{:T(256)} constant(true)", compare)
    text = text.replace("  ROOT %tuple", add + "  ROOT %tuple").replace("tuple(%i, %stack", "tuple(%more, %stack")
    assert text.count("%more") == 2
    assert traffic(text).kernels == {"splash_mha_fwd": turns}

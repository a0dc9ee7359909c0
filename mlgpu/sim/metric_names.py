"""The counters: Nsight Compute's names, readable aliases, units and meanings.

Names that Nsight Compute does not have, or has for something else, begin with `mlgpu__`.
Instructions and branches are those of PTX, which the assembler may join, split or remove, unroll or
replace by predicates: their counts are near what a GPU counts, not equal to it.  Requests, sectors,
wavefronts and bytes follow from addresses: they are what Nsight Compute counts on an H200, where
the assembler keeps the access as it is.  (It makes loops of some atomics in shared memory, whose
loads are not counted; and an asynchronous copy with bank conflicts reads a sector once a pass.)
Caches are simple models (their numbers are marked so), since no addresses of other work are known;
what is written stays in a GPU's L2 cache, and counts as written to memory here.
"""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """One counter."""

    alias: str
    unit: str
    description: str
    group: str


def _table() -> dict[str, Metric]:
    table: dict[str, Metric] = {}
    group = name = ""
    for line in _TEXT.strip().splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif not line.startswith(" "):
            name = line
        else:
            alias, unit, description = (part.strip() for part in line.split("|"))
            table[name] = Metric(alias, unit, description, group)
    return table


_TEXT = """
[launch]
launch__grid_size
    grid_size | block | blocks of the grid
launch__block_size
    block_size | thread | threads of a block
launch__thread_count
    threads | thread | threads of the grid
smsp__warps_launched.sum
    warps | warp | warps of the grid
launch__registers_per_thread
    registers | register | registers of a thread, never fewer than 16 (ptxas)
launch__shared_mem_per_block_static
    static_shared | byte | static shared memory of a block
launch__shared_mem_per_block_dynamic
    dynamic_shared | byte | dynamic shared memory of a block
launch__shared_mem_per_block
    shared_per_block | byte | shared memory of a block in all, with what the system keeps
mlgpu__stack_bytes
    stack | byte | local memory of a thread: stack frame and spills (ptxas)
mlgpu__spill_store_bytes
    spill_stores | byte | registers a thread writes to local memory (ptxas)
mlgpu__spill_load_bytes
    spill_loads | byte | registers a thread reads from local memory (ptxas)
launch__barrier_count
    barriers_per_block | barrier | named barriers of a block (ptxas)

[occupancy]
sm__maximum_warps_per_active_cycle_pct
    theoretical_occupancy | % | warps that fit on a multiprocessor, of those it has room for
launch__occupancy_limit_warps
    occupancy_limit_warps | block | blocks a multiprocessor has warps for
launch__occupancy_limit_blocks
    occupancy_limit_blocks | block | blocks a multiprocessor takes
launch__occupancy_limit_registers
    occupancy_limit_registers | block | blocks a multiprocessor has registers for
launch__occupancy_limit_shared_mem
    occupancy_limit_shared | block | blocks there is shared memory for, if the driver gives all
launch__occupancy_limit_barriers
    occupancy_limit_barriers | block | blocks a multiprocessor has barriers for
launch__waves_per_multiprocessor
    waves | wave | times the grid fills the architecture's typical card

[instructions]
smsp__inst_executed.sum
    instructions | inst | instructions, each counted once a warp
smsp__thread_inst_executed.sum
    thread_instructions | inst | instructions, each counted once an active thread
smsp__thread_inst_executed_pred_on.sum
    thread_instructions_on | inst | the same, without threads whose predicate is off
mlgpu__thread_inst_executed_pred_off.sum
    thread_instructions_off | inst | threads that an instruction's predicate switched off
smsp__thread_inst_executed_per_inst_executed.ratio
    threads_per_instruction | thread/inst | active threads of an instruction on average (32 at best)
smsp__thread_inst_executed_pred_on_per_inst_executed.ratio
    threads_on_per_instruction | thread/inst | those of them whose predicate is on, on average

[instructions by class, each counted once a thread whose predicate is on]
smsp__sass_thread_inst_executed_op_fp16_pred_on.sum
    fp16_instructions | inst | half precision and bfloat16, packed ones once
smsp__sass_thread_inst_executed_op_fp32_pred_on.sum
    fp32_instructions | inst | single precision
smsp__sass_thread_inst_executed_op_fp64_pred_on.sum
    fp64_instructions | inst | double precision
smsp__sass_thread_inst_executed_op_integer_pred_on.sum
    integer_instructions | inst | integer arithmetic and comparison
smsp__sass_thread_inst_executed_op_bit_pred_on.sum
    bit_instructions | inst | logic, shifts, bit fields
smsp__sass_thread_inst_executed_op_conversion_pred_on.sum
    conversion_instructions | inst | conversions between types
smsp__sass_thread_inst_executed_op_control_pred_on.sum
    control_instructions | inst | branches, calls, returns
smsp__sass_thread_inst_executed_op_memory_pred_on.sum
    memory_instructions | inst | loads, stores, atomics
smsp__sass_thread_inst_executed_op_inter_thread_communication_pred_on.sum
    communication_instructions | inst | shuffles, votes, barriers
smsp__sass_thread_inst_executed_op_misc_pred_on.sum
    misc_instructions | inst | all others

[floating-point operations, each counted once a thread whose predicate is on]
smsp__sass_thread_inst_executed_op_fadd_pred_on.sum
    fadd | op | single additions
smsp__sass_thread_inst_executed_op_fmul_pred_on.sum
    fmul | op | single multiplications
smsp__sass_thread_inst_executed_op_ffma_pred_on.sum
    ffma | op | single fused multiply-adds
smsp__sass_thread_inst_executed_op_dadd_pred_on.sum
    dadd | op | double additions
smsp__sass_thread_inst_executed_op_dmul_pred_on.sum
    dmul | op | double multiplications
smsp__sass_thread_inst_executed_op_dfma_pred_on.sum
    dfma | op | double fused multiply-adds
smsp__sass_thread_inst_executed_op_hadd_pred_on.sum
    hadd | op | half and bfloat16 additions, packed ones twice
smsp__sass_thread_inst_executed_op_hmul_pred_on.sum
    hmul | op | half and bfloat16 multiplications, packed ones twice
smsp__sass_thread_inst_executed_op_hfma_pred_on.sum
    hfma | op | half and bfloat16 fused multiply-adds, packed ones twice

[tensor cores]
mlgpu__inst_executed_op_mma.sum
    tensor_instructions | inst | mma and wmma instructions, each counted once a warp
sm__ops_path_tensor_op_hmma_src_fp16_dst_fp16.sum
    tensor_fp16_fp16_ops | op | operations (2 a multiply-add) on half, sums in half
sm__ops_path_tensor_op_hmma_src_fp16_dst_fp32.sum
    tensor_fp16_ops | op | operations on half, sums in single
sm__ops_path_tensor_src_bf16_dst_fp32.sum
    tensor_bf16_ops | op | operations on bfloat16
sm__ops_path_tensor_src_tf32_dst_fp32.sum
    tensor_tf32_ops | op | operations on tf32
sm__ops_path_tensor_src_fp64.sum
    tensor_fp64_ops | op | operations on double
sm__ops_path_tensor_src_fp8.sum
    tensor_fp8_ops | op | operations on fp8 (mma of fp8 is done in half on sm_90)
sm__ops_path_tensor_src_int8.sum
    tensor_int8_ops | op | operations on 8-bit integers
mlgpu__ops_tensor_src_int4.sum
    tensor_int4_ops | op | operations on 4-bit integers
sm__ops_path_tensor_src_int1.sum
    tensor_int1_ops | op | operations on bits

[global memory]
smsp__sass_inst_executed_op_global_ld.sum
    global_load_instructions | inst | loads, each counted once a warp
smsp__sass_inst_executed_op_global_st.sum
    global_store_instructions | inst | stores
smsp__sass_inst_executed_op_global_atom.sum
    global_atomic_instructions | inst | atomics whose result is used
smsp__sass_inst_executed_op_global_red.sum
    global_reduction_instructions | inst | atomics without a result
smsp__sass_inst_executed_op_ldgsts.sum
    async_copy_instructions | inst | asynchronous copies to shared memory
l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum
    global_load_requests | request | loads that reach memory, once a warp, with asynchronous copies
l1tex__t_requests_pipe_lsu_mem_global_op_st.sum
    global_store_requests | request | stores
l1tex__t_requests_pipe_lsu_mem_global_op_atom.sum
    global_atomic_requests | request | atomics whose result is used
l1tex__t_requests_pipe_lsu_mem_global_op_red.sum
    global_reduction_requests | request | atomics without a result
mlgpu__requests_mem_global_op_ldgsts.sum
    async_copy_requests | request | of those, asynchronous copies to shared memory
l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum
    global_load_sectors | sector | 32-byte sectors that loads and asynchronous copies touch
l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum
    global_store_sectors | sector | sectors that stores touch
l1tex__t_sectors_pipe_lsu_mem_global_op_atom.sum
    global_atomic_sectors | sector | sectors of atomics with a result, once a lane of a word
l1tex__t_sectors_pipe_lsu_mem_global_op_red.sum
    global_reduction_sectors | sector | sectors of atomics without one, once a lane of a word
mlgpu__sectors_mem_global_op_ldgsts.sum
    async_copy_sectors | sector | of those, what asynchronous copies read
mlgpu__sectors_ideal_mem_global_op_ld.sum
    global_load_sectors_ideal | sector | sectors of loads if each warp's bytes lay side by side
mlgpu__sectors_ideal_mem_global_op_st.sum
    global_store_sectors_ideal | sector | sectors of stores if each warp's bytes lay side by side
smsp__sass_data_bytes_mem_global_op_ld.sum
    global_load_bytes | byte | different bytes of each load, added up
smsp__sass_data_bytes_mem_global_op_st.sum
    global_store_bytes | byte | different bytes of each store, added up
mlgpu__thread_bytes_mem_global_op_ld.sum
    global_load_thread_bytes | byte | bytes that threads ask loads for
mlgpu__thread_bytes_mem_global_op_st.sum
    global_store_thread_bytes | byte | bytes that threads store
l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio
    sectors_per_load | sector/request | sectors of a load on average (4 for 4 bytes a thread)
l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio
    sectors_per_store | sector/request | sectors of a store on average
smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct
    global_load_efficiency | % | distinct bytes that loads use, of those in their sectors
smsp__sass_average_data_bytes_per_sector_mem_global_op_st.pct
    global_store_efficiency | % | distinct bytes that stores write, of those in their sectors
mlgpu__bulk_copies_mem_global_op_ld.sum
    bulk_loads | request | bulk copies from global memory
mlgpu__bulk_copies_mem_global_op_st.sum
    bulk_stores | request | bulk copies to global memory, reductions among them
mlgpu__bulk_sectors_mem_global_op_ld.sum
    bulk_load_sectors | sector | sectors that bulk copies read
mlgpu__bulk_sectors_mem_global_op_st.sum
    bulk_store_sectors | sector | sectors that bulk copies write
mlgpu__unique_bytes_read.sum
    unique_bytes_read | byte | different bytes of global memory that the launch reads
mlgpu__unique_bytes_written.sum
    unique_bytes_written | byte | different bytes of global memory that the launch writes

[local memory]
smsp__sass_inst_executed_op_local_ld.sum
    local_load_instructions | inst | loads of arrays and stacks (PTX has no spills; see ptxas)
smsp__sass_inst_executed_op_local_st.sum
    local_store_instructions | inst | stores to arrays and stacks
l1tex__t_requests_pipe_lsu_mem_local_op_ld.sum
    local_load_requests | request | loads, once a warp and 4 bytes of a thread
l1tex__t_requests_pipe_lsu_mem_local_op_st.sum
    local_store_requests | request | stores, once a warp and 4 bytes of a thread
l1tex__t_sectors_pipe_lsu_mem_local_op_ld.sum
    local_load_sectors | sector | sectors that loads touch
l1tex__t_sectors_pipe_lsu_mem_local_op_st.sum
    local_store_sectors | sector | sectors that stores touch

[shared memory]
smsp__sass_inst_executed_op_shared_ld.sum
    shared_load_instructions | inst | loads, each counted once a warp
smsp__sass_inst_executed_op_shared_st.sum
    shared_store_instructions | inst | stores
smsp__sass_inst_executed_op_shared_atom.sum
    shared_atomic_instructions | inst | atomics
smsp__sass_inst_executed_op_ldsm.sum
    ldmatrix_instructions | inst | loads of matrices (ldmatrix)
mlgpu__inst_executed_op_stsm.sum
    stmatrix_instructions | inst | stores of matrices (stmatrix)
memory_l1_wavefronts_shared
    shared_wavefronts | wavefront | passes over the banks of shared memory, of all accesses
l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum
    shared_load_wavefronts | wavefront | passes of loads
l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum
    shared_store_wavefronts | wavefront | passes of stores
l1tex__data_pipe_lsu_wavefronts_mem_shared_op_atom.sum
    shared_atomic_wavefronts | wavefront | passes of atomics
smsp__sass_l1tex_data_pipe_lsu_wavefronts_mem_shared_op_ldgsts.sum
    async_copy_wavefronts | wavefront | passes of asynchronous copies
memory_l1_wavefronts_shared_ideal
    shared_wavefronts_ideal | wavefront | passes that the bytes need at least, of all accesses
mlgpu__wavefronts_ideal_mem_shared_op_ld.sum
    shared_load_wavefronts_ideal | wavefront | passes that the bytes of loads need at least
mlgpu__wavefronts_ideal_mem_shared_op_st.sum
    shared_store_wavefronts_ideal | wavefront | passes that the bytes of stores need at least
l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum
    bank_conflicts | wavefront | passes because words share a bank, without asynchronous copies
l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum
    load_bank_conflicts | wavefront | of those, passes of loads
l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum
    store_bank_conflicts | wavefront | of those, passes of stores
smsp__sass_l1tex_data_bank_conflicts_pipe_lsu_mem_shared_op_ldgsts.sum
    async_copy_bank_conflicts | wavefront | the same of asynchronous copies

[branches]
smsp__sass_inst_executed_op_branch.sum
    branch_instructions | inst | branches, each counted once a warp
smsp__sass_branch_targets.sum
    branches | branch | conditional branches, each counted once a warp
smsp__sass_branch_targets_threads_uniform.sum
    uniform_branches | branch | those at which all threads went the same way
smsp__sass_branch_targets_threads_divergent.sum
    divergent_branches | branch | those at which threads of a warp went different ways
smsp__sass_average_branch_targets_threads_uniform.pct
    branch_efficiency | % | branches without divergence

[synchronisation]
mlgpu__inst_executed_op_barrier.sum
    barriers | inst | __syncthreads and its like, each counted once a warp
mlgpu__inst_executed_op_warp_barrier.sum
    warp_barriers | inst | __syncwarp
mlgpu__inst_executed_op_fence.sum
    fences | inst | memory fences, each counted once a warp
mlgpu__inst_executed_op_shfl.sum
    shuffles | inst | shuffles, each counted once a warp
mlgpu__inst_executed_op_vote.sum
    votes | inst | votes, matches and redux, each counted once a warp

[L2 cache and DRAM, by a simple model]
lts__t_sectors_srcunit_tex_op_read.sum
    l2_read_sectors | sector | sectors read through the L2 cache, as if there were no L1
lts__t_sectors_srcunit_tex_op_read_lookup_hit.sum
    l2_read_hits | sector | of those, found there
lts__t_sectors_srcunit_tex_op_read_lookup_miss.sum
    l2_read_misses | sector | of those, fetched from memory
lts__t_sectors_srcunit_tex_op_write.sum
    l2_write_sectors | sector | sectors written to the L2 cache, with those of local memory
mlgpu__l2_sectors_write_hit.sum
    l2_write_hits | sector | of global memory, found there
mlgpu__l2_sectors_write_miss.sum
    l2_write_misses | sector | of global memory, new there
lts__t_sectors_srcunit_tex_op_atom.sum
    l2_atomic_sectors | sector | sectors of atomics whose result is used
lts__t_sectors_srcunit_tex_op_red.sum
    l2_reduction_sectors | sector | sectors of atomics without a result
mlgpu__l2_sector_hit_rate.pct
    l2_hit_rate | % | sectors found in the L2 cache
dram__bytes_read.sum
    dram_bytes_read | byte | bytes read from memory
dram__bytes_write.sum
    dram_bytes_written | byte | bytes written to memory
dram__bytes.sum
    dram_bytes | byte | bytes read from and written to memory
"""

METRICS = _table()
ALIASES = {metric.alias: name for name, metric in METRICS.items()}


def canonical(name: str) -> str | None:
    """Nsight Compute's name for a name or alias; None where the table has neither."""
    return name if name in METRICS else ALIASES.get(name)

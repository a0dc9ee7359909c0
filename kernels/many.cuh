// Many tensors in one launch: how a block finds its part of them, and walks over it.
//
// A table has one row of integers for each tensor: addresses of its arrays (the parameter first) and
// of its single numbers, how many elements there are, the first block that works on them, and which
// settings hold.  A block works on CHUNK elements; `map` says of which tensor.  Gradients have a
// table of addresses of their own, as those change more often.
#pragma once
#include "warp.cuh"

const int THREADS = 256, CHUNK = 16384, COLUMNS = 8;

__device__ __forceinline__ float ml_mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double ml_mul(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ float ml_plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double ml_plus(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ float ml_minus(float a, float b) { return __fsub_rn(a, b); }
__device__ __forceinline__ double ml_minus(double a, double b) { return __dsub_rn(a, b); }

// An address from a table, as a pointer that is known to be global.
template <typename T>
__device__ __forceinline__ T* ml_address(ml_index address) {
  return reinterpret_cast<T*>(__cvta_global_to_generic(size_t(address)));
}

// The part of its tensor that a block works on; none (tensor -1) where all tensors are empty.
template <int columns = COLUMNS>
struct ml_part {
  enum { SIZE = columns - 3, START = columns - 2, SETTINGS = columns - 1 };
  const ml_index* row;
  int tensor;
  ml_index start;
  int count;
  __device__ __forceinline__ ml_part(const ml_index* table, const int* map)
      : tensor(map[blockIdx.x]) {
    row = table + ml_index(tensor < 0 ? 0 : tensor) * columns;
    start = (blockIdx.x - row[START]) * CHUNK;
    count = tensor < 0 ? 0 : int(min(row[SIZE] - start, ml_index(CHUNK)));
  }
  template <typename T>
  __device__ __forceinline__ T* array(int column) const {
    return ml_address<T>(row[column]) + start;
  }
};

template <typename T>
__device__ __forceinline__ bool ml_aligned(const T* p) {
  return reinterpret_cast<size_t>(p) % 16 == 0;
}

// The factor of the gradients: a device value, 1 where there is none.
template <typename C>
__device__ __forceinline__ C ml_factor(const float* factor) {
  return factor ? C(*factor) : C(1);
}

// Whether the step is to be left out: something was not finite.
__device__ __forceinline__ bool ml_skipped(const float* found_inf) {
  return found_inf && *found_inf != 0;
}

// Whether this block is the last of the launch to get here; `ticket` is 0 before and after.
__device__ __forceinline__ bool ml_last_block(unsigned* ticket) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// --- updates: `update(values)` changes what stands at one place of the arrays, of which the first
// `written` are stored and the last is the gradient -----------------------------------------------

template <typename T, int arrays, int written, typename Update>
__device__ __forceinline__ void ml_update(T* const (&array)[arrays], int count,
                                          const Update& update) {
  const int width = 16 / sizeof(T);
  typedef ml_wide<T> C;
  bool aligned = true;
#pragma unroll
  for (int a = 0; a < arrays; ++a) aligned &= ml_aligned(array[a]);
  const int whole = aligned ? count / width * width : 0;
#pragma unroll 1
  for (int i = threadIdx.x * width; i < whole; i += THREADS * width) {
    ml_vec<T, width> loaded[arrays];
#pragma unroll
    for (int a = 0; a < arrays; ++a)
      if (update.reads(a)) loaded[a] = ml_load<width>(array[a] + i);
#pragma unroll
    for (int e = 0; e < width; ++e) {
      C values[arrays];
#pragma unroll
      for (int a = 0; a < arrays; ++a)
        values[a] = update.reads(a) ? ml_cast<C>(loaded[a].at[e]) : C(0);
      update(values);
#pragma unroll
      for (int a = 0; a < written; ++a) loaded[a].at[e] = ml_cast<T>(values[a]);
    }
#pragma unroll
    for (int a = 0; a < written; ++a) ml_store_whole<width>(array[a] + i, loaded[a]);
  }
#pragma unroll 1
  for (int i = whole + threadIdx.x; i < count; i += THREADS) {
    C values[arrays];
#pragma unroll
    for (int a = 0; a < arrays; ++a)
      values[a] = update.reads(a) ? ml_cast<C>(array[a][i]) : C(0);
    update(values);
#pragma unroll
    for (int a = 0; a < written; ++a) array[a][i] = ml_cast<T>(values[a]);
  }
}

// --- generated updates (mlgpu/expr/many.py) --------------------------------------------------------

const int RULE_GROUPS = 16;

// What holds for a group of parameters: `numbers`, of which the learning rate is the first.  That,
// and the momentum, may lie on the device: cells are their addresses, else 0.
template <int numbers>
struct ml_rule_settings {
  double number[RULE_GROUPS][numbers];
  ml_index lr_cell[RULE_GROUPS], momentum_cell[RULE_GROUPS];
  ml_index lr_double[RULE_GROUPS], maximize[RULE_GROUPS];
};

template <int numbers>
__device__ __forceinline__ double ml_rule_number(const ml_rule_settings<numbers>& s, ml_index row,
                                                 int i, int momentum) {
  if (i == 0 && s.lr_cell[row])
    return s.lr_double[row] ? *ml_address<const double>(s.lr_cell[row])
                            : double(*ml_address<const float>(s.lr_cell[row]));
  if (i == momentum && s.momentum_cell[row])
    return *ml_address<const double>(s.momentum_cell[row]);
  return s.number[row][i];
}

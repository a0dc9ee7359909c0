// Searching sorted rows, membership, counting, and the groups of equal neighbours.
#include "reduce.cuh"

template <typename T>
__device__ __forceinline__ T ml_plain(T x) { return x; }
__device__ __forceinline__ float ml_plain(__half x) { return __half2float(x); }
__device__ __forceinline__ float ml_plain(__nv_bfloat16 x) { return __bfloat162float(x); }

// The first place of an ascending sequence whose element is not less than v (`right`: is greater).
// With `last`, NaN is the largest value; else no comparison with it holds.
template <typename T>
__device__ __forceinline__ ml_index ml_bisect(const T* sequence, ml_index n, T given, bool right,
                                              bool last) {
  const auto v = ml_plain(given);
  ml_index low = 0, high = n;
  while (low < high) {
    const ml_index middle = low + (high - low) / 2;
    const auto pivot = ml_plain(sequence[middle]);
    bool before = right ? !(pivot > v) : !(pivot >= v);
    if (last && (ml_isnan(pivot) || ml_isnan(v)))
      before = ml_isnan(v) && (right || !ml_isnan(pivot));
    if (before) low = middle + 1;
    else high = middle;
  }
  return low;
}

// `each` values are searched for in every row of n; each = 0: all of them in the only row.
template <typename T, typename O>
__global__ void searchsorted(const T* __restrict__ sequence, const T* __restrict__ values, O* out,
                             ml_index n, ml_index each, ml_index count, bool right) {
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const T* row = sequence + (each ? i / each * n : 0);
  out[i] = O(ml_bisect(row, n, values[i], right, each == 0));
}

// Whether each element is one of the sorted `tests`.
template <typename T>
__global__ void is_in(const T* __restrict__ elements, const T* __restrict__ tests, bool* out,
                      ml_index n, ml_index count, bool invert) {
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const T v = elements[i];
  const ml_index place = ml_bisect(tests, n, v, false, true);
  const bool found = place < n && ml_plain(tests[place]) == ml_plain(v);
  out[i] = found != invert;
}

// --- counting: whole numbers, so that the order of atomics does not matter ----------------------

// A block counts in its shared memory, and adds what it found at the end: each bin in 1 to 32
// columns, so that lanes that meet the same bin, or bins of one bank, rarely meet in a column.
// With no columns all count in place.
template <typename Find>
__device__ __forceinline__ void ml_count_all(long long* counts, int bins, ml_index count,
                                             int columns, Find find) {
  extern __shared__ unsigned own[];
  unsigned long long* const all = reinterpret_cast<unsigned long long*>(counts);
  for (int i = threadIdx.x; i < bins * columns; i += blockDim.x) own[i] = 0;
  __syncthreads();
  const int column = threadIdx.x & (columns - 1);
  const ml_index step = ml_index(gridDim.x) * blockDim.x;
  for (ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const ml_index place = find(i);
    if (place < 0) continue;
    if (columns) atomicAdd(own + place * columns + column, 1u);
    else atomicAdd(all + place, 1ull);
  }
  if (!columns) return;
  __syncthreads();
  for (int b = threadIdx.x; b < bins; b += blockDim.x) {
    unsigned total = 0;
    const int turn = b * columns / 32;  // where lanes begin: in banks of their own
    for (int c = 0; c < columns; ++c) total += own[b * columns + ((c + turn) & (columns - 1))];
    if (total) atomicAdd(all + b, (unsigned long long)total);
  }
}

template <typename T>
__global__ void count_places(const T* __restrict__ places, long long* counts, ml_index bins,
                             ml_index count, int columns) {
  ml_count_all(counts, int(bins), count, columns, [&](ml_index i) { return ml_index(places[i]); });
}

// Equal bins from low to high, both included; what lies outside is not counted.
template <typename T>
__global__ void count_bins(const T* __restrict__ x, long long* counts, int bins, double low,
                           double high, ml_index count, int columns) {
  typedef typename ml_compute<T>::type C;
  const C from = C(low), to = C(high), width = to - from;
  ml_count_all(counts, bins, count, columns, [&](ml_index i) {
    const C v = ml_cast<C>(x[i]);
    if (!(v >= from && v <= to)) return ml_index(-1);
    const ml_index place = ml_index((v - from) * C(bins) / width);
    return place < bins ? place : ml_index(bins - 1);
  });
}

// --- groups of equal neighbours -----------------------------------------------------------------

enum { ml_group_steps = 8, ml_group_tile = 256 * ml_group_steps };

// Bit i: whether the row `base` + 32 i + lane of the table differs from the one before.  Rows of one
// element are kept in `held`.
template <typename T>
__device__ __forceinline__ unsigned ml_starts_of(const T* table, ml_index base, ml_index rows,
                                                 ml_index width, T (&held)[ml_group_steps]) {
  typedef typename ml_compute<T>::type C;
  const int lane = ml_lane();
  unsigned flags = 0;
  if (width == 1) {  // the one before is a neighbour's
    C left = base > 0 && base < rows ? ml_cast<C>(table[base - 1]) : C();
#pragma unroll
    for (int i = 0; i < ml_group_steps; ++i) {
      const ml_index at = base + 32 * i + lane;
      held[i] = at < rows ? table[at] : T();
      const C own = ml_cast<C>(held[i]);
      const C neighbour = ml_shfl(own, lane ? lane - 1 : 0), before = lane ? neighbour : left;
      left = ml_shfl(own, 31);
      if (at < rows && (at == 0 || own != before)) flags |= 1u << i;
    }
    return flags;
  }
#pragma unroll 1
  for (int i = 0; i < ml_group_steps; ++i) {
    const ml_index at = base + 32 * i + lane;
    bool differs = at == 0;
    if (at < rows) {
      for (ml_index c = 0; c < width && !differs; ++c)
        differs = ml_plain(table[at * width + c]) != ml_plain(table[(at - 1) * width + c]);
      if (differs) flags |= 1u << i;
    }
  }
  return flags;
}

// How many groups begin in each tile.
template <typename T>
__global__ void __launch_bounds__(256, 4)
count_starts(const T* __restrict__ table, ml_index* __restrict__ counts, ml_index rows,
             ml_index width) {
  __shared__ int slots[32];
  const ml_index base = ml_index(blockIdx.x) * ml_group_tile + ml_warp() * 32 * ml_group_steps;
  T held[ml_group_steps];
  const int found = ml_block_sum(__popc(ml_starts_of(table, base, rows, width, held)), slots);
  if (threadIdx.x == 0) counts[blockIdx.x] = found;
}

// `before` are the groups that begin before each tile.
template <typename T>
__global__ void __launch_bounds__(256, 4)
write_groups(const T* __restrict__ table, const ml_index* __restrict__ before,
             const long long* __restrict__ places, T* values, long long* starts,
             long long* inverse, ml_index rows, ml_index width) {
  __shared__ int found[8];
  const ml_index base = ml_index(blockIdx.x) * ml_group_tile + ml_warp() * 32 * ml_group_steps;
  T held[ml_group_steps];
  const unsigned flags = ml_starts_of(table, base, rows, width, held);
  const int mine = ml_warp_sum(__popc(flags));
  if (ml_lane() == 0) found[ml_warp()] = mine;
  __syncthreads();
  ml_index group = before[blockIdx.x] - 1;  // of the row before
  for (int w = 0; w < ml_warp(); ++w) group += found[w];
#pragma unroll
  for (int i = 0; i < ml_group_steps; ++i) {
    const ml_index at = base + 32 * i + ml_lane();
    const unsigned begun = __ballot_sync(ml_all_lanes, flags >> i & 1);
    const ml_index own = group + __popc(begun & (0xffffffffu >> (31 - ml_lane())));
    group += __popc(begun);
    if (at >= rows) continue;
    if (inverse) inverse[places ? places[at] : at] = own;
    if (!(flags >> i & 1)) continue;
    if (width == 1) values[own] = held[i];
    else
      for (ml_index c = 0; c < width; ++c) values[own * width + c] = table[at * width + c];
    if (starts) starts[own] = at;
  }
}

__global__ void group_sizes(const long long* __restrict__ starts, long long* sizes,
                            ml_index groups, ml_index rows) {
  const ml_index g = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (g < groups) sizes[g] = (g + 1 < groups ? starts[g + 1] : rows) - starts[g];
}

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

__device__ __forceinline__ void ml_count_one(unsigned* own, long long* counts, ml_index place,
                                             bool shared) {
  if (shared) atomicAdd(own + place, 1u);
  else atomicAdd(reinterpret_cast<unsigned long long*>(counts) + place, 1ull);
}

// Where `shared`, a block counts in its shared memory and adds what it found at the end.
template <typename Find>
__device__ __forceinline__ void ml_count_all(long long* counts, int bins, ml_index count,
                                             bool shared, Find find) {
  extern __shared__ unsigned own[];
  if (shared) {
    for (int b = threadIdx.x; b < bins; b += blockDim.x) own[b] = 0;
    __syncthreads();
  }
  const ml_index step = ml_index(gridDim.x) * blockDim.x;
  for (ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const ml_index place = find(i);
    if (place >= 0) ml_count_one(own, counts, place, shared);
  }
  if (!shared) return;
  __syncthreads();
  for (int b = threadIdx.x; b < bins; b += blockDim.x)
    if (own[b])
      atomicAdd(reinterpret_cast<unsigned long long*>(counts) + b, (unsigned long long)own[b]);
}

template <typename T>
__global__ void count_places(const T* __restrict__ places, long long* counts, ml_index bins,
                             ml_index count, bool shared) {
  ml_count_all(counts, int(bins), count, shared, [&](ml_index i) { return ml_index(places[i]); });
}

// Equal bins from low to high, both included; what lies outside is not counted.
template <typename T>
__global__ void count_bins(const T* __restrict__ x, long long* counts, int bins, double low,
                           double high, ml_index count, bool shared) {
  typedef typename ml_compute<T>::type C;
  const C from = C(low), to = C(high), width = to - from;
  ml_count_all(counts, bins, count, shared, [&](ml_index i) {
    const C v = ml_cast<C>(x[i]);
    if (!(v >= from && v <= to)) return ml_index(-1);
    const ml_index place = ml_index((v - from) * C(bins) / width);
    return place < bins ? place : ml_index(bins - 1);
  });
}

// --- groups of equal neighbours -----------------------------------------------------------------

// 1 where a row of the table differs from the one before, and at the first.
template <typename T>
__global__ void mark_starts(const T* __restrict__ table, long long* starts, ml_index rows,
                            ml_index width) {
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows) return;
  bool differs = i == 0;
  for (ml_index c = 0; c < width && !differs; ++c)
    differs = ml_plain(table[i * width + c]) != ml_plain(table[(i - 1) * width + c]);
  starts[i] = differs;
}

// `groups` are the inclusive sums of what marks the starts.
template <typename T>
__global__ void write_groups(const T* __restrict__ table, const long long* __restrict__ groups,
                             const long long* __restrict__ places, T* values, long long* starts,
                             long long* inverse, ml_index rows, ml_index width) {
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows) return;
  const long long group = groups[i] - 1;
  if (inverse) inverse[places ? places[i] : i] = group;
  if (i && groups[i - 1] == groups[i]) return;
  for (ml_index c = 0; c < width; ++c) values[group * width + c] = table[i * width + c];
  if (starts) starts[group] = i;
}

__global__ void group_sizes(const long long* __restrict__ starts, long long* sizes,
                            ml_index groups, ml_index rows) {
  const ml_index g = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (g < groups) sizes[g] = (g + 1 < groups ? starts[g + 1] : rows) - starts[g];
}

// Tables of rows: what is not a plain gather (index.cu) or sum by key (segment.cu).
#include "common.cuh"
#include "fault.cuh"
#include "warp.cuh"

namespace {

// How many of the numbers, which do not decrease, are below `value`.
template <typename I>
__device__ __forceinline__ ml_index below(const I* numbers, ml_index count, ml_index value) {
  ml_index low = 0, high = count;
  while (low < high) {
    const ml_index middle = (low + high) >> 1;
    if (ml_index(numbers[middle]) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

}  // namespace

// Rows that sorted keys name, each once, scaled down to a norm of `most` where theirs is larger: a
// warp for a key.  `p` is the norm's; infinity and 0 have their own meaning.
template <typename T, typename K>
__global__ void __launch_bounds__(256)
renorm_rows(T* weight, const K* __restrict__ keys, ml_index count, ml_index bound,
            ml_index features, double most, double p) {
  typedef ml_wide<T> A;
  const ml_index j = ml_index(blockIdx.x) * 8 + ml_warp();
  if (j >= count) return;
  const K key = keys[j];
  if (key >= bound || (j > 0 && keys[j - 1] == key)) return;
  T* const row = weight + ml_index(key) * features;
  const bool largest = p == ml_inf(p), smallest = p == -ml_inf(p);
  A norm = smallest ? ml_inf(A(0)) : A(0);
  for (ml_index i = ml_lane(); i < features; i += 32) {
    const A size = fabs(ml_cast<A>(row[i]));
    if (largest) norm = ml_max(norm, size);
    else if (smallest) norm = ml_min(norm, size);
    else if (p == 2) norm += size * size;
    else if (p == 1) norm += size;
    else if (p == 0) norm += A(size != A(0));
    else norm += pow(size, A(p));
  }
  if (largest) norm = ml_warp_max(norm);
  else if (smallest) norm = ml_warp_min(norm);
  else norm = ml_warp_sum(norm);
  if (p == 2) norm = sqrt(norm);
  else if (!largest && !smallest && p != 1 && p != 0) norm = pow(norm, A(1) / A(p));
  if (!(norm > A(most))) return;
  // The 1e-7 keeps the scaled row strictly within the norm.
  const A scale = A(most) / (norm + A(1e-7));
  for (ml_index i = ml_lane(); i < features; i += 32)
    row[i] = ml_cast<T>(ml_cast<A>(row[i]) * scale);
}

// How often each row is named.
template <typename I>
__global__ void __launch_bounds__(256)
count_rows(int* counts, const I* __restrict__ index, ml_index count, ml_index bound) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  const ml_index row = index[i];
  if (row >= 0 && row < bound) atomicAdd(counts + row, 1);
}

// Rows of values added to those of `sums` at the indices, in whichever order threads come: the row
// `padding` and indices out of range are left out, and with `counts` each is divided by its row's.
// Neighbouring lanes add to neighbouring places.  N: an integer that numbers all values.
template <typename A, typename T, typename I, typename N>
__global__ void __launch_bounds__(256)
add_rows(A* sums, const T* __restrict__ values, const I* __restrict__ index,
         const int* __restrict__ counts, N total, N features, ml_index bound, ml_index padding) {
  constexpr int U = 4;  // values under way
  const N first = N(blockIdx.x) * (U * 256) + threadIdx.x;
  A value[U];
  ml_index place[U];
#pragma unroll
  for (int u = 0; u < U; ++u) {
    const N i = first + u * 256;
    place[u] = -1;
    if (i >= total) continue;
    const N number = i / features;
    const ml_index row = index[number];
    if (row < 0 || row >= bound || row == padding) continue;
    place[u] = row * features + (i - number * features);
    value[u] = ml_cast<A>(values[i]);
    if (counts) value[u] /= A(counts[row]);
  }
#pragma unroll
  for (int u = 0; u < U; ++u)
    if (place[u] >= 0) atomicAdd(sums + place[u], value[u]);
}

// 1 where a class is the row's, E classes at a time.
template <int E>
__global__ void __launch_bounds__(256)
one_hot(ml_index* __restrict__ out, const ml_index* __restrict__ index, ml_index count,
        ml_index classes, ml_fault* fault, int site) {
  const ml_index i = (ml_index(blockIdx.x) * 256 + threadIdx.x) * E;
  if (i >= count * classes) return;
  const ml_index row = i / classes, first = i - row * classes, chosen = index[row];
  if (first == 0 && (chosen < 0 || chosen >= classes)) ml_report(fault, site, chosen, classes);
  ml_vec<ml_index, E> part;
#pragma unroll
  for (int e = 0; e < E; ++e) part.at[e] = first + e == chosen;
  ml_store_whole<E>(out + i, part);
}

// The inner products of rows source[i] of a and target[i] of b: a warp each.
template <typename T>
__global__ void __launch_bounds__(256)
row_dots(T* __restrict__ out, const ml_index* __restrict__ source,
         const ml_index* __restrict__ target, const T* __restrict__ a, const T* __restrict__ b,
         ml_index count, ml_index features, ml_index a_rows, ml_index b_rows) {
  typedef ml_wide<T> A;
  const ml_index i = ml_index(blockIdx.x) * 8 + ml_warp();
  if (i >= count) return;
  const ml_index from = source[i], to = target[i];
  A sum = A(0);
  if (from >= 0 && from < a_rows && to >= 0 && to < b_rows)
    for (ml_index f = ml_lane(); f < features; f += 32)
      sum += ml_cast<A>(a[from * features + f]) * ml_cast<A>(b[to * features + f]);
  sum = ml_warp_sum(sum);
  if (ml_lane() == 0) out[i] = ml_cast<T>(sum);
}

// Which of the rows source[i] with target[i] == bag is largest, for each bag and feature: the first
// of equal ones; a NaN counts only where it comes first.  `target` is in order.  0 for empty bags.
template <typename T>
__global__ void __launch_bounds__(256)
largest_rows(ml_index* __restrict__ which, const ml_index* __restrict__ source,
             const ml_index* __restrict__ target, const T* __restrict__ rows, ml_index count,
             ml_index bags, ml_index features, ml_index bound, ml_fault* fault, int site) {
  typedef ml_wide<T> A;
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= bags * features) return;
  const ml_index bag = i / features, feature = i - bag * features;
  const ml_index end = below(target, count, bag + 1);
  ml_index best = 0, wrong = 0;
  A top = A(0);
  bool begun = false;
  for (ml_index at = below(target, count, bag); at < end; ++at) {
    const ml_index row = source[at];
    if (row < 0 || row >= bound) {
      wrong = row;
      continue;
    }
    const A value = ml_cast<A>(rows[row * features + feature]);
    if (!begun || value > top) {
      top = value;
      best = row;
    }
    begun = true;
  }
  if (wrong) ml_report(fault, site, wrong, bound);
  which[i] = best;
}

// The number of the stretch that each of `count` elements lies in, from where the stretches begin
// (the first at 0).
template <typename I>
__global__ void __launch_bounds__(256)
stretch_numbers(ml_index* __restrict__ numbers, const I* __restrict__ starts, ml_index count,
                ml_index stretches, ml_fault* fault, int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i < stretches) {
    const ml_index start = starts[i], least = i ? ml_index(starts[i - 1]) : 0;
    if (start < least || start > count || (i == 0 && start != 0))
      ml_report(fault, site, start, count);
  }
  if (i >= count) return;
  const ml_index begun = below(starts, stretches, i + 1);
  numbers[i] = begun > 0 ? begun - 1 : 0;
}

// Rows brought together by a key: a stable sort of keys with their positions (radix.cuh), and sums
// (or products, extremes, means) of the rows of each key.  Every order depends on the keys and the
// shape alone, so the same input gives the same bits; no atomics on values.
#include "common.cuh"
#include "fault.cuh"
#include "radix.cuh"
#include "warp.cuh"

// --- sorting -------------------------------------------------------------------------------------

// What keys and positions are while they are sorted.
template <int BYTES> struct ml_word { typedef unsigned type; };
template <> struct ml_word<8> { typedef unsigned long long type; };
template <typename K> using ml_word_of = typename ml_word<sizeof(K)>::type;

// The key of an index: its place, or `bound` where it is out of range (reported if
// there is somewhere to) or `skip`.
template <typename I>
__device__ __forceinline__ ml_index key_of(I index, ml_index bound, ml_index skip, bool wrap,
                                           ml_fault* fault, int site) {
  ml_index place = ml_index(index);
  if (place < 0 && wrap) place += bound;
  if (place < 0 || place >= bound) {
    if (fault) ml_report(fault, site, ml_index(index), bound);
    return bound;
  }
  return place == skip ? bound : place;
}

// All of it in one block, for at most 512 * EACH keys.
template <typename I, typename K, int EACH>
__global__ void __launch_bounds__(512, 2)
sort_tile(const I* __restrict__ index, K* keys, K* positions, int count, ml_index bound,
          ml_index skip, bool wrap, int bits, ml_fault* fault, int site) {
  typedef ml_word_of<K> U;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ __align__(16) int ones[2][ml_sort_warps];
  const int first = ml_warp() * 32 * EACH + ml_lane(), size = EACH * ml_sort_threads;
  ml_item<U, U> item[EACH];
#pragma unroll
  for (int j = 0; j < EACH; ++j) {
    const int i = first + 32 * j;
    item[j] = {~U(0), U(i)};
    if (i < count) item[j].key = U(key_of(index[i], bound, skip, wrap, fault, site));
  }
  ml_sort_tile(item, ml_items<U, U>{memory, size}, ones, 0, bits, size - count);
#pragma unroll
  for (int j = 0; j < EACH; ++j) {
    const int i = first + 32 * j;
    if (i >= count) continue;
    keys[i] = K(item[j].key);
    positions[i] = K(item[j].at);
  }
}

// How often each digit of each pass occurs: totals[pass][digit].
template <typename I, typename K, typename W>
__global__ void __launch_bounds__(512, 2)
count_digits(const I* __restrict__ index, W* totals, ml_index count, int tiles, int passes,
             int bits, ml_index bound, ml_index skip, bool wrap, ml_fault* fault, int site) {
  typedef ml_word_of<K> U;
  ml_count_digits<U, U>(totals, 1, count, tiles, passes, bits, [&](ml_index, ml_index i) {
    return U(key_of(index[i], bound, skip, wrap, fault, site));
  });
}

// Keys and positions to where a digit puts them: in one of two buffers in `work`, the last time to
// `keys` and `positions`.
template <typename I, typename K, typename W>
__global__ void __launch_bounds__(512, sizeof(W) == 4 ? 2 : 1)
move_keys(const I* __restrict__ index, unsigned char* work, K* keys, K* positions,
          const W* __restrict__ starts, const W* __restrict__ steps, W* status, W* ticket,
          ml_index count, int tiles, int pass, int passes, int bits, ml_index bound, ml_index skip,
          bool wrap) {
  typedef ml_word_of<K> U;
  typedef ml_item<U, U> item;
  typedef ml_items<U, U> items;
  __shared__ ml_pass_tables<W> tables;
  const auto buffer = [&](int which) {
    return items{work + which * ml_room(count) * 2 * sizeof(U), ml_room(count)};
  };
  const auto make = [&](ml_index, ml_index i) -> item {
    return {U(key_of(index[i], bound, skip, wrap, nullptr, 0)), U(i)};
  };
  if (pass < passes - 1) {
    ml_radix_pass<items::in_sector, U, U>(
        tables, starts, steps, status, ticket, count, tiles, pass, passes, bits, make, buffer,
        [&](int read, ml_index, ml_index i, const item& one) {
          buffer(ml_written(read)).put(i, one);
        });
  } else {
    ml_radix_pass<32 / sizeof(K), U, U>(
        tables, starts, steps, status, ticket, count, tiles, pass, passes, bits, make, buffer,
        [&](int, ml_index, ml_index i, const item& one) {
          keys[i] = K(one.key);
          positions[i] = K(one.at);
        });
  }
}

// --- combining -----------------------------------------------------------------------------------
//
// A warp takes 32 sorted entries.  Rows whose key begins and ends among them are done; those of the
// first and of the last key, where they go on in a neighbouring window, become entries 2w and
// 2w + 1 of the next level, which is combined in the same way until one window is left.  A key that
// fills its window passes through entry 2w + 1 without a value: its complement stands there.

enum { kSum = 0, kProd = 1, kMax = 2, kMin = 3, kMean = 4 };

namespace {

template <int op, typename A>
__device__ __forceinline__ A combined(A a, A b) {
  if constexpr (op == kProd) return a * b;
  else if constexpr (op == kMax) return ml_max(a, b);
  else if constexpr (op == kMin) return ml_min(a, b);
  else return a + b;
}

template <typename A>
__device__ __forceinline__ A divided(A a, ml_index n) {
  if constexpr (ml_is_signed<A>::value && !ml_is_float<A>::value) return ml_floor_div(a, A(n));
  else return a / A(n);
}
template <typename A>
__device__ __forceinline__ ml_complex<A> divided(ml_complex<A> a, ml_index n) {
  return {a.re / A(n), a.im / A(n)};
}

template <typename A>
__device__ __forceinline__ A lane_before(A value, int step) {
  return __shfl_up_sync(ml_all_lanes, value, step);
}
template <typename A>
__device__ __forceinline__ ml_complex<A> lane_before(ml_complex<A> z, int step) {
  return {__shfl_up_sync(ml_all_lanes, z.re, step), __shfl_up_sync(ml_all_lanes, z.im, step)};
}

template <typename K>
__device__ __forceinline__ K bare(K key) { return key < 0 ? ~key : key; }

// How many of the sorted keys are below `key`.
template <typename K>
__device__ __forceinline__ ml_index keys_below(const K* keys, ml_index count, K key) {
  ml_index low = 0, high = count;
  while (low < high) {
    const ml_index middle = (low + high) >> 1;
    if (keys[middle] < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The result of a key from its rows' and, with `keep`, from what is there.
template <int op, typename T, typename A, typename K>
__device__ __forceinline__ T finished(A value, T old, bool keep, const K* sorted, ml_index total,
                                      K key) {
  if (keep) value = combined<op>(ml_cast<A>(old), value);
  if constexpr (op == kMean) {
    // Integers wrap before they are divided.
    if constexpr (!ml_is_float<A>::value) value = ml_cast<A>(ml_cast<T>(value));
    value = divided(value, keys_below(sorted, total, K(key + 1)) -
                               keys_below(sorted, total, key) + keep);
  }
  return ml_cast<T>(value);
}

}  // namespace

// Entries of a window: their keys, where the rows lie, and which begin or end a key.
template <typename K>
struct Window {
  K key;
  bool valued;
  unsigned heads, tails;

  __device__ __forceinline__ Window(const K* keys, ml_index first, ml_index count, ml_index bound) {
    const int lane = threadIdx.x & 31;
    const K raw = first + lane < count ? keys[first + lane] : K(bound);
    key = bare(raw);
    valued = raw >= 0 && raw < bound;
    K left = __shfl_up_sync(ml_all_lanes, key, 1), right = __shfl_down_sync(ml_all_lanes, key, 1);
    if (lane == 0) left = first > 0 ? bare(keys[first - 1]) : K(-1);
    if (lane == 31) right = first + 32 < count ? bare(keys[first + 32]) : K(-1);
    heads = __ballot_sync(ml_all_lanes, key != left);
    tails = __ballot_sync(ml_all_lanes, key != right);
  }

  // Whether the key of the entry began in this window, and whether it ends here.
  __device__ __forceinline__ bool begins(int entry) const {
    return heads & (0xffffffffu >> (31 - entry));
  }
  __device__ __forceinline__ bool ends(int entry) const { return tails >> entry & 1; }

  __device__ __forceinline__ void pass_on(K* keys, ml_index window, ml_index bound) const {
    const int lane = threadIdx.x & 31;
    if (lane == 0) keys[2 * window] = begins(0) ? K(bound) : key;
    if (lane == 31) keys[2 * window + 1] = ends(31) ? K(bound) : heads || key >= bound ? key : ~key;
  }
};

// out[o, key, :] from values[o, position, :] (or, with `source`, values[o, source[position], :])
// times scale[position]: lanes along a row, E elements each.  A negative source is left out.
template <typename T, typename V, typename A, typename K, int E, int op>
__global__ void __launch_bounds__(128)
combine_rows(T* out, const V* __restrict__ values, const K* __restrict__ keys,
             const K* __restrict__ positions, const ml_index* __restrict__ source,
             const A* __restrict__ scale, A* __restrict__ partial, K* __restrict__ partial_keys,
             const K* __restrict__ sorted, ml_index total, ml_index count, ml_index bound,
             ml_index outer, ml_index inner, ml_index outer_step, ml_index row_step, int chunks,
             bool keep) {
  static_assert(E * sizeof(A) <= 16, "lanes store partial sums side by side");
  constexpr int kAhead = 4;  // rows on their way at a time
  const int lane = threadIdx.x & 31;
  const ml_index task = ml_index(blockIdx.x) * 4 + (threadIdx.x >> 5);
  const ml_index window = task / chunks, first = window * 32;
  if (first >= count) return;
  const int chunk = int(task - window * chunks);
  const ml_index across = inner / E, column = ml_index(chunk) * 32 + lane;
  const bool active = column < outer * across;
  const ml_index o = outer == 1 ? 0 : column / across, i = (column - o * across) * E;
  const V* const from = values + o * outer_step + i;
  T* const to = out + o * bound * inner + i;

  const Window<K> entries(keys, first, count, bound);
  if (partial_keys && chunk == 0) entries.pass_on(partial_keys, window, bound);
  ml_index row = first + lane;
  A factor = A(1);
  if (entries.valued) {
    if (positions) row = positions[row];
    if (scale) factor = scale[row];
    if (source) row = source[row];
  }
  const unsigned valued = __ballot_sync(ml_all_lanes, entries.valued && row >= 0);

  A sum[E];
  bool begun = false;
#pragma unroll 1
  for (int base = 0; base < 32; base += kAhead) {
    ml_vec<V, E> loaded[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const ml_index place = __shfl_sync(ml_all_lanes, row, base + u);
      if (active && (valued >> (base + u) & 1)) loaded[u] = ml_load<E>(from + place * row_step);
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int entry = base + u;
      const K key = __shfl_sync(ml_all_lanes, entries.key, entry);
      const A weight = scale ? ml_shfl(factor, entry) : A(1);
      if (key >= bound || !active) continue;
      if (entries.heads >> entry & 1) begun = false;
      if (valued >> entry & 1) {
#pragma unroll
        for (int e = 0; e < E; ++e) {
          A value = ml_cast<A>(loaded[u].at[e]);
          if (scale) value = value * weight;
          sum[e] = begun ? combined<op>(sum[e], value) : value;
        }
        begun = true;
      }
      if (!entries.ends(entry) && entry < 31) continue;
      if (!begun) {  // no row of it was in range
#pragma unroll
        for (int e = 0; e < E; ++e) sum[e] = A(0);
      }
      if (entries.begins(entry) && entries.ends(entry)) {
        T* const place = to + ml_index(key) * inner;
        ml_vec<T, E> result;
        if (keep) result = ml_load<E>(place);
#pragma unroll
        for (int e = 0; e < E; ++e)
          result.at[e] = finished<op>(sum[e], result.at[e], keep, sorted, total, key);
        ml_store_whole<E>(place, result);
      } else {
        const ml_index place = (2 * window + entries.begins(entry)) * outer * across + column;
        ml_vec<A, E> rest;
#pragma unroll
        for (int e = 0; e < E; ++e) rest.at[e] = sum[e];
        ml_store_whole<E>(partial + place * E, rest);
      }
    }
  }
}

// The same for short rows: lanes along the entries, each of E columns of the `inner`.  Values and
// partial results have their own steps, the latter lie column by column (E = 1 takes them).
template <typename T, typename V, typename A, typename K, int E, int op>
__global__ void __launch_bounds__(128)
combine_columns(T* out, const V* __restrict__ values, const K* __restrict__ keys,
                const K* __restrict__ positions, const ml_index* __restrict__ source,
                const A* __restrict__ scale, A* __restrict__ partial,
                K* __restrict__ partial_keys, const K* __restrict__ sorted, ml_index total,
                ml_index count, ml_index bound, ml_index outer, ml_index inner,
                ml_index outer_step, ml_index row_step, ml_index inner_step, ml_index windows,
                bool keep) {
  const int lane = threadIdx.x & 31;
  const ml_index task = ml_index(blockIdx.x) * 4 + (threadIdx.x >> 5), group = task / windows;
  const ml_index column = group * E, window = task - group * windows, first = window * 32;
  if (column >= outer * inner) return;
  const ml_index o = inner == 1 ? column : column / inner, i = column - o * inner;

  const Window<K> entries(keys, first, count, bound);
  if (partial_keys && column == 0) entries.pass_on(partial_keys, window, bound);
  bool valued = entries.valued;
  A sum[E];
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = A(0);
  if (valued) {
    ml_index row = positions ? ml_index(positions[first + lane]) : first + lane;
    const A factor = scale ? scale[row] : A(1);
    if (source) row = source[row];
    valued = row >= 0;
    if (valued) {
      const auto loaded = ml_load<E>(values + o * outer_step + row * row_step + i * inner_step);
#pragma unroll
      for (int e = 0; e < E; ++e) sum[e] = ml_cast<A>(loaded.at[e]);
    }
#pragma unroll
    for (int e = 0; e < E; ++e)
      if (scale) sum[e] = sum[e] * factor;
  }
  // Keys are sorted: where that of a lane before is the same, so are all between.
#pragma unroll
  for (int step = 1; step < 32; step <<= 1) {
    const K key = __shfl_up_sync(ml_all_lanes, entries.key, step);
    const bool has = __shfl_up_sync(ml_all_lanes, int(valued), step);
    const bool joins = lane >= step && key == entries.key && has;
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const A other = lane_before(sum[e], step);
      if (joins) sum[e] = valued ? combined<op>(other, sum[e]) : other;
    }
    valued |= joins;
  }
  if (entries.key >= bound || (!entries.ends(lane) && lane < 31)) return;
  if (entries.begins(lane) && entries.ends(lane)) {
    T* const place = out + (o * bound + entries.key) * inner + i;
    ml_vec<T, E> result = ml_vec<T, E>();
    if (keep) result = ml_load<E>(place);
#pragma unroll
    for (int e = 0; e < E; ++e)
      result.at[e] = finished<op>(sum[e], result.at[e], keep, sorted, total, entries.key);
    ml_store_whole<E>(place, result);
  } else {
#pragma unroll
    for (int e = 0; e < E; ++e)
      partial[(column + e) * 2 * windows + 2 * window + entries.begins(lane)] = sum[e];
  }
}

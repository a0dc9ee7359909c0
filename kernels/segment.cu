// Rows brought together by a key: a stable radix sort of keys with their positions, and sums (or
// products, extremes, means) of the rows of each key.  Every order depends on the keys and the
// shape alone, so the same input gives the same bits; no atomics on values.
#include "common.cuh"
#include "fault.cuh"
#include "warp.cuh"

namespace {

enum { kWarps = 8, kItems = 8, kTile = 32 * kWarps * kItems, kDigits = 256 };

// --- sorting -------------------------------------------------------------------------------------

// The sum over the threads before this one, of 256.
template <typename N>
__device__ __forceinline__ N sum_before(N value, N* totals) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  N sum = value;
#pragma unroll
  for (int step = 1; step < 32; step <<= 1) {
    const N other = __shfl_up_sync(ml_all_lanes, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) totals[warp] = sum;
  __syncthreads();
  N before = sum - value;
  for (int w = 0; w < warp; ++w) before += totals[w];
  __syncthreads();
  return before;
}

template <typename K>
__device__ __forceinline__ int digit_of(K key, int shift) { return int(key >> shift) & 255; }

// A key larger than every other, in every digit: fills the last tile up.
template <typename K>
__device__ __forceinline__ K last_key() { return K((1ULL << (8 * sizeof(K) - 1)) - 1); }

struct Counters {
  int warp[kWarps][kDigits];
  int start[kDigits];  // where a digit's items begin in the sorted tile
  int totals[kWarps];
};

// The places of a tile's items in the order of one digit.  Thread t has, for each i, the item
// (t / 32) * 256 + i * 32 + t % 32; items of one digit keep their order.
template <typename K>
__device__ __forceinline__ void rank_items(const K (&key)[kItems], int shift, int (&place)[kItems],
                                           Counters& counters) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int w = 0; w < kWarps; ++w) counters.warp[w][threadIdx.x] = 0;
  __syncthreads();
  int* const counts = counters.warp[warp];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int digit = digit_of(key[i], shift);
    const unsigned same = __match_any_sync(ml_all_lanes, digit);
    const int before = __popc(same & ((1u << lane) - 1));
    const int base = counts[digit];
    __syncwarp();
    if (before == 0) counts[digit] = base + __popc(same);
    __syncwarp();
    place[i] = base + before;
  }
  __syncthreads();
  int total = 0;
  for (int w = 0; w < kWarps; ++w) {
    const int count = counters.warp[w][threadIdx.x];
    counters.warp[w][threadIdx.x] = total;
    total += count;
  }
  const int start = sum_before(total, counters.totals);
  counters.start[threadIdx.x] = start;
  for (int w = 0; w < kWarps; ++w) counters.warp[w][threadIdx.x] += start;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kItems; ++i) place[i] += counts[digit_of(key[i], shift)];
}

// The key of an index: its place, or `bound` where it is out of range (reported if
// there is somewhere to) or `skip`.
template <typename I, typename K>
__device__ __forceinline__ K key_of(I index, ml_index bound, ml_index skip, bool wrap,
                                    ml_fault* fault, int site) {
  ml_index place = ml_index(index);
  if (place < 0 && wrap) place += bound;
  if (place < 0 || place >= bound) {
    if (fault) ml_report(fault, site, ml_index(index), bound);
    return K(bound);
  }
  return place == skip ? K(bound) : K(place);
}

}  // namespace

// All of it in one block, for at most kTile keys.
template <typename I, typename K>
__global__ void __launch_bounds__(256)
sort_tile(const I* __restrict__ index, K* keys, K* positions, int count, ml_index bound,
          ml_index skip, bool wrap, int bits, ml_fault* fault, int site) {
  __shared__ Counters counters;
  __shared__ K moved_keys[kTile], moved_positions[kTile];
  const int first = (threadIdx.x >> 5) * 32 * kItems + (threadIdx.x & 31);
  K key[kItems], position[kItems];
  int place[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int item = first + 32 * i;
    position[i] = K(item);
    key[i] = item < count ? key_of<I, K>(index[item], bound, skip, wrap, fault, site)
                          : last_key<K>();
  }
  for (int shift = 0; shift < bits; shift += 8) {
    rank_items(key, shift, place, counters);
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      moved_keys[place[i]] = key[i];
      moved_positions[place[i]] = position[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      key[i] = moved_keys[first + 32 * i];
      position[i] = moved_positions[first + 32 * i];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int item = first + 32 * i;
    if (item < count) {
      keys[item] = key[i];
      positions[item] = position[i];
    }
  }
}

template <typename I, typename K>
__global__ void __launch_bounds__(256)
make_keys(const I* __restrict__ index, K* __restrict__ keys, ml_index count, ml_index bound,
          ml_index skip, bool wrap, ml_fault* fault, int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i < count) keys[i] = key_of<I, K>(index[i], bound, skip, wrap, fault, site);
}

// counts[digit][tile]: how many keys of a tile have the digit.
template <typename K>
__global__ void __launch_bounds__(256)
count_digits(const K* __restrict__ keys, K* __restrict__ counts, ml_index count, int shift) {
  __shared__ int found[kDigits];
  found[threadIdx.x] = 0;
  __syncthreads();
  const ml_index first = ml_index(blockIdx.x) * kTile + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const ml_index item = first + 256 * i;
    if (item < count) atomicAdd(&found[digit_of(keys[item], shift)], 1);
  }
  __syncthreads();
  counts[ml_index(threadIdx.x) * gridDim.x + blockIdx.x] = K(found[threadIdx.x]);
}

// One block for each digit: its counts become the sums of those of the tiles before.
template <typename K>
__global__ void __launch_bounds__(256) scan_digits(K* counts, K* totals, int tiles) {
  __shared__ K sums[kWarps], carried;
  K* const row = counts + ml_index(blockIdx.x) * tiles;
  K carry = 0;
  for (int first = 0; first < tiles; first += 256) {
    const int tile = first + threadIdx.x;
    const K value = tile < tiles ? row[tile] : K(0);
    const K before = carry + sum_before(value, sums);
    if (tile < tiles) row[tile] = before;
    if (threadIdx.x == 255) carried = before + value;
    __syncthreads();
    carry = carried;
    __syncthreads();
  }
  if (threadIdx.x == 0) totals[blockIdx.x] = carry;
}

// Keys and positions (null: their own places) to where the digit puts them.
template <typename K>
__global__ void __launch_bounds__(256)
move_keys(const K* __restrict__ keys, const K* __restrict__ positions, K* __restrict__ keys_out,
          K* __restrict__ positions_out, const K* __restrict__ counts,
          const K* __restrict__ totals, ml_index count, int shift) {
  __shared__ Counters counters;
  __shared__ K moved_keys[kTile], moved_positions[kTile], target[kDigits], sums[kWarps];
  const ml_index tile = ml_index(blockIdx.x) * kTile;
  const int first = (threadIdx.x >> 5) * 32 * kItems + (threadIdx.x & 31);
  const int here = int(count - tile < kTile ? count - tile : kTile);
  K key[kItems], position[kItems];
  int place[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int item = first + 32 * i;
    key[i] = item < here ? keys[tile + item] : last_key<K>();
    position[i] = positions && item < here ? positions[tile + item] : K(tile + item);
  }
  rank_items(key, shift, place, counters);
  // What to add to a place in the sorted tile to have the place in the whole.
  target[threadIdx.x] = sum_before(totals[threadIdx.x], sums) +
                        counts[ml_index(threadIdx.x) * gridDim.x + blockIdx.x] -
                        K(counters.start[threadIdx.x]);
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    moved_keys[place[i]] = key[i];
    moved_positions[place[i]] = position[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int item = threadIdx.x + 256 * i;
    if (item < here) {
      const K moved = moved_keys[item];
      const K to = target[digit_of(moved, shift)] + K(item);
      keys_out[to] = moved;
      positions_out[to] = moved_positions[item];
    }
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
        constexpr int kPart = E * sizeof(A) > 16 ? 16 / sizeof(A) : E;
#pragma unroll
        for (int part = 0; part < E; part += kPart) {
          ml_vec<A, kPart> rest;
#pragma unroll
          for (int e = 0; e < kPart; ++e) rest.at[e] = sum[part + e];
          ml_store_whole<kPart>(partial + place * E + part, rest);
        }
      }
    }
  }
}

// The same for short rows: lanes along the entries, each of one column of the `inner`.  Values and
// partial results have their own steps, the latter lie column by column.
template <typename T, typename V, typename A, typename K, int op>
__global__ void __launch_bounds__(128)
combine_columns(T* out, const V* __restrict__ values, const K* __restrict__ keys,
                const K* __restrict__ positions, const ml_index* __restrict__ source,
                const A* __restrict__ scale, A* __restrict__ partial,
                K* __restrict__ partial_keys, const K* __restrict__ sorted, ml_index total,
                ml_index count, ml_index bound, ml_index outer, ml_index inner,
                ml_index outer_step, ml_index row_step, ml_index inner_step, ml_index windows,
                bool keep) {
  const int lane = threadIdx.x & 31;
  const ml_index task = ml_index(blockIdx.x) * 4 + (threadIdx.x >> 5);
  const ml_index column = task / windows, window = task - column * windows, first = window * 32;
  if (column >= outer * inner) return;
  const ml_index o = inner == 1 ? column : column / inner, i = column - o * inner;

  const Window<K> entries(keys, first, count, bound);
  if (partial_keys && column == 0) entries.pass_on(partial_keys, window, bound);
  bool valued = entries.valued;
  A sum = A(0);
  if (valued) {
    ml_index row = positions ? ml_index(positions[first + lane]) : first + lane;
    const A factor = scale ? scale[row] : A(1);
    if (source) row = source[row];
    valued = row >= 0;
    if (valued) sum = ml_cast<A>(values[o * outer_step + row * row_step + i * inner_step]);
    if (scale) sum = sum * factor;
  }
  // Keys are sorted: where that of a lane before is the same, so are all between.
#pragma unroll
  for (int step = 1; step < 32; step <<= 1) {
    const A other = lane_before(sum, step);
    const K key = __shfl_up_sync(ml_all_lanes, entries.key, step);
    const bool has = __shfl_up_sync(ml_all_lanes, int(valued), step);
    if (lane >= step && key == entries.key && has) {
      sum = valued ? combined<op>(other, sum) : other;
      valued = true;
    }
  }
  if (entries.key >= bound || (!entries.ends(lane) && lane < 31)) return;
  if (entries.begins(lane) && entries.ends(lane)) {
    T* const place = out + (o * bound + entries.key) * inner + i;
    T old = T();
    if (keep) old = *place;
    *place = finished<op>(sum, old, keep, sorted, total, entries.key);
  } else {
    partial[column * 2 * windows + 2 * window + entries.begins(lane)] = sum;
  }
}

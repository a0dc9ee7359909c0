// Reductions of a strided array over any of its dimensions, for the operators of reduce.cuh.
//
// Outputs are numbered along the kept dimensions in the order of memory; `out` maps a number to the
// place in the result.  `reduce_rows` is for a reduced dimension that is innermost in memory,
// `reduce_columns` for a kept one, `reduce_short` for contiguous rows too short for a vector of
// lanes.  Long reductions are split over gridDim.y, leave accumulators in `partial`
// [gridDim.y][outputs], and `reduce_finish` merges them.  All depends on shapes alone.  Of the
// results (`out`, `other`, `index`) those that are null are not wanted.
#include "dims.cuh"
#include "reduce.cuh"
#include "warp.cuh"

// How many bytes of an accumulator move at once through shared memory.
template <typename A>
struct ml_words {
  static const int bytes = alignof(A) >= 16 ? 16 : alignof(A) == 8 ? 8 : 4;
};

// Over groups of `lanes` neighbouring lanes, a power of two.
template <typename Op>
__device__ __forceinline__ void ml_merge_lanes(typename Op::acc& a, int lanes) {
  for (int step = lanes >> 1; step > 0; step >>= 1) a = Op::merge(a, ml_shfl_xor(a, step));
}

template <typename Op, typename O>
__device__ __forceinline__ void ml_finish(const typename Op::acc& a, ml_index m, O* out, O* other,
                                          long long* index, unsigned char* partial,
                                          const ml_dims& places, ml_index outputs, ml_index count,
                                          double p) {
  typedef typename Op::acc acc;
  if (partial) {
    ml_put(reinterpret_cast<acc*>(partial) + (blockIdx.y * outputs + m), a);
    return;
  }
  const ml_index place = ml_offset(places, m);
  if (out) out[place] = ml_cast<O>(Op::finish(a, count, p));
  if (other) other[place] = ml_cast<O>(Op::other(a));
  if (index) index[place] = Op::index(a);
}

template <typename Op, typename T, int V>
__device__ __forceinline__ void ml_take(typename Op::acc& a, const ml_vec<T, V>& v,
                                        ml_index first, double p) {
  typename ml_compute<T>::type x[V];
#pragma unroll
  for (int j = 0; j < V; ++j) x[j] = ml_cast<typename ml_compute<T>::type>(v.at[j]);
  Op::template take<V>(a, x, first, 1, p);
}

// --- rows: `lanes` threads for each output -------------------------------------------------------

// Elements beyond vectors lie before and behind them, where there is one reduced dimension: V is
// then limited by nothing but the element's size.  Of several, each is a multiple of V, and
// `reduced` counts vectors in the innermost.  `chunk` vectors are one block's part of a row.
template <typename Op, typename T, typename O, int V>
__global__ void reduce_rows(const T* __restrict__ x, O* out, O* other, long long* index,
                            unsigned char* partial, ml_dims kept, ml_dims places, ml_dims reduced,
                            ml_index outputs, ml_index count, ml_index chunk, int lanes,
                            double p) {
  typedef typename Op::acc acc;
  const int UNROLL = 4;
  const int lane = threadIdx.x % lanes;
  const ml_index m = ml_index(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
  const bool mine = m < outputs;
  acc a = Op::identity();
  if (mine) {
    const T* row = x + ml_offset(kept, m);
    ml_index head = 0, units = count / V;
    if (V > 1 && reduced.count == 1) {
      const int off = int((unsigned long long)(row) / sizeof(T) % V);
      head = off ? V - off : 0;
      if (head > count) head = count;
      units = (count - head) / V;
      const ml_index tail = head + units * V;
      if (blockIdx.y == 0) {
        for (ml_index i = lane; i < head; i += lanes)
          ml_take<Op, T, 1>(a, ml_load<1>(row + i), i, p);
        for (ml_index i = tail + lane; i < count; i += lanes)
          ml_take<Op, T, 1>(a, ml_load<1>(row + i), i, p);
      }
      row += head;
    }
    ml_index last = units;
    ml_index i = blockIdx.y * chunk + lane;
    if (last > (blockIdx.y + 1) * chunk) last = (blockIdx.y + 1) * chunk;
    for (; i + (UNROLL - 1) * lanes < last; i += UNROLL * lanes) {
      ml_vec<T, V> v[UNROLL];
#pragma unroll
      for (int u = 0; u < UNROLL; ++u)
        v[u] = ml_load<V>(row + ml_offset(reduced, i + u * lanes));
#pragma unroll
      for (int u = 0; u < UNROLL; ++u)
        ml_take<Op, T, V>(a, v[u], head + (i + u * lanes) * V, p);
    }
    for (; i < last; i += lanes)
      ml_take<Op, T, V>(a, ml_load<V>(row + ml_offset(reduced, i)), head + i * V, p);
  }
  ml_merge_lanes<Op>(a, lanes < 32 ? lanes : 32);
  if (lanes > 32) {
    __shared__ alignas(16) unsigned char memory[32 * sizeof(acc)];
    acc* slots = reinterpret_cast<acc*>(memory);
    if (ml_lane() == 0) ml_put(slots + ml_warp(), a);
    __syncthreads();
    if (ml_warp() > 0) return;
    a = ml_lane() < int(blockDim.x >> 5) ? ml_get(slots + ml_lane()) : Op::identity();
    ml_merge_lanes<Op>(a, 32);
  }
  if (mine && lane == 0)
    ml_finish<Op>(a, m, out, other, index, partial, places, outputs, count, p);
}

// --- short contiguous rows: a thread for each, through shared memory -----------------------------

// Threads of a warp whose rows start in the same bank read from different columns at a time.
template <typename Op, typename T, typename O, int V>
__global__ void reduce_short(const T* __restrict__ x, O* out, O* other, long long* index,
                             ml_dims places, ml_index outputs, int count, double p) {
  typedef typename Op::acc acc;
  typedef typename ml_compute<T>::type C;
  extern __shared__ __align__(16) unsigned char memory[];
  C* tile = reinterpret_cast<C*>(memory);
  const ml_index first = ml_index(blockIdx.x) * blockDim.x;
  const ml_index left = outputs - first;
  const int rows = left < blockDim.x ? int(left) : int(blockDim.x);
  const int elements = rows * count;
  const T* source = x + first * count;
  for (int i = threadIdx.x * V; i < elements; i += blockDim.x * V) {
    if (i + V <= elements) {
      const ml_vec<T, V> v = ml_load<V>(source + i);
      // Groups of 16 bytes, or else whole elements, side by side.
      const int G = sizeof(C) * V <= 16 ? V : 16 / sizeof(C);
#pragma unroll
      for (int g = 0; g < V; g += G) {
        ml_vec<C, G> part;
#pragma unroll
        for (int j = 0; j < G; ++j) part.at[j] = ml_cast<C>(v.at[g + j]);
        ml_store<G>(tile + i + g, part);
      }
    } else {
      for (int j = i; j < elements; ++j) tile[j] = ml_cast<C>(source[j]);
    }
  }
  __syncthreads();
  if (threadIdx.x >= rows) return;
  const int phase = sizeof(C) >= 16 ? 8 : sizeof(C) == 8 ? 16 : 32;  // lanes of one pass
  const int common = count & -count;  // its largest power of two
  int j = common < phase ? int(threadIdx.x % phase) * common / phase % count : threadIdx.x % count;
  const C* row = tile + threadIdx.x * count;
  acc a = Op::identity();
  for (int i = 0; i < count; ++i) {
    const C one[1] = {row[j]};
    Op::template take<1>(a, one, j, 1, p);
    if (++j == count) j = 0;
  }
  ml_finish<Op, O>(a, first + threadIdx.x, out, other, index, nullptr, places, outputs, count, p);
}

// --- columns: a thread for V neighbouring outputs, `groups` of them down the block ---------------

// A block takes `period` vectors side by side, in `groups` rows at a time; threads beyond
// period * groups have nothing to do but merge.  `columns` outputs lie side by side in memory.
// Where V does not divide it, the rows are contiguous and `period` vectors are `fold` whole rows,
// which are reduced at the end as well; `rest` rows may be left over.
template <typename Op, typename T, typename O, int V>
__global__ void reduce_columns(const T* __restrict__ x, O* out, O* other, long long* index,
                               unsigned char* partial, ml_dims kept, ml_dims places,
                               ml_dims reduced, ml_index columns, ml_index column_stride,
                               ml_index outputs, ml_index count, ml_index chunk, ml_index tiles,
                               int period, int groups, int fold, double p) {
  typedef typename Op::acc acc;
  typedef typename ml_compute<T>::type C;
  const int UNROLL = 4, THREADS = 256;
  const int phase = 32 * 4 / ml_words<acc>::bytes;
  const int PLANE = THREADS + (phase / V > 0 ? phase / V : 1);  // j and c of V*c + j in other banks
  __shared__ alignas(16) unsigned char memory[V * PLANE * sizeof(acc)];
  acc* parts = reinterpret_cast<acc*>(memory);
  const ml_index outer = tiles == 1 ? blockIdx.x : blockIdx.x / tiles;
  const ml_index tile = blockIdx.x - outer * tiles;
  const int t = threadIdx.x, c = t % period, g = t / period;
  const ml_index column = (tile * period + c) * V;
  const bool mine = g < groups && (fold > 1 || column < columns);
  acc a[V];
  int shift[V];  // rows within the period
#pragma unroll
  for (int j = 0; j < V; ++j) {
    a[j] = Op::identity();
    shift[j] = fold > 1 ? int((column + j) / columns) : 0;
  }
  if (mine) {
    const T* base = x + ml_offset(kept, outer) + column * (V == 1 ? column_stride : 1);
    const ml_index rows = count / fold;
    ml_index last = rows, i = blockIdx.y * chunk + g;
    if (last > (blockIdx.y + 1) * chunk) last = (blockIdx.y + 1) * chunk;
    for (; i + (UNROLL - 1) * groups < last; i += UNROLL * groups) {
      ml_vec<T, V> v[UNROLL];
#pragma unroll
      for (int u = 0; u < UNROLL; ++u)
        v[u] = ml_load<V>(base + ml_offset(reduced, i + u * groups));
#pragma unroll
      for (int j = 0; j < V; ++j) {
        C down[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; ++u) down[u] = ml_cast<C>(v[u].at[j]);
        Op::template take<UNROLL>(a[j], down, i * fold + shift[j], groups * fold, p);
      }
    }
    for (; i < last; i += groups) {
      const ml_vec<T, V> v = ml_load<V>(base + ml_offset(reduced, i));
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const C one[1] = {ml_cast<C>(v.at[j])};
        Op::template take<1>(a[j], one, i * fold + shift[j], 1, p);
      }
    }
    if (fold > 1 && g == 0 && blockIdx.y == 0) {
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const ml_index row = rows * fold + shift[j];
        if (row < count) {
          const C one[1] = {ml_cast<C>(base[ml_offset(reduced, rows) + j])};
          Op::template take<1>(a[j], one, row, 1, p);
        }
      }
    }
  }
#pragma unroll
  for (int j = 0; j < V; ++j) ml_put(parts + j * PLANE + t, a[j]);
  __syncthreads();
  for (int left = groups; left > 1;) {
    const int kept = (left + 1) / 2;
    if (t < (left - kept) * period) {
#pragma unroll
      for (int j = 0; j < V; ++j)
        ml_put(parts + j * PLANE + t, Op::merge(ml_get(parts + j * PLANE + t),
                                                ml_get(parts + j * PLANE + t + kept * period)));
    }
    __syncthreads();
    left = kept;
  }
  const int width = fold > 1 ? int(columns) : period * V;
  for (int o = t; o < width; o += THREADS) {
    const ml_index at = tile * period * V + o;
    if (at >= columns) break;
    acc whole = ml_get(parts + o % V * PLANE + o / V);
    for (int k = 1; k < fold; ++k) {
      const int e = o + k * int(columns);
      whole = Op::merge(whole, ml_get(parts + e % V * PLANE + e / V));
    }
    ml_finish<Op>(whole, outer * columns + at, out, other, index, partial, places, outputs, count,
                  p);
  }
}

// --- the second stage ----------------------------------------------------------------------------

// `width` outputs a block, 256 / width threads each; width is a power of two.
template <typename Op, typename O>
__global__ void reduce_finish(const unsigned char* __restrict__ partial, O* out, O* other,
                              long long* index, ml_dims places, ml_index outputs, int splits,
                              ml_index count, int width, double p) {
  typedef typename Op::acc acc;
  __shared__ alignas(16) unsigned char memory[256 * sizeof(acc)];
  acc* parts = reinterpret_cast<acc*>(memory);
  const acc* source = reinterpret_cast<const acc*>(partial);
  const int t = threadIdx.x, c = t % width, g = t / width;
  const ml_index m = ml_index(blockIdx.x) * width + c;
  acc a = Op::identity();
  if (m < outputs)
    for (int s = g; s < splits; s += 256 / width)
      a = Op::merge(a, ml_get(source + s * outputs + m));
  ml_put(parts + t, a);
  __syncthreads();
  for (int left = 128; left >= width; left >>= 1) {
    if (t < left) ml_put(parts + t, Op::merge(ml_get(parts + t), ml_get(parts + t + left)));
    __syncthreads();
  }
  if (t < width && m < outputs)
    ml_finish<Op, O>(ml_get(parts + t), m, out, other, index, nullptr, places, outputs, count, p);
}

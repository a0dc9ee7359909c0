// Dropout of elements and of whole rows (channels).  No mask is stored: forward and backward compute
// it from the same words.  `y` may be `x`.
#include "philox.cuh"

// y = x * factor + summand, both of which depend on whether the element is kept: x * 0 where it is
// not, so that inf and NaN become NaN.
template <typename C>
struct ml_dropping {
  C scale, raised, base;
  bool affine;
  __device__ __forceinline__ ml_dropping(double scale, double lift, double base)
      : scale(C(scale)), raised(ml_add_rn(C(lift), C(base))), base(C(base)), affine(lift != 0) {}
  __device__ __forceinline__ C operator()(C x, bool kept) const {
    const C y = ml_mul_rn(x, kept ? scale : C(0));
    return affine ? ml_add_rn(y, kept ? raised : base) : y;
  }
};

const int THREADS = 256;

// Each lane computes one block of words, for eight neighbouring elements.  A vector has E of them,
// so 8 / E lanes need the same block: a lane works on 8 / E vectors, each of which it shares with
// the same group of lanes, and each lane of the group computes the block of one.
template <int E, bool whole, typename T>
__device__ __forceinline__ void ml_drop_tile(T* y, const T* x, ml_index count, ml_index block,
                                             const ml_stream& draw, unsigned last,
                                             const ml_dropping<ml_wide<T>>& drop) {
  const int vectors = 8 / E, lane = threadIdx.x & 31, inner = lane % vectors;
  ml_vec<T, E> values[vectors];
#pragma unroll
  for (int v = 0; v < vectors; ++v) {
    const int k = (v * 32 + lane) * E;
    if (whole || k < count) values[v] = ml_load<E>(x + k);
  }
  const unsigned bits =
      ml_kept_bits(draw, block + inner * (32 / vectors) + lane / vectors, last);
#pragma unroll
  for (int v = 0; v < vectors; ++v) {
    const unsigned kept =
        (vectors == 1 ? bits : __shfl_sync(0xffffffffu, bits, lane - inner + v)) >> (inner * E);
#pragma unroll
    for (int e = 0; e < E; ++e)
      values[v].at[e] = ml_cast<T>(drop(ml_cast<ml_wide<T>>(values[v].at[e]), kept >> e & 1));
    const int k = (v * 32 + lane) * E;
    if (whole || k < count) ml_store_whole<E>(y + k, values[v]);
  }
}

// A warp works on 256 elements in a row; the last ones may be fewer.
template <typename T, int E>
__global__ void __launch_bounds__(THREADS)
dropout_elements(T* y, const T* x, ml_index n, ml_index seed, ml_index offset,
                 const ml_index* cell, unsigned last, double scale, double lift, double base) {
  const ml_index warp = ml_index(blockIdx.x) * (THREADS / 32) + (threadIdx.x >> 5);
  const ml_index start = warp * 256, count = n - start;
  if (count <= 0) return;
  const ml_dropping<ml_wide<T>> drop(scale, lift, base);
  const ml_stream draw = ml_draw(seed, offset, cell);
  if (count >= 256) ml_drop_tile<E, true>(y + start, x + start, 256, warp * 32, draw, last, drop);
  else ml_drop_tile<1, false>(y + start, x + start, count, warp * 32, draw, last, drop);
}

// A block of threads works on CHUNK elements in a row, whatever the length of what is dropped
// together: it first computes whether each of the rows that meet the chunk is kept.
const int CHUNK = 4096;

template <int E, typename T>
__device__ __forceinline__ void ml_drop_chunk(T* y, const T* x, int count,
                                              const unsigned char* kept_rows, int first,
                                              ml_index place, ml_index columns,
                                              const ml_dropping<ml_wide<T>>& drop) {
  const bool narrow = columns < CHUNK;
#pragma unroll
  for (int v = 0; v < CHUNK / (THREADS * E); ++v) {
    const int k = (v * THREADS + threadIdx.x) * E;
    if (k >= count) break;
    int row;        // this vector's, counted from the first that is in kept_rows
    ml_index left;  // how much of it is left
    if (narrow) {
      const unsigned along = unsigned(place) + k, above = along / unsigned(columns);
      row = first + int(above);
      left = ml_index(unsigned(columns) * (above + 1) - along);
    } else {
      const bool next = place + k >= columns;
      row = first + next;
      left = columns * (1 + next) - (place + k);
    }
    bool kept = kept_rows[row >> 3] >> (row & 7) & 1;
    ml_vec<T, E> values = ml_load<E>(x + k);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      values.at[e] = ml_cast<T>(drop(ml_cast<ml_wide<T>>(values.at[e]), kept));
      if (--left == 0 && e + 1 < E) {
        left = columns;
        ++row;
        kept = kept_rows[row >> 3] >> (row & 7) & 1;
      }
    }
    ml_store_whole<E>(y + k, values);
  }
}

template <typename T, int E>
__global__ void __launch_bounds__(THREADS)
dropout_rows(T* y, const T* x, ml_index n, ml_index columns, ml_index seed, ml_index offset,
             const ml_index* cell, unsigned last, double scale, double lift, double base) {
  __shared__ unsigned char kept_rows[CHUNK / 8 + 2];  // bits, of eight rows each
  const ml_index start = ml_index(blockIdx.x) * CHUNK, row = start / columns;
  const int count = int(min(n - start, ml_index(CHUNK))), first = int(row & 7);
  const int octets = int(((start + count - 1) / columns >> 3) - (row >> 3)) + 1;
  const ml_stream draw = ml_draw(seed, offset, cell);
  for (int t = threadIdx.x; t < octets; t += THREADS)
    kept_rows[t] = (unsigned char)ml_kept_bits(draw, (row >> 3) + t, last);
  __syncthreads();
  const ml_dropping<ml_wide<T>> drop(scale, lift, base);
  const ml_index place = start - row * columns;
  if (count == CHUNK)
    ml_drop_chunk<E>(y + start, x + start, CHUNK, kept_rows, first, place, columns, drop);
  else ml_drop_chunk<1>(y + start, x + start, count, kept_rows, first, place, columns, drop);
}

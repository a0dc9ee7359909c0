// Rows copied to and from places that an index names.  A row is `inner` elements, and copies do not
// care what they mean: T is any type of the element's size, E of which are moved at once.
#include "common.cuh"
#include "fault.cuh"

namespace {

// The place an index means, -1 where it is out of range; reported if there is somewhere to.
template <typename I>
__device__ __forceinline__ ml_index place_of(I index, ml_index bound, bool wrap, ml_fault* fault,
                                             int site) {
  const ml_index place = index < 0 && wrap ? ml_index(index) + bound : ml_index(index);
  if (place >= 0 && place < bound) return place;
  if (fault) ml_report(fault, site, ml_index(index), bound);
  return -1;
}

// What a thread has of a row: a group of `1 << spread` lanes takes kPiece vectors for each lane, so
// that short rows fill a warp, too, and long ones many.
constexpr int kPiece = 4;

struct Piece {
  ml_index row, first;
  int step;
  __device__ __forceinline__ Piece(int elements, int pieces, int spread) {
    const ml_index task = (ml_index(blockIdx.x) * 256 + threadIdx.x) >> spread;
    row = pieces == 1 ? task : task / pieces;
    step = elements << spread;
    first = (task - row * pieces) * kPiece * step + (threadIdx.x & ((1 << spread) - 1)) * elements;
  }
};

}  // namespace

// Sizes of the result's dimensions, and the steps of two operands along them.
struct ml_pair_steps {
  ml_index size[8], first[8], second[8];
};

namespace {

template <int D>
__device__ __forceinline__ void pair_offsets(const ml_pair_steps& steps, ml_index i,
                                             ml_index& first, ml_index& second) {
  first = second = 0;
#pragma unroll
  for (int d = D - 1; d >= 0; --d) {
    const ml_index next = d ? i / steps.size[d] : 0, place = i - next * steps.size[d];
    first += place * steps.first[d];
    second += place * steps.second[d];
    i = next;
  }
}

// The thread's piece of a row; of one value where `inner_step` is 0.
template <int E, typename T>
__device__ __forceinline__ void copy_piece(T* __restrict__ to, const T* __restrict__ from,
                                           const Piece& piece, ml_index inner, int inner_step) {
  ml_vec<T, E> part[kPiece];
#pragma unroll
  for (int u = 0; u < kPiece; ++u) {
    const ml_index i = piece.first + u * piece.step;
    if (inner_step) {
      if (i < inner) part[u] = ml_load<E>(from + i);
    } else {
#pragma unroll
      for (int e = 0; e < E; ++e) part[u].at[e] = from[0];
    }
  }
#pragma unroll
  for (int u = 0; u < kPiece; ++u) {
    const ml_index i = piece.first + u * piece.step;
    if (i < inner) ml_store_whole<E>(to + i, part[u]);
  }
}

}  // namespace

// y[o, r, :] = x[o, index[r], :], whose rows may lie apart.
template <typename T, int E, typename I>
__global__ void __launch_bounds__(256)
gather_rows(T* __restrict__ y, const T* __restrict__ x, const I* __restrict__ index,
            ml_index outer, ml_index count, ml_index bound, ml_index inner, ml_index x_outer_step,
            ml_index x_row_step, int pieces, int spread, bool wrap, ml_fault* fault, int site) {
  const Piece piece(E, pieces, spread);
  if (piece.row >= outer * count) return;
  const ml_index o = outer == 1 ? 0 : piece.row / count;
  const ml_index place = place_of(index[piece.row - o * count], bound, wrap, fault, site);
  const T zero = T(0);
  if (place < 0) copy_piece<E>(y + piece.row * inner, &zero, piece, inner, 0);
  else
    copy_piece<E>(y + piece.row * inner, x + o * x_outer_step + place * x_row_step, piece, inner,
                  1);
}

// y[i] = x at i's place in all dimensions but one, where the index says: x's steps are
// `steps.first`, 0 in that dimension, and `along` there.
template <typename T, typename I, int D>
__global__ void __launch_bounds__(256)
gather_along(T* __restrict__ y, const T* __restrict__ x, const I* __restrict__ index,
             ml_index count, ml_index bound, ml_index along, ml_pair_steps steps, bool wrap,
             ml_fault* fault, int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  ml_index from, at;
  pair_offsets<D>(steps, i, from, at);
  const ml_index place = place_of(index[at], bound, wrap, fault, site);
  y[i] = place < 0 ? T(0) : x[from + place * along];
}

// The same as flat places of a contiguous tensor; -1, out of any range, for those that are wrong.
template <typename I, int D>
__global__ void __launch_bounds__(256)
places_along(ml_index* __restrict__ places, const I* __restrict__ index, ml_index count,
             ml_index bound, ml_index along, ml_pair_steps steps, bool wrap, ml_fault* fault,
             int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  ml_index from, at;
  pair_offsets<D>(steps, i, from, at);
  const ml_index place = place_of(index[at], bound, wrap, fault, site);
  places[i] = place < 0 ? -1 : from + place * along;
}

// Places in dimensions so far (null: none), and in one more.
template <typename I>
__global__ void __launch_bounds__(256)
add_index(ml_index* places, const ml_index* before, const I* __restrict__ index, ml_index count,
          ml_index bound, bool wrap, ml_fault* fault, int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  const ml_index place = place_of(index[i], bound, wrap, fault, site);
  const ml_index high = before ? before[i] : 0;
  places[i] = place < 0 || high < 0 ? -1 : high * bound + place;
}

// out[o, index[r], :] = values[o, r, :].  Rows of both may lie apart, and steps of the values be 0
// (`inner_step` too: one value for a row).  No place may come twice.
template <typename T, int E, typename I>
__global__ void __launch_bounds__(256)
put_rows(T* __restrict__ out, const T* __restrict__ values, const I* __restrict__ index,
         ml_index outer, ml_index count, ml_index bound, ml_index inner, ml_index out_outer_step,
         ml_index out_row_step, ml_index outer_step, ml_index row_step, int inner_step, int pieces,
         int spread, bool wrap, ml_fault* fault, int site) {
  const Piece piece(E, pieces, spread);
  if (piece.row >= outer * count) return;
  const ml_index o = outer == 1 ? 0 : piece.row / count, r = piece.row - o * count;
  const ml_index place = place_of(index[r], bound, wrap, fault, site);
  if (place < 0) return;
  copy_piece<E>(out + o * out_outer_step + place * out_row_step,
                values + o * outer_step + r * row_step, piece, inner, inner_step);
}

// The same where a place may come twice, from keys in order with their positions: the last wins.
template <typename T, int E, typename K>
__global__ void __launch_bounds__(256)
put_last(T* __restrict__ out, const T* __restrict__ values, const K* __restrict__ keys,
         const K* __restrict__ positions, ml_index outer, ml_index count, ml_index bound,
         ml_index inner, ml_index out_outer_step, ml_index out_row_step, ml_index outer_step,
         ml_index row_step, int inner_step, int pieces, int spread) {
  const Piece piece(E, pieces, spread);
  if (piece.row >= outer * count) return;
  const ml_index o = outer == 1 ? 0 : piece.row / count, j = piece.row - o * count;
  const K key = keys[j];
  if (key >= bound || (j + 1 < count && keys[j + 1] == key)) return;
  copy_piece<E>(out + o * out_outer_step + key * out_row_step,
                values + o * outer_step + ml_index(positions[j]) * row_step, piece, inner,
                inner_step);
}

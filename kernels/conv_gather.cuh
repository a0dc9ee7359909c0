// How tiles of what positions see are filled, from a source with channels last: EACH of them at one
// tap at a time.
#pragma once
#include "conv_tile.cuh"

// How the gather finds what its positions see: at their own places; by a bit for each tap of each
// axis, at most 30 together, in a register for each position; or by coordinates.
enum { CONV_OWN, CONV_BITS, CONV_COORDINATES };

const int conv_never = 1 << 30;  // a bit that no position has
const int conv_held = 16;        // terms that are described at once

// EACH terms of a sum: where they lie in the source from a position's origin and in a row of the
// weight, in bytes, and what a position must have to see them.
template <int D, int FEED>
struct conv_terms {
  ml_index source;
  int weight;                       // -1 past the last term
  int need[FEED == CONV_BITS ? 1 : D];  // the bits, or how far along each axis

  template <typename T>
  __device__ __forceinline__ void describe(const conv_map& map, int term) {
    source = 0;
    weight = -1;
#pragma unroll
    for (int& one : need) one = FEED == CONV_BITS ? conv_never : conv_outside;
    if (term >= map.channels * map.count.value) return;
    const int tap = term / map.channels, channel = term - tap * map.channels;
    ml_index from = 0, stride = 1;
    int rest = tap, bits = 0, first_bit = 0, place = map.weigh_first;
#pragma unroll
    for (int d = D - 1; d >= 0; --d) {
      const int next = d ? ml_divide(rest, map.taps[d]) : 0, own = rest - next * map.taps[d].value;
      const int along = map.offset[d] + own * map.step[d];
      if constexpr (FEED == CONV_COORDINATES) need[d] = along;
      bits |= 1 << (first_bit + own);
      first_bit += map.taps[d].value;
      place += own * map.weigh[d];
      from += along * stride;
      stride *= map.source[d];
      rest = next;
    }
    if constexpr (FEED == CONV_BITS) need[0] = bits;
    source = (from * map.groups * map.channels + channel) * ml_index(sizeof(T));
    weight = (place * map.channels + channel) * int(sizeof(T));
  }

  // To and from a table in shared memory, 16 bytes a place: what is more lies one set of places
  // further.
  static const int PARTS = FEED == CONV_BITS || D == 1 ? 1 : 2;
  __device__ __forceinline__ void keep(ml_vec<int, 4>* to) const {
    to[0] = {int(source), int(source >> 32), weight, need[0]};
    if constexpr (PARTS > 1) to[conv_held] = {need[1], need[D - 1], 0, 0};
  }
  __device__ __forceinline__ void recall(const ml_vec<int, 4>* from) {
    const ml_vec<int, 4> first = from[0];
    source = ml_index(first.at[1]) << 32 | unsigned(first.at[0]);
    weight = first.at[2];
    need[0] = first.at[3];
    if constexpr (PARTS > 1) {
      const ml_vec<int, 4> more = from[conv_held];
      need[1] = more.at[0];
      need[D - 1] = more.at[1];
    }
  }
};

// What one position of the lattice sees of a source with channels last.
template <typename T, int D, int FEED>
struct conv_watch {
  const char* origin;
  int seen;
  int base[FEED == CONV_COORDINATES ? D : 1];

  __device__ __forceinline__ void look(const T* x, const conv_map& map, int group, int p) {
    int u[D];
    const int image = conv_place<D>(map, p, u);
    ml_index from = 0, stride = 1;
    int first_bit = 0;
    seen = 0;
#pragma unroll
    for (int d = D - 1; d >= 0; --d) {
      const int along = u[d] * map.scale[d];
      from += along * stride;
      stride *= map.source[d];
      if constexpr (FEED == CONV_COORDINATES) base[d] = along;
      if constexpr (FEED == CONV_BITS) {
        int at = along + map.offset[d];
        for (int tap = 0; tap < map.taps[d].value; ++tap, at += map.step[d])
          seen |= int(unsigned(at) < unsigned(map.source[d])) << (first_bit + tap);
        first_bit += map.taps[d].value;
      }
    }
    if (image >= map.images) {
      seen = 0;
      if constexpr (FEED == CONV_COORDINATES) base[0] = conv_outside;
    }
    origin = reinterpret_cast<const char*>(
        x + (image * stride + from) * map.groups * map.channels + group * map.channels);
  }

  __device__ __forceinline__ bool sees(const conv_map& map,
                                       const conv_terms<D, FEED>& terms) const {
    if constexpr (FEED == CONV_BITS) {
      return (seen & terms.need[0]) == terms.need[0];
    } else {
      bool all = true;
#pragma unroll
      for (int d = 0; d < D; ++d)
        all &= unsigned(base[d] + terms.need[d]) < unsigned(map.source[d]);
      return all;
    }
  }
};

// How threads share the copies of tiles whose rows are 32 terms: each has EACH terms of every STEP-th
// row.
template <int EACH>
struct conv_part {
  static const int WIDE = conv_depth / EACH, STEP = conv_threads / WIDE, IN_CHUNK = 8 / EACH;
  static __device__ __forceinline__ int line() { return threadIdx.x / WIDE; }
  static __device__ __forceinline__ int place() { return threadIdx.x % WIDE; }

  // Where the first of them lies in a tile.
  template <typename Tile>
  static __device__ __forceinline__ unsigned offset() {
    return conv_kept(unsigned(Tile::place(line(), place() / IN_CHUNK) +
                              place() % IN_CHUNK * (16 / IN_CHUNK)));
  }
};

// The rows of the weight that a thread copies.
template <typename T, int BM, int EACH>
struct conv_rows {
  using Tile = ml_tile<T, BM, conv_depth, true>;
  using Part = conv_part<EACH>;
  const char *weight, *from;
  ml_index pitch;
  int room;
  unsigned to;

  __device__ __forceinline__ conv_rows(const T* weight, const conv_map& map, int group, int row)
      : weight(reinterpret_cast<const char*>(weight)), pitch(ml_index(map.pitch) * sizeof(T)) {
    from = this->weight + (ml_index(group) * map.rows + row + Part::line()) * pitch;
    room = map.rows - row - Part::line();
    to = Part::template offset<Tile>();
  }

  // `offset` in bytes from the rows' first terms; zeros where it is negative.
  __device__ __forceinline__ void copy(unsigned a, int offset) const {
    const char* place = from + offset;
#pragma unroll
    for (int i = 0; i < BM / Part::STEP; ++i) {
      const bool there = offset >= 0 && Part::STEP * i < room;
      ml_copy_async<2 * EACH>(a + to + i * Part::STEP * Tile::LINE_BYTES, there ? place : weight,
                              there);
      place += Part::STEP * pitch;
    }
  }
};

// The sums of a gather from a source with channels last, steps `begin` to `end` of them.
template <typename T, int D, int BM, int FEED, int EACH>
__device__ __forceinline__ void conv_sum_seen(
    conv_product<T, BM, true, true>& tile, unsigned pool, ml_vec<int, 4>* table, const T* x,
    const conv_rows<T, BM, EACH>& rows, const conv_map& map, int group, int column0, int begin,
    int end) {
  typedef typename conv_product<T, BM, true, true>::TileB TileB;
  typedef conv_terms<D, FEED> terms;
  typedef conv_part<EACH> part;
  const int SPAN = conv_held / part::WIDE, COUNT = conv_wide / part::STEP;
  conv_watch<T, D, FEED> watch[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; ++i)
    watch[i].look(x, map, group, column0 + part::line() + part::STEP * i);
  const unsigned to = part::template offset<TileB>();
  const auto describe = [&](int turn) {
    if (turn % SPAN || threadIdx.x >= conv_held) return;
    terms one;
    one.template describe<T>(map, (begin + turn) * conv_depth + threadIdx.x * EACH);
    one.keep(table + turn / SPAN % 2 * terms::PARTS * conv_held + threadIdx.x);
  };
  tile.run(pool, end - begin, describe, [&](int turn, unsigned a, unsigned b) {
    terms one;
    one.recall(table + turn / SPAN % 2 * terms::PARTS * conv_held + turn % SPAN * part::WIDE +
               part::place());
    rows.copy(a, one.weight);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const bool there = watch[i].sees(map, one);
      ml_copy_async<2 * EACH>(
          b + to + i * part::STEP * TileB::LINE_BYTES,
          there ? watch[i].origin + one.source : reinterpret_cast<const char*>(x), there);
    }
  });
}

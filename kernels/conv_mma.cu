// Convolutions of halves on tensor cores: the products of conv.cuh.
//
// The source is laid out channels last by kernels/conv_layout.cu (or came so): its channels, padded
// with zeros to EACH or a multiple of it, are the fastest terms of the sums, so that EACH of them
// at one tap are copied at once, 16 bytes where EACH is 8.  Where a position sees just its own
// place and planes are whole vectors, the source is taken as it is: positions are the neighbours
// then.
#include "conv_gather.cuh"

// y = bias + weight * (what each position sees).  The weight is [group, row][tap][channel], rows
// `pitch` elements apart.  `whole`: runs of 8 positions are 16 aligned bytes of one plane of y.
// With `total`, a block sums `share` steps and leaves them in total[share][tile][row][position] for
// conv_finish.
template <typename T, int D, int BM, int FEED, int EACH>
__global__ void __launch_bounds__(conv_threads, conv_blocks<BM, D, EACH>)
conv_gather_mma(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias,
                T* y, float* total, conv_map map, int share, bool whole) {
  typedef conv_product<T, BM, true, FEED != CONV_OWN> product;
  typedef typename product::TileB TileB;
  extern __shared__ __align__(128) unsigned char pool[];
  float* biases = reinterpret_cast<float*>(pool + product::BYTES);
  auto* table = reinterpret_cast<ml_vec<int, 4>*>(biases + BM);

  const int row_tiles = (map.rows + BM - 1) / BM;
  const int rest = blockIdx.x / row_tiles, row0 = (blockIdx.x - rest * row_tiles) * BM;
  const int column_tile = rest / map.groups, group = rest - column_tile * map.groups;
  const int length = map.channels * map.count.value;
  const int begin = blockIdx.y * share;
  const int end = min(begin + share, (length + conv_depth - 1) / conv_depth);
  for (int row = threadIdx.x; row < BM; row += conv_threads)
    biases[row] = bias && row0 + row < map.rows
        ? ml_cast<float>(bias[group * map.rows + row0 + row]) : 0.0f;

  const conv_rows<T, BM, EACH> rows(weight, map, group, row0);
  product tile;
  if constexpr (FEED == CONV_OWN) {
    // Of the source it copies 8 positions of every 8th channel.
    const int first = threadIdx.x / 16, part = threadIdx.x % 16;
    const ml_index plane = conv_plane<D>(map.source);
    conv_view<T, D> view;
    view.look(x, map, group, column_tile * conv_wide + part * 8);
    const bool inside = view.base[D - 1] >= 0;
    const unsigned to_b = conv_kept(TileB::place(first, part));
    tile.run(ml_shared(pool), end - begin, [](int) {}, [&](int turn, unsigned a, unsigned b) {
      const int term = (begin + turn) * conv_depth;
      const int place = term + threadIdx.x % 4 * 8;
      rows.copy(a, place < length ? place * int(sizeof(T)) : -1);
      const T* from = view.origin + (term + first) * plane;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool there = inside && term + first + 8 * i < length;
        ml_copy_async<16>(b + to_b + i * 8 * TileB::LINE_BYTES, there ? from : x, there);
        from += 8 * plane;
      }
    });
  } else {
    conv_sum_seen<T, D, BM, FEED, EACH>(tile, ml_shared(pool), table, x, rows, map, group,
                                        column_tile * conv_wide, begin, end);
  }

  if (total) {
    tile.deliver(total + (ml_index(blockIdx.y) * gridDim.x + blockIdx.x) * (BM * conv_wide),
                 conv_wide, BM, conv_wide);
    return;
  }
  typename product::packed halves;
  tile.pack(halves, biases);
  tile.stage(pool, halves);
  __syncthreads();
  const ml_index plane = conv_plane<D>(map.target);
  if (whole) {
    const int part = threadIdx.x % 16;
    const ml_index to = conv_written<D>(map, group, column_tile * conv_wide + part * 8);
    if (to < 0) return;
    for (int at = threadIdx.x / 16; at < BM && row0 + at < map.rows; at += 8)
      ml_store_whole<8>(y + to + (row0 + at) * plane,
                        ml_load<8>(conv_staged<T>(pool, at, part * 8)));
  } else {
    const ml_index to = conv_written<D>(map, group, column_tile * conv_wide + threadIdx.x);
    if (to < 0) return;
    for (int at = 0; at < BM && row0 + at < map.rows; ++at)
      y[to + (row0 + at) * plane] = *conv_staged<T>(pool, at, threadIdx.x);
  }
}

// One share of the positions: total[share][group][row][tap][channel] in float32, rows `pitch`
// apart. SMALL_LAST, LARGE_LAST: whether the channels of the small side, `small_channels` of a
// group with their padding, and of the source lie last.  Else runs of 8 positions are 16 aligned
// bytes of one plane, and positions see just their own places in the source.
template <typename T, int D, int BM, bool SMALL_LAST, bool LARGE_LAST, int EACH>
__global__ void __launch_bounds__(conv_threads, conv_blocks<BM, D, EACH>)
conv_weight_mma(const T* __restrict__ x, const T* __restrict__ small, float* total, conv_map map,
                int small_channels, int share) {
  typedef conv_product<T, BM, !SMALL_LAST, !LARGE_LAST> product;
  typedef typename product::TileA TileA;
  typedef typename product::TileB TileB;
  // Where a position's origin lies in the source, in bytes, and its coordinates there.
  struct alignas(16) place {
    ml_index source;
    int base[D < 3 ? 2 : 4];
  };
  extern __shared__ __align__(128) unsigned char pool[];
  place* table = reinterpret_cast<place*>(pool + product::BYTES);

  const int length = map.channels * map.count.value;
  const int row_tiles = (map.rows + BM - 1) / BM;
  const int column_tiles = (length + conv_wide - 1) / conv_wide;
  const int rest = blockIdx.x / row_tiles, row0 = (blockIdx.x - rest * row_tiles) * BM;
  const int group = rest / column_tiles, column0 = (rest - group * column_tiles) * conv_wide;
  const int positions = conv_lattice_size<D>(map), last = map.images * positions;
  const int first = min(last, int(blockIdx.y) * share), stop = min(last, first + share);
  const int turns = (stop - first + conv_depth - 1) / conv_depth;

  const int line = threadIdx.x / 4, chunk = threadIdx.x % 4;
  // `count` rows of a side whose positions are the neighbours, from `row` of its `channels` on; of
  // them this thread copies every 32nd, 8 positions from `p` on.
  const auto copy_rows = [&](const T* side, int channels, int row, int count, unsigned to, int p) {
    int u[D];
    const int image = conv_place<D>(map, p, u);
    const ml_index plane = (ml_index(image) * map.groups + group) * channels + row + line;
    const T* from = side + plane * positions + (p - image * positions);
#pragma unroll
    for (int i = 0; i < count / 32; ++i) {
      const bool there = p < stop && row + line + 32 * i < channels;
      ml_copy_async<16>(to + i * 32 * 16 * 4, there ? from : side, there);
      from += 32 * ml_index(positions);
    }
  };
  // Every STEP-th position of 8 rows of a small side with channels last.
  const int CHUNKS = BM / 8, STEP = conv_threads / CHUNKS;
  const int line_a = threadIdx.x / CHUNKS, chunk_a = threadIdx.x % CHUNKS;
  const unsigned to_a =
      conv_kept(SMALL_LAST ? TileA::place(line_a, chunk_a) : TileA::place(line, chunk));
  const bool rows_there = row0 + chunk_a * 8 < small_channels;
  const ml_index pixel = ml_index(map.groups) * small_channels;
  const auto copy_small = [&](int turn, unsigned a) {
    const int p = first + turn * conv_depth;
    if constexpr (SMALL_LAST) {
      const T* from = small + (p + line_a) * pixel + group * small_channels + row0 + chunk_a * 8;
#pragma unroll
      for (int i = 0; i < conv_depth / STEP; ++i) {
        const bool there = rows_there && p + line_a + i * STEP < stop;
        ml_copy_async<16>(a + to_a + i * STEP * TileA::LINE_BYTES, there ? from : small, there);
        from += STEP * pixel;
      }
    } else {
      copy_rows(small, map.rows, row0, BM, a + to_a, p + chunk * 8);
    }
  };

  product tile;
  if constexpr (LARGE_LAST) {
    // This thread's column: every STEP-th position of EACH channels at a tap.
    const int WIDE = conv_wide / EACH, STEP = conv_threads / WIDE;
    const int line_b = threadIdx.x / WIDE, piece = threadIdx.x % WIDE;
    const unsigned to_b = conv_kept(
        unsigned(TileB::place(line_b, piece * EACH / 8) + piece * EACH % 8 * int(sizeof(T))));
    const unsigned turned = STEP % 8 ? 4 * 16 : 0;  // of lines 4 apart, by the swizzle
    conv_terms<D, CONV_COORDINATES> column;
    column.template describe<T>(map, column0 + piece * EACH);
    const auto describe = [&](int turn) {
      if (threadIdx.x / 32 != turn % 4) return;
      const int p = first + turn * conv_depth + threadIdx.x % 32;
      conv_watch<T, D, CONV_COORDINATES> watch;
      watch.look(x, map, group, p < stop ? p : last);
      const ml_index from = watch.origin - reinterpret_cast<const char*>(x);
      int* to = reinterpret_cast<int*>(table + turn % 2 * conv_depth + threadIdx.x % 32);
      ml_store<4>(to, ml_vec<int, 4>{int(from), int(from >> 32), watch.base[0],
                                     D > 1 ? watch.base[D > 1] : 0});
      if constexpr (D == 3) ml_store<4>(to + 4, ml_vec<int, 4>{watch.base[2], 0, 0, 0});
    };
    tile.run(ml_shared(pool), turns, describe, [&](int turn, unsigned a, unsigned b) {
      copy_small(turn, a);
      const place* held = table + turn % 2 * conv_depth + line_b;
#pragma unroll
      for (int i = 0; i < conv_depth / STEP; ++i) {
        const place one = held[STEP * i];
        bool there = true;
#pragma unroll
        for (int d = 0; d < D; ++d)
          there &= unsigned(one.base[d] + column.need[d]) < unsigned(map.source[d]);
        const ml_index from = there ? one.source + column.source : 0;
        ml_copy_async<2 * EACH>(
            b + (to_b ^ (i % 2 ? turned : 0)) + i * STEP * TileB::LINE_BYTES,
            reinterpret_cast<const char*>(x) + from, there);
      }
    });
  } else {
    const unsigned to_b = conv_kept(TileB::place(line, chunk));
    tile.run(ml_shared(pool), turns, [](int) {}, [&](int turn, unsigned a, unsigned b) {
      copy_small(turn, a);
      copy_rows(x, map.channels, column0, conv_wide, b + to_b,
                first + turn * conv_depth + chunk * 8);
    });
  }

  tile.deliver(
      total + ((ml_index(blockIdx.y) * map.groups + group) * map.rows + row0) * map.pitch + column0,
      map.pitch, map.rows - row0, map.pitch - column0);
}

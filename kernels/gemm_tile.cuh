// Tiles of an operand of a tensor-core product: copied to shared memory in stages, read as fragments.
//
// An operand is `deep` where its elements along k are neighbours in memory, so that a tile's lines are
// rows of the matrix; else its lines are places of k.  Neither is ever transposed by a copy: ldmatrix
// does that on the way to the registers.
#pragma once
#include "mma.cuh"

// How a tile of ROWS rows and DEPTH places of k lies in shared memory.
template <typename T, int ROWS, int DEPTH, bool DEEP>
struct ml_tile {
  static constexpr int E = 16 / sizeof(T);
  static constexpr int LINES = DEEP ? ROWS : DEPTH;
  static constexpr int CHUNKS = (DEEP ? DEPTH : ROWS) / E;  // 16-byte chunks of a line
  // ldmatrix cannot transpose words of 4 bytes: such tiles are read by plain loads, which need lines
  // that begin 8 banks apart.
  static constexpr bool SWIZZLED = DEEP || sizeof(T) == 2;
  static constexpr int LINE_BYTES = CHUNKS * 16 + (SWIZZLED ? 0 : 32);
  static constexpr int BYTES = LINES * LINE_BYTES;

  static __device__ __forceinline__ int place(int line, int chunk) {
    if constexpr (SWIZZLED) return ml_swizzled<CHUNKS>(line, chunk);
    else return line * LINE_BYTES + chunk * 16;
  }
};

// The two ways that one operand's tiles come to shared memory have these in common.  WIDTH is how many
// bytes at a time can be read: along lines, the operand's extent and its lines are multiples of it.
//   constructor   The tiles of rows `row` and on, from place `k` on, of `rows` rows, lines `ld` apart.
//   fetch         Begins to copy the next tile, of whose depth `deep` places are within the matrix, to
//                 `tile`; `any` is an address that may be named where nothing is read.
//   put           What went through registers goes to `tile`, some time after fetch.

// By asynchronous copies of WIDTH bytes, neighbours of which are a warp's: so it reads every sector once.
template <typename T, int ROWS, int DEPTH, int THREADS, bool DEEP, int WIDTH>
struct ml_tile_async {
  using Tile = ml_tile<T, ROWS, DEPTH, DEEP>;
  static constexpr int E = WIDTH / sizeof(T);
  static constexpr int ACROSS = Tile::CHUNKS * (16 / WIDTH);  // pieces of a line
  static constexpr int STEP = THREADS / ACROSS;               // lines between two pieces of a thread
  static constexpr int COUNT = Tile::LINES / STEP;
  // The swizzle's pattern repeats after 8 lines, which are so many pieces of a thread.
  static constexpr int PERIOD = !Tile::SWIZZLED || STEP >= 8 ? 1 : 8 / STEP < COUNT ? 8 / STEP : COUNT;
  static_assert(THREADS % ACROSS == 0 && Tile::LINES % STEP == 0 && COUNT <= 32 &&
                (STEP >= 8 ? STEP % 8 == 0 : 8 % STEP == 0), "pieces must go round among the threads");

  const T* from;   // the thread's first piece of the next tile
  unsigned valid;  // deep: which of its pieces are within the rows, a bit for each; else whether they are
  int depth;       // where along k, in the tile, its first piece is
  int to[PERIOD];  // where in a tile of shared memory

  __device__ __forceinline__ ml_tile_async(const T* matrix, ml_index ld, int row, int rows, int k,
                                           int thread) {
    const int line = thread / ACROSS, first = thread % ACROSS * E;
    const int inside = first % Tile::E * sizeof(T);
#pragma unroll
    for (int i = 0; i < PERIOD; ++i) to[i] = Tile::place(line + i * STEP, first / Tile::E) + inside;
    if constexpr (DEEP) {
      from = matrix + (row + line) * ld + k + first;
      depth = first;
      valid = 0;
#pragma unroll
      for (int i = 0; i < COUNT; ++i) valid |= unsigned(row + line + i * STEP < rows) << i;
    } else {
      from = matrix + (k + line) * ld + row + first;
      depth = line;
      valid = row + first < rows;
    }
  }

  __device__ __forceinline__ void fetch(unsigned tile, int deep, ml_index ld, const T* any) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const T* p = from + i * STEP * ld;
      const bool there = DEEP ? (valid >> i & 1) && depth < deep : valid && depth + i * STEP < deep;
      ml_copy_async<WIDTH>(tile + to[i % PERIOD] + i / PERIOD * PERIOD * STEP * Tile::LINE_BYTES,
                           there ? p : any, there);
    }
    from += DEEP ? DEPTH : DEPTH * ld;
  }

  __device__ __forceinline__ void put(unsigned) const {}
};

// Through registers, in chunks of 16 bytes: where there is no cp.async, and for lines that begin at any
// element.  Of a chunk that does not lie at a multiple of 16 bytes, the two aligned vectors are read
// that it is part of, and shifted into place when they go to shared memory; at the ends of a line,
// where these would reach beyond it, single elements are.
template <typename T, int ROWS, int DEPTH, int THREADS, bool DEEP, int WIDTH>
struct ml_tile_held {
  using Tile = ml_tile<T, ROWS, DEPTH, DEEP>;
  static constexpr int E = Tile::E;
  static constexpr int STEP = THREADS / Tile::CHUNKS;  // lines between two chunks of a thread
  static constexpr int COUNT = Tile::LINES / STEP;
  static constexpr bool ALIGNED = WIDTH == 16;
  static_assert(THREADS % Tile::CHUNKS == 0 && Tile::LINES % STEP == 0 &&
                (STEP % 8 == 0 || !Tile::SWIZZLED),
                "a thread's chunks must have one place in the pattern of the swizzle");
  static_assert(STEP * sizeof(T) % 16 == 0, "a thread's chunks must be equally far from alignment");

  const T* from;   // the thread's first chunk of the next tile
  unsigned valid;  // deep: which of its chunks are within the rows, a bit for each
  int depth;       // where along k, in the tile, its first chunk is
  int left, right; // elements of its line before a chunk, and (not deep) from there on
  int before;      // elements that a chunk lies behind a multiple of 16 bytes
  int to;          // where in a tile of shared memory
  unsigned held[COUNT][ALIGNED ? 4 : 8];

  __device__ __forceinline__ ml_tile_held(const T* matrix, ml_index ld, int row, int rows, int k,
                                          int thread) {
    const int line = thread / Tile::CHUNKS, first = thread % Tile::CHUNKS * E;
    to = Tile::place(line, thread % Tile::CHUNKS);
    if constexpr (DEEP) {
      from = matrix + (row + line) * ld + k + first;
      depth = first;
      left = k + first;
      valid = 0;
#pragma unroll
      for (int i = 0; i < COUNT; ++i) valid |= unsigned(row + line + i * STEP < rows) << i;
    } else {
      from = matrix + (k + line) * ld + row + first;
      depth = line;
      left = row + first;
      right = rows - left;
    }
    before = ALIGNED ? 0 : int(reinterpret_cast<size_t>(from) % 16 / sizeof(T));
  }

  __device__ __forceinline__ void fetch(unsigned, int deep, ml_index ld, const T*) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      int some;  // elements of the line from here on
      if constexpr (DEEP) some = valid >> i & 1 ? deep - depth : 0;
      else some = depth + i * STEP < deep ? right : 0;
      hold(held[i], from + i * STEP * ld, some);
    }
    from += DEEP ? DEPTH : DEPTH * ld;
    if (DEEP) left += DEPTH;
  }

  __device__ __forceinline__ void put(unsigned tile) const {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      unsigned r[4];
      take(r, i);
      asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                   :: "r"(tile + to + i * STEP * Tile::LINE_BYTES), "r"(r[0]), "r"(r[1]), "r"(r[2]),
                      "r"(r[3]) : "memory");
    }
  }

 private:
  __device__ __forceinline__ void hold(unsigned (&r)[ALIGNED ? 4 : 8], const T* p, int some) const {
    if constexpr (ALIGNED) {
#pragma unroll
      for (int j = 0; j < 4; ++j) r[j] = 0;
      if (some > 0) vector(r, p, 0);
    } else {
      const T* aligned = p - before;
      if (left >= before && some >= E - before) vector(r, aligned, 0);
      else elements(r, aligned, 0, before, before + some);
      if (some >= 2 * E - before) vector(r, aligned, 4);
      else elements(r, aligned, 4, before, before + some);
    }
  }

  // Four words, of which `first` is the first.
  template <int N>
  static __device__ __forceinline__ void vector(unsigned (&r)[N], const T* p, int first) {
    const auto v = ml_load<4>(reinterpret_cast<const unsigned*>(p) + first);
#pragma unroll
    for (int j = 0; j < 4; ++j) r[first + j] = v.at[j];
  }

  // The same from the elements from `low` on that are below `high`; zeros for the others.
  static __device__ __forceinline__ void elements(unsigned (&r)[8], const T* p, int first, int low,
                                                  int high) {
    const int EACH = 4 / sizeof(T);
#pragma unroll
    for (int j = first; j < first + 4; ++j) {
      r[j] = 0;
#pragma unroll
      for (int e = 0; e < EACH; ++e) {
        const int at = j * EACH + e;
        if (at < low || at >= high) continue;
        if constexpr (EACH == 2)
          r[j] |= unsigned(reinterpret_cast<const unsigned short*>(p)[at]) << 16 * e;
        else
          r[j] = reinterpret_cast<const unsigned*>(p)[at];
      }
    }
  }

  // The chunk that was held: shifted by 8, 4 and 2 bytes.
  __device__ __forceinline__ void take(unsigned (&r)[4], int i) const {
    if constexpr (ALIGNED) {
#pragma unroll
      for (int j = 0; j < 4; ++j) r[j] = held[i][j];
    } else {
      const int by = before * sizeof(T);
      unsigned w[6];
#pragma unroll
      for (int j = 0; j < 6; ++j) w[j] = by & 8 ? held[i][j + 2] : held[i][j];
#pragma unroll
      for (int j = 0; j < 5; ++j) w[j] = by & 4 ? w[j + 1] : w[j];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        r[j] = sizeof(T) == 2 ? __funnelshift_r(w[j], w[j + 1], by % 4 * 8) : w[j];
    }
  }
};

template <bool ASYNC> struct ml_tile_way {
  template <typename T, int ROWS, int DEPTH, int THREADS, bool DEEP, int WIDTH>
  using copy = ml_tile_async<T, ROWS, DEPTH, THREADS, DEEP, WIDTH>;
};
template <> struct ml_tile_way<false> {
  template <typename T, int ROWS, int DEPTH, int THREADS, bool DEEP, int WIDTH>
  using copy = ml_tile_held<T, ROWS, DEPTH, THREADS, DEEP, WIDTH>;
};
template <typename T, int ROWS, int DEPTH, int THREADS, bool DEEP, int WIDTH>
using ml_tile_copy = typename ml_tile_way<ML_AMPERE && WIDTH >= 4>::template copy<
    T, ROWS, DEPTH, THREADS, DEEP, WIDTH>;

// Reads fragments of COUNT tiles of 16 rows, from row `row` of the block's tile on: the four registers of
// an A fragment, or (LEFT false) those of two neighbouring B fragments.
template <typename T, int ROWS, int DEPTH, bool DEEP, bool LEFT, int COUNT>
struct ml_fragments {
  using Tile = ml_tile<T, ROWS, DEPTH, DEEP>;
  static constexpr int STEPS = DEPTH * sizeof(T) / 32;  // products along k: 32 bytes of it each
  // The lane's places, up to a constant: for each step along k, or for each tile of rows.
  int at[DEEP ? STEPS : Tile::SWIZZLED ? COUNT : 1];

  __device__ __forceinline__ ml_fragments(int row, int lane) {
    const bool straight = LEFT == DEEP;
    const int line = straight ? ml_lane_deep(lane) : ml_lane_wide(lane);
    const int chunk = straight ? ml_lane_right(lane) : ml_lane_low(lane);
    if constexpr (DEEP) {
#pragma unroll
      for (int s = 0; s < STEPS; ++s) at[s] = Tile::place(row + line, 2 * s + chunk);
    } else if constexpr (Tile::SWIZZLED) {
#pragma unroll
      for (int i = 0; i < COUNT; ++i) at[i] = Tile::place(line, (row + 16 * i) / 8 + chunk);
    } else {
      at[0] = (lane & 3) * Tile::LINE_BYTES + (row + (lane >> 2)) * 4;
    }
  }

  __device__ __forceinline__ void load(unsigned (&r)[COUNT][4], unsigned tile, int step) const {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      if constexpr (DEEP) {
        ml_ldmatrix(r[i], tile + at[step] + i * 16 * Tile::LINE_BYTES);
      } else if constexpr (Tile::SWIZZLED) {
        ml_ldmatrix_trans(r[i], tile + at[i] + step * 16 * Tile::LINE_BYTES);
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          // A: rows first, then k; two B tiles: k first, then rows.
          const int low = LEFT ? j & 1 : j >> 1, right = LEFT ? j >> 1 : j & 1;
          asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r[i][j])
                       : "r"(tile + at[0] + (16 * i + 8 * low) * 4 +
                             (8 * step + 4 * right) * Tile::LINE_BYTES) : "memory");
        }
      }
    }
  }
};

// c += a * b for one tile of 16x8: halves, or floats with the precision of tf32.
template <typename T>
__device__ __forceinline__ void ml_tile_mma(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                            unsigned b1) {
  const unsigned b[2] = {b0, b1};
  if constexpr (sizeof(T) == 2) ml_mma<T>(c, a, b);
  else ml_mma_tf32(c, a, b);
}

template <int COUNT>
__device__ __forceinline__ void ml_round_tf32(unsigned (&r)[COUNT][4]) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) r[i][j] = ml_tf32(__uint_as_float(r[i][j]));
}

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

// Copies one operand's tiles: a thread's chunks lie in one column of them.  WIDTH is how many bytes at a
// time can be read: 16, 4, or those of one element, which go through registers, as all do where there is
// no cp.async.  Along lines, the operand's extent is a multiple of WIDTH.
template <typename T, int ROWS, int DEPTH, int THREADS, bool DEEP, int WIDTH>
struct ml_tile_copy {
  using Tile = ml_tile<T, ROWS, DEPTH, DEEP>;
  static constexpr int E = Tile::E;
  static constexpr int STEP = THREADS / Tile::CHUNKS;  // lines between two chunks of a thread
  static constexpr int COUNT = Tile::LINES / STEP;
  static constexpr bool ASYNC = ML_AMPERE && WIDTH >= 4;
  static_assert(THREADS % Tile::CHUNKS == 0 && Tile::LINES % STEP == 0 &&
                (STEP % 8 == 0 || !Tile::SWIZZLED),
                "a thread's chunks must have one place in the pattern of the swizzle");

  const T* from;   // the thread's first chunk of the next tile
  unsigned valid;  // deep: which of its chunks are within the rows, a bit for each
  int room;        // not deep: how many elements of a chunk are within the rows, 0 to E
  int depth;       // where along k, in the tile, its first chunk is
  int to;          // where in a tile of shared memory
  unsigned held[ASYNC ? 1 : COUNT][4];

  // The tiles of rows `row` and on, from place `k` on, of `rows` rows whose lines are `ld` apart.
  __device__ __forceinline__ ml_tile_copy(const T* matrix, ml_index ld, int row, int rows, int k,
                                          int thread) {
    const int line = thread / Tile::CHUNKS, chunk = thread % Tile::CHUNKS;
    to = Tile::place(line, chunk);
    if constexpr (DEEP) {
      from = matrix + (row + line) * ld + k + chunk * E;
      depth = chunk * E;
      valid = 0;
#pragma unroll
      for (int i = 0; i < COUNT; ++i) valid |= unsigned(row + line + i * STEP < rows) << i;
    } else {
      from = matrix + (k + line) * ld + row + chunk * E;
      depth = line;
      room = rows - row - chunk * E;
      room = room < 0 ? 0 : room > E ? E : room;
    }
  }

  // Begins to copy the next tile, of whose depth `deep` places are within the matrix, to `tile`.
  // `any` is an address that may be named where nothing is read.
  __device__ __forceinline__ void fetch(unsigned tile, int deep, ml_index ld, const T* any) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const T* p = from + i * STEP * ld;
      int some;  // elements of the chunk that are there
      if constexpr (DEEP) some = valid >> i & 1 ? deep - depth : 0;
      else some = depth + i * STEP < deep ? room : 0;
      const unsigned shared = tile + to + i * STEP * Tile::LINE_BYTES;
      if constexpr (WIDTH == 16 && ASYNC) {
        ml_copy_async<16>(shared, some > 0 ? p : any, some > 0);
      } else if constexpr (ASYNC) {
        const int each = 4 / sizeof(T);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          // Another word in each quarter of the warp, so that no bank is met twice.
          const int word = (j + (threadIdx.x >> 3)) & 3;
          ml_copy_async<4>(shared + 4 * word, some > word * each ? p + word * each : any,
                           some > word * each);
        }
      } else if constexpr (WIDTH == 16) {
        hold_chunk(held[i], p, some > 0);
      } else {
        hold_elements(held[i], p, some);
      }
    }
    from += DEEP ? DEPTH : DEPTH * ld;
  }

  // What went through registers goes to `tile`, some time after fetch.
  __device__ __forceinline__ void put(unsigned tile) {
    if constexpr (!ASYNC) {
#pragma unroll
      for (int i = 0; i < COUNT; ++i)
        asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                     :: "r"(tile + to + i * STEP * Tile::LINE_BYTES), "r"(held[i][0]),
                        "r"(held[i][1]), "r"(held[i][2]), "r"(held[i][3]) : "memory");
    }
  }

 private:
  static __device__ __forceinline__ void hold_chunk(unsigned (&r)[4], const T* p, bool there) {
#pragma unroll
    for (int j = 0; j < 4; ++j) r[j] = 0;
    if (there) {
      const auto v = ml_load<4>(reinterpret_cast<const unsigned*>(p));
#pragma unroll
      for (int j = 0; j < 4; ++j) r[j] = v.at[j];
    }
  }

  static __device__ __forceinline__ void hold_elements(unsigned (&r)[4], const T* p, int some) {
    if constexpr (sizeof(T) == 2) {
      const unsigned short* q = reinterpret_cast<const unsigned short*>(p);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const unsigned low = some > 2 * j ? q[2 * j] : 0, high = some > 2 * j + 1 ? q[2 * j + 1] : 0;
        r[j] = low | high << 16;
      }
    } else {
      const unsigned* q = reinterpret_cast<const unsigned*>(p);
#pragma unroll
      for (int j = 0; j < 4; ++j) r[j] = some > j ? q[j] : 0;
    }
  }
};

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

// Stable sorts by the bits of keys: of a tile by one block, and of long rows by a pass over all
// tiles for each digit, which reads and writes every item once ("Onesweep", Adinets and Merrill
// 2022).
//
// A block orders its tile bit by bit: items with a 0 go to the front of the tile's memory, the
// others to its end, backwards.  Of 32 items, z of which have a 0, with Z and O of either kind
// before them, the places are Z .. Z+z-1 and -O-1 .. -O-(32-z).  Z + O is a multiple of 32: modulo
// 32 they are all different, and no two lanes meet in a bank, whatever the keys are.
#pragma once
#include "warp.cuh"

const int ml_sort_threads = 512, ml_sort_warps = ml_sort_threads / 32, ml_digits = 256;

template <typename K, typename P>
struct ml_item {
  K key;
  P at;  // its place before
};

// How many items each thread has of a tile, which takes 44 KiB: two blocks fit in 100.
template <typename K, typename P>
struct ml_tile {
  static const int each = (44 << 10) / (ml_sort_threads * (sizeof(K) + sizeof(P)));
  static const int size = each * ml_sort_threads;
};

// Where a buffer of n items ends, in items: at the end of a sector for keys and for places.
__device__ __forceinline__ ml_index ml_room(ml_index n) { return (n + 7) / 8 * 8; }

// `room` items in memory: side by side where keys and places have one size, else all keys first.
template <typename K, typename P>
struct ml_items {
  unsigned char* base;
  ml_index room;
  static const bool together = sizeof(K) == sizeof(P);
  static const int in_sector = 32 / (together ? 2 * sizeof(P) : sizeof(P));

  template <typename I>
  __device__ __forceinline__ ml_item<K, P> get(I i) const {
    if constexpr (!together) {
      return {reinterpret_cast<const K*>(base)[i],
              reinterpret_cast<const P*>(base + room * sizeof(K))[i]};
    } else if constexpr (sizeof(K) == 4) {
      const uint2 word = reinterpret_cast<const uint2*>(base)[i];
      return {word.x, word.y};
    } else {
      const ulonglong2 word = reinterpret_cast<const ulonglong2*>(base)[i];
      return {word.x, word.y};
    }
  }

  template <typename I>
  __device__ __forceinline__ void put(I i, const ml_item<K, P>& item) const {
    if constexpr (!together) {
      reinterpret_cast<K*>(base)[i] = item.key;
      reinterpret_cast<P*>(base + room * sizeof(K))[i] = item.at;
    } else if constexpr (sizeof(K) == 4) {
      reinterpret_cast<uint2*>(base)[i] = make_uint2(item.key, item.at);
    } else {
      reinterpret_cast<ulonglong2*>(base)[i] = make_ulonglong2(item.key, item.at);
    }
  }
};

// Where the item of place p in the order lies, of `size` the first `zeros` with a 0.
__device__ __forceinline__ int ml_slot(int p, int zeros, int size) {
  return p < zeros ? p : size - 1 + zeros - p;
}

// The bits from..to of a pass, of `bits` over all passes: as even as may be.
__device__ __forceinline__ int ml_shift(int pass, int passes, int bits) {
  return pass * bits / passes;
}

// Orders a tile by the bits from..to of its keys.  Thread t has the items (t / 32) * 32 * EACH +
// t % 32 + 32 * j, before and after; `pads` of them, the last, have all bits set.  In the end the
// items lie in `room`, too, at ml_slot of their places with the `zeros` that are returned.
template <int EACH, typename K, typename P>
__device__ __forceinline__ int ml_sort_tile(ml_item<K, P> (&item)[EACH], ml_items<K, P> room,
                                            int (&ones)[2][ml_sort_warps], int from, int to,
                                            int pads) {
  const int SIZE = EACH * ml_sort_threads, lane = ml_lane(), warp = ml_warp();
  const int first = warp * 32 * EACH + lane;
  int zeros = -1;
#pragma unroll 1
  for (int bit = from, turn = 0; bit < to; ++bit, turn ^= 1) {
    unsigned set[EACH];
    int total = 0;
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
      set[j] = __ballot_sync(ml_all_lanes, int(item[j].key >> bit) & 1);
      total += __popc(set[j]);
    }
    if (lane == 0) ones[turn][warp] = total;
    __syncthreads();
    int before = 0, all = 0;
#pragma unroll
    for (int w = 0; w < ml_sort_warps; w += 4) {
      const int4 four = *reinterpret_cast<const int4*>(&ones[turn][w]);
      before += (w < warp ? four.x : 0) + (w + 1 < warp ? four.y : 0) +
                (w + 2 < warp ? four.z : 0) + (w + 3 < warp ? four.w : 0);
      all += four.x + four.y + four.z + four.w;
    }
    if (all == pads || all == SIZE) continue;  // the bit is the same in all
    zeros = SIZE - all;
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
      const int lower = before + __popc(set[j] & ((1u << lane) - 1));
      room.put(set[j] >> lane & 1 ? SIZE - 1 - lower : first + 32 * j - lower, item[j]);
      before += __popc(set[j]);
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < EACH; ++j) item[j] = room.get(ml_slot(first + 32 * j, zeros, SIZE));
  }
  if (zeros < 0) {
#pragma unroll
    for (int j = 0; j < EACH; ++j) room.put(first + 32 * j, item[j]);
    __syncthreads();
    return SIZE;
  }
  return zeros;
}

// --- long rows -----------------------------------------------------------------------------------

// How often each digit of each pass occurs: added to totals[pass][row][digit].  A lane counts in
// bytes of its own, in a bank of its own: 176 of a tile at most.  `key(row, i)` gives a key.
template <typename K, typename P, typename W, typename Key>
__device__ __forceinline__ void ml_count_digits(W* totals, ml_index rows, ml_index n, int tiles,
                                                int passes, int bits, Key key) {
  const int EACH = ml_tile<K, P>::each, TOGETHER = 4, GROUPS = sizeof(K) / TOGETHER;
  __shared__ __align__(16) unsigned counts[TOGETHER][ml_digits / 4][32];
  const int t = threadIdx.x, lane = ml_lane();
  const int per_row = gridDim.x / unsigned(rows);
  const ml_index row = blockIdx.x / per_row;
  uint4* const own = reinterpret_cast<uint4*>(counts) + t;
#pragma unroll
  for (int p = 0; p < TOGETHER; ++p) own[p * ml_sort_threads] = make_uint4(0, 0, 0, 0);
  __syncthreads();
  unsigned total[GROUPS * TOGETHER] = {};
  for (int tile = int(blockIdx.x - row * per_row); tile < tiles; tile += per_row) {
    const ml_index first = ml_index(tile) * ml_tile<K, P>::size + t;
    K keys[EACH];
#pragma unroll
    for (int j = 0; j < EACH; ++j)
      if (first + j * ml_sort_threads < n) keys[j] = key(row, first + j * ml_sort_threads);
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) {
      if (g * TOGETHER >= passes) break;
#pragma unroll
      for (int p = 0; p < TOGETHER; ++p) {
        const int pass = g * TOGETHER + p;
        if (pass >= passes) break;
        const int shift = ml_shift(pass, passes, bits);
        const int mask = (1 << (ml_shift(pass + 1, passes, bits) - shift)) - 1;
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
          const int digit = int(keys[j] >> shift) & mask;
          if (first + j * ml_sort_threads < n)
            atomicAdd(&counts[p][digit >> 2][lane], 1u << (8 * (digit & 3)));
        }
      }
      __syncthreads();
      // Eight threads for four digits: bytes become halves of words, which are added.
#pragma unroll
      for (int p = 0; p < TOGETHER; ++p) {
        const uint4 four = own[p * ml_sort_threads];
        own[p * ml_sort_threads] = make_uint4(0, 0, 0, 0);
        const unsigned low = 0x00ff00ff;
        unsigned even = (four.x & low) + (four.y & low) + (four.z & low) + (four.w & low);
        unsigned odd = (four.x >> 8 & low) + (four.y >> 8 & low) + (four.z >> 8 & low) +
                       (four.w >> 8 & low);
        even = ml_warp_sum<8>(even);
        odd = ml_warp_sum<8>(odd);
        const unsigned word = t & 1 ? odd : even;
        total[g * TOGETHER + p] += t & 2 ? word >> 16 : word & 0xffff;
      }
      __syncthreads();
    }
  }
#pragma unroll
  for (int pass = 0; pass < GROUPS * TOGETHER; ++pass) {
    if (pass < passes && (t & 7) < 4 && total[pass])
      atomicAdd(totals + (pass * rows + row) * ml_digits + (t >> 3) * 4 + (t & 3), W(total[pass]));
  }
}

// What a pass reads and, by that, writes: the row itself or one of two buffers.
enum { ml_from_row, ml_from_first, ml_from_second, ml_not_needed };
__device__ __forceinline__ int ml_written(int read) { return read == ml_from_first; }

// A block for each row: totals[pass][row] become where digits begin, steps[row][pass] say what the
// pass reads.  Where all items have the same digit it is not needed, unless it is the last.
template <typename W>
__global__ void __launch_bounds__(256)
plan_passes(W* totals, W* steps, ml_index rows, ml_index n, int passes) {
  __shared__ W slots[2][8];
  const ml_index row = blockIdx.x;
  const int t = threadIdx.x, lane = ml_lane(), warp = ml_warp();
  int read = ml_from_row;
  for (int pass = 0; pass < passes; ++pass) {
    W* const place = totals + (pass * rows + row) * ml_digits + t;
    const W own = *place;
    W end = own;
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
      const W other = __shfl_up_sync(ml_all_lanes, end, step);
      if (lane >= step) end += other;
    }
    if (lane == 31) slots[pass & 1][warp] = end;
    const bool same = __syncthreads_or(ml_index(own) == n);
    W before = end - own;
    for (int w = 0; w < warp; ++w) before += slots[pass & 1][w];
    *place = before;
    const bool needed = !same || pass == passes - 1;
    if (t == 0) steps[row * passes + pass] = W(needed ? read : ml_not_needed);
    if (needed) read = ml_from_first + ml_written(read);
  }
}

// What a block of a pass keeps in shared memory beside its tile (and not in registers).
template <typename W>
struct alignas(16) ml_pass_tables {
  int ones[2][ml_sort_warps];
  int starts[ml_digits], ends[ml_digits];  // of a digit's items in the tile
  W moved[ml_digits];                      // how far they go from there
  int row, tile, held, read;               // which tile, its items, where they come from
};

// One pass: every tile is ordered by the digit, and its items of each digit go behind those of the
// tiles before it, which publish how many they have (with the upper bit of `status`: how many there
// are up to them).  Tiles are numbered as their blocks begin, so that those before have begun.
// `make(row, i)` gives an item of the row itself, `buffer(0)` and `buffer(1)` hold items of all
// rows; `store(read, row, i, item)` puts one to its place; SECTOR is how many places lie in 32
// bytes, which a warp does not share with the next one.
template <int SECTOR, typename K, typename P, typename W, typename Make, typename Buffer,
          typename Store>
__device__ __forceinline__ void ml_radix_pass(ml_pass_tables<W>& tables, const W* starts_of,
                                              const W* steps, W* status, W* ticket, ml_index n,
                                              int tiles, int pass, int passes, int bits,
                                              Make make, Buffer buffer, Store store) {
  const int EACH = ml_tile<K, P>::each, SIZE = ml_tile<K, P>::size;
  extern __shared__ __align__(16) unsigned char memory[];
  int *const starts = tables.starts, *const ends = tables.ends;
  W* const moved = tables.moved;
  const int t = threadIdx.x, lane = ml_lane(), warp = ml_warp();
  if (t == 0) {
    const W taken = atomicAdd(ticket, W(1));
    tables.row = int(taken / tiles);
    tables.tile = int(taken % tiles);
    const ml_index left = n - ml_index(tables.tile) * SIZE;
    tables.held = left < SIZE ? int(left) : SIZE;
    tables.read = int(steps[ml_index(tables.row) * passes + pass]);
  }
  if (t < ml_digits) starts[t] = ends[t] = 0;
  __syncthreads();
  if (tables.read == ml_not_needed) return;
  const int from = ml_shift(pass, passes, bits), to = ml_shift(pass + 1, passes, bits);
  const ml_index origin = ml_index(tables.tile) * SIZE;
  const int held = tables.held;
  const int first = warp * 32 * EACH + lane, digits = 1 << (to - from);
  const bool fresh = tables.read == ml_from_row;
  ml_item<K, P> item[EACH];
#pragma unroll
  for (int j = 0; j < EACH; ++j) {
    item[j] = {~K(0), P(0)};
    if (fresh && first + 32 * j < held) item[j] = make(tables.row, origin + first + 32 * j);
  }
  if (!fresh) {
    const ml_items<K, P> given = buffer(tables.read - ml_from_first);
    const ml_index from_here = tables.row * n + origin + first;
#pragma unroll
    for (int j = 0; j < EACH; ++j)
      if (first + 32 * j < held) item[j] = given.get(from_here + 32 * j);
  }
  const ml_items<K, P> room = {memory, SIZE};
  const int zeros = ml_sort_tile(item, room, tables.ones, from, to, SIZE - held);
  const auto digit_of = [&](const ml_item<K, P>& one) {
    return int(one.key >> from) & (digits - 1);
  };

  // Where digits begin and end.
  int previous = warp ? digit_of(room.get(ml_slot(warp * 32 * EACH - 1, zeros, SIZE))) : -1;
#pragma unroll
  for (int j = 0; j < EACH; ++j) {
    const int i = first + 32 * j, digit = digit_of(item[j]);
    const int left = __shfl_up_sync(ml_all_lanes, digit, 1), before = lane ? left : previous;
    previous = __shfl_sync(ml_all_lanes, digit, 31);
    if (i >= held) continue;
    if (before != digit) {
      starts[digit] = i;
      if (before >= 0) ends[before] = i;
    }
    if (i == held - 1) ends[digit] = held;
  }
  __syncthreads();
  if (t < digits) {
    const W PART = W(1) << (8 * sizeof(W) - 2), WHOLE = PART << 1;
    const W own = ends[t] - starts[t];
    volatile W* const mine = status + (ml_index(tables.row) * tiles + tables.tile) * ml_digits + t;
    W before = 0;
    if (tables.tile == 0) {
      before = starts_of[ml_index(tables.row) * ml_digits + t];
    } else {
      *mine = PART | own;
      W found = 0;
      for (volatile W* earlier = mine - ml_digits; !(found & WHOLE); earlier -= ml_digits) {
        do found = *earlier;
        while (found == 0);
        before += found & (PART - 1);
      }
    }
    *mine = WHOLE | (before + own);
    moved[t] = before - starts[t];
  }
  __syncthreads();

  // A warp's items go out in order.  It leaves the rest of a sector that it cannot fill in a turn
  // to the next turn, and what it has begun is filled by it and not by the next warp.
  const int phase = int(tables.row * n % SECTOR);
  const auto in_sector = [&](int digit, int i) {
    return int((moved[digit] + W(i) + W(phase)) % SECTOR);
  };
  const auto border = [&](int i) {
    if (i == 0 || i >= held) return i < held ? i : held;
    const int digit = digit_of(room.get(ml_slot(i, zeros, SIZE)));
    const int begun = in_sector(digit, i);
    if (begun == 0 || starts[digit] == i) return i;
    const int end = ends[digit], full = i + SECTOR - begun;
    return end < full ? end : full;
  };
  const int last = border((warp + 1) * 32 * EACH);
  for (int turn = border(warp * 32 * EACH); turn < last;) {
    const int i = turn + lane;
    ml_item<K, P> one;
    int digit = 0, next = turn + 32;
    if (i < last) {
      one = room.get(ml_slot(i, zeros, SIZE));
      digit = digit_of(one);
    }
    if (lane == 31 && next < last) {
      const int begun = in_sector(digit, next), own = next - starts[digit];
      if (ends[digit] > next) next -= begun < own ? begun : own;
    }
    next = __shfl_sync(ml_all_lanes, next, 31);
    if (i < last && i < next) store(tables.read, tables.row, ml_index(moved[digit] + W(i)), one);
    turn = next;
  }
}

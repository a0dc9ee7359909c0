// Stable sorts and selections along contiguous rows.  Values become unsigned keys in their order
// (NaN largest, -0 as 0; inverted for descending order); an element is the pair of its key and its
// position, of which no two are equal, so that every sort of them is the stable one.
//
// `sort_rows` sorts rows of up to 2,048 in registers (bitonic), `sort_block` those of a tile;
// longer rows go through `radix_pass` for each digit, the least significant first, after one
// `count_digits`; `select_rows` finds the first k of a long row, the most significant digit first.
#include "radix.cuh"
#include "reduce.cuh"

// --- keys ----------------------------------------------------------------------------------------

template <int BYTES> struct ml_key_word { typedef unsigned type; };
template <> struct ml_key_word<8> { typedef unsigned long long type; };
template <typename T> using ml_key = typename ml_key_word<sizeof(T)>::type;

template <typename T> struct ml_key_bits { static const int value = sizeof(T) * 8; };
template <> struct ml_key_bits<bool> { static const int value = 1; };

template <typename T> struct ml_is_real {
  static const bool value = ml_is_float<typename ml_compute<T>::type>::value;
};

__device__ __forceinline__ unsigned ml_raw(__half x) { return __half_as_ushort(x); }
__device__ __forceinline__ unsigned ml_raw(__nv_bfloat16 x) { return __bfloat16_as_ushort(x); }
__device__ __forceinline__ unsigned ml_raw(float x) { return __float_as_uint(x); }
__device__ __forceinline__ unsigned long long ml_raw(double x) { return __double_as_longlong(x); }

template <typename T>
__device__ __forceinline__ ml_key<T> ml_key_of(T x, bool descending) {
  typedef ml_key<T> K;
  const K mask = ~K(0) >> (sizeof(K) * 8 - ml_key_bits<T>::value);
  const K sign = K(1) << (ml_key_bits<T>::value - 1);
  K key;
  if constexpr (ml_is_real<T>::value) {
    const typename ml_compute<T>::type wide = ml_cast<typename ml_compute<T>::type>(x);
    const K bits = ml_raw(x);
    key = wide != wide ? mask : wide == 0 ? sign : bits & sign ? ~bits & mask : bits | sign;
  } else if constexpr (ml_is_signed<T>::value) {
    key = (K(x) & mask) ^ sign;
  } else {
    key = K(x);
  }
  return descending ? ~key & mask : key;
}

template <typename T> struct ml_from_raw;
template <> struct ml_from_raw<__half> {
  static __device__ __forceinline__ __half of(unsigned bits) { return __ushort_as_half(bits); }
};
template <> struct ml_from_raw<__nv_bfloat16> {
  static __device__ __forceinline__ __nv_bfloat16 of(unsigned bits) {
    return __ushort_as_bfloat16(bits);
  }
};
template <> struct ml_from_raw<float> {
  static __device__ __forceinline__ float of(unsigned bits) { return __uint_as_float(bits); }
};
template <> struct ml_from_raw<double> {
  static __device__ __forceinline__ double of(unsigned long long bits) {
    return __longlong_as_double(bits);
  }
};

// The value of a key that came from `source`, where zeros and NaN, which share keys, are looked up.
template <typename T>
__device__ __forceinline__ T ml_value_of(ml_key<T> key, bool descending, const T* source) {
  typedef ml_key<T> K;
  const K mask = ~K(0) >> (sizeof(K) * 8 - ml_key_bits<T>::value);
  const K sign = K(1) << (ml_key_bits<T>::value - 1);
  if (descending) key = ~key & mask;
  if constexpr (ml_is_real<T>::value) {
    if (key == sign || key == mask) return *source;
    return ml_from_raw<T>::of(key & sign ? key ^ sign : ~key & mask);
  } else if constexpr (ml_is_signed<T>::value) {
    return T(key ^ sign);
  } else {
    return T(key);
  }
}

// --- key and position as one word ----------------------------------------------------------------

struct ml_wide_element {
  unsigned long long key;
  unsigned long long at;
};

template <typename K> struct ml_element;
template <> struct ml_element<unsigned> {
  typedef unsigned long long word;
  static __device__ __forceinline__ word make(unsigned key, unsigned at) {
    return (word(key) << 32) | at;
  }
  static __device__ __forceinline__ unsigned key(word w) { return unsigned(w >> 32); }
  static __device__ __forceinline__ unsigned at(word w) { return unsigned(w); }
  static __device__ __forceinline__ bool less(word a, word b) { return a < b; }
};
template <> struct ml_element<unsigned long long> {
  typedef ml_wide_element word;
  static __device__ __forceinline__ word make(unsigned long long key, unsigned at) {
    return {key, at};
  }
  static __device__ __forceinline__ unsigned long long key(const word& w) { return w.key; }
  static __device__ __forceinline__ unsigned at(const word& w) { return unsigned(w.at); }
  static __device__ __forceinline__ bool less(const word& a, const word& b) {
    return a.key != b.key ? a.key < b.key : a.at < b.at;
  }
};
__device__ __forceinline__ ml_wide_element ml_shfl_xor(const ml_wide_element& a, int mask) {
  return {ml_shfl_xor(a.key, mask), ml_shfl_xor(a.at, mask)};
}
__device__ __forceinline__ void ml_put(ml_wide_element* place, const ml_wide_element& a) {
  *reinterpret_cast<ulonglong2*>(place) = make_ulonglong2(a.key, a.at);
}
__device__ __forceinline__ ml_wide_element ml_get(const ml_wide_element* place) {
  const ulonglong2 word = *reinterpret_cast<const ulonglong2*>(place);
  return {word.x, word.y};
}

// --- rows in registers ---------------------------------------------------------------------------

// `lanes` threads for each row, E elements each, lanes * E >= n, powers of two.  Where `keys` is
// given a row's elements are keys[row][n] at places[row][n] of x[row][width]; else x[row][n].
// Written are the elements from..from+count of the order.
template <typename T, int E>
__global__ void __launch_bounds__(512)
sort_rows(const T* __restrict__ x, const unsigned char* __restrict__ keys,
          const unsigned* __restrict__ places, T* values, long long* index, ml_index rows, int n,
          ml_index width, int from, int count, int lanes, bool descending) {
  typedef ml_key<T> K;
  typedef ml_element<K> element;
  typedef typename element::word word;
  extern __shared__ __align__(16) unsigned char memory[];
  word* all = reinterpret_cast<word*>(memory);
  const int t = threadIdx.x & (lanes - 1);
  const ml_index row = ml_index(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
  const bool mine = row < rows;
  const T* source = x + (mine ? row * width : 0);
  word a[E];
#pragma unroll
  for (int k = 0; k < E; ++k) {
    const int i = t + k * lanes;
    a[k] = element::make(~K(0), 0xffffffffu);
    if (mine && i < n) {
      if (keys)
        a[k] = element::make(reinterpret_cast<const K*>(keys)[row * n + i], places[row * n + i]);
      else
        a[k] = element::make(ml_key_of(source[i], descending), i);
    }
  }
  for (int size = 2; size <= lanes * E; size <<= 1) {
    for (int stride = size >> 1; stride > 0; stride >>= 1) {
      if (E > 1 && stride >= lanes) {
#pragma unroll
        for (int d = E / 2; d > 0; d >>= 1) {
          if (stride == d * lanes) {
#pragma unroll
            for (int k = 0; k < E; ++k) {
              if (k & d) continue;
              const bool up = ((t + k * lanes) & size) == 0;
              if (element::less(a[k + d], a[k]) == up) {
                const word other = a[k];
                a[k] = a[k + d];
                a[k + d] = other;
              }
            }
          }
        }
        continue;
      }
      if (stride >= 32) {
        __syncthreads();
#pragma unroll
        for (int k = 0; k < E; ++k) ml_put(all + t + k * lanes, a[k]);
        __syncthreads();
      }
#pragma unroll
      for (int k = 0; k < E; ++k) {
        const int i = t + k * lanes;
        const word other =
            stride >= 32 ? ml_get(all + (i ^ stride)) : ml_shfl_xor(a[k], stride);
        const bool keep_less = ((i & size) == 0) == ((i & stride) == 0);
        if (element::less(other, a[k]) == keep_less) a[k] = other;
      }
    }
  }
#pragma unroll
  for (int k = 0; k < E; ++k) {
    const int i = t + k * lanes - from;
    if (mine && i >= 0 && i < count && i + from < n) {
      const unsigned at = element::at(a[k]);
      if (values)
        values[row * count + i] = ml_value_of<T>(element::key(a[k]), descending, source + at);
      if (index) index[row * count + i] = at;
    }
  }
}

// --- a row by one block --------------------------------------------------------------------------

// Rows of up to 512 * EACH elements, ordered by their bits; from..from+count of them are written.
template <typename T, int EACH>
__global__ void __launch_bounds__(512, 2)
sort_block(const T* __restrict__ x, T* values, long long* index, int n, int from, int count,
           bool descending) {
  typedef ml_key<T> K;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ __align__(16) int ones[2][ml_sort_warps];
  const int first = ml_warp() * 32 * EACH + ml_lane(), size = EACH * ml_sort_threads;
  const T* source = x + blockIdx.x * ml_index(n);
  ml_item<K, unsigned> item[EACH];
#pragma unroll
  for (int j = 0; j < EACH; ++j) {
    const int i = first + 32 * j;
    item[j] = {~K(0), 0u};
    if (i < n) item[j] = {ml_key_of(source[i], descending), unsigned(i)};
  }
  const ml_items<K, unsigned> room = {memory, size};
  ml_sort_tile(item, room, ones, 0, ml_key_bits<T>::value, size - n);
#pragma unroll
  for (int j = 0; j < EACH; ++j) {
    const int i = first + 32 * j - from;
    if (i < 0 || i >= count || i + from >= n) continue;
    const ml_index to = blockIdx.x * ml_index(count) + i;
    if (values) values[to] = ml_value_of<T>(item[j].key, descending, source + item[j].at);
    if (index) index[to] = item[j].at;
  }
}

// --- long rows -----------------------------------------------------------------------------------

template <typename T, typename W>
__global__ void __launch_bounds__(512)
count_digits(const T* __restrict__ x, W* totals, ml_index rows, ml_index n, int tiles, int passes,
             bool descending) {
  ml_count_digits<ml_key<T>, unsigned>(
      totals, rows, n, tiles, passes, ml_key_bits<T>::value,
      [&](ml_index row, ml_index i) { return ml_key_of(x[row * n + i], descending); });
}

// The last pass writes values and indices, the others to one of two buffers in `work`.
template <typename T, typename W>
__global__ void __launch_bounds__(512, sizeof(W) == 4 ? 2 : 1)
radix_pass(const T* __restrict__ x, unsigned char* work, T* values, long long* index,
           const W* __restrict__ starts, const W* __restrict__ steps, W* status, W* ticket,
           ml_index rows, ml_index n, int tiles, int pass, int passes, bool descending) {
  typedef ml_key<T> K;
  typedef ml_item<K, unsigned> item;
  typedef ml_items<K, unsigned> items;
  const int bits = ml_key_bits<T>::value;
  const bool only = bits <= 8;  // that pass is
  __shared__ ml_pass_tables<W> tables;
  const auto buffer = [&](int which) {
    const ml_index room = ml_room(rows * n);
    return items{work + which * room * (sizeof(K) + sizeof(unsigned)), room};
  };
  const auto make = [&](ml_index row, ml_index i) -> item {
    return {ml_key_of(x[row * n + i], descending), unsigned(i)};
  };
  if (!only && pass < passes - 1) {
    ml_radix_pass<items::in_sector, K, unsigned>(
        tables, starts, steps, status, ticket, n, tiles, pass, passes, bits, make, buffer,
        [&](int read, ml_index row, ml_index i, const item& one) {
          buffer(ml_written(read)).put(row * n + i, one);
        });
  } else {
    ml_radix_pass<32 / sizeof(T), K, unsigned>(
        tables, starts, steps, status, ticket, n, tiles, pass, passes, bits, make, buffer,
        [&](int, ml_index row, ml_index i, const item& one) {
          const T* source = x + row * n + one.at;
          if (values) values[row * n + i] = ml_value_of<T>(one.key, descending, source);
          if (index) index[row * n + i] = one.at;
        });
  }
}

// --- the first k of a long row -------------------------------------------------------------------

// A block finds, digit by digit, the key of rank k, of which `need` are wanted; then it writes what
// is smaller and the first `need` of that key to keys[row][k] and places[row][k], by their places.
// With `only_last` it writes nothing but the element of rank k: its place and its value.
template <typename T>
__global__ void __launch_bounds__(512, 1)
select_rows(const T* __restrict__ x, unsigned char* keys, unsigned* places, T* values,
            long long* index, ml_index n, int k, bool descending, bool only_last) {
  typedef ml_key<T> K;
  const int WARPS = 16, THREADS = 32 * WARPS, AHEAD = 8, TURNS = 4;
  __shared__ __align__(16) int counts[ml_digits][32];  // of every lane in its own bank
  __shared__ int totals[ml_digits];
  __shared__ __align__(8) int found[TURNS * WARPS];  // smaller ones of a warp and turn, and
                                                     // 65,536 * equal ones
  __shared__ int chosen, chosen_need;
  const int t = threadIdx.x, lane = ml_lane(), warp = ml_warp();
  const ml_index row = blockIdx.x;
  const T* source = x + row * n;
  K prefix = 0, known = 0;  // the bits found so far, and which they are
  int need = k;
  const int bits = ml_key_bits<T>::value, FOURS = ml_digits * 8 / THREADS;
  int4* const own = reinterpret_cast<int4*>(counts) + t;
#pragma unroll
  for (int u = 0; u < FOURS; ++u) own[u * THREADS] = make_int4(0, 0, 0, 0);
  __syncthreads();
  for (int shift = (bits + 7) / 8 * 8 - 8; shift >= 0; shift -= 8) {
    for (ml_index base = t; base < n; base += AHEAD * THREADS) {
      T ahead[AHEAD];
#pragma unroll
      for (int u = 0; u < AHEAD; ++u)
        if (base + u * THREADS < n) ahead[u] = source[base + u * THREADS];
#pragma unroll
      for (int u = 0; u < AHEAD; ++u) {
        if (base + u * THREADS < n) {
          const K key = ml_key_of(ahead[u], descending);
          if ((key & known) == prefix) atomicAdd(&counts[(key >> shift) & 255][lane], 1);
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int u = 0; u < FOURS; ++u) {  // eight threads for a digit
      const int4 four = own[u * THREADS];
      own[u * THREADS] = make_int4(0, 0, 0, 0);
      const int total = ml_warp_sum<8>(four.x + four.y + four.z + four.w);
      if ((t & 7) == 0) totals[(u * THREADS + t) >> 3] = total;
    }
    __syncthreads();
    if (warp == 0) {
      int begin = 0;
      for (int digit = lane; digit < ml_digits; digit += 32) {
        const int total = totals[digit];
        int end = begin + total;
        for (int step = 1; step < 32; step <<= 1) {
          const int other = __shfl_up_sync(ml_all_lanes, end - begin, step);
          if (lane >= step) end += other;
        }
        if (end - total < need && need <= end) {
          chosen = digit;
          chosen_need = need - (end - total);
        }
        begin = __shfl_sync(ml_all_lanes, end, 31);
      }
    }
    __syncthreads();
    prefix |= K(chosen) << shift;
    known |= K(255) << shift;
    need = chosen_need;
  }
  int less = 0, same = 0;  // met so far
  for (ml_index base = 0; base < n && less + same < k; base += TURNS * THREADS) {
    K key[TURNS];
    unsigned belows[TURNS], equals[TURNS];
#pragma unroll
    for (int u = 0; u < TURNS; ++u) {
      const ml_index i = base + u * THREADS + t;
      key[u] = i < n ? ml_key_of(source[i], descending) : ~K(0);
      belows[u] = __ballot_sync(ml_all_lanes, i < n && key[u] < prefix);
      equals[u] = __ballot_sync(ml_all_lanes, i < n && key[u] == prefix);
      if (lane == 0) found[u * WARPS + warp] = __popc(belows[u]) + (__popc(equals[u]) << 16);
    }
    __syncthreads();
    if (warp == 0) {  // two counts a lane become what was met before
      int2* const pair = reinterpret_cast<int2*>(found) + lane;
      const int first = pair->x, second = pair->y;
      int end = first + second;
      for (int step = 1; step < 32; step <<= 1) {
        const int other = __shfl_up_sync(ml_all_lanes, end, step);
        if (lane >= step) end += other;
      }
      *pair = make_int2(end - first - second, end - second);
      if (lane == 31) chosen = end;
    }
    __syncthreads();
    const unsigned lower = (1u << lane) - 1;
#pragma unroll
    for (int u = 0; u < TURNS; ++u) {
      const ml_index i = base + u * THREADS + t;
      const int before = found[u * WARPS + warp];
      const int less_before = less + (before & 0xffff) + __popc(belows[u] & lower);
      const int same_before = same + (before >> 16) + __popc(equals[u] & lower);
      const bool below = belows[u] >> lane & 1, equal = equals[u] >> lane & 1;
      if (only_last) {
        if (equal && same_before == need - 1) {
          if (values) values[row] = source[i];
          if (index) index[row] = i;
        }
      } else if (below || (equal && same_before < need)) {
        const ml_index to = row * k + less_before + (same_before < need ? same_before : need);
        reinterpret_cast<K*>(keys)[to] = key[u];
        places[to] = unsigned(i);
      }
    }
    less += chosen & 0xffff;
    same += chosen >> 16;
    if (same > need) same = need;
    if (only_last && same == need) less = k - need;  // all is written
    __syncthreads();
  }
}

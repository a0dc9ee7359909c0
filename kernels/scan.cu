// Running sums, products, extremes, log-sum-exps and linear recurrences along one dimension of a
// contiguous array (outer, n, inner), forwards or backwards.
//
// `scan_rows` is for inner = 1: lanes of a warp or a block walk along a row, with V elements each.
// `scan_columns` is for inner > 1: a thread walks down V columns.  Where there are too few of them
// the dimension is cut into chunks (gridDim.y): one launch in mode TOTALS leaves the total of every
// chunk, `scan_totals` scans those, one in mode CARRIED starts every chunk from what came before.
// How it is cut follows from the shape, so results repeat bit by bit.
#include "reduce.cuh"

enum { WHOLE, TOTALS, CARRIED };

// Stores words of up to 16 bytes, also where the compiler would store each element when ready.
template <int V, typename T>
__device__ __forceinline__ void ml_store_words(T* p, const ml_vec<T, V>& v) {
  const int words = V * sizeof(T) / 4;
  if constexpr (words == 0) {
    ml_store<V>(p, v);
  } else {
    unsigned word[words];
    memcpy(word, &v, sizeof(word));
    const size_t to = __cvta_generic_to_global(p);
    if constexpr (words == 1) {
      asm volatile("st.global.u32 [%0], %1;" ::"l"(to), "r"(word[0]) : "memory");
    } else if constexpr (words == 2) {
      asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(word[0]), "r"(word[1])
                   : "memory");
    } else {
#pragma unroll
      for (int i = 0; i < words; i += 4)
        asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to + 4 * i), "r"(word[i]),
                     "r"(word[i + 1]), "r"(word[i + 2]), "r"(word[i + 3])
                     : "memory");
    }
  }
}

// --- operators: an accumulator from an element, and of two neighbours, the earlier first --------

template <typename T, typename F>
struct ml_scan_fold {
  typedef typename ml_compute<T>::type acc;
  static __device__ __forceinline__ acc identity() { return F::template identity<acc>(); }
  static __device__ __forceinline__ acc from(T x, T, ml_index) { return ml_cast<acc>(x); }
  static __device__ __forceinline__ acc combine(acc a, acc b) { return F::of(a, b); }
  static __device__ __forceinline__ T result(acc a) { return ml_cast<T>(a); }
  static __device__ __forceinline__ ml_index index(acc) { return 0; }
};

struct ml_plus {
  template <typename A> static __device__ __forceinline__ A identity() { return A(0); }
  template <typename A> static __device__ __forceinline__ A of(A a, A b) { return a + b; }
};
struct ml_log_plus {
  template <typename A> static __device__ __forceinline__ A identity() { return ml_lowest<A>(); }
  template <typename A> static __device__ __forceinline__ A of(A a, A b) {
    const A most = ml_max(a, b), least = ml_min(a, b);
    if (least == most || ml_isinf(most)) return most + (ml_isinf(most) ? A(0) : log(A(2)));
    return most + log1p(exp(least - most));
  }
};

template <typename T> struct ml_cumsum : ml_scan_fold<T, ml_plus> {};
template <typename T> struct ml_cumprod : ml_scan_fold<T, ml_times> {};
template <typename T> struct ml_logcumsumexp : ml_scan_fold<T, ml_log_plus> {};

// The largest (smallest) so far and the last place it was met; NaN wins.
template <typename T, bool LARGEST>
struct ml_scan_extreme {
  typedef typename ml_compute<T>::type C;
  typedef ml_chosen<C> acc;
  static __device__ __forceinline__ acc identity() {
    return {LARGEST ? ml_lowest<C>() : ml_highest<C>(), 0};
  }
  static __device__ __forceinline__ acc from(T x, T, ml_index i) { return {ml_cast<C>(x), i}; }
  static __device__ __forceinline__ acc combine(const acc& a, const acc& b) {
    const bool later = LARGEST ? b.value >= a.value : b.value <= a.value;
    return later || ml_isnan(b.value) ? b : a;
  }
  static __device__ __forceinline__ T result(const acc& a) { return ml_cast<T>(a.value); }
  static __device__ __forceinline__ ml_index index(const acc& a) { return a.at; }
};
template <typename T> struct ml_cummax : ml_scan_extreme<T, true> {};
template <typename T> struct ml_cummin : ml_scan_extreme<T, false> {};

// h_i = b_i + a_i h_(i-1).  In double precision: the products of many a have a wide range.
template <typename C> struct ml_double { typedef double type; };
template <typename R> struct ml_double<ml_complex<R>> { typedef ml_complex<double> type; };

template <typename A>
struct ml_affine {
  A factor, term;
};
template <typename A>
__device__ __forceinline__ ml_affine<A> ml_shfl(const ml_affine<A>& a, int lane) {
  return {ml_shfl(a.factor, lane), ml_shfl(a.term, lane)};
}
template <typename C>
__device__ __forceinline__ ml_chosen<C> ml_shfl(const ml_chosen<C>& a, int lane) {
  return {ml_shfl(a.value, lane), ml_shfl(a.at, lane)};
}

template <typename T>
struct ml_recurrence {
  typedef typename ml_double<T>::type A;
  typedef ml_affine<A> acc;
  static __device__ __forceinline__ acc identity() { return {A(1), A(0)}; }
  static __device__ __forceinline__ acc from(T b, T a, ml_index i) {
    return {i ? ml_cast<A>(a) : A(0), ml_cast<A>(b)};
  }
  static __device__ __forceinline__ acc combine(const acc& a, const acc& b) {
    const A before = a.term == A(0) ? A(0) : b.factor * a.term;  // not inf * 0
    return {a.factor * b.factor, b.term + before};
  }
  static __device__ __forceinline__ T result(const acc& a) { return ml_cast<T>(a.term); }
  static __device__ __forceinline__ ml_index index(const acc&) { return 0; }
};

// --- rows ---------------------------------------------------------------------------------------

// The inclusive scan over groups of `lanes` neighbouring lanes, a power of two.
template <typename S>
__device__ __forceinline__ typename S::acc ml_scan_lanes(typename S::acc a, int lanes) {
  const int lane = ml_lane(), place = lane & (lanes - 1);
  for (int step = 1; step < lanes; step <<= 1) {
    const typename S::acc before = ml_shfl(a, place < step ? lane : lane - step);
    if (place >= step) a = S::combine(before, a);
  }
  return a;
}

// What of a row comes from position i of the scan on, V elements; ALIGNED: rows of whole vectors.
template <typename T, int V, bool ALIGNED>
__device__ __forceinline__ ml_vec<T, V> ml_scan_load(const T* row, ml_index i, ml_index n,
                                                     ml_index last, bool reverse) {
  ml_vec<T, V> v, turned;
  if constexpr (ALIGNED) {
    if (i >= last) return ml_vec<T, V>();
    v = ml_load<V>(row + (reverse ? n - V - i : i));
    if (!reverse) return v;
#pragma unroll
    for (int j = 0; j < V; ++j) turned.at[j] = v.at[V - 1 - j];
    return turned;
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j)
      v.at[j] = i + j < last ? row[reverse ? n - 1 - i - j : i + j] : T();
    return v;
  }
}

template <int V, bool ALIGNED, typename T>
__device__ __forceinline__ void ml_scan_store(T* row, const ml_vec<T, V>& v, ml_index i,
                                              ml_index n, ml_index last, bool reverse) {
  if constexpr (ALIGNED) {
    if (i >= last) return;
    ml_vec<T, V> turned = v;
    if (reverse) {
#pragma unroll
      for (int j = 0; j < V; ++j) turned.at[j] = v.at[V - 1 - j];
    }
    ml_store_words<V>(row + (reverse ? n - V - i : i), turned);
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j)
      if (i + j < last) row[reverse ? n - 1 - i - j : i + j] = v.at[j];
  }
}

// `factors` are a recurrence's a; `index` the places of extremes.  lanes <= 32: that many lanes for
// a row, without barriers; else a block for a row.
template <typename S, typename T, int V, bool ALIGNED>
__global__ void __launch_bounds__(256)
scan_rows(const T* __restrict__ x, const T* __restrict__ factors, T* y, long long* index,
          unsigned char* totals, ml_index rows, ml_index n, ml_index chunk, int lanes,
          bool reverse, int mode) {
  typedef typename S::acc acc;
  __shared__ alignas(16) unsigned char memory[2 * 8 * sizeof(acc)];
  acc* slots = reinterpret_cast<acc*>(memory);
  const int lane = threadIdx.x % lanes;
  const ml_index r = ml_index(blockIdx.x) * (blockDim.x / lanes) + threadIdx.x / lanes;
  const bool mine = r < rows;  // all lanes shuffle
  const ml_index offset = mine ? r * n : 0, first = blockIdx.y * chunk;
  const ml_index last = !mine ? first : first + chunk < n ? first + chunk : n;
  const ml_index end = mine || lanes > 32 ? last : first + chunk < n ? first + chunk : n;
  const int warps = blockDim.x >> 5;
  acc* chunks = reinterpret_cast<acc*>(totals) + (mine ? r * gridDim.y : 0) + blockIdx.y;
  acc carry = S::identity();
  if (mode == CARRIED && blockIdx.y > 0 && mine) carry = ml_get(chunks - 1);
  ml_vec<T, V> ahead = ml_scan_load<T, V, ALIGNED>(x + offset, first + lane * V, n, last, reverse);
  int turn = 0;
  for (ml_index base = first; base < end; base += lanes * V, turn ^= 1) {
    const ml_index i = base + lane * V;
    const ml_vec<T, V> v = ahead;
    if (base + lanes * V < end)
      ahead = ml_scan_load<T, V, ALIGNED>(x + offset, i + lanes * V, n, last, reverse);
    ml_vec<T, V> f = ml_vec<T, V>();
    if (factors) f = ml_scan_load<T, V, ALIGNED>(factors + offset, i, n, last, reverse);
    acc run[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
      run[j] = i + j < last ? S::from(v.at[j], f.at[j], i + j) : S::identity();
      if (j) run[j] = S::combine(run[j - 1], run[j]);
    }
    const acc whole = ml_scan_lanes<S>(run[V - 1], lanes < 32 ? lanes : 32);
    acc before = ml_shfl(whole, ml_lane() ? ml_lane() - 1 : 0);
    if ((lane & 31) == 0) before = S::identity();
    acc total;
    if (lanes <= 32) {
      total = ml_shfl(whole, ml_lane() | (lanes - 1));
    } else {
      if (ml_lane() == 31) ml_put(slots + turn * 8 + ml_warp(), whole);
      __syncthreads();
      acc others = ml_lane() < warps ? ml_get(slots + turn * 8 + ml_lane()) : S::identity();
      others = ml_scan_lanes<S>(others, warps);
      const acc earlier = ml_shfl(others, ml_warp() ? ml_warp() - 1 : 0);
      if (ml_warp()) before = S::combine(earlier, before);
      total = ml_shfl(others, warps - 1);
    }
    if (mode != TOTALS) {
      before = S::combine(carry, before);
      ml_vec<T, V> results;
      ml_vec<long long, V> places;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const acc here = S::combine(before, run[j]);
        results.at[j] = S::result(here);
        places.at[j] = reverse ? n - 1 - S::index(here) : S::index(here);
      }
      ml_scan_store<V, ALIGNED>(y + offset, results, i, n, last, reverse);
      if (index) ml_scan_store<V, ALIGNED>(index + offset, places, i, n, last, reverse);
    }
    carry = S::combine(carry, total);
  }
  if (mode == TOTALS && mine && lane == 0) ml_put(chunks, carry);
}

// --- columns ------------------------------------------------------------------------------------

// V accumulators, which lie on multiples of V, 16 bytes at a time where they are numbers.
template <typename A, int V> struct ml_many {
  static const int step = ml_is_float<A>::value && V * sizeof(A) >= 16 ? 16 / sizeof(A) : 1;
};
template <typename A, int V>
__device__ __forceinline__ void ml_get_many(A (&values)[V], const A* place) {
  const int step = ml_many<A, V>::step;
#pragma unroll
  for (int j = 0; j < V; j += step) {
    if constexpr (step == 1) {
      values[j] = ml_get(place + j);
    } else {
      const ml_vec<A, step> word = ml_load<step>(place + j);
#pragma unroll
      for (int k = 0; k < step; ++k) values[j + k] = word.at[k];
    }
  }
}
template <typename A, int V>
__device__ __forceinline__ void ml_put_many(A* place, const A (&values)[V]) {
  const int step = ml_many<A, V>::step;
#pragma unroll
  for (int j = 0; j < V; j += step) {
    if constexpr (step == 1) {
      ml_put(place + j, values[j]);
    } else {
      ml_vec<A, step> word;
#pragma unroll
      for (int k = 0; k < step; ++k) word.at[k] = values[j + k];
      ml_store_whole<step>(place + j, word);
    }
  }
}

template <typename S, typename T, int V>
__global__ void __launch_bounds__(256)
scan_columns(const T* __restrict__ x, const T* __restrict__ factors, T* y, long long* index,
             unsigned char* totals, ml_index outer, ml_index n, ml_index inner, ml_index chunk,
             bool reverse, int mode) {
  typedef typename S::acc acc;
  const int UNROLL = 4;
  const ml_index units = inner / V;
  const ml_index id = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (id >= outer * units) return;
  const ml_index o = id / units, column = (id - o * units) * V;
  const ml_index step = reverse ? -inner : inner;
  const ml_index offset = (o * n + (reverse ? n - 1 : 0)) * inner + column;
  const ml_index first = blockIdx.y * chunk;
  const ml_index last = first + chunk < n ? first + chunk : n;
  acc* chunks = reinterpret_cast<acc*>(totals) + (o * gridDim.y + blockIdx.y) * inner + column;
  acc carry[V];
#pragma unroll
  for (int j = 0; j < V; ++j) carry[j] = S::identity();
  if (mode == CARRIED && blockIdx.y > 0) ml_get_many(carry, chunks - inner);
  for (ml_index i = first; i < last; i += UNROLL) {
    ml_vec<T, V> v[UNROLL], f[UNROLL];
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      v[u] = f[u] = ml_vec<T, V>();
      if (i + u < last) {
        v[u] = ml_load<V>(x + offset + (i + u) * step);
        if (factors) f[u] = ml_load<V>(factors + offset + (i + u) * step);
      }
    }
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      if (i + u >= last) break;
      ml_vec<T, V> results;
      ml_vec<long long, V> places;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        carry[j] = S::combine(carry[j], S::from(v[u].at[j], f[u].at[j], i + u));
        results.at[j] = S::result(carry[j]);
        places.at[j] = reverse ? n - 1 - S::index(carry[j]) : S::index(carry[j]);
      }
      if (mode == TOTALS) continue;
      ml_store_words<V>(y + offset + (i + u) * step, results);
      if (index) ml_store_words<V>(index + offset + (i + u) * step, places);
    }
  }
  if (mode == TOTALS) ml_put_many(chunks, carry);
}

// --- the totals of chunks (outer, chunks, inner), scanned in place ------------------------------

// inner = 1: a warp for each row; else a thread for each column.
template <typename S>
__global__ void scan_totals(unsigned char* totals, ml_index outer, ml_index chunks,
                            ml_index inner) {
  typedef typename S::acc acc;
  acc* all = reinterpret_cast<acc*>(totals);
  const ml_index id = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  acc carry = S::identity();
  if (inner == 1) {
    if (id / 32 >= outer) return;
    acc* row = all + id / 32 * chunks;
    for (ml_index base = 0; base < chunks; base += 32) {
      const ml_index i = base + ml_lane();
      acc a = ml_scan_lanes<S>(i < chunks ? ml_get(row + i) : S::identity(), 32);
      a = S::combine(carry, a);
      if (i < chunks) ml_put(row + i, a);
      carry = ml_shfl(a, 31);
    }
    return;
  }
  if (id >= outer * inner) return;
  acc* column = all + id / inner * chunks * inner + id % inner;
  for (ml_index i = 0; i < chunks; ++i) {
    carry = S::combine(carry, ml_get(column + i * inner));
    ml_put(column + i * inner, carry);
  }
}

// --- shifts -------------------------------------------------------------------------------------

// y_i = x_(i + by) along the middle dimension, `fill` where that is out of range.
template <typename T>
__global__ void shift_along(const T* __restrict__ x, T* y, ml_index count, ml_index n,
                            ml_index inner, int by, double fill) {
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const ml_index from = i / inner % n + by;
  y[i] = from >= 0 && from < n ? x[i + by * inner] : ml_cast<T>(fill);
}

// --- gradients ----------------------------------------------------------------------------------

// dx_j = the sum of dy_i where index_i = j, for an index that never falls along the dimension: the
// thread where a run of equal indices begins adds it up.  `dx` holds zeros.
template <typename T>
__global__ void add_runs(const T* __restrict__ dy, const long long* __restrict__ index, T* dx,
                         ml_index count, ml_index n, ml_index inner) {
  typedef typename ml_compute<T>::type C;
  const ml_index i = ml_index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const ml_index place = i / inner % n, j = index[i];
  if (place && index[i - inner] == j) return;
  C sum = ml_cast<C>(dy[i]);
  for (ml_index k = 1; place + k < n && index[i + k * inner] == j; ++k)
    sum = sum + ml_cast<C>(dy[i + k * inner]);
  dx[i + (j - place) * inner] = ml_cast<T>(sum);
}

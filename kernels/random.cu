// Random numbers over contiguous arrays: the same, from the same words, as mlgpu/cpu/random.py and
// mlgpu/cpu/poisson.py make.  One lane computes a block of four words and the elements it stands for.
#include "fault.cuh"
#include "philox.cuh"
#include "warp.cuh"

const int THREADS = 256, WARPS = THREADS / 32;

// A warp's elements, C of each lane, stored 16 bytes at a time.  Where a lane has more than that
// they go through shared memory, so that neighbouring lanes store neighbouring vectors; chunks are
// permuted within groups of eight, which keeps the banks apart on both sides.
template <typename T, int C>
struct ml_fill_tile {
  static const int bytes = sizeof(T) * C, width = bytes < 16 ? bytes : 16;
  static const int vectors = bytes / width, each = C / vectors;
  ml_vec<T, each> chunk[bytes > 16 ? WARPS * 32 * vectors : 1];

  static __device__ __forceinline__ int place(int q) {
    return q ^ ((q >> 3) & (vectors - 1));
  }

  __device__ __forceinline__ void store(T* out, ml_index count, const T (&values)[C]) {
    const int lane = threadIdx.x & 31;
    const bool vector = count >= 32 * C && reinterpret_cast<size_t>(out) % width == 0;
    if constexpr (vectors == 1) {
      if (vector) {
        ml_vec<T, each> packed;
#pragma unroll
        for (int c = 0; c < C; ++c) packed.at[c] = values[c];
        ml_store_whole<each>(out + lane * C, packed);
      } else {
#pragma unroll
        for (int c = 0; c < C; ++c)
          if (lane * C + c < count) out[lane * C + c] = values[c];
      }
    } else {
      ml_vec<T, each>* mine = chunk + (threadIdx.x >> 5) * 32 * vectors;
#pragma unroll
      for (int v = 0; v < vectors; ++v) {
        ml_vec<T, each> packed;
#pragma unroll
        for (int e = 0; e < each; ++e) packed.at[e] = values[v * each + e];
        mine[place(lane * vectors + v)] = packed;
      }
      __syncwarp();
      if (vector) {
#pragma unroll
        for (int v = 0; v < vectors; ++v)
          ml_store_whole<each>(out + (v * 32 + lane) * each, mine[place(v * 32 + lane)]);
      } else {
#pragma unroll 1
        for (int k = lane; k < 32 * C && k < count; k += 32)
          out[k] = mine[place(k / each)].at[k % each];
      }
    }
  }
};

// The warp's first element, C of each lane; -1 where there is none left.
template <int C>
__device__ __forceinline__ ml_index ml_fill_start(ml_index n) {
  const ml_index start = (ml_index(blockIdx.x) * WARPS + (threadIdx.x >> 5)) * 32 * C;
  return start < n ? start : -1;
}

// Fill `out` with what `make(words, values)` makes of each block of the draw.
template <typename T, int C, typename Make>
__device__ __forceinline__ void ml_fill(T* out, ml_index n, const ml_stream& draw,
                                        const Make& make) {
  __shared__ ml_fill_tile<T, C> tile;
  const ml_index start = ml_fill_start<C>(n);
  if (start < 0) return;
  T values[C];
  make(ml_block(draw, start / C + (threadIdx.x & 31)), values);
  tile.store(out + start, n - start, values);
}

// The place of a graph's draws: seed, offset, and how many blocks each replay adds at its beginning.
__global__ void random_place(ml_index* cell, ml_index seed, ml_index offset, ml_index blocks) {
  cell[0] = seed;
  cell[1] = offset;
  cell[2] = blocks;
}
__global__ void random_advance(ml_index* cell) {
  cell[1] = ml_index(size_t(cell[1]) + size_t(cell[2]));  // which wraps around
}

// low + scale * [0, 1); what rounding took to `end`, which is not included, becomes `start`.
template <typename T>
__global__ void __launch_bounds__(THREADS)
random_uniform(T* out, ml_index n, ml_index seed, ml_index offset, const ml_index* cell, double low,
               double scale, double start, double end) {
  typedef ml_wide<T> C;
  const bool plain = low == 0 && scale == 1;
  const C bottom = C(low), factor = C(scale);
  const T first = ml_cast<T>(start);
  const int count = 256 / ml_uniform_bits<T>::width;
  const auto make = [&](const ml_words& words, T (&values)[count]) {
#pragma unroll
    for (int c = 0; c < count; ++c) {
      const C unit = ml_unit<T>(words, c);
      const T x = ml_cast<T>(plain ? unit : ml_add_rn(ml_mul_rn(unit, factor), bottom));
      values[c] = !plain && ml_cast<C>(x) == C(end) ? first : x;
    }
  };
  ml_fill<T, count>(out, n, ml_draw(seed, offset, cell), make);
}

// Normal numbers, or (`exponential`) what exp makes of them.
template <typename T, bool exponential>
__global__ void __launch_bounds__(THREADS)
random_normal(T* out, ml_index n, ml_index seed, ml_index offset, const ml_index* cell, double mean,
              double std) {
  typedef ml_wide<T> C;
  const C center = C(mean), spread = C(std);
  const int count = 32 / sizeof(C);
  const auto make = [&](const ml_words& words, T (&values)[count]) {
#pragma unroll
    for (int c = 0; c < count; c += 2) {
      C pair[2];
      if constexpr (sizeof(C) == 8)
        ml_normal_pair(ml_u64(words, c), ml_u64(words, c + 1), &pair[0], &pair[1]);
      else ml_normal_pair(ml_u32(words, c), ml_u32(words, c + 1), &pair[0], &pair[1]);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const C x = ml_add_rn(ml_mul_rn(pair[k], spread), center);
        values[c + k] = ml_cast<T>(exponential ? exp(x) : x);
      }
    }
  };
  ml_fill<T, count>(out, n, ml_draw(seed, offset, cell), make);
}

// --- functions of one number in (0, 1], from 64 bits for types of 8 bytes, else from 32 ------------

struct random_exponential {  // a: the rate
  template <typename C> __device__ __forceinline__ C operator()(C u, double a, double) const {
    const C least = sizeof(C) == 8 ? C(0x1p-53) : C(0x1p-24);
    return fmax(-log(u), least) / C(a);
  }
};
struct random_cauchy {  // a: the median, b: the width
  template <typename C> __device__ __forceinline__ double operator()(C u, double a, double b) const {
    const double turn = double(u) - 0.5;
    return ml_add_rn(a, ml_mul_rn(b, sinpi(turn) / cospi(turn)));
  }
};
struct random_geometric {  // a: log(1 - p)
  template <typename C> __device__ __forceinline__ double operator()(C u, double a, double) const {
    return fmax(ceil(log(double(u)) / a), 1.0);
  }
};

template <typename T, typename Function>
__global__ void __launch_bounds__(THREADS)
random_transformed(T* out, ml_index n, ml_index seed, ml_index offset, const ml_index* cell,
                   double a, double b) {
  const int count = sizeof(T) == 8 ? 4 : 8;
  const Function function;
  const auto make = [&](const ml_words& words, T (&values)[count]) {
#pragma unroll
    for (int c = 0; c < count; ++c) {
      if constexpr (count == 4) values[c] = ml_cast<T>(function(ml_opened(ml_u64(words, c)), a, b));
      else values[c] = ml_cast<T>(function(ml_opened(ml_u32(words, c)), a, b));
    }
  };
  ml_fill<T, count>(out, n, ml_draw(seed, offset, cell), make);
}

// --- integers and truth values ---------------------------------------------------------------------

template <typename A, typename B> struct ml_is_same { static const bool value = false; };
template <typename A> struct ml_is_same<A, A> { static const bool value = true; };

template <typename T>
__device__ __forceinline__ T ml_integer(ml_word x, ml_word low) {
  if constexpr (ml_is_same<T, bool>::value) return x + low != 0;
  else return ml_cast<T>(ml_index(x + low));
}

// Integers from [low, low + count); all of 64 bits for a count of 0, which stands for 2^64.
template <typename T>
__global__ void __launch_bounds__(THREADS)
random_integers(T* out, ml_index n, ml_index seed, ml_index offset, const ml_index* cell,
                ml_index low, ml_index count) {
  const auto make = [&](const ml_words& words, T (&values)[4]) {
#pragma unroll
    for (int c = 0; c < 4; ++c)
      values[c] = ml_integer<T>(count ? __umul64hi(words.at[c], ml_word(count)) : words.at[c],
                                ml_word(low));
  };
  ml_fill<T, 4>(out, n, ml_draw(seed, offset, cell), make);
}

// The same from two words each, for counts above 2^32.
template <typename T>
__global__ void __launch_bounds__(THREADS)
random_integers_wide(T* out, ml_index n, ml_index seed, ml_index offset, const ml_index* cell,
                     ml_index low, ml_index count) {
  const auto make = [&](const ml_words& words, T (&values)[2]) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const ml_word carry = __umul64hi(words.at[2 * c], ml_word(count));
      const ml_word part = words.at[2 * c + 1] * ml_word(count), total = part + carry;
      const ml_word high = __umul64hi(words.at[2 * c + 1], ml_word(count));
      values[c] = ml_integer<T>(high + (total < part), ml_word(low));
    }
  };
  ml_fill<T, 2>(out, n, ml_draw(seed, offset, cell), make);
}

// 1 where u < threshold, which is at most 2^32.
template <typename T>
__global__ void __launch_bounds__(THREADS)
random_bernoulli(T* out, ml_index n, ml_index seed, ml_index offset, const ml_index* cell,
                 ml_index threshold) {
  const auto make = [&](const ml_words& words, T (&values)[8]) {
#pragma unroll
    for (int c = 0; c < 8; ++c) values[c] = ml_cast<T>(int(ml_u32(words, c) < threshold));
  };
  ml_fill<T, 8>(out, n, ml_draw(seed, offset, cell), make);
}

// 1 with the probability in the same place of `p`; 0, reported, where that is none.
template <typename T, typename P>
__global__ void __launch_bounds__(THREADS)
random_bernoulli_each(T* out, const P* p, ml_index n, ml_index seed, ml_index offset,
                      const ml_index* cell, ml_fault* fault, int site) {
  __shared__ ml_word words[WARPS][4 * 36];
  const ml_index start = ml_fill_start<8>(n);
  if (start < 0) return;
  const int lane = threadIdx.x & 31;
  ml_word* mine = words[threadIdx.x >> 5];
  const ml_words block = ml_block(ml_draw(seed, offset, cell), start / 8 + lane);
#pragma unroll
  for (int w = 0; w < 4; ++w) mine[w * 36 + lane] = block.at[w];
  __syncwarp();
#pragma unroll
  for (int k = 0; k < 8; ++k) {  // element e of the warp has a half of word e % 8 / 2 of lane e / 8
    const int e = k * 32 + lane;
    if (start + e >= n) break;
    const unsigned u = (unsigned)(mine[(e >> 1 & 3) * 36 + (e >> 3)] >> (e & 1) * 32);
    const ml_wide<P> given = ml_cast<ml_wide<P>>(p[start + e]);
    bool drawn = false;
    if (given >= 0 && given <= 1) {
      drawn = u < (ml_word)ceil(given * ml_wide<P>(4294967296.0));
    } else {
      ml_report(fault, site, start + e, 0);
    }
    out[start + e] = ml_cast<T>(int(drawn));
  }
}

// Report elements that are not within [low, high], NaN among them.
template <typename T>
__global__ void __launch_bounds__(THREADS)
random_check(const T* x, ml_index n, double low, double high, ml_fault* fault, int site) {
  const ml_index i = ml_index(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= n) return;
  const double value = double(ml_cast<ml_wide<T>>(x[i]));
  if (!(value >= low && value <= high)) ml_report(fault, site, i, 0);
}

// --- poisson: mlgpu/cpu/poisson.py, one thread for each rate ---------------------------------------

// Element i's two words of round r: half of block i / 2 of the draw's private line r.
__device__ __forceinline__ void ml_poisson_pair(const ml_stream& draw, ml_index i, int round,
                                                double* u, double* v) {
  const ml_words words = ml_private_block(draw, ml_word(round), ml_word(i >> 1));
  const ml_word first = i & 1 ? words.at[2] : words.at[0];
  const ml_word second = i & 1 ? words.at[3] : words.at[1];
  *u = (double(ml_index(first >> 12)) + 0.5) * 0x1p-52;
  *v = (double(ml_index(second >> 12)) + 0.5) * 0x1p-52;
}

// log(k!) - (k log k - k + log(2 pi k) / 2), for k > 0
__constant__ double ml_stirling_of[16] = {
    0.0, 0.08106146679532733, 0.04134069595540901, 0.027677925684998606,
    0.020790672103764507, 0.016644691189822147, 0.013876128823071099, 0.011896709945892425,
    0.010411265261971892, 0.009255462182711227, 0.008330563433357696, 0.00757367548795429,
    0.006942840107203807, 0.006408994187999895, 0.00595137011276492, 0.005554733551960567};
__device__ __forceinline__ double ml_stirling(double k) {
  if (k < 16) return ml_stirling_of[int(k)];
  const double square = k * k;
  return (1.0 / 12 - (1.0 / 360 - 1.0 / 1260 / square) / square) / k;
}

// log P(k) of a rate, by deviance (Loader, 2000).
__device__ __forceinline__ double ml_poisson_log(double k, double rate) {
  if (k == 0) return -rate;
  const double excess = (k - rate) / rate;
  const double deviance = rate * ((1 + excess) * log1p(excess) - excess);
  return -deviance - ml_stirling(k) - 0.5 * log(6.283185307179586 * k);
}

template <typename T>
__global__ void __launch_bounds__(THREADS)
random_poisson(T* out, const T* rates, ml_index n, ml_index seed, ml_index offset,
               const ml_index* cell, ml_fault* fault, int site) {
  const ml_index i = ml_index(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= n) return;
  const ml_stream draw = ml_draw(seed, offset, cell);
  const double rate = double(ml_cast<ml_wide<T>>(rates[i]));
  double result = 0;
  if (!(rate >= 0 && rate < ml_inf(rate))) {
    ml_report(fault, site, i, 0);
  } else if (rate < 10) {  // inversion: the first k whose cumulative probability reaches u
    double u, unused, probability = exp(-rate);
    ml_poisson_pair(draw, i, 0, &u, &unused);
    for (int k = 1; k < 128 && u > probability; ++k) {
      u = u - probability;
      result = k;
      probability = probability * (rate / k);
    }
  } else {  // transformed rejection
    const double b = 0.931 + 2.53 * sqrt(rate), a = -0.059 + 0.02483 * b;
    for (int round = 0;; ++round) {
      double u, v;
      ml_poisson_pair(draw, i, round, &u, &v);
      u -= 0.5;
      const double edge = 0.5 - fabs(u);
      const double k = floor((2 * a / edge + b) * u + rate + 0.43);
      result = k;
      if (edge >= 0.07 && v <= 0.9277 - 3.6224 / (b - 2)) break;
      if (!(k >= 0 && (edge >= 0.013 || v <= edge))) continue;
      const double height = log(v * (1.1239 + 1.1328 / (b - 3.4)) / (a / (edge * edge) + b));
      if (height <= ml_poisson_log(k, rate)) break;
    }
  }
  out[i] = ml_cast<T>(result);
}

// --- multinomial: a block for each row of weights --------------------------------------------------

const int ROW_THREADS = 1024;

// The row's largest weight, 0 where the weights are none: then it is reported.
template <typename T>
__device__ __forceinline__ double ml_largest_weight(const T* weights, ml_index n, double* slots,
                                                    ml_fault* fault, int site) {
  double largest = 0;
  for (ml_index i = threadIdx.x; i < n; i += ROW_THREADS) {
    const double weight = double(ml_cast<ml_wide<T>>(weights[i]));
    // NaN wins: any weight that is wrong makes the maximum wrong.
    largest = ml_max(largest, weight >= 0 && weight < ml_inf(weight) ? weight : ml_nan(weight));
  }
  largest = ml_block_max(largest, slots);
  if (largest > 0) return largest;
  if (threadIdx.x == 0) ml_report(fault, site, blockIdx.x, 0);
  return 0;
}

// edges[i] = (w[0] + ... + w[i]) / largest, and the last index that has a weight.
template <typename T>
__global__ void __launch_bounds__(ROW_THREADS)
multinomial_edges(double* edges, int* last, const T* weights, ml_index n, ml_fault* fault,
                  int site) {
  __shared__ double slots[32];
  __shared__ int found[32];
  weights += ml_index(blockIdx.x) * n;
  edges += ml_index(blockIdx.x) * n;
  const double largest = ml_largest_weight(weights, n, slots, fault, site);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  double before = 0;  // the sum of what lies before this turn's elements
  int latest = 0;
  for (ml_index start = 0; start < n; start += ROW_THREADS) {
    const ml_index i = start + threadIdx.x;
    double weight = 0;
    if (i < n && largest > 0) weight = double(ml_cast<ml_wide<T>>(weights[i])) / largest;
    if (weight > 0) latest = int(i);
    double sum = weight;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const double left = __shfl_up_sync(ml_all_lanes, sum, step);
      if (lane >= step) sum += left;
    }
    __syncthreads();
    if (lane == 31) slots[warp] = sum;
    __syncthreads();
    double total = slots[lane];
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const double left = __shfl_up_sync(ml_all_lanes, total, step);
      if (lane >= step) total += left;
    }
    const double earlier = __shfl_sync(ml_all_lanes, total, warp - 1 & 31);
    if (i < n) edges[i] = before + ((warp ? earlier : 0) + sum);
    before += __shfl_sync(ml_all_lanes, total, 31);
  }
  latest = ml_block_reduce(latest, found, 0, ml_maximum());
  if (threadIdx.x == 0) last[blockIdx.x] = latest;
}

// The first index whose edge lies above (1 - u) * total, of `count` for each row.
template <typename T>
__global__ void __launch_bounds__(THREADS)
multinomial_draw(T* out, const double* edges, const int* last, ml_index total, ml_index count,
                 ml_index n, ml_index seed, ml_index offset, const ml_index* cell) {
  const ml_index i = ml_index(blockIdx.x) * THREADS + threadIdx.x;
  if (i >= total) return;
  const ml_words words = ml_block(ml_draw(seed, offset, cell), i >> 2);
  const ml_word low = i & 1 ? words.at[1] : words.at[0], high = i & 1 ? words.at[3] : words.at[2];
  const ml_index row = i / count;
  edges += row * n;
  const double place = (1 - ml_opened(i & 2 ? high : low)) * edges[n - 1];
  ml_index from = 0, to = n;  // edges before `from` are at most `place`, from `to` on above it
  while (from < to) {
    const ml_index middle = (from + to) >> 1;
    if (edges[middle] <= place) from = middle + 1;
    else to = middle;
  }
  out[i] = T(min(from, ml_index(last[row])));
}

// Exponential times of arrival at rates in proportion to the weights, as often as there are weights.
template <typename T>
__global__ void __launch_bounds__(ROW_THREADS)
multinomial_times(double* times, const T* weights, ml_index n, ml_index seed, ml_index offset,
                  const ml_index* cell, ml_fault* fault, int site) {
  __shared__ double slots[32];
  const ml_index row = ml_index(blockIdx.x) * n;
  const ml_stream draw = ml_draw(seed, offset, cell);
  const double largest = ml_largest_weight(weights + row, n, slots, fault, site);
  for (ml_index i = row + threadIdx.x; i < row + n; i += ROW_THREADS) {
    const ml_words words = ml_block(draw, i >> 2);
    const ml_word low = i & 1 ? words.at[1] : words.at[0], high = i & 1 ? words.at[3] : words.at[2];
    const double time = fmax(-log(ml_opened(i & 2 ? high : low)), 0x1p-54);
    times[i] = largest > 0 ? time / (double(ml_cast<ml_wide<T>>(weights[i])) / largest) : 0;
  }
}

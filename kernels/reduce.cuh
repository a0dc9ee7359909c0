// The operators of reductions.  Each is a struct of static functions over an accumulator:
//   identity()                  changes nothing
//   take<K>(a, x, first, step)  adds K elements, element k at index first + k * step
//   merge(a, b)                 of two parts; the same whichever comes first
//   finish(a, count, p)         the result; `count` elements were taken, p is the call's parameter
//   other(a)                    a second result, for operators that have one
//   index(a)                    of the element that was chosen, for operators that choose one
// Elements come in their compute type: half types as float, short integers as int.
#pragma once
#include "common.cuh"
#include "warp.cuh"

template <typename T> struct ml_compute { typedef T type; };
#ifndef ML_NO_HALF
template <> struct ml_compute<__half> { typedef float type; };
template <> struct ml_compute<__nv_bfloat16> { typedef float type; };
#endif
template <> struct ml_compute<bool> { typedef int type; };
template <> struct ml_compute<signed char> { typedef int type; };
template <> struct ml_compute<unsigned char> { typedef int type; };
template <> struct ml_compute<short> { typedef int type; };

// What sums and products are accumulated in.
template <typename C> struct ml_total { typedef C type; };
template <> struct ml_total<int> { typedef long long type; };

// The real type of a complex one.
template <typename C> struct ml_real_of { typedef C type; };
template <typename R> struct ml_real_of<ml_complex<R>> { typedef R type; };

template <typename C> __device__ __forceinline__ C ml_lowest() {
  if constexpr (ml_is_float<C>::value) return -ml_inf(C());
  else return C(1) << (sizeof(C) * 8 - 1);
}
template <typename C> __device__ __forceinline__ C ml_highest() {
  if constexpr (ml_is_float<C>::value) return ml_inf(C());
  else return ~ml_lowest<C>();
}

template <typename A> __device__ __forceinline__ void ml_put(A* place, const A& a) { *place = a; }
template <typename A> __device__ __forceinline__ A ml_get(const A* place) { return *place; }

struct ml_op {
  template <typename A> static __device__ __forceinline__ int other(const A&) { return 0; }
  template <typename A> static __device__ __forceinline__ long long index(const A&) { return 0; }
};

// --- sums of a function of the element -----------------------------------------------------------

// K values added by pairs, which halves the error's growth and the chain of dependent additions.
template <int K, typename A>
__device__ __forceinline__ A ml_sum_from(const A* x) {
  if constexpr (K == 1) return x[0];
  else return ml_sum_from<K / 2>(x) + ml_sum_from<K - K / 2>(x + K / 2);
}
template <int K, typename A>
__device__ __forceinline__ A ml_pairwise(const A (&x)[K]) { return ml_sum_from<K>(x); }

template <typename F, typename C, typename A>
struct ml_sum_of : ml_op {
  typedef A acc;
  static __device__ __forceinline__ acc identity() { return acc(0); }
  template <int K>
  static __device__ __forceinline__ void take(acc& a, const C (&x)[K], ml_index, ml_index,
                                              double p) {
    acc terms[K];
#pragma unroll
    for (int k = 0; k < K; ++k) terms[k] = F::template of<acc>(x[k], p);
    a = a + ml_pairwise(terms);
  }
  static __device__ __forceinline__ acc merge(acc a, acc b) { return a + b; }
  static __device__ __forceinline__ acc finish(acc a, ml_index n, double p) {
    return F::finish(a, n, p);
  }
};

struct ml_unfinished {
  template <typename A>
  static __device__ __forceinline__ A finish(A a, ml_index, double) { return a; }
};
struct ml_itself : ml_unfinished {
  template <typename A, typename C>
  static __device__ __forceinline__ A of(C x, double) { return A(x); }
};
struct ml_divided : ml_itself {
  template <typename A>
  static __device__ __forceinline__ A finish(A a, ml_index n, double) { return a / A(n); }
  template <typename R>
  static __device__ __forceinline__ ml_complex<R> finish(ml_complex<R> a, ml_index n, double) {
    return {a.re / R(n), a.im / R(n)};
  }
};
struct ml_number : ml_unfinished {  // what is not NaN
  template <typename A, typename C>
  static __device__ __forceinline__ A of(C x, double) { return ml_isnan(x) ? A(0) : A(x); }
};
struct ml_nonzero : ml_unfinished {
  template <typename A, typename C>
  static __device__ __forceinline__ A of(C x, double) { return A(x != C(0)); }
};
struct ml_magnitude : ml_unfinished {
  template <typename A, typename C>
  static __device__ __forceinline__ A of(C x, double) { return ml_abs(x); }
};
struct ml_square {
  template <typename A, typename C>
  static __device__ __forceinline__ A of(C x, double) {
    const A re = ml_real(x), im = ml_imag(x);
    return re * re + im * im;
  }
  template <typename A>
  static __device__ __forceinline__ A finish(A a, ml_index, double) { return sqrt(a); }
};
struct ml_power {
  template <typename A, typename C>
  static __device__ __forceinline__ A of(C x, double p) { return pow(A(ml_abs(x)), A(p)); }
  template <typename A>
  static __device__ __forceinline__ A finish(A a, ml_index, double p) {
    return pow(a, A(1 / p));
  }
};

template <typename T, typename C = typename ml_compute<T>::type>
struct ml_sum : ml_sum_of<ml_itself, C, typename ml_total<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_mean : ml_sum_of<ml_divided, C, typename ml_total<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_nansum : ml_sum_of<ml_number, C, typename ml_total<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_count : ml_sum_of<ml_nonzero, C, long long> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_norm0 : ml_sum_of<ml_nonzero, C, typename ml_real_of<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_norm1 : ml_sum_of<ml_magnitude, C, typename ml_real_of<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_norm2 : ml_sum_of<ml_square, C, typename ml_real_of<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_norm : ml_sum_of<ml_power, C, typename ml_real_of<C>::type> {};

// --- other operators with one number as accumulator ----------------------------------------------

template <typename F, typename C, typename A>
struct ml_fold : ml_op {
  typedef A acc;
  static __device__ __forceinline__ acc identity() { return F::template identity<A>(); }
  template <int K>
  static __device__ __forceinline__ void take(acc& a, const C (&x)[K], ml_index, ml_index,
                                              double) {
#pragma unroll
    for (int k = 0; k < K; ++k) a = F::of(a, F::template from<A>(x[k]));
  }
  static __device__ __forceinline__ acc merge(acc a, acc b) { return F::of(a, b); }
  static __device__ __forceinline__ acc finish(acc a, ml_index, double) { return a; }
};

struct ml_whole {
  template <typename A, typename C>
  static __device__ __forceinline__ A from(C x) { return A(x); }
};
struct ml_times : ml_whole {
  template <typename A> static __device__ __forceinline__ A identity() { return A(1); }
  template <typename A> static __device__ __forceinline__ A of(A a, A b) { return a * b; }
};
struct ml_largest : ml_whole {
  template <typename A> static __device__ __forceinline__ A identity() { return ml_lowest<A>(); }
  template <typename A> static __device__ __forceinline__ A of(A a, A b) { return ml_max(a, b); }
};
struct ml_smallest : ml_whole {
  template <typename A> static __device__ __forceinline__ A identity() { return ml_highest<A>(); }
  template <typename A> static __device__ __forceinline__ A of(A a, A b) { return ml_min(a, b); }
};
struct ml_largest_size : ml_largest {
  template <typename A, typename C>
  static __device__ __forceinline__ A from(C x) { return ml_abs(x); }
};
struct ml_smallest_size : ml_smallest {
  template <typename A, typename C>
  static __device__ __forceinline__ A from(C x) { return ml_abs(x); }
};
struct ml_truth {
  template <typename A, typename C>
  static __device__ __forceinline__ A from(C x) { return A(x != C(0)); }
};
struct ml_and : ml_truth {
  template <typename A> static __device__ __forceinline__ A identity() { return A(1); }
  template <typename A> static __device__ __forceinline__ A of(A a, A b) { return a & b; }
};
struct ml_or : ml_truth {
  template <typename A> static __device__ __forceinline__ A identity() { return A(0); }
  template <typename A> static __device__ __forceinline__ A of(A a, A b) { return a | b; }
};

template <typename T, typename C = typename ml_compute<T>::type>
struct ml_prod : ml_fold<ml_times, C, typename ml_total<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_amax : ml_fold<ml_largest, C, C> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_amin : ml_fold<ml_smallest, C, C> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_norm_inf : ml_fold<ml_largest_size, C, typename ml_real_of<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_norm_low : ml_fold<ml_smallest_size, C, typename ml_real_of<C>::type> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_all : ml_fold<ml_and, C, int> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_any : ml_fold<ml_or, C, int> {};

// The smallest, and as other result the largest.
template <typename C>
struct alignas(2 * sizeof(C)) ml_range {
  C low, high;
};
template <typename C>
__device__ __forceinline__ ml_range<C> ml_shfl_xor(const ml_range<C>& a, int mask) {
  return {ml_shfl_xor(a.low, mask), ml_shfl_xor(a.high, mask)};
}

template <typename T, typename C = typename ml_compute<T>::type>
struct ml_minmax : ml_op {
  typedef ml_range<C> acc;
  static __device__ __forceinline__ acc identity() { return {ml_highest<C>(), ml_lowest<C>()}; }
  template <int K>
  static __device__ __forceinline__ void take(acc& a, const C (&x)[K], ml_index, ml_index,
                                              double) {
#pragma unroll
    for (int k = 0; k < K; ++k) a = merge(a, {x[k], x[k]});
  }
  static __device__ __forceinline__ acc merge(const acc& a, const acc& b) {
    return {ml_min(a.low, b.low), ml_max(a.high, b.high)};
  }
  static __device__ __forceinline__ C finish(const acc& a, ml_index, double) { return a.low; }
  static __device__ __forceinline__ C other(const acc& a) { return a.high; }
};

// --- the element that is largest or smallest, and its index --------------------------------------

template <typename C>
struct alignas(16) ml_chosen {
  C value;
  long long at;
};
template <typename C>
__device__ __forceinline__ ml_chosen<C> ml_shfl_xor(const ml_chosen<C>& a, int mask) {
  return {ml_shfl_xor(a.value, mask), ml_shfl_xor(a.at, mask)};
}

// In memory as one word of 16 bytes without a gap: whole words meet no bank conflicts.
__device__ __forceinline__ long long ml_bits(int x) { return x; }
__device__ __forceinline__ long long ml_bits(long long x) { return x; }
__device__ __forceinline__ long long ml_bits(float x) { return __float_as_int(x); }
__device__ __forceinline__ long long ml_bits(double x) { return __double_as_longlong(x); }
__device__ __forceinline__ void ml_from_bits(int& x, long long bits) { x = int(bits); }
__device__ __forceinline__ void ml_from_bits(long long& x, long long bits) { x = bits; }
__device__ __forceinline__ void ml_from_bits(float& x, long long bits) {
  x = __int_as_float(int(bits));
}
__device__ __forceinline__ void ml_from_bits(double& x, long long bits) {
  x = __longlong_as_double(bits);
}
template <typename C>
__device__ __forceinline__ void ml_put(ml_chosen<C>* place, const ml_chosen<C>& a) {
  *reinterpret_cast<longlong2*>(place) = make_longlong2(ml_bits(a.value), a.at);
}
template <typename C>
__device__ __forceinline__ ml_chosen<C> ml_get(const ml_chosen<C>* place) {
  const longlong2 word = *reinterpret_cast<const longlong2*>(place);
  ml_chosen<C> a;
  ml_from_bits(a.value, word.x);
  a.at = word.y;
  return a;
}

template <bool LARGEST, typename C>
struct ml_argument : ml_op {
  typedef ml_chosen<C> acc;
  static __device__ __forceinline__ acc identity() {
    return {LARGEST ? ml_lowest<C>() : ml_highest<C>(), 0x7fffffffffffffffLL};
  }
  // NaN wins, and of equals the lower index.
  static __device__ __forceinline__ bool before(const acc& a, const acc& b) {
    if (a.value == b.value) return a.at < b.at;
    if (ml_isnan(a.value)) return !ml_isnan(b.value) || a.at < b.at;
    return LARGEST ? a.value > b.value : a.value < b.value;
  }
  template <int K>
  static __device__ __forceinline__ void take(acc& a, const C (&x)[K], ml_index first,
                                              ml_index step, double) {
#pragma unroll
    for (int k = 0; k < K; ++k) a = merge(a, {x[k], first + k * step});
  }
  static __device__ __forceinline__ acc merge(const acc& a, const acc& b) {
    return before(b, a) ? b : a;
  }
  static __device__ __forceinline__ C finish(const acc& a, ml_index, double) { return a.value; }
  static __device__ __forceinline__ long long index(const acc& a) { return a.at; }
};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_argmax : ml_argument<true, C> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_argmin : ml_argument<false, C> {};

// --- log sum exp ---------------------------------------------------------------------------------

// The largest real part so far, and the sum of exp(x - largest); of infinities and NaN the sum of
// exp(x), which has their result.
template <typename C>
struct alignas(ml_is_float<C>::value ? 2 * sizeof(C) : alignof(C)) ml_exponents {
  typename ml_real_of<C>::type most;
  C sum;
};

template <typename C>
__device__ __forceinline__ ml_exponents<C> ml_shfl_xor(const ml_exponents<C>& a, int mask) {
  return {ml_shfl_xor(a.most, mask), ml_shfl_xor(a.sum, mask)};
}

template <typename T, typename C = typename ml_compute<T>::type>
struct ml_logsumexp : ml_op {
  typedef ml_exponents<C> acc;
  typedef typename ml_real_of<C>::type real;
  static __device__ __forceinline__ acc identity() { return {ml_lowest<real>(), C(0)}; }
  static __device__ __forceinline__ real shift(real most) {
    return ml_isnan(most) || ml_isinf(most) ? real(0) : most;
  }
  static __device__ __forceinline__ C moved(const acc& a, real to) {
    const real from = shift(a.most);
    return a.sum == C(0) || from == to ? a.sum : a.sum * C(exp(from - to));
  }
  template <int K>
  static __device__ __forceinline__ void take(acc& a, const C (&x)[K], ml_index, ml_index,
                                              double) {
    real most = a.most;
#pragma unroll
    for (int k = 0; k < K; ++k) most = ml_max(most, ml_real(x[k]));
    const real to = shift(most);
    C powers[K];
#pragma unroll
    for (int k = 0; k < K; ++k) powers[k] = exp(x[k] - C(to));
    a.sum = moved(a, to) + ml_pairwise(powers);
    a.most = most;
  }
  static __device__ __forceinline__ acc merge(const acc& a, const acc& b) {
    const real most = ml_max(a.most, b.most), to = shift(most);
    return {most, moved(a, to) + moved(b, to)};
  }
  static __device__ __forceinline__ C finish(const acc& a, ml_index, double) {
    return log(a.sum) + C(shift(a.most));
  }
};

// --- variance ------------------------------------------------------------------------------------

// Of n elements, their mean, and the sum of the squared distances from it (Chan, Golub & LeVeque).
template <typename C>
struct ml_moments {
  typename ml_real_of<C>::type n;
  C mean;
  typename ml_real_of<C>::type squares;
};

template <typename C>
__device__ __forceinline__ ml_moments<C> ml_shfl_xor(const ml_moments<C>& a, int mask) {
  return {ml_shfl_xor(a.n, mask), ml_shfl_xor(a.mean, mask), ml_shfl_xor(a.squares, mask)};
}

template <bool ROOT, typename C>  // the other result is the mean
struct ml_spread : ml_op {
  typedef ml_moments<C> acc;
  typedef typename ml_real_of<C>::type real;
  static __device__ __forceinline__ acc identity() { return {real(0), C(0), real(0)}; }
  static __device__ __forceinline__ real square(C x) {
    return ml_real(x) * ml_real(x) + ml_imag(x) * ml_imag(x);
  }
  template <int K>
  static __device__ __forceinline__ void take(acc& a, const C (&x)[K], ml_index, ml_index,
                                              double) {
    const C mean = ml_pairwise(x) * C(real(1) / K);
    real squares[K];
#pragma unroll
    for (int k = 0; k < K; ++k) squares[k] = square(x[k] - mean);
    a = merge(a, {real(K), mean, ml_pairwise(squares)});
  }
  static __device__ __forceinline__ acc merge(const acc& a, const acc& b) {
    const real n = a.n + b.n;
    if (n == real(0)) return a;
    const C apart = b.mean - a.mean;
    const real share = b.n / n;
    return {n, a.mean + apart * C(share), a.squares + b.squares + square(apart) * a.n * share};
  }
  static __device__ __forceinline__ real finish(const acc& a, ml_index n, double correction) {
    const double freedom = double(n) - correction;
    const real variance = a.squares / real(freedom > 0 ? freedom : 0);
    return ROOT ? sqrt(variance) : variance;
  }
  static __device__ __forceinline__ C other(const acc& a) {
    return a.n == real(0) ? C(ml_nan(real())) : a.mean;
  }
};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_var : ml_spread<false, C> {};
template <typename T, typename C = typename ml_compute<T>::type>
struct ml_std : ml_spread<true, C> {};

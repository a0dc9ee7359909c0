// What every kernel of mlgpu starts from: types, vector access, and the elementwise functions whose
// meaning follows PyTorch where C++ has another or none.  NVRTC only: no host headers.
#pragma once
// Set where no half type is named, to spare reading these headers (mlgpu/cuda/compile.py).
#ifndef ML_NO_HALF
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

typedef long long ml_index;

// E elements that are loaded and stored at once; at most 16 bytes.
template <typename T, int E>
struct alignas(sizeof(T) * E) ml_vec {
  T at[E];
};

template <int E, typename T>
__device__ __forceinline__ ml_vec<T, E> ml_load(const T* p) {
  return *reinterpret_cast<const ml_vec<T, E>*>(p);
}

template <int E, typename T>
__device__ __forceinline__ void ml_store(T* p, const ml_vec<T, E>& v) {
  *reinterpret_cast<ml_vec<T, E>*>(p) = v;
}

// The same as one instruction wherever p points.  Where the compiler knows the address as a sum of
// two variables it stores a vector's members one by one (seen in NVRTC 12.9): here it is not to know.
template <int E, typename T>
__device__ __forceinline__ void ml_store_whole(T* p, const ml_vec<T, E>& v) {
  const int bytes = sizeof(ml_vec<T, E>);
  if constexpr (E > 1 && bytes % 4 == 0) {
    unsigned word[bytes / 4];
    memcpy(word, &v, bytes);
    asm("" : "+l"(p));
    if constexpr (bytes == 16)
      *reinterpret_cast<uint4*>(p) = make_uint4(word[0], word[1], word[2], word[3]);
    else if constexpr (bytes == 8)
      *reinterpret_cast<uint2*>(p) = make_uint2(word[0], word[1]);
    else
      *reinterpret_cast<unsigned*>(p) = word[0];
  } else {
    ml_store<E>(p, v);
  }
}

// What a type is computed in: float for the half types.
template <typename T> struct ml_wide_of { typedef T type; };
#ifndef ML_NO_HALF
template <> struct ml_wide_of<__half> { typedef float type; };
template <> struct ml_wide_of<__nv_bfloat16> { typedef float type; };
#endif
template <typename T> using ml_wide = typename ml_wide_of<T>::type;

__device__ __forceinline__ float ml_inf(float) { return __int_as_float(0x7f800000); }
__device__ __forceinline__ double ml_inf(double) {
  return __longlong_as_double(0x7ff0000000000000LL);
}
__device__ __forceinline__ float ml_nan(float) { return __int_as_float(0x7fc00000); }
__device__ __forceinline__ double ml_nan(double) {
  return __longlong_as_double(0x7ff8000000000000LL);
}

template <typename T> struct ml_is_float { static const bool value = false; };
template <> struct ml_is_float<float> { static const bool value = true; };
template <> struct ml_is_float<double> { static const bool value = true; };

template <typename T, T v> struct ml_constant { static const T value = v; };
template <typename T> struct ml_is_signed { static const bool value = T(-1) < T(0); };
template <> struct ml_is_signed<bool> { static const bool value = false; };

// --- complex numbers ---------------------------------------------------------------------------

template <typename T>
struct ml_complex {
  T re, im;
  ml_complex() = default;
  __device__ ml_complex(T r, T i = T(0)) : re(r), im(i) {}
  template <typename U>
  __device__ explicit ml_complex(const ml_complex<U>& z) : re(T(z.re)), im(T(z.im)) {}
};

#define ML_COMPLEX_OPERATOR(op, ...)                                                       \
  template <typename T>                                                                    \
  __device__ __forceinline__ ml_complex<T> operator op(ml_complex<T> a, ml_complex<T> b) { \
    return __VA_ARGS__;                                                                    \
  }
ML_COMPLEX_OPERATOR(+, {a.re + b.re, a.im + b.im})
ML_COMPLEX_OPERATOR(-, {a.re - b.re, a.im - b.im})
ML_COMPLEX_OPERATOR(*, {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re})
#undef ML_COMPLEX_OPERATOR

// Smith's division: no overflow in the squares.
template <typename T>
__device__ __forceinline__ ml_complex<T> operator/(ml_complex<T> a, ml_complex<T> b) {
  if (fabs(b.re) >= fabs(b.im)) {
    const T r = b.im / b.re, d = b.re + b.im * r;
    return {(a.re + a.im * r) / d, (a.im - a.re * r) / d};
  }
  const T r = b.re / b.im, d = b.re * r + b.im;
  return {(a.re * r + a.im) / d, (a.im * r - a.re) / d};
}

template <typename T>
__device__ __forceinline__ ml_complex<T> operator-(ml_complex<T> a) { return {-a.re, -a.im}; }
template <typename T>
__device__ __forceinline__ bool operator==(ml_complex<T> a, ml_complex<T> b) {
  return a.re == b.re && a.im == b.im;
}
template <typename T>
__device__ __forceinline__ bool operator!=(ml_complex<T> a, ml_complex<T> b) { return !(a == b); }

template <typename T> __device__ __forceinline__ ml_complex<T> exp(ml_complex<T> z) {
  const T size = exp(z.re);
  return {size * cos(z.im), size * sin(z.im)};
}
template <typename T> __device__ __forceinline__ ml_complex<T> log(ml_complex<T> z) {
  return {log(hypot(z.re, z.im)), atan2(z.im, z.re)};
}
template <typename T> __device__ __forceinline__ ml_complex<T> sqrt(ml_complex<T> z) {
  const T size = hypot(z.re, z.im);
  if (size == T(0)) return {T(0), z.im};
  const T t = sqrt((size + fabs(z.re)) / T(2));
  if (z.re >= T(0)) return {t, z.im / (T(2) * t)};
  return {fabs(z.im) / (T(2) * t), copysign(t, z.im)};
}
template <typename T> __device__ __forceinline__ ml_complex<T> sinh(ml_complex<T> z) {
  return {sinh(z.re) * cos(z.im), cosh(z.re) * sin(z.im)};
}
template <typename T> __device__ __forceinline__ ml_complex<T> cosh(ml_complex<T> z) {
  return {cosh(z.re) * cos(z.im), sinh(z.re) * sin(z.im)};
}
template <typename T> __device__ __forceinline__ ml_complex<T> tanh(ml_complex<T> z) {
  if (fabs(z.re) > T(20)) return {copysign(T(1), z.re), T(0)};
  const T d = cosh(T(2) * z.re) + cos(T(2) * z.im);
  return {sinh(T(2) * z.re) / d, sin(T(2) * z.im) / d};
}
// sin z = -i sinh(iz), and so on: multiplication by i swaps the parts.
template <typename T> __device__ __forceinline__ ml_complex<T> ml_times_i(ml_complex<T> z) {
  return {-z.im, z.re};
}
template <typename T> __device__ __forceinline__ ml_complex<T> ml_over_i(ml_complex<T> z) {
  return {z.im, -z.re};
}
template <typename T> __device__ __forceinline__ ml_complex<T> sin(ml_complex<T> z) {
  return ml_over_i(sinh(ml_times_i(z)));
}
template <typename T> __device__ __forceinline__ ml_complex<T> cos(ml_complex<T> z) {
  return cosh(ml_times_i(z));
}
template <typename T> __device__ __forceinline__ ml_complex<T> tan(ml_complex<T> z) {
  return ml_over_i(tanh(ml_times_i(z)));
}
template <typename T> __device__ __forceinline__ ml_complex<T> asinh(ml_complex<T> z) {
  return log(z + sqrt(z * z + ml_complex<T>(1)));
}
template <typename T> __device__ __forceinline__ ml_complex<T> acosh(ml_complex<T> z) {
  return log(z + sqrt(z + ml_complex<T>(1)) * sqrt(z - ml_complex<T>(1)));
}
template <typename T> __device__ __forceinline__ ml_complex<T> atanh(ml_complex<T> z) {
  const ml_complex<T> one(1);
  return (log(one + z) - log(one - z)) * ml_complex<T>(T(0.5));
}
template <typename T> __device__ __forceinline__ ml_complex<T> asin(ml_complex<T> z) {
  return ml_over_i(asinh(ml_times_i(z)));
}
template <typename T> __device__ __forceinline__ ml_complex<T> acos(ml_complex<T> z) {
  const ml_complex<T> a = asin(z);
  return {T(1.5707963267948966) - a.re, -a.im};
}
template <typename T> __device__ __forceinline__ ml_complex<T> atan(ml_complex<T> z) {
  return ml_over_i(atanh(ml_times_i(z)));
}
template <typename T> __device__ __forceinline__ ml_complex<T> exp2(ml_complex<T> z) {
  return exp(z * ml_complex<T>(T(0.6931471805599453)));
}
template <typename T> __device__ __forceinline__ ml_complex<T> log2(ml_complex<T> z) {
  return log(z) * ml_complex<T>(T(1.4426950408889634));
}
template <typename T> __device__ __forceinline__ ml_complex<T> log10(ml_complex<T> z) {
  return log(z) * ml_complex<T>(T(0.4342944819032518));
}
template <typename T> __device__ __forceinline__ ml_complex<T> log1p(ml_complex<T> z) {
  const T x = z.re, y = z.im;
  return {T(0.5) * log1p(x * (T(2) + x) + y * y), atan2(y, T(1) + x)};
}
template <typename T> __device__ __forceinline__ ml_complex<T> expm1(ml_complex<T> z) {
  const T sine = sin(z.im / T(2));
  const T wave = T(2) * sine * sine;  // 1 - cos(im), exact near 0
  return {expm1(z.re) * (T(1) - wave) - wave, exp(z.re) * sin(z.im)};
}

// --- casts: through float for the half types, by parts for complex numbers -----------------------

template <typename To, typename From>
struct ml_cast_to {
  static __device__ __forceinline__ To of(From x) { return static_cast<To>(x); }
};
#ifndef ML_NO_HALF
template <typename From>
struct ml_cast_to<__half, From> {
  static __device__ __forceinline__ __half of(From x) { return __float2half_rn(float(x)); }
};
template <typename From>
struct ml_cast_to<__nv_bfloat16, From> {
  static __device__ __forceinline__ __nv_bfloat16 of(From x) {
    return __float2bfloat16_rn(float(x));
  }
};
template <typename To>
struct ml_cast_to<To, __half> {
  static __device__ __forceinline__ To of(__half x) { return To(__half2float(x)); }
};
template <typename To>
struct ml_cast_to<To, __nv_bfloat16> {
  static __device__ __forceinline__ To of(__nv_bfloat16 x) { return To(__bfloat162float(x)); }
};
#endif
template <typename T>
struct ml_cast_to<bool, ml_complex<T>> {
  static __device__ __forceinline__ bool of(ml_complex<T> z) { return z.re != 0 || z.im != 0; }
};
template <typename To, typename From>
struct ml_cast_to<To, ml_complex<From>> {
  static __device__ __forceinline__ To of(ml_complex<From> z) {
    return ml_cast_to<To, From>::of(z.re);
  }
};
template <typename To, typename From>
struct ml_cast_to<ml_complex<To>, ml_complex<From>> {
  static __device__ __forceinline__ ml_complex<To> of(ml_complex<From> z) {
    return {To(z.re), To(z.im)};
  }
};
template <typename To, typename From>
__device__ __forceinline__ To ml_cast(From x) {
  return ml_cast_to<To, From>::of(x);
}

// --- arithmetic with PyTorch's meaning -----------------------------------------------------------

// Integers: rounded down; a zero divisor gives 0 here and is reported by the caller's check.
template <typename T>
__device__ __forceinline__ T ml_floor_div(T a, T b) {
  if constexpr (ml_is_float<T>::value) {
    if (b == T(0)) return a / b;
    const T rest = fmod(a, b);
    T quotient = (a - rest) / b;
    if (rest != T(0) && (b < T(0)) != (rest < T(0))) quotient -= T(1);
    if (quotient == T(0)) return copysign(T(0), a / b);
    const T whole = floor(quotient);
    return quotient - whole > T(0.5) ? whole + T(1) : whole;
  } else {
    if (b == T(0)) return T(0);
    if constexpr (ml_is_signed<T>::value) {
      if (b == T(-1)) return T(0) - a;
    }
    const T q = a / b;
    return (a % b != 0 && ((a < 0) != (b < 0))) ? T(q - 1) : q;
  }
}

template <typename T>
__device__ __forceinline__ T ml_trunc_div(T a, T b) {
  if constexpr (ml_is_float<T>::value) {
    return trunc(a / b);
  } else {
    if (b == T(0)) return T(0);
    if constexpr (ml_is_signed<T>::value) {
      if (b == T(-1)) return T(0) - a;
    }
    return a / b;
  }
}

template <typename T>
__device__ __forceinline__ T ml_fmod(T a, T b) {
  if constexpr (ml_is_float<T>::value) {
    return fmod(a, b);
  } else {
    if (b == T(0)) return T(0);
    if constexpr (ml_is_signed<T>::value) {
      if (b == T(-1)) return T(0);
    }
    return a % b;
  }
}

template <typename T>
__device__ __forceinline__ T ml_remainder(T a, T b) {
  const T rest = ml_fmod(a, b);
  if (rest != T(0) && ((b < T(0)) != (rest < T(0)))) return rest + b;
  if constexpr (ml_is_float<T>::value) {
    if (rest == T(0)) return copysign(T(0), b);
  }
  return rest;
}

__device__ __forceinline__ float ml_pow(float a, float b) { return pow(a, b); }
__device__ __forceinline__ double ml_pow(double a, double b) { return pow(a, b); }
template <typename T>
__device__ __forceinline__ ml_complex<T> ml_pow(ml_complex<T> a, ml_complex<T> b) {
  if (b.re == T(0) && b.im == T(0)) return {T(1), T(0)};
  if (a.re == T(0) && a.im == T(0)) return {T(0), T(0)};
  return exp(b * log(a));
}
template <typename T>
__device__ __forceinline__ T ml_pow(T a, T b) {
  T result = 1;
  for (; b > 0; b >>= 1) {
    if (b & 1) result *= a;
    a *= a;
  }
  return result;
}

template <typename T>
__device__ __forceinline__ T ml_sign(T x) {
  if constexpr (ml_is_signed<T>::value) return T((x > T(0)) - (x < T(0)));
  else return T(x != T(0));
}
template <typename T>
__device__ __forceinline__ ml_complex<T> ml_sign(ml_complex<T> z) {
  const T size = hypot(z.re, z.im);
  if (size == T(0)) return {T(0), T(0)};
  return {z.re / size, z.im / size};
}
template <typename T>
__device__ __forceinline__ T ml_abs(T x) {
  if constexpr (ml_is_float<T>::value) return fabs(x);
  else if constexpr (ml_is_signed<T>::value) return x < T(0) ? T(0) - x : x;
  else return x;
}
template <typename T>
__device__ __forceinline__ T ml_abs(ml_complex<T> z) { return hypot(z.re, z.im); }

// NaN wins, unlike in CUDA's fmax and fmin.
template <typename T>
__device__ __forceinline__ T ml_max(T a, T b) { return (a != a || a > b) ? a : b; }
template <typename T>
__device__ __forceinline__ T ml_min(T a, T b) { return (a != a || a < b) ? a : b; }
// The number where one of the two is NaN; for integers too, which CUDA's fmax does not take.
template <typename T>
__device__ __forceinline__ T ml_fmax(T a, T b) { return (b != b || a > b) ? a : b; }
template <typename T>
__device__ __forceinline__ T ml_fmin(T a, T b) { return (b != b || a < b) ? a : b; }
template <typename T>
__device__ __forceinline__ T ml_relu(T x) { return ml_max(x, T(0)); }

template <typename T>
__device__ __forceinline__ T ml_round(T x) {
  if constexpr (ml_is_float<T>::value) return rint(x);
  else return x;
}
#define ML_ROUNDING(name, function)                             \
  template <typename T>                                         \
  __device__ __forceinline__ T name(T x) {                      \
    if constexpr (ml_is_float<T>::value) return function(x);    \
    else return x;                                              \
  }
ML_ROUNDING(ml_ceil, ceil)
ML_ROUNDING(ml_floor, floor)
ML_ROUNDING(ml_trunc, trunc)
#undef ML_ROUNDING

template <typename T>
__device__ __forceinline__ bool ml_isnan(T x) {
  if constexpr (ml_is_float<T>::value) return x != x;
  else return false;
}
template <typename T>
__device__ __forceinline__ bool ml_isnan(ml_complex<T> z) { return z.re != z.re || z.im != z.im; }
template <typename T>
__device__ __forceinline__ bool ml_isinf(T x) {
  if constexpr (ml_is_float<T>::value) return fabs(x) == ml_inf(x);
  else return false;
}
template <typename T>
__device__ __forceinline__ bool ml_isinf(ml_complex<T> z) { return ml_isinf(z.re) || ml_isinf(z.im); }
template <typename T>
__device__ __forceinline__ bool ml_signbit(T x) {
  if constexpr (ml_is_float<T>::value) return signbit(x);
  else return x < T(0);
}

// --- bits ----------------------------------------------------------------------------------------

template <typename T> __device__ __forceinline__ T ml_not(T x) { return T(~x); }
__device__ __forceinline__ bool ml_not(bool x) { return !x; }

template <typename T>
__device__ __forceinline__ bool ml_shift_fits(T count) {
  return count >= T(0) && (unsigned long long)(count) < sizeof(T) * 8;
}
template <typename T>
__device__ __forceinline__ T ml_shl(T x, T count) {
  return ml_shift_fits(count) ? T((unsigned long long)(x) << int(count)) : T(0);
}
template <typename T>
__device__ __forceinline__ T ml_shr(T x, T count) {
  if (ml_shift_fits(count)) return T(x >> int(count));
  return x < T(0) ? T(-1) : T(0);
}

// --- special functions ---------------------------------------------------------------------------

template <typename T>
__device__ __forceinline__ T ml_sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }

template <typename T>
__device__ __forceinline__ T ml_logsigmoid(T x) {
  return ml_min(x, T(0)) - log1p(exp(-fabs(x)));
}

template <typename T>
__device__ __forceinline__ T ml_logaddexp(T a, T b) {
  if (a == b) return a + T(0.6931471805599453);
  return ml_max(a, b) + log1p(exp(-fabs(a - b)));
}

template <typename T>
__device__ __forceinline__ T ml_sinc(T x) {
  const T scaled = x * T(3.141592653589793);
  return scaled == T(0) ? T(1) : sin(scaled) / scaled;
}

// Recurrence up to 10, then the asymptotic series (Abramowitz & Stegun 6.3.18); reflection below 0.
template <typename T>
__device__ __forceinline__ T ml_digamma(T given) {
  const T pi = T(3.141592653589793);
  T x = given, result = T(0);
  if (x == T(0)) return copysign(ml_inf(x), -x);
  if (x < T(0)) {
    if (x == trunc(x)) return ml_nan(x);
    const T rest = x - rint(x);  // exact, and never near a pole of the tangent's own
    result = -pi / tan(pi * rest);
    x = T(1) - x;
  }
  while (x < T(10)) {
    result -= T(1) / x;
    x += T(1);
  }
  const T z = T(1) / (x * x);
  const T series = z * (T(1) / 12 - z * (T(1) / 120 - z * (T(1) / 252 - z * (T(1) / 240 -
                   z * (T(1) / 132 - z * (T(691) / 32760 - z * (T(1) / 12)))))));
  return result + log(x) - T(0.5) / x - series;
}

// The Hurwitz zeta function, the sum over k >= 0 of (k + q)^-s, by Euler-Maclaurin; q > 0.
template <typename T>
__device__ __forceinline__ T ml_hurwitz(T s, T q) {
  T sum = T(0), a = q;
  for (int k = 0; k < 12; ++k, a += T(1)) sum += pow(a, -s);
  const T bernoulli[8] = {T(1) / 6, T(-1) / 30, T(1) / 42, T(-1) / 30,
                          T(5) / 66, T(-691) / 2730, T(7) / 6, T(-3617) / 510};
  sum += pow(a, T(1) - s) / (s - T(1)) + T(0.5) * pow(a, -s);
  T rising = s, factorial = T(2), power = pow(a, -s - T(1));
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    sum += bernoulli[k] * rising * power / factorial;
    const T step = T(2 * k);
    rising *= (s + step + T(1)) * (s + step + T(2));
    factorial *= (step + T(3)) * (step + T(4));
    power /= a * a;
  }
  return sum;
}

// The n-th derivative of cot(pi x) over pi^n: a polynomial in c = cot(pi x), as c' = -pi (1 + c^2).
template <int n, typename T>
__device__ __forceinline__ T ml_cotangent_derivative(T x) {
  T coefficients[n + 2] = {T(0), T(1)};
  for (int degree = 1; degree <= n; ++degree) {
    for (int i = 0; i < degree; ++i) coefficients[i] = T(i + 1) * coefficients[i + 1];
    coefficients[degree] = T(0);
    for (int i = degree + 1; i >= 0; --i)
      coefficients[i] = -((i <= degree ? coefficients[i] : T(0)) +
                          (i >= 2 ? coefficients[i - 2] : T(0)));
  }
  const T c = T(1) / tan(T(3.141592653589793) * (x - rint(x)));
  T value = T(0);
  for (int i = n + 1; i >= 0; --i) value = value * c + coefficients[i];
  return value;
}

// The n-th derivative of digamma, n >= 1: (-1)^(n+1) n! zeta(n + 1, x), reflected below 0.
template <int n, typename T>
__device__ __forceinline__ T ml_polygamma(T x) {
  const T pi = T(3.141592653589793), sign = n % 2 ? T(1) : T(-1);
  const bool mirror = x <= T(0);
  if (mirror && x == floor(x) && x - x == T(0)) return n % 2 ? ml_inf(x) : ml_nan(x);
  const T value = sign * tgamma(T(n + 1)) * ml_hurwitz(T(n + 1), mirror ? T(1) - x : x);
  if (!mirror) return value;
  return -sign * value - pow(pi, T(n + 1)) * ml_cotangent_derivative<n>(x);
}

// --- complex parts, for real numbers too ---------------------------------------------------------

template <typename T> __device__ __forceinline__ T ml_real(T x) { return x; }
template <typename T> __device__ __forceinline__ T ml_real(ml_complex<T> z) { return z.re; }
template <typename T> __device__ __forceinline__ T ml_imag(T) { return T(0); }
template <typename T> __device__ __forceinline__ T ml_imag(ml_complex<T> z) { return z.im; }
template <typename T> __device__ __forceinline__ T ml_conj(T x) { return x; }
template <typename T> __device__ __forceinline__ ml_complex<T> ml_conj(ml_complex<T> z) {
  return {z.re, -z.im};
}
template <typename T> __device__ __forceinline__ T ml_angle(ml_complex<T> z) {
  return atan2(z.im, z.re);
}
template <typename T> __device__ __forceinline__ T ml_angle(T x) {
  return x != x ? x : (x < T(0) ? T(3.141592653589793) : T(0));
}

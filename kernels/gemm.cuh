// What the products of matrices share: how a launch is described, and what happens to a result
// before it is stored.
#pragma once
#include "common.cuh"

// out[batch][m][n] = activation(alpha * (a @ b) + beta * summand) + residual.  out, residual and pre
// (the values before the activation) are contiguous; the strides of the others are given.
struct ml_gemm {
  ml_index lda, ldb;  // between two rows of an operand as it lies, whichever dimension they are of
  ml_index summand_row, summand_column;
  ml_index size[3];  // of the batch's dimensions, and the operands' strides along them
  ml_index a_batch[3], b_batch[3], summand_batch[3];
  double alpha, alpha_imaginary, beta, beta_imaginary;
  ml_index alpha_whole, beta_whole;  // the same for integers, whose products wrap around
  int m, n, k;
  int splits, split_k;  // k is cut into pieces of split_k, whose sums gemm_finish adds in order
  int activation;       // one of ML_RELU ...
  int scaled;           // whether alpha or beta is not 1
  int wide;             // whether rows of out take 16-byte vectors
  int summand_wide;     // the same for the summand
};

enum { ML_NO_ACTIVATION, ML_RELU, ML_GELU, ML_GELU_TANH, ML_SILU, ML_TANH };

struct ml_gemm_batch {
  ml_index a, b, summand;
};

__device__ __forceinline__ ml_gemm_batch ml_batch_offsets(const ml_gemm& g, ml_index batch) {
  ml_gemm_batch at = {0, 0, 0};
  if (batch == 0) return at;
#pragma unroll
  for (int d = 2; d >= 0; --d) {
    const ml_index next = batch / g.size[d], place = batch - next * g.size[d];
    at.a += place * g.a_batch[d];
    at.b += place * g.b_batch[d];
    at.summand += place * g.summand_batch[d];
    batch = next;
  }
  return at;
}

// Blocks walk down 8 tiles of rows before they take the next columns: what runs together then shares
// rows of a and columns of b in the L2 cache.
__device__ __forceinline__ void ml_tile_of(int place, int rows, int columns, int& row, int& column) {
  const int group = place / (8 * columns), first = 8 * group;
  const int height = rows - first < 8 ? rows - first : 8, rest = place - first * columns;
  row = first + rest % height;
  column = rest / height;
}

// --- activations ---------------------------------------------------------------------------------

template <typename S>
__device__ __forceinline__ S ml_activate(S x, int kind) {
  switch (kind) {
    case ML_RELU: return ml_relu(x);
    case ML_GELU: return S(0.5) * x * (S(1) + erf(x * S(0.7071067811865476)));
    case ML_GELU_TANH: {
      const S inner = S(0.7978845608028654) * (x + S(0.044715) * x * x * x);
      return S(0.5) * x * (S(1) + tanh(inner));
    }
    case ML_SILU: return x * ml_sigmoid(x);
    case ML_TANH: return tanh(x);
    default: return x;
  }
}

template <typename S>
__device__ __forceinline__ S ml_activation_slope(S x, int kind) {
  switch (kind) {
    case ML_RELU: return x <= S(0) ? S(0) : S(1);
    case ML_GELU: {
      const S below = S(0.5) * (S(1) + erf(x * S(0.7071067811865476)));
      return below + x * S(0.3989422804014327) * exp(S(-0.5) * x * x);
    }
    case ML_GELU_TANH: {
      const S t = tanh(S(0.7978845608028654) * (x + S(0.044715) * x * x * x));
      return S(0.5) * (S(1) + t) + S(0.5) * x * (S(1) - t * t) * S(0.7978845608028654) *
                                       (S(1) + S(0.134145) * x * x);
    }
    case ML_SILU: {
      const S s = ml_sigmoid(x);
      return s * (S(1) + x * (S(1) - s));
    }
    case ML_TANH: {
      const S t = tanh(x);
      return S(1) - t * t;
    }
    default: return S(1);
  }
}

// --- what a result goes through ------------------------------------------------------------------

template <typename S> struct ml_scale_of {
  static __device__ __forceinline__ S alpha(const ml_gemm& g) {
    if constexpr (ml_is_float<S>::value) return S(g.alpha);
    else return S(g.alpha_whole);
  }
  static __device__ __forceinline__ S beta(const ml_gemm& g) {
    if constexpr (ml_is_float<S>::value) return S(g.beta);
    else return S(g.beta_whole);
  }
};
template <typename P> struct ml_scale_of<ml_complex<P>> {
  static __device__ __forceinline__ ml_complex<P> alpha(const ml_gemm& g) {
    return {P(g.alpha), P(g.alpha_imaginary)};
  }
  static __device__ __forceinline__ ml_complex<P> beta(const ml_gemm& g) {
    return {P(g.beta), P(g.beta_imaginary)};
  }
};

// T is what is stored, S what is computed in; pointers are at the start of the batch's matrix.
template <typename T, typename S>
struct ml_epilogue {
  const ml_gemm& g;
  T* out;
  const T* summand;
  const T* residual;
  T* pre;

  __device__ __forceinline__ ml_epilogue(const ml_gemm& g, T* out, const T* summand,
                                         const T* residual, T* pre, ml_index batch,
                                         ml_index summand_at)
      : g(g), out(out), summand(summand), residual(residual), pre(pre) {
    const ml_index at = batch * g.m * g.n;
    this->out += at;
    if (summand) this->summand += summand_at;
    if (residual) this->residual += at;
    if (pre) this->pre += at;
  }

  // beta * summand for E columns from `column` on, all of them within the matrix.
  template <int E>
  __device__ __forceinline__ void addend(S (&add)[E], int row, int column) const {
    const T* p = summand + row * g.summand_row + column * g.summand_column;
    if (E > 1 && g.summand_wide) {
      const auto v = ml_load<E>(p);
#pragma unroll
      for (int e = 0; e < E; ++e) add[e] = ml_cast<S>(v.at[e]);
    } else {
#pragma unroll
      for (int e = 0; e < E; ++e) add[e] = ml_cast<S>(p[e * g.summand_column]);
    }
    if (g.scaled) {
#pragma unroll
      for (int e = 0; e < E; ++e) add[e] = add[e] * ml_scale_of<S>::beta(g);
    }
  }

  // Stores E columns from `column` on; `add` is used where there is a summand.
  template <int E>
  __device__ __forceinline__ void store(S (&v)[E], const S (&add)[E], int row, int column) const {
    const ml_index at = ml_index(row) * g.n + column;
    if (g.scaled) {
#pragma unroll
      for (int e = 0; e < E; ++e) v[e] = v[e] * ml_scale_of<S>::alpha(g);
    }
    if (summand) {
#pragma unroll
      for (int e = 0; e < E; ++e) v[e] = v[e] + add[e];
    }
    ml_vec<T, E> packed;
    if constexpr (ml_is_float<S>::value) {
      if (pre) {
#pragma unroll
        for (int e = 0; e < E; ++e) packed.at[e] = ml_cast<T>(v[e]);
        ml_store<E>(pre + at, packed);
      }
      if (g.activation) {
#pragma unroll
        for (int e = 0; e < E; ++e) v[e] = ml_activate(v[e], g.activation);
      }
    }
    if (residual) {
      const auto r = ml_load<E>(residual + at);
#pragma unroll
      for (int e = 0; e < E; ++e) v[e] = v[e] + ml_cast<S>(r.at[e]);
    }
#pragma unroll
    for (int e = 0; e < E; ++e) packed.at[e] = ml_cast<T>(v[e]);
    ml_store<E>(out + at, packed);
  }
};

// Losses of class scores x (rows, n), or (outer, n, inner), against class numbers.
//
// Cross entropy: (1 - s) w[t] (lse - x[t]) + s / n sum over c of w[c] (lse - x[c]), with lse the
// logarithm of the row's summed exponentials, which is all that is kept for the gradient.  A target
// that is `ignore` does not count; one out of range is reported, and does not count either.
//
// T: scores and class weights, I: targets, O: losses, W: what is computed in, N: an integer that
// numbers all vectors.
#include "fault.cuh"
#include "rows.cuh"

// A row's class, its weight, and whether it counts.
template <typename W>
struct picked {
  int target;
  W weight;
  bool counted;
};

template <typename W, typename T, typename I>
__device__ __forceinline__ picked<W> pick(I target, ml_index ignore, int n, const T* weight,
                                          ml_fault* fault, int site) {
  const ml_index t = ml_index(target);
  if (t == ignore) return {-1, W(0), false};
  if (t < 0 || t >= n) {
    if (fault) ml_report(fault, site, t, n);
    return {-1, W(0), false};
  }
  return {int(t), weight ? ml_cast<W>(weight[t]) : W(1), true};
}

// What is subtracted from a row's scores before they are summed, so that the sum stays small.
template <typename T>
__device__ __forceinline__ ml_wide<T> row_base(const T* x) {
  const ml_wide<T> first = ml_cast<ml_wide<T>>(*x);
  return first - first == ml_wide<T>(0) ? first : ml_wide<T>(0);
}

// A row's outcome.  `spread`: the sum of w[c] (x[c] - base); `whole`: that of w[c].
template <typename T, typename O, typename W>
__device__ __forceinline__ void put_loss(O* losses, W* lse, W* weights, ml_index r,
                                         const picked<W>& own, row_sum<W> total, W score, W spread,
                                         W whole, W base, W smoothing, int n) {
  const W logarithm = log(total.sum);
  W loss = (W(1) - smoothing) * own.weight * (logarithm + (total.top - score));
  if (smoothing != W(0))
    loss += smoothing / W(n) * (whole * (logarithm + (total.top - base)) - spread);
  losses[r] = ml_cast<O>(own.counted ? loss : W(0));
  weights[r] = own.weight;
  if (lse) lse[r] = total.top + logarithm;
}

// The sum of w[c] (x[c] - base) over a vector of scores.
template <int E, typename T, typename W>
__device__ __forceinline__ W vector_spread(const W* scores, const T* weight, W base) {
  W sum = W(0), each[E];
  if (weight) take<E>(each, weight);
#pragma unroll
  for (int e = 0; e < E; ++e) sum += weight ? each[e] * (scores[e] - base) : scores[e] - base;
  return sum;
}

// --- forward --------------------------------------------------------------------------------------

// 256 threads: 256 / L rows of at most L * V * E.  `weight_sum` may be null: then it is n.
template <typename T, typename I, typename O, typename W, int E, int V, int L, bool SMOOTH>
__global__ void __launch_bounds__(256, 1)
cross_entropy_rows(O* losses, W* lse, W* weights, const T* x, const I* target, const T* weight,
                   const W* weight_sum, ml_index rows, int n, ml_index ignore, double smoothing,
                   ml_fault* fault, int site) {
  const ml_index r = ml_index(blockIdx.x) * (256 / L) + threadIdx.x / L;
  const int first = threadIdx.x % L * E, size = r < rows ? n : 0;
  W scores[V * E];
  row_load<V, E>(scores, x + r * n, size, first, L * E, -ml_inf(W()));
  W top = scores[0], sum = W(0), spread = W(0);
#pragma unroll
  for (int i = 1; i < V * E; ++i) top = row_max(top, scores[i]);
  top = ml_warp_reduce<L>(top, row_maximum());
  const W pivot = row_pivot(top), base = SMOOTH && size ? row_base(x + r * n) : W(0);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int at = first + v * L * E;
    if (SMOOTH && at < size)
      spread += vector_spread<E>(scores + v * E, weight ? weight + at : weight, base);
#pragma unroll
    for (int e = 0; e < E; ++e) sum += row_exp<T>(scores[v * E + e] - pivot);
  }
  sum = ml_warp_sum<L>(sum);
  if (SMOOTH) spread = ml_warp_sum<L>(spread);
  if (first != 0 || !size) return;
  const picked<W> own = pick<W>(target[r], ignore, n, weight, fault, site);
  const W score = own.counted ? ml_cast<W>(x[r * n + own.target]) : W(0);
  put_loss<T>(losses, lse, weights, r, own, row_sum<W>{top, sum}, score, spread,
              weight_sum ? *weight_sum : W(n), base, W(SMOOTH ? smoothing : 0), n);
}

// The maximum, the sum of exponentials and the spread of a row of any length, for its whole block.
template <int E, bool SMOOTH, typename T, typename W, typename Row>
__device__ __forceinline__ row_sum<W> long_sum(const Row& row, const T* weight, W base, W& spread,
                                               ml_index n) {
  __shared__ row_sum<W> slots[32];
  __shared__ W spread_slots[32];
  const ml_index step = ml_index(blockDim.x) * E;
  row_sum<W> running = {-ml_inf(W()), W(0)};
  W pair[2 * E], one[E];
  spread = W(0);
  ml_index at = threadIdx.x * E;
  for (; at + step < n; at += 2 * step) {  // two loads are under way before the first is used
    row.template take<E>(pair, at);
    row.template take<E>(pair + E, at + step);
    row_take<T>(running, pair);
    if (SMOOTH) {
      spread += vector_spread<E>(pair, weight ? weight + at : weight, base);
      spread += vector_spread<E>(pair + E, weight ? weight + at + step : weight, base);
    }
  }
  if (at < n) {
    row.template take<E>(one, at);
    row_take<T>(running, one);
    if (SMOOTH) spread += vector_spread<E>(one, weight ? weight + at : weight, base);
  }
  if (SMOOTH) spread = ml_block_sum(spread, spread_slots);
  return ml_block_reduce(running, slots, row_sum<W>{-ml_inf(W()), W(0)}, row_merge<T>());
}

// A block for each row.
template <typename T, typename I, typename O, typename W, int E, bool SMOOTH>
__global__ void __launch_bounds__(512, 2)
cross_entropy_long(O* losses, W* lse, W* weights, const T* x, const I* target, const T* weight,
                   const W* weight_sum, int n, ml_index ignore, double smoothing, ml_fault* fault,
                   int site) {
  const ml_index r = blockIdx.x;
  x += r * n;
  W spread;
  const W base = SMOOTH ? row_base(x) : W(0);
  const row_sum<W> total = long_sum<E, SMOOTH>(plain_row<T>{x}, weight, base, spread, n);
  if (threadIdx.x != 0) return;
  const picked<W> own = pick<W>(target[r], ignore, n, weight, fault, site);
  put_loss<T>(losses, lse, weights, r, own, total,
              own.counted ? ml_cast<W>(x[own.target]) : W(0), spread,
              weight_sum ? *weight_sum : W(n), base, W(SMOOTH ? smoothing : 0), n);
}

// Loss and gradient at once: a row of scores is replaced by the derivative of its loss, for which it
// stays in shared memory (KEPT: n values of T) or is read again at once.
template <typename T, typename I, typename W, int E, bool SMOOTH, bool KEPT>
__global__ void __launch_bounds__(1024, 1)
cross_entropy_fused(W* losses, W* weights, T* x, const I* target, const T* weight,
                    const W* weight_sum, int n, ml_index ignore, double smoothing, ml_fault* fault,
                    int site) {
  extern __shared__ uint4 kept[];
  const ml_index r = blockIdx.x, step = ml_index(blockDim.x) * E;
  x += r * n;
  // All that is read beside a thread's own places is read before the barriers of the sums.
  const picked<W> own =
      pick<W>(target[r], ignore, n, weight, threadIdx.x == 0 ? fault : nullptr, site);
  const W score = own.counted ? ml_cast<W>(x[own.target]) : W(0);
  const W base = SMOOTH ? row_base(x) : W(0), whole = weight_sum ? *weight_sum : W(n);
  const kept_row<T> keep = {x, reinterpret_cast<T*>(kept)};
  const plain_row<T> again = {x};
  W spread;
  row_sum<W> total;
  if constexpr (KEPT) total = long_sum<E, SMOOTH>(keep, weight, base, spread, n);
  else total = long_sum<E, SMOOTH>(again, weight, base, spread, n);
  const W share = W(SMOOTH ? smoothing / n : 0), hit = own.weight * W(SMOOTH ? 1 - smoothing : 1);
  if (threadIdx.x == 0)
    put_loss<T>(losses, static_cast<W*>(nullptr), weights, r, own, total, score, spread, whole,
                base, W(SMOOTH ? smoothing : 0), n);
  const W pivot = row_pivot(total.top);
  const W factor = (SMOOTH ? hit + share * whole : hit) / total.sum;
  for (ml_index at = threadIdx.x * E; at < n; at += step) {
    W values[E], each[E];
    if constexpr (KEPT) keep.template again<E>(values, at);
    else again.template take<E>(values, at);
    if (SMOOTH && weight) take<E>(each, weight + at);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      values[e] = row_exp<T>(values[e] - pivot) * factor;
      if (SMOOTH) values[e] -= weight ? share * each[e] : share;
      if (at + e == own.target) values[e] -= hit;
      if (!own.counted) values[e] = W(0);
    }
    row_store<1, E>(x + at, values, 1, 0, 0);
  }
}

// (outer, n, inner): C lanes own E columns each, 256 / C slots take classes in turn.
template <typename T, typename I, typename O, typename W, int E, int C, bool SMOOTH>
__global__ void __launch_bounds__(256, 1)
cross_entropy_columns(O* losses, W* lse, W* weights, const T* x, const I* target, const T* weight,
                      const W* weight_sum, int n, ml_index inner, ml_index tiles, ml_index ignore,
                      double smoothing, ml_fault* fault, int site) {
  const ml_index outer = blockIdx.x / tiles, tile = blockIdx.x - outer * tiles;
  const ml_index column = (tile * C + threadIdx.x % C) * E;
  const ml_index at = outer * n * inner + column;
  const int slot = threadIdx.x / C, slots = 256 / C, size = column < inner ? n : 0;
  const int U = 4;  // classes under way
  row_sum<W> total[E];
  W spread[E], base[E];
#pragma unroll
  for (int e = 0; e < E; ++e) {
    total[e] = {-ml_inf(W()), W(0)};
    spread[e] = W(0);
    base[e] = SMOOTH && size ? row_base(x + at + e) : W(0);
  }
  for (int i = slot; i < size; i += U * slots) {
    W rows[U][E];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const int c = i + u * slots;
      if (c < size) {
        plain_row<T>{x}.template take<E>(rows[u], at + c * inner);
        const W w = SMOOTH && weight ? ml_cast<W>(weight[c]) : W(1);
#pragma unroll
        for (int e = 0; e < E; ++e)
          if (SMOOTH) spread[e] += w * (rows[u][e] - base[e]);
      } else {
#pragma unroll
        for (int e = 0; e < E; ++e) rows[u][e] = -ml_inf(W());
      }
    }
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const W values[U] = {rows[0][e], rows[1][e], rows[2][e], rows[3][e]};
      row_take<T>(total[e], values);
    }
  }
  if constexpr (C < 256) {
    __shared__ row_sum<W> shared[8 * E * C];
    __shared__ W spreads[SMOOTH ? 8 * E * C : 1];
    over_slots<E, C>(total, shared, row_merge<T>());
    if (SMOOTH) over_slots<E, C>(spread, spreads, ml_add());
  }
  if (slot != 0 || !size) return;
#pragma unroll
  for (int e = 0; e < E; ++e) {
    const ml_index r = outer * inner + column + e;
    const picked<W> own = pick<W>(target[r], ignore, n, weight, fault, site);
    const W score = own.counted ? ml_cast<W>(x[at + e + own.target * inner]) : W(0);
    put_loss<T>(losses, lse, weights, r, own, total[e], score, spread[e],
                weight_sum ? *weight_sum : W(n), base[e], W(SMOOTH ? smoothing : 0), n);
  }
}

// Negative log-likelihood: x holds logarithms already.
template <typename T, typename I, typename O, typename W>
__global__ void __launch_bounds__(256)
nll_forward(O* losses, W* weights, const T* x, const I* target, const T* weight, ml_index rows,
            int n, ml_index inner, ml_index ignore, ml_fault* fault, int site) {
  const ml_index r = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (r >= rows) return;
  const picked<W> own = pick<W>(target[r], ignore, n, weight, fault, site);
  const ml_index outer = r / inner, column = r - outer * inner;
  W loss = W(0);
  if (own.counted)
    loss = -own.weight * ml_cast<W>(x[(outer * n + own.target) * inner + column]);
  losses[r] = ml_cast<O>(loss);
  weights[r] = own.weight;
}

// --- the losses of all rows: their sum, or their mean by weight ------------------------------------

// part[blocks][2]: sums of losses and weights over a fixed piece of the rows each.
template <typename W>
__global__ void __launch_bounds__(512)
loss_sums(double* part, const W* losses, const W* weights, ml_index rows) {
  __shared__ ml_pair<double> slots[32];
  const ml_index each = (rows + gridDim.x - 1) / gridDim.x;
  const ml_index start = blockIdx.x * each, end = ml_min(rows, start + each);
  ml_pair<double> sum = {0.0, 0.0};
#pragma unroll 4
  for (ml_index r = start + threadIdx.x; r < end; r += 512) {
    sum.first += double(losses[r]);
    sum.second += double(weights[r]);
  }
  sum = ml_block_sum(sum, slots);
  if (threadIdx.x < 2) part[blockIdx.x * 2 + threadIdx.x] = threadIdx.x ? sum.second : sum.first;
}

template <typename T, typename W>
__global__ void __launch_bounds__(32)
loss_finish(T* loss, W* total, const double* part, int parts, bool mean) {
  ml_pair<double> sum = {0.0, 0.0};
  for (int i = threadIdx.x; i < parts; i += 32) {
    sum.first += part[2 * i];
    sum.second += part[2 * i + 1];
  }
  sum = ml_warp_sum(sum);
  if (threadIdx.x != 0) return;
  const double value = mean ? sum.first / sum.second : sum.first;
  if constexpr (sizeof(T) == 2) *loss = ml_cast<T>(float(value));
  else *loss = T(value);
  *total = W(sum.second);
}

// --- backward -------------------------------------------------------------------------------------

// The gradient of a row's loss: dy for all rows or for `each`, over the sum of weights in a mean.
template <typename T, typename W>
__device__ __forceinline__ W row_gradient(const T* dy, bool each, const W* total, ml_index r) {
  const W given = ml_cast<W>(dy[each ? r : 0]);
  return total ? given / *total : given;
}

// A vector of scores; COLUMNS: of (outer, n, inner), with its E neighbours in rows of their own.
template <typename T, typename I, typename W, typename N, int E, bool COLUMNS, bool SMOOTH>
__global__ void __launch_bounds__(256)
cross_entropy_backward(T* dx, const T* x, const W* lse, const I* target, const T* weight,
                       const W* weight_sum, const T* dy, const W* total, bool each, N vectors,
                       int n, ml_index inner, ml_index ignore, double smoothing) {
  const N first = N(blockIdx.x) * 512 + threadIdx.x;
  const W share = W(SMOOTH ? smoothing / n : 0), keep = W(SMOOTH ? 1 - smoothing : 1);
  const W whole = SMOOTH ? share * (weight_sum ? *weight_sum : W(n)) : W(0);
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const N i = first + u * 256;
    if (i >= vectors) continue;
    const N start = i * E;
    W values[E], by_class[E];
    take<E>(values, x + start);
    int c;
    ml_index r;
    if constexpr (COLUMNS) {
      const N plane = start / N(inner), column = start - plane * N(inner);
      c = int(plane % n);
      r = ml_index(plane / n) * inner + column;
    } else {
      r = start / n;
      c = int(start - N(r) * n);
    }
    if (SMOOTH) {
#pragma unroll
      for (int e = 0; e < E; ++e)
        by_class[e] = weight ? share * ml_cast<W>(weight[COLUMNS ? c : c + e]) : share;
    }
    picked<W> own = {-1, W(0), false};
    W gradient = W(0), log_sum = W(0);
#pragma unroll
    for (int e = 0; e < E; ++e) {
      if (e == 0 || COLUMNS) {
        const ml_index row = COLUMNS ? r + e : r;
        own = pick<W>(target[row], ignore, n, weight, nullptr, 0);
        gradient = own.counted ? row_gradient(dy, each, total, row) : W(0);
        log_sum = lse[row];
      }
      const W hit = own.weight * keep * gradient;
      W out = row_exp<T>(values[e] - log_sum) * (SMOOTH ? hit + whole * gradient : hit);
      if (SMOOTH) out -= gradient * by_class[e];
      if ((COLUMNS ? c : c + e) == own.target) out -= hit;
      values[e] = own.counted ? out : W(0);
    }
    row_store<1, E>(dx + start, values, 1, 0, 0);
  }
}

// -weight * gradient at the target's place, 0 elsewhere: written once, no filling before.
template <typename T, typename I, typename W, typename N, int E, bool COLUMNS>
__global__ void __launch_bounds__(256)
nll_backward(T* dx, const I* target, const T* weight, const T* dy, const W* total, bool each,
             N vectors, int n, ml_index inner, ml_index ignore) {
  const N first = N(blockIdx.x) * 512 + threadIdx.x;
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const N i = first + u * 256;
    if (i >= vectors) continue;
    const N start = i * E;
    const N plane = start / N(inner), column = start - plane * N(inner);
    W values[E];
#pragma unroll
    for (int e = 0; e < E; ++e) {
      const int c = COLUMNS ? int(plane % n) : int((start + e) % n);
      const ml_index r = COLUMNS ? ml_index(plane / n) * inner + column + e : (start + e) / n;
      const picked<W> own = pick<W>(target[r], ignore, n, weight, nullptr, 0);
      values[e] = W(0);
      if (own.target == c) values[e] = -own.weight * row_gradient(dy, each, total, r);
    }
    row_store<1, E>(dx + start, values, 1, 0, 0);
  }
}

// The sum of the class weights.
template <typename T, typename W>
__global__ void __launch_bounds__(1024)
weight_sums(W* sum, const T* weight, int n) {
  __shared__ W slots[32];
  W own = W(0);
  for (int c = threadIdx.x; c < n; c += 1024) own += ml_cast<W>(weight[c]);
  own = ml_block_sum(own, slots);
  if (threadIdx.x == 0) *sum = own;
}

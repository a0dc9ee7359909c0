// Group norm of x (batch, channels, positions): a group of channels of an example is one row.
//
// Forward as layer norm, but for the parameters: one for each channel.  Backward: sums for each
// channel of each example, from which both the parameters' gradients and dx follow.
//
// T: values, P: parameters, W: what is computed and kept in, I: an integer that numbers all vectors.
// E divides positions.
#include "norm.cuh"

// --- forward --------------------------------------------------------------------------------------

template <typename P>
__device__ __forceinline__ channel_affine<P> group_affine(const P* weight, const P* bias,
                                                          ml_index row, int groups, int each,
                                                          int positions) {
  const int channel = int(row % groups) * each;
  return {weight ? weight + channel : weight, bias ? bias + channel : bias, positions};
}

// 256 threads: 256 / L rows of at most L * V * E, each of `each` channels.
template <typename T, typename P, typename W, int E, int V, int L>
__global__ void __launch_bounds__(256)
group_rows(T* y, const T* x, const P* weight, const P* bias, W* means, W* rstds, ml_index rows,
           int n, int groups, int each, int positions, double eps) {
  const ml_index r = ml_index(blockIdx.x) * (256 / L) + threadIdx.x / L;
  norm_held<E, V, L, true>(norm_row<T>(y, nullptr, x, nullptr, r * n),
                           group_affine(weight, bias, r, groups, each, positions), means + r,
                           rstds + r, n, W(eps), r < rows);
}

// A block for each row of at most blockDim * V * E.
template <typename T, typename P, typename W, int E, int V>
__global__ void __launch_bounds__(512)
group_block(T* y, const T* x, const P* weight, const P* bias, W* means, W* rstds, int n,
            int groups, int each, int positions, double eps) {
  const ml_index r = blockIdx.x;
  norm_held<E, V, 0, true>(norm_row<T>(y, nullptr, x, nullptr, r * n),
                           group_affine(weight, bias, r, groups, each, positions), means + r,
                           rstds + r, n, W(eps), true);
}

template <typename T, typename P, typename W, int E, bool KEPT>
__global__ void __launch_bounds__(1024)
group_long(T* y, const T* x, const P* weight, const P* bias, W* means, W* rstds, ml_index n,
           int groups, int each, int positions, double eps) {
  const ml_index r = blockIdx.x;
  norm_streamed<E, true, KEPT>(norm_row<T>(y, nullptr, x, nullptr, r * n),
                               group_affine(weight, bias, r, groups, each, positions), means + r,
                               rstds + r, n, W(eps));
}

// Where rows are few and very long their statistics come from many blocks (batch_norm.cu), and are
// applied by as many.
template <typename T, typename P, typename W, typename I, int E>
__global__ void __launch_bounds__(256)
group_apply(T* y, const T* x, const P* weight, const P* bias, const W* means, const W* rstds,
            I vectors, int channels, int each, int positions) {
  const I first = I(blockIdx.x) * 512 + threadIdx.x;
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const I i = first + u * 256;
    if (i >= vectors) continue;
    const I plane = i * E / positions;
    const int channel = int(plane % channels);
    const ml_index row = plane / each;
    W values[E];
    take<E>(values, x + ml_index(i) * E);
    const W mean = means[row], scale = rstds[row] * (weight ? ml_cast<W>(weight[channel]) : W(1));
    const W shift = bias ? ml_cast<W>(bias[channel]) : W(0);
#pragma unroll
    for (int e = 0; e < E; ++e) values[e] = (values[e] - mean) * scale + shift;
    row_store<1, E>(y + ml_index(i) * E, values, 1, 0, 0);
  }
}

// --- backward -------------------------------------------------------------------------------------
//
// A plane is a channel of an example.  sums[plane][slices] are the pairs (sum of dy * xhat, sum of
// dy) of its slices.  With w the weights, over the n values of a group:
//   dx = rstd * (w * dy - sum(w * dbias) / n - xhat * sum(w * dweight) / n)

// The pairs of `units` slices from `first` on: L lanes for each, `stride` slices at a time.
template <int E, int L, typename T, typename W>
__device__ __forceinline__ void slice_sums(W* sums, const T* dy, const T* x, const W* means,
                                           const W* rstds, ml_index first, ml_index units,
                                           int stride, int each, int positions, int slices) {
  const int length = (positions / E + slices - 1) / slices * E;
  // Whole warps turn, as their lanes exchange values.
  for (ml_index base = threadIdx.x / 32 * (32 / L); base < units; base += stride) {
    const ml_index unit = first + base + ml_lane() / L;
    const bool on = base + ml_lane() / L < units;
    const ml_index plane = unit / slices;
    const int start = int(unit - plane * slices) * length;
    const int end = on ? ml_min(positions, start + length) : 0;
    const W mean = on ? means[plane / each] : W(0), rstd = on ? rstds[plane / each] : W(0);
    ml_pair<W> sum = {W(0), W(0)};
#pragma unroll 2
    for (int p = start + ml_lane() % L * E; p < end; p += L * E) {
      W grads[E], values[E];
      take<E>(grads, dy + plane * positions + p);
      take<E>(values, x + plane * positions + p);
#pragma unroll
      for (int e = 0; e < E; ++e) {
        sum.first += grads[e] * (values[e] - mean);
        sum.second += grads[e];
      }
    }
    sum = ml_warp_sum<L>(sum);
    if (on && ml_lane() % L == 0) {
      sums[unit * 2] = sum.first * rstd;
      sums[unit * 2 + 1] = sum.second;
    }
  }
}

// dx of the vectors [start, end) of a row, by a block.
template <int E, typename T, typename P, typename W>
__device__ __forceinline__ void row_gradient(T* dx, const T* dy, const T* x, const P* weight,
                                             W mean, W rstd, const W* sums, ml_index row,
                                             int groups, int each, int positions, int slices,
                                             ml_index start, ml_index end) {
  __shared__ ml_pair<W> slots[32];
  const int channel = int(row % groups) * each;
  ml_pair<W> total = {W(0), W(0)};
  for (int i = threadIdx.x; i < each * slices; i += blockDim.x) {
    const W w = weight ? ml_cast<W>(weight[channel + i / slices]) : W(1);
    const W* from = sums + (row * each * slices + i) * 2;
    total.first += w * from[0];
    total.second += w * from[1];
  }
  total = ml_block_sum(total, slots);
  const ml_index n = ml_index(each) * positions;
  const W slope = total.first / W(n) * rstd, shift = total.second / W(n);
#pragma unroll 2
  for (ml_index at = start + threadIdx.x * E; at < end; at += blockDim.x * E) {
    W grads[E], values[E];
    take<E>(grads, dy + row * n + at);
    take<E>(values, x + row * n + at);
    const W w = weight ? ml_cast<W>(weight[channel + int(unsigned(at) / unsigned(positions))])
                       : W(1);
#pragma unroll
    for (int e = 0; e < E; ++e)
      grads[e] = rstd * (w * grads[e] - shift - (values[e] - mean) * slope);
    row_store<1, E>(dx + row * n + at, grads, 1, 0, 0);
  }
}

// A block for each row: its second read of dy and x comes from the cache.
template <typename T, typename P, typename W, int E, int L>
__global__ void __launch_bounds__(512, 2)
group_backward(T* dx, const T* dy, const T* x, const P* weight, const W* means, const W* rstds,
               W* sums, int groups, int each, int positions, int slices) {
  const ml_index row = blockIdx.x, units = ml_index(each) * slices;
  slice_sums<E, L>(sums, dy, x, means, rstds, row * units, units, blockDim.x / L, each, positions,
                   slices);
  __syncthreads();
  row_gradient<E>(dx, dy, x, weight, means[row], rstds[row], sums, row, groups, each, positions,
                  slices, 0, ml_index(each) * positions);
}

// The same in two launches, many blocks for a row, where rows are few.
template <typename T, typename W, int E, int L>
__global__ void __launch_bounds__(256)
group_sums(W* sums, const T* dy, const T* x, const W* means, const W* rstds, ml_index units,
           int each, int positions, int slices) {
  const ml_index first = ml_index(blockIdx.x) * (256 / L);
  slice_sums<E, L>(sums, dy, x, means, rstds, first, ml_min(ml_index(256 / L), units - first),
                   256 / L, each, positions, slices);
}

template <typename T, typename P, typename W, int E>
__global__ void __launch_bounds__(512)
group_gradient(T* dx, const T* dy, const T* x, const P* weight, const W* means, const W* rstds,
               const W* sums, int groups, int each, int positions, int slices, int chunks) {
  const ml_index row = blockIdx.x / chunks, chunk = blockIdx.x - row * chunks;
  const ml_index n = ml_index(each) * positions, size = (n / E + chunks - 1) / chunks * E;
  row_gradient<E>(dx, dy, x, weight, means[row], rstds[row], sums, row, groups, each, positions,
                  slices, chunk * size, ml_min(n, (chunk + 1) * size));
}

// The parameters' gradients: the pairs of a channel added over examples and slices, in order.
template <typename P, typename W>
__global__ void __launch_bounds__(256)
group_fold(P* dweight, P* dbias, const W* sums, int batch, int channels, int slices) {
  __shared__ ml_pair<W> fold[8][32];
  const int channel = blockIdx.x * 32 + ml_lane();
  ml_pair<W> sum = {W(0), W(0)};
  if (channel < channels) {
    for (int b = ml_warp(); b < batch; b += 8) {
      const W* from = sums + (ml_index(b) * channels + channel) * slices * 2;
      for (int s = 0; s < slices; ++s)
        sum = ml_both()(sum, ml_pair<W>{from[2 * s], from[2 * s + 1]});
    }
  }
  fold[ml_warp()][ml_lane()] = sum;
  __syncthreads();
  if (ml_warp() != 0 || channel >= channels) return;
#pragma unroll
  for (int w = 1; w < 8; ++w) sum = ml_both()(sum, fold[w][ml_lane()]);
  dweight[channel] = ml_cast<P>(sum.first);
  if (dbias) dbias[channel] = ml_cast<P>(sum.second);
}

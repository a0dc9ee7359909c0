// Batch norm in training: statistics over all values of a channel, in slices that blocks take, and
// their application.  x is (batch, channels, positions).
//
// Mean and squared distances are merged as Chan's: no difference of large sums.  Slices depend on the
// shape only and are merged in order: results repeat bit by bit.
//
// T: values, P: parameters, W: what is computed in, I: an integer that numbers all vectors.
#include "norm.cuh"

// How many values, their mean, and the sum of their squared distances from it.
template <typename W>
struct moments {
  W count, mean, squares;
};
template <typename W>
__device__ __forceinline__ moments<W> ml_shfl_xor(moments<W> x, int mask) {
  return {ml_shfl_xor(x.count, mask), ml_shfl_xor(x.mean, mask), ml_shfl_xor(x.squares, mask)};
}
struct merge_moments {  // symmetric, so that both lanes of a pair get the same
  template <typename W>
  __device__ __forceinline__ moments<W> operator()(moments<W> a, moments<W> b) const {
    const W count = a.count + b.count;
    if (count == W(0)) return a;
    const W share = W(1) / count, apart = b.mean - a.mean;
    return {count, (a.count * a.mean + b.count * b.mean) * share,
            a.squares + b.squares + apart * apart * (a.count * b.count * share)};
  }
};

// A thread's walk over the values of one channel, 256 * E at a time, without divisions.
struct channel_walk {
  ml_index plane, planes, skip;  // of the channel in this example; how far those of others are
  int position, positions, step;

  __device__ __forceinline__ channel_walk(ml_index first, int channel, int channels, int positions,
                                          int stride)
      : positions(positions) {
    const ml_index example = first / positions;
    planes = ml_index(channels) * positions;
    plane = example * planes + ml_index(channel) * positions;
    position = int(first - example * positions);
    skip = stride / positions * planes;
    step = stride % positions;
  }
  __device__ __forceinline__ ml_index at() const { return plane + position; }
  __device__ __forceinline__ void next() {
    plane += skip;
    position += step;
    if (position >= positions) {
      position -= positions;
      plane += planes;
    }
  }
};

// part[channel][slices] of moments; a block for each.  `values` of a channel, a multiple of E.
template <typename T, typename W, int E>
__global__ void __launch_bounds__(256)
batch_moments(W* part, const T* x, ml_index values, int channels, int positions, int slices) {
  __shared__ moments<W> slots[32];
  const int channel = blockIdx.x / slices, slice = blockIdx.x - channel * slices;
  const ml_index each = (values / E + slices - 1) / slices * E;
  const ml_index start = slice * each + threadIdx.x * E;
  const ml_index end = ml_min(values, (slice + 1) * each);
  channel_walk walk(start, channel, channels, positions, 256 * E);
  moments<W> sum = {W(0), W(0), W(0)};
  const int U = 4;  // vectors under way, whose moments are taken first
  for (ml_index i = start; i < end; i += U * 256 * E) {
    W chunk[U][E], total = W(0), squares = W(0);
    int count = 0;
#pragma unroll
    for (int u = 0; u < U; ++u, walk.next()) {
      if (i + u * 256 * E < end) {
        take<E>(chunk[u], x + walk.at());
        count += E;
      } else {
#pragma unroll
        for (int e = 0; e < E; ++e) chunk[u][e] = W(0);
      }
    }
#pragma unroll
    for (int u = 0; u < U; ++u)
#pragma unroll
      for (int e = 0; e < E; ++e) total += chunk[u][e];
    const W mean = total / W(count);
#pragma unroll
    for (int u = 0; u < U; ++u) {
      if (u * E >= count) continue;
#pragma unroll
      for (int e = 0; e < E; ++e) squares += (chunk[u][e] - mean) * (chunk[u][e] - mean);
    }
    sum = merge_moments()(sum, moments<W>{W(count), mean, squares});
  }
  sum = ml_block_reduce(sum, slots, moments<W>{W(0), W(0), W(0)}, merge_moments());
  if (threadIdx.x < 3)
    part[blockIdx.x * ml_index(3) + threadIdx.x] =
        threadIdx.x == 0 ? sum.count : threadIdx.x == 1 ? sum.mean : sum.squares;
}

// The same for few positions: each of the `inner` = channels * positions columns by itself, 32 * E
// of them a block, whose 8 warps take examples in turn.  part[inner][slices].
template <typename T, typename W, int E>
__global__ void __launch_bounds__(256)
batch_moments_columns(W* part, const T* x, ml_index batch, ml_index inner, int slices) {
  __shared__ moments<W> fold[8][E][apart<E, W>(32)];
  const ml_index tile = blockIdx.x / slices;
  const int slice = blockIdx.x - tile * slices;
  const ml_index column = (tile * 32 + ml_lane()) * E;
  moments<W> sum[E];
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = {W(0), W(0), W(0)};
  if (column < inner) {
    int count = 0;
#pragma unroll 4
    for (ml_index b = slice * 8 + ml_warp(); b < batch; b += slices * 8) {
      W values[E];
      take<E>(values, x + b * inner + column);
      const W share = W(1) / W(++count);
#pragma unroll
      for (int e = 0; e < E; ++e) {
        const W apart = values[e] - sum[e].mean;
        sum[e].mean += apart * share;
        sum[e].squares += apart * (values[e] - sum[e].mean);
      }
    }
#pragma unroll
    for (int e = 0; e < E; ++e) sum[e].count = W(count);
  }
#pragma unroll
  for (int e = 0; e < E; ++e) fold[ml_warp()][e][ml_lane()] = sum[e];
  __syncthreads();
  for (int t = threadIdx.x; t < 32 * E; t += 256) {
    if (tile * 32 * E + t >= inner) continue;
    moments<W> all = fold[0][t % E][t / E];
#pragma unroll
    for (int w = 1; w < 8; ++w) all = merge_moments()(all, fold[w][t % E][t / E]);
    W* to = part + ((tile * 32 * E + t) * slices + slice) * 3;
    to[0] = all.count;
    to[1] = all.mean;
    to[2] = all.squares;
  }
}

// The parts of a channel merged, by a warp; `variances` and `rstds` may be null.
template <typename W>
__global__ void __launch_bounds__(256)
batch_finish(W* means, W* variances, W* rstds, const W* part, int channels, int parts, double eps) {
  const int channel = blockIdx.x * 8 + ml_warp();
  if (channel >= channels) return;
  moments<W> sum = {W(0), W(0), W(0)};
  for (int i = ml_lane(); i < parts; i += 32) {
    const W* from = part + (ml_index(channel) * parts + i) * 3;
    sum = merge_moments()(sum, moments<W>{from[0], from[1], from[2]});
  }
  sum = ml_warp_reduce(sum, merge_moments());
  if (ml_lane() != 0) return;
  const W variance = sum.squares / sum.count;
  means[channel] = sum.mean;
  if (variances) variances[channel] = variance;
  if (rstds) rstds[channel] = W(1) / sqrt(variance + W(eps));
}

// y = (x - mean) / sqrt(var + eps) * weight + bias.  E divides positions.
template <typename T, typename P, typename W, typename I, int E>
__global__ void __launch_bounds__(256)
batch_apply(T* y, const T* x, const W* means, const W* variances, const P* weight, const P* bias,
            I vectors, int channels, int positions, double eps) {
  const I first = I(blockIdx.x) * 512 + threadIdx.x;
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const I i = first + u * 256;
    if (i >= vectors) continue;
    const int channel = int(i * E / positions % channels);
    W values[E];
    take<E>(values, x + ml_index(i) * E);
    W scale = W(1) / sqrt(variances[channel] + W(eps));
    if (weight) scale *= ml_cast<W>(weight[channel]);
    const W mean = means[channel], shift = bias ? ml_cast<W>(bias[channel]) : W(0);
#pragma unroll
    for (int e = 0; e < E; ++e) values[e] = (values[e] - mean) * scale + shift;
    row_store<1, E>(y + ml_index(i) * E, values, 1, 0, 0);
  }
}

// --- backward -------------------------------------------------------------------------------------
//
// With xhat = (x - mean) * rstd, and sums over the M values of a channel:
//   dweight = sum(dy * xhat), dbias = sum(dy), dx = weight * rstd * (dy - dbias / M - xhat * dweight / M)

// part[channel][slices] of the pairs (sum of dy * xhat, sum of dy).
template <typename T, typename W, int E>
__global__ void __launch_bounds__(256)
batch_sums(W* part, const T* dy, const T* x, const W* means, const W* variances, ml_index values,
           int channels, int positions, int slices, double eps) {
  __shared__ ml_pair<W> slots[32];
  const int channel = blockIdx.x / slices, slice = blockIdx.x - channel * slices;
  const ml_index each = (values / E + slices - 1) / slices * E;
  const ml_index start = slice * each + threadIdx.x * E;
  const ml_index end = ml_min(values, (slice + 1) * each);
  const W mean = means[channel], rstd = W(1) / sqrt(variances[channel] + W(eps));
  channel_walk walk(start, channel, channels, positions, 256 * E);
  ml_pair<W> sum = {W(0), W(0)};
#pragma unroll 4
  for (ml_index i = start; i < end; i += 256 * E, walk.next()) {
    W grads[E], values_here[E];
    take<E>(grads, dy + walk.at());
    take<E>(values_here, x + walk.at());
#pragma unroll
    for (int e = 0; e < E; ++e) {
      sum.first += grads[e] * (values_here[e] - mean);
      sum.second += grads[e];
    }
  }
  sum = ml_block_sum(sum, slots);
  if (threadIdx.x == 0) part[blockIdx.x * ml_index(2)] = sum.first * rstd;
  if (threadIdx.x == 1) part[blockIdx.x * ml_index(2) + 1] = sum.second;
}

template <typename T, typename W, int E>
__global__ void __launch_bounds__(256, 3)
batch_sums_columns(W* part, const T* dy, const T* x, const W* means, const W* variances,
                   ml_index batch, ml_index inner, int positions, int slices, double eps) {
  __shared__ ml_pair<W> fold[8][E][apart<E, ml_pair<W>>(32)];
  const ml_index tile = blockIdx.x / slices;
  const int slice = blockIdx.x - tile * slices;
  const ml_index column = (tile * 32 + ml_lane()) * E;
  ml_pair<W> sum[E];
#pragma unroll
  for (int e = 0; e < E; ++e) sum[e] = {W(0), W(0)};
  if (column < inner) {
    W mean[E];
#pragma unroll
    for (int e = 0; e < E; ++e) mean[e] = means[(column + e) / positions];
#pragma unroll 4
    for (ml_index b = slice * 8 + ml_warp(); b < batch; b += slices * 8) {
      W grads[E], values[E];
      take<E>(grads, dy + b * inner + column);
      take<E>(values, x + b * inner + column);
#pragma unroll
      for (int e = 0; e < E; ++e) {
        sum[e].first += grads[e] * (values[e] - mean[e]);
        sum[e].second += grads[e];
      }
    }
  }
#pragma unroll
  for (int e = 0; e < E; ++e) fold[ml_warp()][e][ml_lane()] = sum[e];
  __syncthreads();
  for (int t = threadIdx.x; t < 32 * E; t += 256) {
    const ml_index place = tile * 32 * E + t;
    if (place >= inner) continue;
    ml_pair<W> all = fold[0][t % E][t / E];
#pragma unroll
    for (int w = 1; w < 8; ++w) all = ml_both()(all, fold[w][t % E][t / E]);
    const W rstd = W(1) / sqrt(variances[place / positions] + W(eps));
    part[(place * slices + slice) * 2] = all.first * rstd;
    part[(place * slices + slice) * 2 + 1] = all.second;
  }
}

// sums[2][channels] of those parts, and the same as the parameters' gradients, which may be null.
template <typename P, typename W>
__global__ void __launch_bounds__(256)
batch_gradients(P* dweight, P* dbias, W* sums, const W* part, int channels, int parts) {
  const int channel = blockIdx.x * 8 + ml_warp();
  if (channel >= channels) return;
  ml_pair<W> sum = {W(0), W(0)};
  for (int i = ml_lane(); i < parts; i += 32) {
    const W* from = part + (ml_index(channel) * parts + i) * 2;
    sum = ml_both()(sum, ml_pair<W>{from[0], from[1]});
  }
  sum = ml_warp_sum(sum);
  if (ml_lane() != 0) return;
  sums[channel] = sum.first;
  sums[channels + channel] = sum.second;
  if (dweight) dweight[channel] = ml_cast<P>(sum.first);
  if (dbias) dbias[channel] = ml_cast<P>(sum.second);
}

template <typename T, typename P, typename W, typename I, int E>
__global__ void __launch_bounds__(256)
batch_backward(T* dx, const T* dy, const T* x, const W* means, const W* variances, const P* weight,
               const W* sums, I vectors, int channels, int positions, double values, double eps) {
  const I first = I(blockIdx.x) * 512 + threadIdx.x;
  const W share = W(1) / W(values);
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const I i = first + u * 256;
    if (i >= vectors) continue;
    const int channel = int(i * E / positions % channels);
    W grads[E], hats[E];
    take<E>(grads, dy + ml_index(i) * E);
    take<E>(hats, x + ml_index(i) * E);
    const W mean = means[channel], rstd = W(1) / sqrt(variances[channel] + W(eps));
    const W slope = sums[channel] * share * rstd, shift = sums[channels + channel] * share;
    const W scale = weight ? rstd * ml_cast<W>(weight[channel]) : rstd;
#pragma unroll
    for (int e = 0; e < E; ++e)
      grads[e] = scale * (grads[e] - shift - (hats[e] - mean) * slope);
    row_store<1, E>(dx + ml_index(i) * E, grads, 1, 0, 0);
  }
}

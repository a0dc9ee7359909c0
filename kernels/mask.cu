// Where elements are not zero: counted by tiles, then their positions written in order.
#include "common.cuh"
#include "warp.cuh"

namespace {
enum { kSteps = 16, kTile = 256 * kSteps };

// Bit i: whether the lane's i-th element, `base` + 32 i + lane, is not zero.
template <typename T>
__device__ __forceinline__ unsigned flags_of(const T* x, ml_index base, ml_index count) {
  unsigned flags = 0;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const ml_index at = base + 32 * i + ml_lane();
    if (at < count && ml_cast<bool>(ml_load<1>(x + at).at[0])) flags |= 1u << i;
  }
  return flags;
}

}  // namespace

template <typename T>
__global__ void __launch_bounds__(256)
count_nonzero(const T* __restrict__ x, ml_index* __restrict__ counts, ml_index count) {
  __shared__ int slots[32];
  const ml_index base = ml_index(blockIdx.x) * kTile + ml_warp() * 32 * kSteps;
  const int found = ml_block_sum(__popc(flags_of(x, base, count)), slots);
  if (threadIdx.x == 0) counts[blockIdx.x] = found;
}

// One block: counts become the sums of those before; behind the last stands the sum of all.
__global__ void __launch_bounds__(256) scan_counts(ml_index* counts, int tiles) {
  __shared__ ml_index sums[8], carried;
  ml_index carry = 0;
  for (int first = 0; first <= tiles; first += 256) {
    const int tile = first + threadIdx.x;
    const ml_index value = tile < tiles ? counts[tile] : 0;
    ml_index sum = value;
#pragma unroll
    for (int step = 1; step < 32; step <<= 1) {
      const ml_index other = __shfl_up_sync(ml_all_lanes, sum, step);
      if (ml_lane() >= step) sum += other;
    }
    if (ml_lane() == 31) sums[ml_warp()] = sum;
    __syncthreads();
    for (int w = 0; w < ml_warp(); ++w) sum += sums[w];
    if (tile <= tiles) counts[tile] = carry + sum - value;
    if (threadIdx.x == 255) carried = carry + sum;
    __syncthreads();
    carry = carried;
    __syncthreads();
  }
}

template <typename T>
__global__ void __launch_bounds__(256, 4)
write_nonzero(const T* __restrict__ x, const ml_index* __restrict__ before,
              ml_index* __restrict__ places, ml_index count) {
  __shared__ int found[8];
  const ml_index base = ml_index(blockIdx.x) * kTile + ml_warp() * 32 * kSteps;
  const unsigned flags = flags_of(x, base, count);
  const int mine = ml_warp_sum(__popc(flags));
  if (ml_lane() == 0) found[ml_warp()] = mine;
  __syncthreads();
  ml_index to = before[blockIdx.x];
  for (int w = 0; w < ml_warp(); ++w) to += found[w];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const unsigned row = __ballot_sync(ml_all_lanes, flags >> i & 1);
    if (flags >> i & 1)
      places[to + __popc(row & ((1u << ml_lane()) - 1))] = base + 32 * i + ml_lane();
    to += __popc(row);
  }
}

struct ml_sizes {
  ml_index size[32];
};

// Flat places as coordinates, at `place_step` for each place and `dim_step` for each dimension.
__global__ void __launch_bounds__(256)
coordinates(const ml_index* __restrict__ places, ml_index* __restrict__ out, ml_index count,
            ml_sizes sizes, int dims, ml_index place_step, ml_index dim_step) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  ml_index rest = places[i];
  for (int d = dims - 1; d >= 0; --d) {
    const ml_index next = rest / sizes.size[d];
    out[i * place_step + d * dim_step] = rest - next * sizes.size[d];
    rest = next;
  }
}

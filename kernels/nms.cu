// Non-maximum suppression of boxes in the order of their scores: which of the later boxes each one
// overlaps, as bits, 64 to a word, and then who stays.
#include "common.cuh"

namespace {

// A product that is not contracted: the CPU decides by the same roundings.
template <typename W>
__device__ __forceinline__ W nms_product(W a, W b) {
  if constexpr (sizeof(W) == 8) return __dmul_rn(a, b);
  else return __fmul_rn(a, b);
}

template <typename W>
__device__ __forceinline__ W nms_area(const W* box) {
  return nms_product(box[2] - box[0], box[3] - box[1]);
}

template <typename W>
__device__ __forceinline__ bool nms_overlap(const W* a, const W* b, W threshold) {
  const W width = ml_max(W(0), ml_min(a[2], b[2]) - ml_max(a[0], b[0]));
  const W height = ml_max(W(0), ml_min(a[3], b[3]) - ml_max(a[1], b[1]));
  const W shared = nms_product(width, height);
  return shared / (nms_area(a) + nms_area(b) - shared) > threshold;
}

}  // namespace

// mask[row - first][word]: bit j says that box 64 word + j comes after the row's and overlaps it by
// more than the threshold, and is of its class where there are classes.  A block has 64 rows and
// one word; words before the rows' own are left as they are.
template <typename T, typename W>
__global__ void __launch_bounds__(64)
nms_mask(const T* __restrict__ boxes, const ml_index* __restrict__ classes,
         const unsigned long long* __restrict__ removed, unsigned long long* __restrict__ mask,
         int count, int words, int first, W threshold) {
  const int word = blockIdx.x, own = first / 64 + blockIdx.y, row = own * 64 + threadIdx.x;
  if (word < own) return;
  __shared__ W others[64][4];
  __shared__ ml_index kinds[64];
  const int mine = word * 64 + threadIdx.x;
  if (mine < count) {
#pragma unroll
    for (int side = 0; side < 4; ++side)
      others[threadIdx.x][side] = ml_cast<W>(boxes[4ll * mine + side]);
    kinds[threadIdx.x] = classes ? classes[mine] : 0;
  }
  __syncthreads();
  if (row >= count) return;
  unsigned long long bits = 0;
  if (!(removed[own] >> threadIdx.x & 1)) {
    W box[4];
#pragma unroll
    for (int side = 0; side < 4; ++side) box[side] = ml_cast<W>(boxes[4ll * row + side]);
    const ml_index kind = classes ? classes[row] : 0;
    const int stop = min(64, count - word * 64);
    for (int j = word == own ? threadIdx.x + 1 : 0; j < stop; ++j)
      if (kinds[j] == kind && nms_overlap(box, others[j], threshold)) bits |= 1ull << j;
  }
  mask[ml_index(row - first) * words + word] = bits;
}

// One block goes through `rows` boxes from `first` on, in order: a box that is not removed stays
// and removes those of its bits.  `removed` has a bit for each box, also of the boxes before.
__global__ void __launch_bounds__(512)
nms_keep(const unsigned long long* __restrict__ mask, unsigned long long* removed,
         bool* __restrict__ keep, int count, int words, int first, int rows) {
  __shared__ unsigned long long diagonal[64], staying;
  for (int start = 0; start < rows; start += 64) {
    const int own = (first + start) / 64, boxes = min(64, count - own * 64);
    const unsigned long long* const lines = mask + ml_index(start) * words;
    if (threadIdx.x < boxes) diagonal[threadIdx.x] = lines[ml_index(threadIdx.x) * words + own];
    __syncthreads();
    if (threadIdx.x == 0) {
      unsigned long long gone = removed[own], kept = 0;
      for (int i = 0; i < boxes; ++i)
        if (!(gone >> i & 1)) {
          kept |= 1ull << i;
          gone |= diagonal[i];
        }
      staying = kept;
    }
    __syncthreads();
    if (threadIdx.x < boxes) keep[own * 64 + threadIdx.x] = staying >> threadIdx.x & 1;
    for (int word = threadIdx.x; word < words; word += blockDim.x) {
      if (word <= own) continue;
      unsigned long long gone = removed[word];
      for (unsigned long long left = staying; left; left &= left - 1)
        gone |= lines[ml_index(__ffsll(left) - 1) * words + word];
      removed[word] = gone;
    }
    __syncthreads();
  }
}

// Connected components of images: union-find over the pixels of each (Playne and Hawick 2018),
// where the smallest place of a component, its first pixel, is its root.  What comes out does not
// depend on the order of the threads, as a minimum and a sum of whole numbers do not.
//
// A warp has 32 pixels of a row, its segment.
#include "warp.cuh"

namespace {

struct component_pixel {
  ml_index row, at;  // of all images; its place among all pixels
  int x, y;          // within its image
  bool inside;
};

__device__ __forceinline__ component_pixel component_here(ml_index rows, int height, int width) {
  const int segments = (width + 31) / 32;
  const ml_index segment = ml_index(blockIdx.x) * (blockDim.x / 32) + ml_warp();
  component_pixel pixel;
  pixel.row = segment / segments;
  pixel.x = int(segment - pixel.row * segments) * 32 + ml_lane();
  pixel.y = int(pixel.row % height);
  pixel.at = pixel.row * width + pixel.x;
  pixel.inside = pixel.row < rows && pixel.x < width;
  return pixel;
}

// What other threads may be changing is read past the first cache.
__device__ __forceinline__ int component_load(const int* p) {
  int value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}

__device__ __forceinline__ int component_root(const int* parents, int at) {
  for (int up; (up = component_load(parents + at)) != at;) at = up;
  return at;
}

__device__ __forceinline__ void component_unite(int* parents, int a, int b) {
  while (true) {
    a = component_root(parents, a);
    b = component_root(parents, b);
    if (a == b) return;
    const int high = max(a, b), low = min(a, b), before = atomicMin(parents + high, low);
    if (before == high) return;  // it still was a root
    a = before;
    b = low;
  }
}

}  // namespace

// Each pixel that is not zero points to the first one of its run in the segment, others to -1.
template <typename T>
__global__ void __launch_bounds__(256)
components_begin(const T* __restrict__ x, int* __restrict__ parents, ml_index rows, int height,
                 int width) {
  const component_pixel pixel = component_here(rows, height, width);
  const bool set = pixel.inside && ml_cast<bool>(x[pixel.at]);
  const unsigned row = __ballot_sync(ml_all_lanes, set);
  if (!pixel.inside) return;
  const unsigned clear = ~row & ((1u << ml_lane()) - 1);
  const int first = pixel.x - ml_lane() + 32 - __clz(clear);
  parents[pixel.at] = set ? pixel.y * width + first : -1;
}

// Unites what touches: the segments of a row, and each row with the one above.  Where the pixel to
// the left sees the same two runs, it unites them.
__global__ void __launch_bounds__(256)
components_merge(int* parents, ml_index rows, int height, int width, bool diagonal) {
  const component_pixel pixel = component_here(rows, height, width);
  if (!pixel.inside) return;
  int* const image = parents + (pixel.row - pixel.y) * width;
  const int at = pixel.y * width + pixel.x;
  auto set = [&](int place) { return component_load(image + place) >= 0; };
  if (!set(at)) return;
  const bool left = pixel.x > 0, right = pixel.x + 1 < width;
  const bool west = left && set(at - 1);
  if (west && ml_lane() == 0) component_unite(image, at, at - 1);
  if (pixel.y == 0) return;
  const int above = at - width;
  const bool northwest = left && set(above - 1);
  if (set(above)) {
    if (!(west && northwest)) component_unite(image, at, above);
  } else if (diagonal) {
    if (northwest && !west) component_unite(image, at, above - 1);
    if (right && set(above + 1) && !set(at + 1)) component_unite(image, at, above + 1);
  }
}

// Whether each pixel is a root: summed up, the numbers of the components.
__global__ void __launch_bounds__(256)
components_roots(const int* __restrict__ parents, ml_index* __restrict__ roots, ml_index rows,
                 int height, int width) {
  const component_pixel pixel = component_here(rows, height, width);
  if (pixel.inside) roots[pixel.at] = parents[pixel.at] == pixel.y * width + pixel.x;
}

__global__ void __launch_bounds__(256)
components_number(const int* __restrict__ parents, const ml_index* __restrict__ numbers,
                  ml_index* __restrict__ labels, ml_index rows, int height, int width) {
  const component_pixel pixel = component_here(rows, height, width);
  if (!pixel.inside) return;
  int at = parents[pixel.at];
  const ml_index image = (pixel.row - pixel.y) * width;
  if (at >= 0)
    for (int up; (up = parents[image + at]) != at;) at = up;
  labels[pixel.at] = at < 0 ? 0 : numbers[image + at];
}

// Of each label of each image: pixels, first and last column and row, and sums of both.  A run of a
// segment is counted by its first lane.
__global__ void __launch_bounds__(256)
components_measure(const ml_index* __restrict__ labels, unsigned long long* __restrict__ areas,
                   ml_index* __restrict__ low, ml_index* __restrict__ high,
                   unsigned long long* __restrict__ sums, ml_index rows, int height, int width,
                   ml_index kinds) {
  const component_pixel pixel = component_here(rows, height, width);
  const ml_index label = pixel.inside ? labels[pixel.at] : -1;
  const ml_index before = __shfl_up_sync(ml_all_lanes, label, 1);
  const bool head = ml_lane() == 0 || before != label;
  const unsigned heads = __ballot_sync(ml_all_lanes, head);
  if (!pixel.inside || !head) return;
  const unsigned later = ml_lane() == 31 ? 0 : heads >> (ml_lane() + 1);
  const int length = later ? __ffs(later) : 32 - ml_lane();
  const ml_index slot = pixel.row / height * kinds + label;
  atomicAdd(areas + slot, (unsigned long long)length);
  atomicMin(low + 2 * slot, ml_index(pixel.x));
  atomicMin(low + 2 * slot + 1, ml_index(pixel.y));
  atomicMax(high + 2 * slot, ml_index(pixel.x + length - 1));
  atomicMax(high + 2 * slot + 1, ml_index(pixel.y));
  const ml_index columns = ml_index(length) * (2 * pixel.x + length - 1) / 2;
  atomicAdd(sums + 2 * slot, (unsigned long long)columns);
  atomicAdd(sums + 2 * slot + 1, (unsigned long long)(ml_index(length) * pixel.y));
}

// Regions of interest of feature maps, as grids of equal bins: each bin is the mean of samples that
// are interpolated in it (roi_align, He et al. 2017), or the largest element (roi_pool, Girshick
// 2015).  A region is (image, x1, y1, x2, y2).
//
// The gradients gather: a block has a tile of an image and some channels, and goes through the
// regions that touch it in order.  No atomics, so that they repeat bit by bit.
#include "fault.cuh"
#include "warp.cuh"

struct roi_map {
  int images, channels, height, width;
  int regions, rows, columns;  // of bins in a region
  int ratio;                   // samples of a bin along an axis; 0: as many as it has elements
  int aligned;                 // whether elements have their centres, not their corners, at k + 1/2
  double scale;                // of the feature map against the coordinates
};

namespace {

enum { kTile = 16, kChannels = 8, kMostSamples = 1024, kFields = 5 };

// One axis of a region, in samples.
template <typename W>
struct roi_axis {
  W start, bin, step, share;  // of the first bin; of a bin; of a sample; what a sample counts
  int samples, size;          // of a bin; of the map

  __device__ __forceinline__ roi_axis(const W* fields, int size) : size(size) {
    start = fields[0];
    bin = fields[1];
    step = fields[2];
    share = fields[3];
    samples = int(fields[4]);
  }

  static __device__ __forceinline__ void measure(W low, W high, int bins, const roi_map& map,
                                                 W* fields) {
    const W offset = map.aligned ? W(0.5) : W(0), start = low * W(map.scale) - offset;
    W extent = high * W(map.scale) - offset - start;
    if (!map.aligned) extent = ml_max(extent, W(1));
    const W bin = extent / W(bins), wanted = ceil(bin);
    const W samples = map.ratio ? W(map.ratio)
                      : wanted >= W(1) ? ml_min(wanted, W(kMostSamples)) : W(0);
    fields[0] = start;
    fields[1] = bin;
    fields[2] = bin / ml_max(samples, W(1));
    fields[3] = samples > W(0) ? W(1) / samples : W(0);
    fields[4] = samples;
  }

  // Where a sample lies, moved to an edge's centre within one element of it; false further out.
  __device__ __forceinline__ bool place(int number, int sample, W& at) const {
    at = start + W(number) * bin + (W(sample) + W(0.5)) * step;
    if (!(at >= W(-1) && at <= W(size))) return false;
    at = ml_min(ml_max(at, W(0)), W(size - 1));
    return true;
  }

  // What an element counts in a bin.
  __device__ __forceinline__ W weight(int number, int element) const {
    W sum = W(0), at;
    for (int sample = 0; sample < samples; ++sample)
      if (place(number, sample, at)) sum += ml_max(W(0), W(1) - fabs(at - W(element)));
    return sum * share;
  }

  // Whether any of some elements may count.
  __device__ __forceinline__ bool touches(int first, int stop, int bins) const {
    const W end = start + bin * W(bins);
    return ml_max(start, end) >= W(first - 1) && ml_min(start, end) <= W(stop) && samples > 0;
  }
};

// One axis of a region, in elements: bin `number` has those from `first` up to `stop`.
template <typename W>
struct roi_range {
  W start, bin;
  int size;

  __device__ __forceinline__ roi_range(const W* fields, int size) : size(size) {
    start = fields[0];
    bin = fields[1];
  }

  static __device__ __forceinline__ void measure(W low, W high, int bins, const roi_map& map,
                                                 W* fields) {
    const W start = round(low * W(map.scale)), end = round(high * W(map.scale));
    fields[0] = start;
    fields[1] = ml_max(end - start + W(1), W(1)) / W(bins);
  }

  __device__ __forceinline__ int clipped(W at) const {
    return int(ml_min(ml_max(at + start, W(0)), W(size)));
  }
  __device__ __forceinline__ int first(int number) const { return clipped(floor(W(number) * bin)); }
  __device__ __forceinline__ int stop(int number) const {
    return clipped(ceil(W(number + 1) * bin));
  }
  __device__ __forceinline__ W weight(int number, int element) const {
    return element >= first(number) && element < stop(number) ? W(1) : W(0);
  }
  __device__ __forceinline__ bool touches(int from, int to, int bins) const {
    return first(0) < to && stop(bins - 1) > from;
  }
};

// One axis of a region in either pooling.
template <typename W, bool PLACES> struct roi_kind { typedef roi_axis<W> type; };
template <typename W> struct roi_kind<W, true> { typedef roi_range<W> type; };

struct roi_output {
  int region, channel, row, column;
};

__device__ __forceinline__ roi_output roi_here(const roi_map& map, ml_index i) {
  roi_output here;
  ml_index rest = i / map.columns;
  here.column = int(i - rest * map.columns);
  const ml_index line = rest / map.rows;
  here.row = int(rest - line * map.rows);
  here.region = int(line / map.channels);
  here.channel = int(line - ml_index(here.region) * map.channels);
  return here;
}

// A region's image; -1, reported, where there is none.
template <typename W>
__device__ __forceinline__ int roi_image(const W* region, const roi_map& map, ml_fault* fault,
                                         int site) {
  const int image = int(region[0]);
  if (image >= 0 && image < map.images) return image;
  ml_report(fault, site, image, map.images);
  return -1;
}

}  // namespace

// Both axes of each region, y then x: [region][2][fields].  So nothing is divided where it is used.
template <typename W, bool PLACES>
__global__ void __launch_bounds__(256)
roi_axes(const W* __restrict__ regions, W* __restrict__ axes, roi_map map) {
  const int i = blockIdx.x * 256 + threadIdx.x, region = i / 2, along = i % 2;
  if (region >= map.regions) return;
  const W* const given = regions + 5ll * region + 2 - along;
  roi_kind<W, PLACES>::type::measure(given[0], given[2], along ? map.columns : map.rows, map,
                                     axes + ml_index(kFields) * i);
}

// y[region][channel][row][column]
template <typename T, typename W>
__global__ void __launch_bounds__(256)
roi_align(const T* __restrict__ x, const W* __restrict__ regions, const W* __restrict__ axes,
          T* __restrict__ y, ml_index count, roi_map map, ml_fault* fault, int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  const roi_output here = roi_here(map, i);
  const int image = roi_image(regions + 5ll * here.region, map, fault, site);
  const W* const fields = axes + 2ll * kFields * here.region;
  W sum = W(0);
  if (image >= 0) {
    const roi_axis<W> down(fields, map.height), along(fields + kFields, map.width);
    const T* const plane =
        x + (ml_index(image) * map.channels + here.channel) * map.height * map.width;
    for (int j = 0; j < down.samples; ++j) {
      W at_y, at_x, part = W(0);
      if (!down.place(here.row, j, at_y)) continue;
      const int top = min(int(at_y), map.height - 1), bottom = min(top + 1, map.height - 1);
      const T* const upper = plane + ml_index(top) * map.width;
      const T* const lower = plane + ml_index(bottom) * map.width;
      const W below = at_y - W(top), above = W(1) - below;
      for (int k = 0; k < along.samples; ++k) {
        if (!along.place(here.column, k, at_x)) continue;
        const int left = min(int(at_x), map.width - 1), right = min(left + 1, map.width - 1);
        const W after = at_x - W(left), before = W(1) - after;
        part += above * (before * ml_cast<W>(upper[left]) + after * ml_cast<W>(upper[right])) +
                below * (before * ml_cast<W>(lower[left]) + after * ml_cast<W>(lower[right]));
      }
      sum += part;
    }
    sum *= down.share * along.share;
  }
  y[i] = ml_cast<T>(sum);
}

// The largest element of each bin and its place in the plane; 0 and -1 where there is none.
template <typename T, typename W>
__global__ void __launch_bounds__(256)
roi_pool(const T* __restrict__ x, const W* __restrict__ regions, const W* __restrict__ axes,
         T* __restrict__ y, int* __restrict__ places, ml_index count, roi_map map, ml_fault* fault,
         int site) {
  const ml_index i = ml_index(blockIdx.x) * 256 + threadIdx.x;
  if (i >= count) return;
  const roi_output here = roi_here(map, i);
  const int image = roi_image(regions + 5ll * here.region, map, fault, site);
  const W* const fields = axes + 2ll * kFields * here.region;
  W best = W(0);
  int place = -1;
  if (image >= 0) {
    const roi_range<W> down(fields, map.height), along(fields + kFields, map.width);
    const T* const plane =
        x + (ml_index(image) * map.channels + here.channel) * map.height * map.width;
    const int stop_y = down.stop(here.row), stop_x = along.stop(here.column);
    for (int at_y = down.first(here.row); at_y < stop_y; ++at_y)
      for (int at_x = along.first(here.column); at_x < stop_x; ++at_x) {
        const int at = at_y * map.width + at_x;
        const W value = ml_cast<W>(plane[at]);
        if (place < 0 || value > best || (value != value && best == best)) {
          best = value;
          place = at;
        }
      }
  }
  y[i] = ml_cast<T>(best);
  places[i] = place;
}

// The gradient of x: each element of a tile adds up what the bins that it counts in have, of
// roi_align (PLACES false) or of roi_pool, whose bins chose `places`.  Shared memory holds what
// each row and each column of the tile counts in each bin's.
template <typename T, typename W, bool PLACES>
__global__ void __launch_bounds__(256)
roi_gradient(const T* __restrict__ dy, const W* __restrict__ regions,
             const W* __restrict__ axes, const int* __restrict__ places, T* __restrict__ dx,
             roi_map map) {
  typedef typename roi_kind<W, PLACES>::type kind;
  extern __shared__ __align__(16) unsigned char room[];
  W* const row_weights = reinterpret_cast<W*>(room);
  W* const column_weights = row_weights + map.rows * kTile;
  __shared__ int chosen[256], counts[8];
  const int wide = (map.width + kTile - 1) / kTile, high = (map.height + kTile - 1) / kTile;
  const int line = blockIdx.x / wide, left = (blockIdx.x - line * wide) * kTile;
  const int image = line / high, top = (line - image * high) * kTile;
  const int first = blockIdx.y * kChannels;
  const int channels = min(int(kChannels), map.channels - first);
  const int tile_y = threadIdx.x / kTile, tile_x = threadIdx.x % kTile;
  const int own_y = top + tile_y, own_x = left + tile_x, own = own_y * map.width + own_x;
  W sums[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) sums[c] = W(0);
  auto axis = [&](int region, bool along) {
    return kind(axes + (2ll * region + along) * kFields, along ? map.width : map.height);
  };
  for (int base = 0; base < map.regions; base += 256) {
    const int mine = base + threadIdx.x;
    const bool touches = mine < map.regions && int(regions[5ll * mine]) == image &&
                         axis(mine, false).touches(top, top + kTile, map.rows) &&
                         axis(mine, true).touches(left, left + kTile, map.columns);
    const unsigned votes = __ballot_sync(ml_all_lanes, touches);
    if (ml_lane() == 0) counts[ml_warp()] = __popc(votes);
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < 8; ++w) {
      if (w < ml_warp()) before += counts[w];
      total += counts[w];
    }
    if (touches) chosen[before + __popc(votes & ((1u << ml_lane()) - 1))] = mine;
    __syncthreads();
    for (int number = 0; number < total; ++number) {
      const int region = chosen[number];
      for (int i = threadIdx.x; i < (map.rows + map.columns) * kTile; i += 256) {
        const int bin = i / kTile, offset = i % kTile;
        const bool along = bin >= map.rows;
        row_weights[i] = axis(region, along).weight(along ? bin - map.rows : bin,
                                                    (along ? left : top) + offset);
      }
      __syncthreads();
      for (int row = 0; row < map.rows; ++row) {
        const W down = row_weights[row * kTile + tile_y];
        if (down == W(0)) continue;
        for (int column = 0; column < map.columns; ++column) {
          const W weight = down * column_weights[column * kTile + tile_x];
          if (weight == W(0)) continue;
          const ml_index bins = ml_index(map.rows) * map.columns;
          const ml_index at = (ml_index(region) * map.channels + first) * bins +
                              row * map.columns + column;
#pragma unroll
          for (int c = 0; c < kChannels; ++c)
            if (c < channels && (!PLACES || places[at + c * bins] == own))
              sums[c] += weight * ml_cast<W>(dy[at + c * bins]);
        }
      }
      __syncthreads();
    }
    __syncthreads();
  }
  if (own_y >= map.height || own_x >= map.width) return;
  const ml_index plane = ml_index(map.height) * map.width;
  T* const to = dx + (ml_index(image) * map.channels + first) * plane + own;
#pragma unroll
  for (int c = 0; c < kChannels; ++c)
    if (c < channels) to[c * plane] = ml_cast<T>(sums[c]);
}

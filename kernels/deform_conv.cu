// Columns of a convolution whose taps lie where offsets say (Dai et al. 2017; Zhu et al. 2019), and
// what their gradient is to offsets, masks and the image.
//
// Everything has its channels last: the four elements that a tap takes from are four runs of memory
// wherever they lie.  Channels that share their offsets (a part) and their weights (a group) are a
// unit of `unit` channels, `per` of them to a group.  Columns are [group][image][place][tap]
// [channels of the group], so that each group's are a matrix.
#include "warp.cuh"

struct deform_map {
  int size[2];    // of the image
  int places[2];  // of the result
  int taps[2], stride[2], before[2], dilation[2];
  int images, channels, parts, units, unit, per;
};

namespace {

// A tap at one place of one image.
struct deform_site {
  int image, tap, place, which;  // which unit, or part, of `count`

  __device__ __forceinline__ deform_site(int row, int count, const deform_map& map) {
    const int places = map.places[0] * map.places[1], taps = map.taps[0] * map.taps[1];
    const int line = row / places;
    place = row - line * places;
    const int block = line / taps;
    tap = line - block * taps;
    image = block / count;
    which = block - image * count;
  }

  // Where the unit's columns begin.
  __device__ __forceinline__ ml_index column(int unit, const deform_map& map) const {
    const int places = map.places[0] * map.places[1], taps = map.taps[0] * map.taps[1];
    const int group = unit / map.per;
    const ml_index row = (ml_index(group) * map.images + image) * places + place;
    return ((row * taps + tap) * map.per + (unit - group * map.per)) * map.unit;
  }
};

// The four elements between which a tap lies, -1 where they are outside, and how it lies there.
template <typename W>
struct deform_corners {
  int at[4];
  W down, across;  // 0 to 1
  W factor;        // the mask

  template <typename T>
  __device__ __forceinline__ deform_corners(const T* offset, const T* mask, const deform_site& site,
                                            int part, const deform_map& map) {
    const int places = map.places[0] * map.places[1], taps = map.taps[0] * map.taps[1];
    const ml_index line = (ml_index(site.image) * map.parts + part) * taps + site.tap;
    const T* moved = offset + 2 * line * places + site.place;
    factor = mask ? ml_cast<W>(mask[line * places + site.place]) : W(1);
    const int row = site.place / map.places[1], column = site.place - row * map.places[1];
    const int tap = site.tap / map.taps[1];
    W y = W(row * map.stride[0] - map.before[0] + tap * map.dilation[0]) + ml_cast<W>(moved[0]);
    W x = W(column * map.stride[1] - map.before[1] +
            (site.tap - tap * map.taps[1]) * map.dilation[1]) + ml_cast<W>(moved[places]);
    // Neither NaN nor what is far outside has an element.
    if (!(fabs(y) < W(1 << 30))) y = W(-100);
    if (!(fabs(x) < W(1 << 30))) x = W(-100);
    const W top = floor(y), left = floor(x);
    down = y - top;
    across = x - left;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int h = int(top) + i / 2, w = int(left) + i % 2;
      const bool inside = unsigned(h) < unsigned(map.size[0]) && unsigned(w) < unsigned(map.size[1]);
      at[i] = inside ? h * map.size[1] + w : -1;
    }
  }

  __device__ __forceinline__ W weight(int i) const {
    return (i / 2 ? down : W(1) - down) * (i % 2 ? across : W(1) - across);
  }
};

}  // namespace

// The columns of the image.  L lanes take a unit's channels, E at a time.
template <typename T, int E, int L>
__global__ void __launch_bounds__(256)
deform_columns(T* __restrict__ columns, const T* __restrict__ x, const T* __restrict__ offset,
               const T* __restrict__ mask, int rows, deform_map map) {
  typedef ml_wide<T> W;
  const int row = blockIdx.x * (256 / L) + threadIdx.x / L;
  if (row >= rows) return;
  const deform_site site(row, map.units, map);
  const int first = site.which * map.unit, part = first / (map.channels / map.parts);
  const deform_corners<W> corners(offset, mask, site, part, map);
  T* to = columns + site.column(site.which, map);
  const T* from = x + ml_index(site.image) * map.size[0] * map.size[1] * map.channels + first;
  for (int c = threadIdx.x % L * E; c < map.unit; c += L * E) {
    ml_vec<T, E> loaded[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (corners.at[i] >= 0)
        loaded[i] = ml_load<E>(from + ml_index(corners.at[i]) * map.channels + c);
    W sum[E];
#pragma unroll
    for (int e = 0; e < E; ++e) sum[e] = W(0);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (corners.at[i] < 0) continue;
#pragma unroll
      for (int e = 0; e < E; ++e) sum[e] += corners.weight(i) * ml_cast<W>(loaded[i].at[e]);
    }
    ml_vec<T, E> out;
#pragma unroll
    for (int e = 0; e < E; ++e) out.at[e] = ml_cast<T>(sum[e] * corners.factor);
    ml_store_whole<E>(to + c, out);
  }
}

// The gradients of offset and mask from that of the columns.  L lanes take a part's channels.
template <typename T, int E, int L>
__global__ void __launch_bounds__(256)
deform_moves(T* doffset, T* dmask, const T* __restrict__ dcolumns, const T* __restrict__ x,
             const T* __restrict__ offset, const T* __restrict__ mask, int rows, deform_map map) {
  typedef ml_wide<T> W;
  const int row = blockIdx.x * (256 / L) + threadIdx.x / L;
  const deform_site site(row < rows ? row : 0, map.parts, map);
  const int part = site.which, channels = map.channels / map.parts;
  const deform_corners<W> corners(offset, mask, site, part, map);
  const T* from = x + ml_index(site.image) * map.size[0] * map.size[1] * map.channels;
  W dot[4] = {W(0), W(0), W(0), W(0)};  // of the gradient with each corner's channels
  for (int c = threadIdx.x % L * E; c < channels; c += L * E) {
    const int channel = part * channels + c, unit = channel / map.unit;
    const ml_vec<T, E> slope =
        ml_load<E>(dcolumns + site.column(unit, map) + (channel - unit * map.unit));
    ml_vec<T, E> loaded[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (corners.at[i] >= 0)
        loaded[i] = ml_load<E>(from + ml_index(corners.at[i]) * map.channels + channel);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (corners.at[i] < 0) continue;
#pragma unroll
      for (int e = 0; e < E; ++e)
        dot[i] += ml_cast<W>(slope.at[e]) * ml_cast<W>(loaded[i].at[e]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) dot[i] = ml_warp_sum<L>(dot[i]);
  if (row >= rows || threadIdx.x % L != 0) return;
  const int places = map.places[0] * map.places[1], taps = map.taps[0] * map.taps[1];
  const ml_index line = (ml_index(site.image) * map.parts + part) * taps + site.tap;
  const W down = corners.down, across = corners.across;
  if (doffset) {
    T* out = doffset + 2 * line * places + site.place;
    out[0] = ml_cast<T>(corners.factor * ((dot[2] - dot[0]) * (W(1) - across) +
                                          (dot[3] - dot[1]) * across));
    out[places] = ml_cast<T>(corners.factor * ((dot[1] - dot[0]) * (W(1) - down) +
                                               (dot[3] - dot[2]) * down));
  }
  if (dmask) {
    W sum = W(0);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += corners.weight(i) * dot[i];
    dmask[line * places + site.place] = ml_cast<T>(sum);
  }
}

// What the gradient of the image is made of: for each corner of each tap at each place the element,
// counted through [keyed unit][image] (-1: none), the row of columns that goes there, and its
// weight.  `keyed` units have offsets of their own: all of them, or one for all.
template <typename T, typename W, typename K>
__global__ void __launch_bounds__(256)
deform_entries(K* element, ml_index* source, W* weight, const T* __restrict__ offset,
               const T* __restrict__ mask, int rows, int keyed, deform_map map) {
  const int row = blockIdx.x * 256 + threadIdx.x;
  if (row >= rows) return;
  const deform_site site(row, keyed, map);
  const int part = keyed == 1 ? 0 : site.which * map.unit / (map.channels / map.parts);
  const deform_corners<W> corners(offset, mask, site, part, map);
  const ml_index plane = ml_index(map.size[0]) * map.size[1];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const ml_index entry = ml_index(i) * rows + row;
    element[entry] = corners.at[i] < 0
                         ? K(-1)
                         : K((ml_index(site.which) * map.images + site.image) * plane + corners.at[i]);
    source[entry] = site.column(site.which, map) / map.unit;
    weight[entry] = corners.weight(i) * corners.factor;
  }
}

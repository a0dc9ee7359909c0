// The geometry of convolutions, which are products of matrices that are never laid out:
//   conv_gather  target[row][u] = sum over (channel, tap) of weight[row][channel, tap] * what u sees
//   conv_weight  weight[row][channel, tap] = sum over u of small[row][u] * what u sees by tap
// where u runs over a lattice of positions of all images, and sees through `tap` the element
// u * scale + offset + tap * step of each axis of the source, zero where that lies outside.
#pragma once
#include "divide.cuh"

// Axes are the first D of three, the last of them along memory.
struct conv_map {
  int source[3];   // the sizes of what is seen
  int scale[3];
  int offset[3];
  int step[3];
  int target[3];   // the sizes of what is written, at u * spread + shift
  int spread[3];
  int shift[3];
  ml_divisor lattice[3];
  ml_divisor taps[3];
  ml_divisor count;  // of all taps together
  int images;
  int groups;
  int channels;  // of the source, in a group
  int rows;      // channels of the target (or small side), in a group
  int pitch;     // elements from one row of the weight to the next
  // Where tap t of the lattice is among those of the weight: weigh_first + t * weigh.
  int weigh[3];
  int weigh_first;
};

// A coordinate that lies outside, whatever is added.
const int conv_outside = -(1 << 30);

// The coordinates of position p of the lattice; returns its image.
template <int D>
__device__ __forceinline__ int conv_place(const conv_map& map, int p, int (&u)[D]) {
#pragma unroll
  for (int d = D - 1; d >= 0; --d) {
    const int next = ml_divide(p, map.lattice[d]);
    u[d] = p - next * map.lattice[d].value;
    p = next;
  }
  return p;
}

template <int D>
__device__ __forceinline__ int conv_lattice_size(const conv_map& map) {
  int size = 1;
#pragma unroll
  for (int d = 0; d < D; ++d) size *= map.lattice[d].value;
  return size;
}

template <int D>
__device__ __forceinline__ ml_index conv_plane(const int (&sizes)[3]) {
  ml_index size = 1;
#pragma unroll
  for (int d = 0; d < D; ++d) size *= sizes[d];
  return size;
}

// A pair of channel and tap: where it lies from an element, and how far along each axis.
template <int D>
struct alignas(16) conv_pair {
  ml_index offset;
  int at[D < 3 ? 2 : 4];

  // Pair k, taps fastest; beyond the last one it is outside.
  __device__ __forceinline__ void describe(const conv_map& map, int k) {
    const int channel = ml_divide(k, map.count);
    ml_index from = 0, stride = 1;
    int rest = k - channel * map.count.value;
#pragma unroll
    for (int d = D - 1; d >= 0; --d) {
      const int next = d ? ml_divide(rest, map.taps[d]) : 0;
      at[d] = map.offset[d] + (rest - next * map.taps[d].value) * map.step[d];
      from += at[d] * stride;
      stride *= map.source[d];
      rest = next;
    }
    if constexpr (D == 1) at[1] = 0;
    offset = from + channel * stride;
    if (channel >= map.channels) at[D - 1] = conv_outside;
  }

  // To shared memory, in stores of 16 bytes, which meet no bank twice.
  __device__ __forceinline__ void keep(conv_pair* to) const {
    const ml_vec<int, 4> head = {int(offset), int(offset >> 32), at[0], at[1]};
    ml_store<4>(reinterpret_cast<int*>(to), head);
    if constexpr (D == 3) ml_store<4>(reinterpret_cast<int*>(to) + 4, ml_vec<int, 4>{at[2], 0, 0, 0});
  }
};

// What one position sees: the element that its taps count from, in one group of one image.
template <typename T, int D>
struct conv_view {
  const T* origin;
  int base[D];

  // Position p of the lattice; past the last one everything is outside.
  __device__ __forceinline__ void look(const T* x, const conv_map& map, int group, int p) {
    int u[D];
    const int image = conv_place<D>(map, p, u);
    ml_index from = 0, stride = 1;
#pragma unroll
    for (int d = D - 1; d >= 0; --d) {
      base[d] = u[d] * map.scale[d];
      from += base[d] * stride;
      stride *= map.source[d];
    }
    const ml_index plane = (ml_index(image) * map.groups + group) * map.channels;
    origin = x + plane * stride + from;
    if (image >= map.images) base[D - 1] = conv_outside;
  }

  __device__ __forceinline__ bool inside(const conv_map& map, const conv_pair<D>& pair) const {
    bool all = true;
#pragma unroll
    for (int d = 0; d < D; ++d) all &= unsigned(base[d] + pair.at[d]) < unsigned(map.source[d]);
    return all;
  }

  __device__ __forceinline__ T load(const conv_map& map, const conv_pair<D>& pair) const {
    return inside(map, pair) ? origin[pair.offset] : ml_cast<T>(0);
  }
};

// Where position p is written in its plane of the target, counted from the first row of its group;
// -1 past the last position.
template <int D>
__device__ __forceinline__ ml_index conv_written(const conv_map& map, int group, int p) {
  int u[D];
  const int image = conv_place<D>(map, p, u);
  if (image >= map.images) return -1;
  ml_index at = 0;
#pragma unroll
  for (int d = 0; d < D; ++d) at = at * map.target[d] + u[d] * map.spread[d] + map.shift[d];
  const ml_index plane = (ml_index(image) * map.groups + group) * map.rows;
  return plane * conv_plane<D>(map.target) + at;
}

// Greyscale morphology: the largest, or the smallest, of the elements that a flat structuring
// element covers, given as the places (y, x) of its taps relative to each element's own.  What lies
// outside the plane does not count.
#include "common.cuh"

struct morphology_map {
  ml_index count;  // of elements, in all planes
  int height, width;
  int taps;
};

namespace {

// What any other element is better than, or as good as.
template <typename W, bool LEAST>
__device__ __forceinline__ W morphology_worst() {
  if constexpr (ml_is_float<W>::value) {
    return LEAST ? ml_inf(W(0)) : -ml_inf(W(0));
  } else if constexpr (ml_is_signed<W>::value) {
    const W low = W(1ull << (8 * sizeof(W) - 1));
    return LEAST ? W(~low) : low;
  } else {
    return LEAST ? W(-1) : W(0);
  }
}

struct morphology_place {
  ml_index at;
  int y, x;
};

__device__ __forceinline__ morphology_place morphology_here(const morphology_map& map) {
  morphology_place here;
  here.at = ml_index(blockIdx.x) * 256 + threadIdx.x;
  const ml_index row = here.at / map.width;
  here.x = int(here.at - row * map.width);
  here.y = int(row % map.height);
  return here;
}

// Whether the element that lies (dy, dx) away is in the plane.
__device__ __forceinline__ bool morphology_inside(const morphology_map& map,
                                                  const morphology_place& here, int dy, int dx) {
  return unsigned(here.y + dy) < unsigned(map.height) &&
         unsigned(here.x + dx) < unsigned(map.width);
}

}  // namespace

// y = the best element of each; `choice`, where it is wanted, its tap, the first of equal ones, the
// last that is NaN, C(-1) where there is none.
template <typename T, typename C, bool LEAST>
__global__ void __launch_bounds__(256)
morphology_best(const T* __restrict__ x, const int* __restrict__ taps, T* __restrict__ y,
                C* __restrict__ choice, morphology_map map) {
  typedef ml_wide<T> W;
  const morphology_place here = morphology_here(map);
  if (here.at >= map.count) return;
  W best = morphology_worst<W, LEAST>();
  C chosen = C(-1);
  for (int tap = 0; tap < map.taps; ++tap) {
    const int dy = taps[2 * tap], dx = taps[2 * tap + 1];
    if (!morphology_inside(map, here, dy, dx)) continue;
    const W value = ml_cast<W>(x[here.at + ml_index(dy) * map.width + dx]);
    if ((LEAST ? value < best : value > best) || ml_isnan(value) || chosen == C(-1)) {
      best = value;
      chosen = C(tap);
    }
  }
  y[here.at] = ml_cast<T>(best);
  if (choice) choice[here.at] = chosen;
}

// The element that `choice` names, 0 where there is none.
template <typename T, typename C>
__global__ void __launch_bounds__(256)
morphology_take(const T* __restrict__ x, const C* __restrict__ choice, const int* __restrict__ taps,
                T* __restrict__ y, morphology_map map) {
  const morphology_place here = morphology_here(map);
  if (here.at >= map.count) return;
  const C chosen = choice[here.at];
  if (chosen == C(-1)) {
    y[here.at] = T(0);
    return;
  }
  y[here.at] = x[here.at + ml_index(taps[2 * chosen]) * map.width + taps[2 * chosen + 1]];
}

// The adjoint: each element adds up what those took that chose it, tap by tap.
template <typename T, typename C>
__global__ void __launch_bounds__(256)
morphology_give(const T* __restrict__ dy, const C* __restrict__ choice,
                const int* __restrict__ taps, T* __restrict__ dx, morphology_map map) {
  typedef ml_wide<T> W;
  const morphology_place here = morphology_here(map);
  if (here.at >= map.count) return;
  W sum = W(0);
  for (int tap = 0; tap < map.taps; ++tap) {
    const int up = -taps[2 * tap], left = -taps[2 * tap + 1];
    if (!morphology_inside(map, here, up, left)) continue;
    const ml_index at = here.at + ml_index(up) * map.width + left;
    if (choice[at] == C(tap)) sum += ml_cast<W>(dy[at]);
  }
  dx[here.at] = ml_cast<T>(sum);
}

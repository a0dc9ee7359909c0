// What a kernel meets that is wrong with its input's values, such as an index out of range: recorded
// once per device and raised by the host at its next synchronising call.  The access is skipped.
#pragma once

struct ml_fault {
  int raised;  // whether something was recorded; the first stays
  int site;    // which call it was: the host knows its name
  long long value;
  long long bound;
};

__device__ __forceinline__ void ml_report(ml_fault* fault, int site, long long value,
                                          long long bound) {
  if (atomicCAS(&fault->raised, 0, 1) == 0) {
    fault->site = site;
    fault->value = value;
    fault->bound = bound;
  }
}

// The place that an index means, counted from the end where it is negative; -1, reported, where it
// is out of range.
__device__ __forceinline__ long long ml_place(long long index, long long size, ml_fault* fault,
                                              int site) {
  const long long place = index < 0 ? index + size : index;
  if (place >= 0 && place < size) return place;
  ml_report(fault, site, index, size);
  return -1;
}

// Definitions shared by the native kernels: float and bfloat16 conversion, exp, and the masks of keyed dropout.
//
// All functions take plain pointers and need no headers of torch, so compilation takes seconds. Loops are left to the
// compiler's vectorizer; sums that it may reorder are marked with `omp simd reduction`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

static constexpr int LANES = 16;
// One vector register, or several on a machine with shorter ones.
typedef float Lanes __attribute__((vector_size(4 * LANES)));

struct bf16 {
  uint16_t bits;
};

static inline float widen(float value) { return value; }
static inline float widen(bf16 value) { return __builtin_bit_cast(float, uint32_t(value.bits) << 16); }

template <typename T>
static inline T narrow(float value);
template <>
inline float narrow<float>(float value) {
  return value;
}
template <>
inline bf16 narrow<bf16>(float value) {  // rounds to nearest, ties to even; NaN stays NaN
  uint32_t bits = __builtin_bit_cast(uint32_t, value);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return {uint16_t(value != value ? 0x7fc0 : rounded)};
}

// Returns exp(x) with an error of at most two units in the last place, and 0 for x < -87. It computes 2^n times a
// polynomial on [-ln2 / 2, ln2 / 2] with the coefficients of Cephes (Moshier, expf.c).
static inline float fast_exp(float x) {
  x = std::min(x, 88.0f);
  float n = __builtin_rintf(x * 1.44269504088896341f);
  float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  float power = __builtin_bit_cast(float, (int32_t(std::max(n, -126.0f)) + 127) << 23);
  return x < -87.0f ? 0.0f : p * power;
}

// Keyed dropout as defined in ftsys/kernels/dropout.py; `keys` is null if nothing is dropped.
struct Dropout {
  const int64_t* keys;  // one per token
  const int16_t *first, *second;
  int64_t site;         // the site's number times its stride
  int32_t lowest_kept;  // an element whose number is below it is dropped
  float scale;          // 1 / (1 - rate)

  static uint64_t mix(uint64_t key) {
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9u;
    key = (key ^ (key >> 27)) * 0x94D049BB133111EBu;
    return key ^ (key >> 31);
  }
};

// The dropout factors of one row: operator[] returns `scale` for a kept element and 0 for a dropped one.
struct MaskRow {
  const int16_t *first, *second;
  int32_t lowest_kept;
  float scale;

  MaskRow(const Dropout& dropout, uint64_t key) : lowest_kept(dropout.lowest_kept), scale(dropout.scale) {
    const uint64_t hashed = Dropout::mix(key + uint64_t(dropout.site)), windows = (1u << 20) - 1;
    first = dropout.first + (hashed & windows);
    second = dropout.second + ((hashed >> 20) & windows);
  }

  float operator[](int64_t i) const {
    return int16_t(uint16_t(first[i]) + uint16_t(second[i])) >= lowest_kept ? scale : 0.0f;
  }

  // Returns LANES factors from `start`. Written with vector types, because compilers do not vectorize the loop.
  Lanes lanes(int64_t start) const {
    typedef uint16_t Short __attribute__((vector_size(2 * LANES)));
    typedef int16_t Signed __attribute__((vector_size(2 * LANES)));
    typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
    Short a, b;
    std::memcpy(&a, first + start, sizeof a);
    std::memcpy(&b, second + start, sizeof b);
    const Ints numbers = __builtin_convertvector((Signed)(a + b), Ints);
    return (Lanes)((numbers >= lowest_kept) & __builtin_bit_cast(int32_t, scale));
  }
};

// What the native kernels share: the two number formats, exp and the keyed dropout's rows.
//
// Nothing here needs torch's headers: all functions take plain pointers, so a compiler is done in seconds. Loops are
// plain and left to the compiler's vectorizer; the sums that it may reorder are marked.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

static constexpr int LANES = 16;
typedef float Lanes __attribute__((vector_size(4 * LANES)));  // a vector register, or as many as a machine needs for it

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
inline bf16 narrow<bf16>(float value) {  // to nearest, ties to even; a NaN stays one
  uint32_t bits = __builtin_bit_cast(uint32_t, value);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return {uint16_t(value != value ? 0x7fc0 : rounded)};
}

// exp to within two units in the last place, 0 below -87: 2^n times a polynomial on [-ln2 / 2, ln2 / 2] whose
// coefficients are those of the series, the last two adjusted by Cephes (Moshier, expf.c).
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

// The masks of ftsys/kernels/dropout.py, which says what they are; `keys` is null where nothing is dropped.
struct Dropout {
  const int64_t* keys;  // one a token
  const int16_t *first, *second;
  int64_t site;         // the site's number times its stride
  int32_t lowest_kept;  // a number of a row below it is dropped
  float scale;          // 1 / (1 - rate)

  static uint64_t mix(uint64_t key) {
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9u;
    key = (key ^ (key >> 27)) * 0x94D049BB133111EBu;
    return key ^ (key >> 31);
  }
};

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

  // Sixteen of them from `start`, spelled out: compilers take the loop apart.
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

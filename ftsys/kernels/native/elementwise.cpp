// Computes elementwise parts of an encoder layer in one pass over memory: dropout, and dropout + residual + LayerNorm.
//
// Sums over rows have BLOCKS partial sums for any number of threads, so the result does not depend on that number.
#include "common.h"

static constexpr int64_t BLOCKS = 32;

template <typename T>
static void dropped(const T* x, const Dropout& dropout, T* y, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows; ++i) {
    const MaskRow mask(dropout, uint64_t(dropout.keys[i]));
    for (int64_t d = 0; d < width; ++d) y[i * width + d] = narrow<T>(widen(x[i * width + d]) * mask[d]);
  }
}

struct Norm {
  int64_t rows, width;
  float epsilon;
};

// Computes sum = residual + dropout(x) and y = LayerNorm(sum); saves each row's mean and 1 / standard deviation.
template <typename T>
static void norm(const Norm& of, const T* x, const T* residual, const T* weight, const T* bias, const Dropout& dropout,
                 T* sum, T* y, float* means, float* scales) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < of.rows; ++i) {
    const int64_t D = of.width, first = i * D;
    if (dropout.keys) {
      const MaskRow mask(dropout, uint64_t(dropout.keys[i]));
      for (int64_t d = first; d < first + D; ++d)
        sum[d] = narrow<T>(widen(residual[d]) + widen(x[d]) * mask[d - first]);
    } else {
      for (int64_t d = first; d < first + D; ++d) sum[d] = narrow<T>(widen(residual[d]) + widen(x[d]));
    }
    float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t d = 0; d < D; ++d) total += widen(sum[first + d]);
    const float mean = total / D;
#pragma omp simd reduction(+ : squares)
    for (int64_t d = 0; d < D; ++d) squares += (widen(sum[first + d]) - mean) * (widen(sum[first + d]) - mean);
    const float scale = 1 / std::sqrt(squares / D + of.epsilon);
    for (int64_t d = 0; d < D; ++d)
      y[first + d] = narrow<T>((widen(sum[first + d]) - mean) * scale * widen(weight[d]) + widen(bias[d]));
    means[i] = mean;
    scales[i] = scale;
  }
}

// Computes the gradients of LayerNorm(residual + dropout(x)). With g = dy * weight and the normalized row n,
// d_residual = scale * (g - mean(g) - n * mean(g * n)), and d_x is the same times the dropout factors.
// `parts` (BLOCKS, 2, D) gets the partial sums of the gradients of weight and bias.
template <typename T>
static void norm_backward(const Norm& of, const T* gradient, const T* sum, const T* weight, const float* means,
                          const float* scales, const Dropout& dropout, T* d_x, T* d_residual, float* parts) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < BLOCKS; ++block) {
    const int64_t D = of.width;
    float *d_weight = parts + block * 2 * D, *d_bias = d_weight + D;
    std::fill(d_weight, d_weight + 2 * D, 0.0f);
    for (int64_t i = block * of.rows / BLOCKS; i < (block + 1) * of.rows / BLOCKS; ++i) {
      const int64_t first = i * D;
      const float mean = means[i], scale = scales[i];
      float mean_g = 0, mean_gn = 0;
#pragma omp simd reduction(+ : mean_g, mean_gn)
      for (int64_t d = 0; d < D; ++d) {
        const float g = widen(gradient[first + d]), normal = (widen(sum[first + d]) - mean) * scale;
        d_weight[d] += g * normal;
        d_bias[d] += g;
        mean_g += g * widen(weight[d]);
        mean_gn += g * widen(weight[d]) * normal;
      }
      mean_g /= D, mean_gn /= D;
      for (int64_t d = 0; d < D; ++d) {
        const float normal = (widen(sum[first + d]) - mean) * scale;
        const float d_sum = widen(gradient[first + d]) * widen(weight[d]) - mean_g - normal * mean_gn;
        d_residual[first + d] = narrow<T>(scale * d_sum);
      }
      if (!dropout.keys) continue;  // d_x and d_residual are the same tensor
      const MaskRow mask(dropout, uint64_t(dropout.keys[i]));
      for (int64_t d = 0; d < D; ++d) d_x[first + d] = narrow<T>(widen(d_residual[first + d]) * mask[d]);
    }
  }
}

#define ELEMENTWISE(name, T)                                                                                    \
  extern "C" void dropout_##name(const T* x, const Dropout* dropout, T* y, int64_t rows, int64_t width) {       \
    dropped(x, *dropout, y, rows, width);                                                                       \
  }                                                                                                             \
  extern "C" void norm_##name(const Norm* of, const T* x, const T* residual, const T* weight, const T* bias,    \
                              const Dropout* dropout, T* sum, T* y, float* means, float* scales) {              \
    norm(*of, x, residual, weight, bias, *dropout, sum, y, means, scales);                                      \
  }                                                                                                             \
  extern "C" void norm_backward_##name(const Norm* of, const T* gradient, const T* sum, const T* weight,        \
                                       const float* means, const float* scales, const Dropout* dropout, T* d_x, \
                                       T* d_residual, float* parts) {                                           \
    norm_backward(*of, gradient, sum, weight, means, scales, *dropout, d_x, d_residual, parts);                 \
  }

ELEMENTWISE(float32, float)
ELEMENTWISE(bfloat16, bf16)

// Applied to a tile of sums, up to 64 columns wide, before it is stored: out = activation(sum + bias) * factors + residual.
// Vector and tile kernels share it and differ only in how they hold the sums of a tile.
#pragma once

#include "bfloat16.hpp"
#include "math.hpp"
#include "simd.hpp"

namespace layertap::LAYERTAP_ISA {

// float32 sums [rows, stride].
struct FloatSums {
  static constexpr bool rough = false;
  const float* data;
  std::int64_t stride;

  Floats at(std::int64_t row, std::int64_t column) const { return load(data + row * stride + column); }
};

// int32 sums [rows, stride] of uint8 activations and int8 weights. All pointers are of the tile's first row and column.
struct IntSums {
  static constexpr bool rough = true;  // with factors of 8 bits, the activations for bfloat16 results are accurate enough
  const std::int32_t* data;
  std::int64_t stride;
  const float* row_scales;
  const float* row_zeros;
  const float* column_scales;
  const float* column_sums;

  // sum of scale * (stored - zero) * weight; up to 2^24 the sums are exact as float32
  Floats at(std::int64_t row, std::int64_t column) const {
    const std::int32_t* sums = data + row * stride + column;
#if defined(__AVX512F__)
    const Floats stored = {_mm512_cvtepi32_ps(_mm512_loadu_si512(sums))};
#else
    const Floats stored = {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums)))};
#endif
    const Floats value = fma(all(-row_zeros[row]), load(column_sums + column), stored);
    return value * load(column_scales + column) * all(row_scales[row]);
  }
};

inline Floats load_as_floats(const float* p) { return load(p); }
inline Floats load_as_floats(const bfloat16* p) { return load_bfloat16(p); }

template <bool first, class A, class B>
struct Chosen {
  using Type = A;
};
template <class A, class B>
struct Chosen<false, A, B> {
  using Type = B;
};
template <bool first, class A, class B>
using Choose = typename Chosen<first, A, B>::Type;

template <Activation activation, bool rounded, class Sums>
inline void finish_with(const Sums& sums, std::int64_t row, std::int64_t rows, std::int64_t column,
                        std::int64_t columns, const Epilogue& e) {
  // copies, since the compiler would otherwise reload everything behind a reference after each store
  const Sums from = sums;
  const float* bias = e.bias == nullptr ? nullptr : e.bias + column;
  const float* residual = e.residual == nullptr ? nullptr : e.residual + row * e.residual_stride + column;
  const std::int64_t residual_stride = e.residual_stride;
  const std::int64_t out_stride = e.out_stride;
  bfloat16* halves = rounded ? static_cast<bfloat16*>(e.out) + row * out_stride + column : nullptr;
  float* floats = rounded ? nullptr : static_cast<float*>(e.out) + row * out_stride + column;
  using Out = Choose<rounded, bfloat16, float>;
  const Out* factors = e.factors == nullptr ? nullptr : static_cast<const Out*>(e.factors) + row * out_stride + column;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; c += width) {
      Floats x = from.at(r, c);
      if (bias != nullptr) x = x + load(bias + c);
      x = activate<activation, rounded || Sums::rough>(x);
      if (factors != nullptr) x = x * load_as_floats(factors + r * out_stride + c);
      if (residual != nullptr) x = x + load(residual + r * residual_stride + c);
      if constexpr (rounded)
        store_bfloat16(halves + r * out_stride + c, x);
      else
        store(floats + r * out_stride + c, x);
    }
  }
}

template <Activation activation, class Sums>
inline void finish_with(const Sums& sums, std::int64_t row, std::int64_t rows, std::int64_t column,
                        std::int64_t columns, const Epilogue& e) {
  if (e.out_is_bfloat16)
    finish_with<activation, true>(sums, row, rows, column, columns, e);
  else
    finish_with<activation, false>(sums, row, rows, column, columns, e);
}

// Stores the tile that begins at (row, column) of `out`; `columns` is a multiple of 16, at most 64.
template <class Sums>
inline void finish(const Sums& sums, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns,
                   const Epilogue& e) {
  switch (e.activation) {
    case Activation::none: return finish_with<Activation::none>(sums, row, rows, column, columns, e);
    case Activation::gelu: return finish_with<Activation::gelu>(sums, row, rows, column, columns, e);
    case Activation::gelu_tanh: return finish_with<Activation::gelu_tanh>(sums, row, rows, column, columns, e);
    case Activation::relu: return finish_with<Activation::relu>(sums, row, rows, column, columns, e);
    case Activation::silu: return finish_with<Activation::silu>(sums, row, rows, column, columns, e);
    case Activation::tanh: return finish_with<Activation::tanh>(sums, row, rows, column, columns, e);
  }
}

}  // namespace layertap::LAYERTAP_ISA

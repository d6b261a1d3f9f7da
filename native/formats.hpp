// Formats of the factors of products, and a view of rows stored in one of them.
#pragma once

#include <cstdint>

namespace layertap {

using bfloat16 = std::uint16_t;  // the upper half of a float32

// Sums are float32 (int8: int32, scaled to float32 at the end).
enum class Format : std::uint8_t {
  float32,
  bfloat16,
  int8,    // weights int8, one scale a column; activations uint8, one scale and one zero point a row
  split2,  // a float32 as the sum of two bfloat16: three products
  split3,  // a float32 as the sum of three bfloat16: six products, as accurate as float32
};

// Always inlined, here and in kernels.hpp: a copy that the linker kept could be the one compiled for an instruction set
// that the processor does not have.
#define LAYERTAP_INLINE [[gnu::always_inline]] constexpr

// Bytes of one stored value (of one part).
LAYERTAP_INLINE std::int64_t value_bytes(Format format) {
  return format == Format::float32 ? 4 : format == Format::int8 ? 1 : 2;
}

// Arrays of stored values whose sum is the number.
LAYERTAP_INLINE std::int64_t parts_of(Format format) {
  return format == Format::split2 ? 2 : format == Format::split3 ? 3 : 1;
}

// Rows of float32 or bfloat16 numbers, `stride` elements from one row to the next.
struct Rows {
  void* data = nullptr;
  std::int64_t stride = 0;
  std::int64_t rows = 0;
  Format format = Format::float32;

  bool is_bfloat16() const { return format == Format::bfloat16; }
  Rows from(std::int64_t row) const { return {at(row, 0), stride, rows - row, format}; }
  void* at(std::int64_t row, std::int64_t column) const {
    return static_cast<char*>(data) + (row * stride + column) * value_bytes(format);
  }
  float* floats() const { return static_cast<float*>(data); }
};

}  // namespace layertap

// Converts float32 rows to the formats that products read, and back.
#include "row_vectors.hpp"
#include "rows.hpp"

namespace layertap::LAYERTAP_ISA {
namespace {

#if defined(__AVX512F__)

using Ints = __m512i;
inline Ints bits_of(Floats x) { return _mm512_castps_si512(x.v); }
inline Ints larger(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
inline Ints no_bits() { return _mm512_setzero_si512(); }
inline Ints larger_unsigned(Ints a, Ints b) { return _mm512_max_epu32(a, b); }
inline std::uint32_t largest(Ints x) { return static_cast<std::uint32_t>(_mm512_reduce_max_epi32(x)); }
inline std::uint32_t largest_unsigned(Ints x) { return _mm512_reduce_max_epu32(x); }
// To the nearest integer, which is within 0 to 255.
inline void store_bytes(std::uint8_t* p, Floats x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.v)));
}
// x as bfloat16 and back.
inline Floats as_bfloat16(Floats x) {
  alignas(64) bfloat16 rounded[width];
  store_bfloat16(rounded, x);
  return load_bfloat16(rounded);
}

#else

using Ints = __m256i;
inline Ints bits_of(Floats x) { return _mm256_castps_si256(x.v); }
inline Ints larger(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
inline Ints no_bits() { return _mm256_setzero_si256(); }
inline Ints larger_unsigned(Ints a, Ints b) { return _mm256_max_epu32(a, b); }
inline std::uint32_t largest(Ints x) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1))));
}
inline std::uint32_t largest_unsigned(Ints x) {
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1))));
}
inline void store_bytes(std::uint8_t* p, Floats x) {
  const __m256i whole = _mm256_cvtps_epi32(x.v);
  const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(halves, halves));
}
inline Floats as_bfloat16(Floats x) {
  alignas(32) bfloat16 rounded[width];
  store_bfloat16(rounded, x);
  return load_bfloat16(rounded);
}

#endif

inline float float_of(std::uint32_t bits) {
  float x = 0;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Splits a row into parts, each the rounded remainder of those before; a single part is plain bfloat16.
template <int parts>
void split_row(const float* in, std::int64_t columns, bfloat16* out, std::int64_t part_stride) {
  each_vector(0, columns, [&](std::int64_t c, auto lanes) {
    Floats rest = load(in + c, lanes);
    for (int part = 0; part < parts; ++part) {
      store_bfloat16(out + part * part_stride + c, rest);
      if (part + 1 < parts) rest = rest - as_bfloat16(rest);
    }
  });
  for (int part = 0; part < parts; ++part)
    fill<bfloat16>(out + part * part_stride, whole_vectors(columns), padded(columns), 0);
}

struct Steps {
  float scale;
  float zero;
};

// Quantises the range of a row, extended to include 0, in 255 steps. The scale is 0 for a row of zeros (or below 2^-120) and
// NaN for a row that is not finite. The range need not be symmetric: that costs nothing in products, and large columns
// mostly have one sign.
Steps quantize_row(const float* in, std::int64_t columns, std::uint8_t* out) {
  // Compared as integers, positive floats are in order; compared as unsigned integers, negative floats are above all
  // positive ones, in order of magnitude. Infinities and NaN come last on either side.
  Ints top[2] = {no_bits(), no_bits()};
  Ints bottom[2] = {no_bits(), no_bits()};
  const auto see = [&](int i, Ints bits) {
    top[i] = larger(top[i], bits);
    bottom[i] = larger_unsigned(bottom[i], bits);
  };
  const std::int64_t paired = columns / (2 * width) * (2 * width);
  for (std::int64_t c = 0; c < paired; c += 2 * width)
    for (int i = 0; i < 2; ++i) see(i, bits_of(load(in + c + i * width)));
  each_vector(paired, columns, [&](std::int64_t c, auto lanes) { see(0, bits_of(load(in + c, lanes))); });
  constexpr std::uint32_t infinite = 0x7f800000;
  const std::uint32_t highest = largest(larger(top[0], top[1]));
  const std::uint32_t lowest = largest_unsigned(larger_unsigned(bottom[0], bottom[1]));
  const bool is_negative = (lowest >> 31) != 0;
  const float low = is_negative ? float_of(lowest) : 0.0F;
  const float range = float_of(highest) - low;
  const bool is_finite = highest < infinite && (!is_negative || (lowest & 0x7fffffffU) < infinite) && range < __builtin_inff();
  if (!is_finite || range < 0x1p-120F) {
    fill<std::uint8_t>(out, 0, padded(columns), 0);
    return {is_finite ? 0.0F : __builtin_nanf(""), 0.0F};
  }
  const float by = 255.0F / range;
  const float zero_at = -low * by;
  each_vector(0, columns, [&](std::int64_t c, auto lanes) {
    store_bytes(out + c, only(fma(load(in + c, lanes), all(by), all(zero_at)), lanes));
  });
  fill<std::uint8_t>(out, whole_vectors(columns), padded(columns), 0);
  return {range / 255.0F, zero_at};
}

void copy_row(const float* in, std::int64_t columns, float* out) {
  each_vector(0, columns, [&](std::int64_t c, auto lanes) { store(out + c, load(in + c, lanes)); });
  fill(out, whole_vectors(columns), padded(columns), 0.0F);
}

}  // namespace

void to_operand(const float* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, Format format,
                const Operand& out) {
  for (std::int64_t m = 0; m < rows; ++m) {
    const float* row = in + m * in_stride;
    const std::int64_t at = m * out.stride;
    switch (format) {
      case Format::float32: copy_row(row, columns, static_cast<float*>(out.data) + at); break;
      case Format::bfloat16: split_row<1>(row, columns, static_cast<bfloat16*>(out.data) + at, 0); break;
      case Format::split2: split_row<2>(row, columns, static_cast<bfloat16*>(out.data) + at, out.part_stride); break;
      case Format::split3: split_row<3>(row, columns, static_cast<bfloat16*>(out.data) + at, out.part_stride); break;
      case Format::int8: {
        const Steps steps = quantize_row(row, columns, static_cast<std::uint8_t*>(out.data) + at);
        out.scales[m] = steps.scale;
        out.zeros[m] = steps.zero;
        break;
      }
    }
  }
}

void widen(const bfloat16* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, float* out,
           std::int64_t out_stride) {
  for (std::int64_t m = 0; m < rows; ++m) {
    const bfloat16* row = in + m * in_stride;
    float* to = out + m * out_stride;
    each_vector(0, columns, [&](std::int64_t c, auto lanes) { store(to + c, only(load_bfloat16(row + c), lanes)); });
    fill(to, whole_vectors(columns), padded(columns), 0.0F);
  }
}

}  // namespace layertap::LAYERTAP_ISA

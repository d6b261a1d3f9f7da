// Accumulates rows in totals. Totals are not padded: nothing beyond the last column is written.
#include "rows.hpp"

#include "row_vectors.hpp"

namespace layertap::LAYERTAP_ISA {
namespace {

// Keeps `chosen`, a maximum or minimum of a and b, but NaN where a is NaN: the instructions return b there.
#if defined(__AVX512F__)
inline Floats or_nan(Floats a, Floats chosen) {
  return {_mm512_mask_mov_ps(chosen.v, _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), a.v)};
}
#else
inline Floats or_nan(Floats a, Floats chosen) {
  return {_mm256_blendv_ps(chosen.v, a.v, _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))};
}
#endif

}  // namespace

void set_row(float* total, const float* row, float weight, std::int64_t columns) {
  const Floats by = all(weight);
  each_vector(0, columns, [&](std::int64_t c, auto lanes) { store(total + c, load(row + c, lanes) * by, lanes); });
}

void add_row(float* total, const float* row, float weight, std::int64_t columns) {
  const Floats by = all(weight);
  each_vector(0, columns, [&](std::int64_t c, auto lanes) {
    store(total + c, fma(load(row + c, lanes), by, load(total + c, lanes)), lanes);
  });
}

void max_row(float* total, const float* row, std::int64_t columns) {
  each_vector(0, columns, [&](std::int64_t c, auto lanes) {
    const Floats a = load(total + c, lanes);
    store(total + c, or_nan(a, max(a, load(row + c, lanes))), lanes);
  });
}

void min_row(float* total, const float* row, std::int64_t columns) {
  each_vector(0, columns, [&](std::int64_t c, auto lanes) {
    const Floats a = load(total + c, lanes);
    store(total + c, or_nan(a, min(a, load(row + c, lanes))), lanes);
  });
}

}  // namespace layertap::LAYERTAP_ISA

#include "row_vectors.hpp"
#include "rows.hpp"

namespace layertap::LAYERTAP_ISA {
namespace {

// Loads stored values of 16 bits as float32. Tables are not padded: nothing beyond the end of a row may be read.
template <Table::Type type>
struct Stored {
  using Element = std::uint16_t;
  static Floats load(const Element* p, Whole) {
#if defined(__AVX512F__)
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    if constexpr (type == Table::Type::float16) return {_mm512_cvtph_ps(halves)};
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
#else
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    if constexpr (type == Table::Type::float16) return {_mm256_cvtph_ps(halves)};
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
#endif
  }
  static Floats load(const Element* p, Some some) {
    Element there[width] = {};
    for (std::int64_t i = 0; i < some.count; ++i) there[i] = p[i];
    return load(there, Whole{});
  }
};

template <>
struct Stored<Table::Type::float32> {
  using Element = float;
  template <class Lanes>
  static Floats load(const float* p, Lanes lanes) {
    return LAYERTAP_ISA::load(p, lanes);
  }
};

template <Table::Type type, bool is_first>
void add_stored(const Table& table, std::int64_t id, std::int64_t columns, float* out) {
  const auto* row = static_cast<const typename Stored<type>::Element*>(table.data) + id * table.stride;
  each_vector(0, columns, [&](std::int64_t c, auto lanes) {
    const Floats x = Stored<type>::load(row + c, lanes);
    store(out + c, is_first ? x : load(out + c) + x);
  });
}

template <bool is_first>
void add_stored(const Table& table, std::int64_t id, std::int64_t columns, float* out) {
  switch (table.type) {
    case Table::Type::float32: return add_stored<Table::Type::float32, is_first>(table, id, columns, out);
    case Table::Type::bfloat16: return add_stored<Table::Type::bfloat16, is_first>(table, id, columns, out);
    case Table::Type::float16: return add_stored<Table::Type::float16, is_first>(table, id, columns, out);
  }
}

// Rows of words are scattered over tens of megabytes, so they are prefetched.
void prefetch(const Table& table, std::int64_t id, std::int64_t columns) {
  const std::int64_t element = table.type == Table::Type::float32 ? 4 : 2;
  const char* row = static_cast<const char*>(table.data) + id * table.stride * element;
  for (std::int64_t byte = 0; byte < columns * element; byte += 64) _mm_prefetch(row + byte, _MM_HINT_T0);
}

}  // namespace

void embed(const EmbeddingRows& in, std::int64_t rows, std::int64_t columns, float* out, std::int64_t out_stride) {
  constexpr std::int64_t ahead = 2;
  const bool has_types = in.types.data != nullptr;
  const bool has_positions = in.positions.data != nullptr;
  for (std::int64_t m = 0; m < rows; ++m) {
    float* row = out + m * out_stride;
    if (m + ahead < rows) prefetch(in.words, in.input_ids[m + ahead], columns);
    add_stored<true>(in.words, in.input_ids[m], columns, row);
    if (has_types) add_stored<false>(in.types, in.token_type_ids == nullptr ? 0 : in.token_type_ids[m], columns, row);
    if (has_positions) add_stored<false>(in.positions, in.position_ids[m], columns, row);
    fill(row, whole_vectors(columns), out_stride, 0.0F);
  }
}

}  // namespace layertap::LAYERTAP_ISA

#include "product_lanes.hpp"

#include "epilogue.hpp"
#include "lanes.hpp"
#include "products.hpp"

namespace layertap::LAYERTAP_ISA {

namespace {

// A register tile: 6 rows x 64 columns (AVX-512, 24 of 32 registers), 6 x 16 (AVX2, 12 of 16).
constexpr int tile_rows = 6;
#if defined(__AVX512F__)
constexpr int tile_vectors = 4;
#else
constexpr int tile_vectors = 2;
#endif
constexpr int tile_columns = tile_vectors * width;

// K is summed in slices: such a slice of a panel (32 KiB) stays in the first cache while the rows pass by. Each slice
// starts from zero and is added to the total: smaller rounding errors than one long chain, and the same for every row.
constexpr std::int64_t slice_groups = 128;

// Rows that pass by a panel before the next one, at most; their sums wait in the scratch.
constexpr std::int64_t block_rows = 252;
// ... so that the block's operand stays in the second cache.
constexpr std::int64_t block_bytes = 512 * 1024;

// One slice of `rows` rows and `tile_columns` columns, added to the sums [rows, 64].
template <class Lanes, int rows>
void add_tile(const char* a, std::int64_t a_stride, const std::int32_t* b, std::int64_t groups, bool first_slice,
              std::int32_t* sums) {
  typename Lanes::Sum total[static_cast<unsigned>(rows)][tile_vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < tile_vectors; ++v) total[r][v] = Lanes::zero();
  for (std::int64_t g = 0; g < groups; ++g) {
    typename Lanes::Factor columns[tile_vectors];
#pragma GCC unroll 8
    for (int v = 0; v < tile_vectors; ++v) columns[v] = Lanes::columns(b + v * width);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const typename Lanes::Factor row = Lanes::every(a + r * a_stride);
#pragma GCC unroll 8
      for (int v = 0; v < tile_vectors; ++v) total[r][v] = Lanes::dot(total[r][v], row, columns[v]);
    }
    a += 4;
    b += panel_columns;
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < tile_vectors; ++v) {
      std::int32_t* at = sums + r * panel_columns + v * width;
      Lanes::store_sum(at, first_slice ? total[r][v] : Lanes::add(Lanes::load_sum(at), total[r][v]));
    }
}

template <class Lanes>
void add_tile(std::int64_t rows, const char* a, std::int64_t a_stride, const std::int32_t* b, std::int64_t groups,
              bool first_slice, std::int32_t* sums) {
  switch (rows) {
    case 1: return add_tile<Lanes, 1>(a, a_stride, b, groups, first_slice, sums);
    case 2: return add_tile<Lanes, 2>(a, a_stride, b, groups, first_slice, sums);
    case 3: return add_tile<Lanes, 3>(a, a_stride, b, groups, first_slice, sums);
    case 4: return add_tile<Lanes, 4>(a, a_stride, b, groups, first_slice, sums);
    case 5: return add_tile<Lanes, 5>(a, a_stride, b, groups, first_slice, sums);
    default: return add_tile<Lanes, 6>(a, a_stride, b, groups, first_slice, sums);
  }
}

template <class Lanes>
void finish_tile(const std::int32_t* sums, const Operand& a, const PackedMatrix& w, std::int64_t row,
                 std::int64_t rows, std::int64_t column, const Epilogue& e) {
  if constexpr (Lanes::format == Format::int8) {
    const IntSums source = {sums, panel_columns, a.scales + row, a.zeros + row, w.scales + column, w.sums + column};
    finish(source, row, rows, column, panel_columns, e);
  } else {
    // the scratch holds what was stored there: floats
    const FloatSums source = {static_cast<const float*>(static_cast<const void*>(sums)), panel_columns};
    finish(source, row, rows, column, panel_columns, e);
  }
}

template <class Lanes>
void multiply_block(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
                    std::int64_t panel, const Epilogue& e, std::int32_t* sums) {
  const std::int64_t groups = groups_of(w.format, w.inner);
  const std::int64_t a_stride = a.stride * 4 / group_size(w.format);
  const char* in = static_cast<const char*>(a.data);
  const auto* b = static_cast<const std::int32_t*>(w.data) + panel * panel_words(w.format, w.inner);
  const std::int64_t tiles = (row_end - row_begin + tile_rows - 1) / tile_rows;
  for (std::int64_t g = 0; g < groups; g += slice_groups) {
    const bool last_slice = g + slice_groups >= groups;
    const std::int64_t slice = last_slice ? groups - g : slice_groups;
    std::int64_t row = row_begin;
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t rows = (row_end - row + tiles - t - 1) / (tiles - t);  // 13 rows are 5 + 4 + 4
      std::int32_t* at = sums + (row - row_begin) * panel_columns;
      for (std::int64_t c = 0; c < panel_columns; c += tile_columns)
        add_tile<Lanes>(rows, in + row * a_stride + g * 4, a_stride, b + g * panel_columns + c, slice, g == 0, at + c);
      if (last_slice) finish_tile<Lanes>(at, a, w, row, rows, panel * panel_columns, e);
      row += rows;
    }
  }
}

template <class Lanes>
void multiply(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
              std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& e, void* scratch) {
  auto* sums = static_cast<std::int32_t*>(scratch);
  const std::int64_t fit = block_bytes / (groups_of(w.format, w.inner) * 4) / tile_rows * tile_rows;
  const std::int64_t block = fit < 48 ? 48 : fit > block_rows ? block_rows : fit;
  for (std::int64_t row = row_begin; row < row_end; row += block) {
    const std::int64_t end = row + block < row_end ? row + block : row_end;
    for (std::int64_t panel = panel_begin; panel < panel_end; ++panel)
      multiply_block<Lanes>(a, row, end, w, panel, e, sums);
  }
}

}  // namespace

std::size_t product_lanes_scratch() { return static_cast<std::size_t>(block_rows * panel_columns) * 4; }

void product_lanes(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
                   std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& e, void* scratch) {
  switch (w.format) {
    case Format::float32: return multiply<Float32Lanes>(a, row_begin, row_end, w, panel_begin, panel_end, e, scratch);
#if defined(__AVX512BF16__)
    case Format::bfloat16: return multiply<Bfloat16Lanes>(a, row_begin, row_end, w, panel_begin, panel_end, e, scratch);
#endif
#if defined(__AVX512VNNI__)
    case Format::int8: return multiply<Int8Lanes>(a, row_begin, row_end, w, panel_begin, panel_end, e, scratch);
#endif
    default: return;  // not offered: Kernels::has_bfloat16, has_int8, has_split
  }
}

}  // namespace layertap::LAYERTAP_ISA

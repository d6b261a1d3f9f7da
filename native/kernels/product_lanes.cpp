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

// K is summed in slices. A slice of a panel (32 KiB) stays in the first cache while all rows of a block use it. Each slice
// starts from zero and is added to the total, which gives smaller rounding errors than one chain, equally for every row.
constexpr std::int64_t slice_groups = 128;

// Rows and panels that are processed before the next slice. Their partial sums (288 KiB) stay in the scratch memory; with
// the slice of the rows (144 KiB) and of the panels (128 KiB) they fit the second cache.
constexpr std::int64_t block_rows = 288;
constexpr std::int64_t block_panels = 4;

// The first tile of a slice fetches its weights into the first cache, `ahead` bytes before it needs them, and into the
// second cache, `far_ahead` bytes before. With few tiles, whose time is that of reading weights, panels are read one after
// the other, as they lie in memory. With more, the tiles fetch the next slice into the second cache: up to `some_tiles`
// spread over their groups, else some lines before each tile.
constexpr std::int64_t line = 64;
constexpr std::int64_t ahead = 2048;
constexpr std::int64_t far_ahead = 8192;
constexpr std::int64_t few_tiles = 4;
constexpr std::int64_t some_tiles = 12;

enum class Fetch {
  none,
  own,   // the slice of the tile
  next,  // the next slice, a line a group
};

// The part of a slice that one register tile uses.
struct TileSlice {
  const char* a;            // the tile's first row
  std::int64_t a_stride;    // bytes
  const std::int32_t* b;    // the tile's first column
  std::int64_t groups;
  std::int32_t* sums;       // [rows, 64]
  bool first;               // of K: the sums are set, later ones added
  const char* next;         // what Fetch::next fetches
};

template <class Lanes, int rows, Fetch fetch>
void add_tile(const TileSlice& s) {
  typename Lanes::Sum total[static_cast<unsigned>(rows)][tile_vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < tile_vectors; ++v) total[r][v] = Lanes::zero();
  const char* a = s.a;
  const std::int64_t a_stride = s.a_stride;
  const std::int32_t* b = s.b;
  const std::int64_t groups = s.groups;
  for (std::int64_t g = 0; g < groups; ++g) {
    if constexpr (fetch == Fetch::own)
#pragma GCC unroll 8
      for (int at = 0; at < tile_columns * 4; at += line) {
        _mm_prefetch(reinterpret_cast<const char*>(b) + ahead + at, _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(b) + far_ahead + at, _MM_HINT_T1);
      }
    if constexpr (fetch == Fetch::next) _mm_prefetch(s.next + g * line, _MM_HINT_T1);
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
      std::int32_t* at = s.sums + r * panel_columns + v * width;
      Lanes::store_sum(at, s.first ? total[r][v] : Lanes::add(Lanes::load_sum(at), total[r][v]));
    }
}

template <class Lanes, Fetch fetch>
void add_tile(std::int64_t rows, const TileSlice& slice) {
  switch (rows) {
    case 1: return add_tile<Lanes, 1, fetch>(slice);
    case 2: return add_tile<Lanes, 2, fetch>(slice);
    case 3: return add_tile<Lanes, 3, fetch>(slice);
    case 4: return add_tile<Lanes, 4, fetch>(slice);
    case 5: return add_tile<Lanes, 5, fetch>(slice);
    default: return add_tile<Lanes, 6, fetch>(slice);
  }
}

template <class Lanes>
void finish_tile(const std::int32_t* sums, const Operand& a, const PackedMatrix& w, std::int64_t row,
                 std::int64_t rows, std::int64_t column, const Epilogue& e) {
  if constexpr (Lanes::format == Format::int8) {
    const IntSums source = {sums, panel_columns, a.scales + row, a.zeros + row, w.scales + column, w.sums + column};
    finish(source, row, rows, column, panel_columns, e);
  } else {
    // the scratch memory holds floats here
    const FloatSums source = {static_cast<const float*>(static_cast<const void*>(sums)), panel_columns};
    finish(source, row, rows, column, panel_columns, e);
  }
}

// The panels' sums of a block's rows, slice by slice; a finished tile is stored.
template <class Lanes>
void multiply_block(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
                    std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& e, std::int32_t* scratch) {
  const std::int64_t groups = groups_of(w.format, w.inner);
  const std::int64_t words = panel_words(w.format, w.inner);
  const std::int64_t a_stride = a.stride * 4 / group_size(w.format);
  const char* in = static_cast<const char*>(a.data);
  const auto* weights = static_cast<const std::int32_t*>(w.data);
  const std::int64_t tiles = (row_end - row_begin + tile_rows - 1) / tile_rows;
  constexpr std::int64_t slice_lines = slice_groups * panel_columns * 4 / line;
  const std::int64_t lines_before_tile = tiles > some_tiles ? slice_lines / tiles + 1 : 0;
  const std::int64_t lines_in_tiles = tiles > few_tiles && tiles <= some_tiles ? slice_lines : 0;
  for (std::int64_t g = 0; g < groups; g += slice_groups) {
    const bool last_slice = g + slice_groups >= groups;
    for (std::int64_t panel = panel_begin; panel < panel_end; ++panel) {
      const std::int32_t* b = weights + panel * words + g * panel_columns;
      const std::int32_t* next = b + words;
      if (panel + 1 == panel_end) next = weights + (last_slice ? panel_end : panel_begin) * words;
      if (panel + 1 == panel_end && !last_slice) next += (g + slice_groups) * panel_columns;
      TileSlice tile = {};
      tile.next = reinterpret_cast<const char*>(next);
      const char* const spread_end = tile.next + lines_in_tiles * line;
      tile.a_stride = a_stride;
      tile.groups = last_slice ? groups - g : slice_groups;
      tile.first = g == 0;
      std::int64_t row = row_begin;
      for (std::int64_t t = 0; t < tiles; ++t) {
        const std::int64_t rows = (row_end - row + tiles - t - 1) / (tiles - t);  // 13 rows are 5 + 4 + 4
        std::int32_t* sums = scratch + ((panel - panel_begin) * block_rows + row - row_begin) * panel_columns;
        for (std::int64_t i = 0; i < lines_before_tile; ++i, tile.next += line) _mm_prefetch(tile.next, _MM_HINT_T1);
        tile.a = in + row * a_stride + g * 4;
        for (std::int64_t c = 0; c < panel_columns; c += tile_columns) {
          tile.b = b + c;
          tile.sums = sums + c;
          if (t == 0) {
            add_tile<Lanes, Fetch::own>(rows, tile);
          } else if (tile.next < spread_end) {
            add_tile<Lanes, Fetch::next>(rows, tile);
            tile.next += tile.groups * line;
          } else {
            add_tile<Lanes, Fetch::none>(rows, tile);
          }
        }
        if (last_slice) finish_tile<Lanes>(sums, a, w, row, rows, panel * panel_columns, e);
        row += rows;
      }
    }
  }
}

template <class Lanes>
void multiply(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
              std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& e, void* scratch) {
  auto* sums = static_cast<std::int32_t*>(scratch);
  const std::int64_t blocks = (row_end - row_begin + block_rows - 1) / block_rows;
  std::int64_t row = row_begin;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t end = row + (row_end - row + blocks - block - 1) / (blocks - block);
    const std::int64_t some = end - row > few_tiles * tile_rows ? block_panels : 1;
    for (std::int64_t panel = panel_begin; panel < panel_end; panel += some) {
      const std::int64_t last = panel + some < panel_end ? panel + some : panel_end;
      multiply_block<Lanes>(a, row, end, w, panel, last, e, sums);
    }
    row = end;
  }
}

}  // namespace

std::size_t product_lanes_scratch() { return static_cast<std::size_t>(block_panels * block_rows * panel_columns) * 4; }

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

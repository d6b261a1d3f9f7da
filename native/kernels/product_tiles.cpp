#include "product_tiles.hpp"

#if defined(LAYERTAP_TILES)

#include "epilogue.hpp"
#include "products.hpp"
#include "tiles.hpp"

namespace layertap::LAYERTAP_ISA {

namespace {

// A block of sums: 2 x 2 tiles, the most that leaves registers for two tiles of each factor. One load a product; four
// sums in turn are 64 cycles apart, more than the 52 that a product takes.
constexpr std::int64_t block_rows = 2 * tile_rows;
constexpr std::int64_t block_columns = 2 * tile_columns;  // of a strip
constexpr std::int64_t block_values = block_rows * block_columns;

// Rows that pass by a strip before the next strip, at most; and how long a strip's piece (a slice of K) may be to stay in
// the first cache (24 of 48 KiB) while they do. Half of the blocks, 32 KiB, and no slices at all were within 5 % of this on
// a Xeon with AMX.
constexpr std::int64_t group_blocks = 8;
constexpr std::int64_t resident_bytes = 24 * 1024;
// With fewer blocks, partial sums cause more traffic than the resident piece saves.
constexpr std::int64_t least_blocks = 4;

// How many steps along K the rows are fetched into the first cache before they are multiplied: 256 cycles or more.
template <Format format>
constexpr std::int64_t steps_ahead = 4 / parts_of(format);

constexpr std::int64_t step_bytes = 2 * tile_bytes;  // of a strip, a part

inline void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }
// A column of 64 bytes of `count` rows, a multiple of 4.
inline void prefetch_rows(const char* p, std::int64_t count, std::int64_t row_bytes) {
  for (std::int64_t r = 0; r < count; r += 4, p += 4 * row_bytes) {
    prefetch(p);
    prefetch(p + row_bytes);
    prefetch(p + 2 * row_bytes);
    prefetch(p + 3 * row_bytes);
  }
}
inline void prefetch_far(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }

// The rows of one block. Tiles are always whole: the last one begins earlier where it would end beyond the rows that may
// be read, and the rows it has in common with the one before are computed twice and stored once.
struct BlockRows {
  std::int64_t first;   // row of the first tile's first row
  std::int64_t tiles;   // 1 or 2
  std::int64_t begin;   // of the rows to store
  std::int64_t end;
};

BlockRows block_of(std::int64_t begin, std::int64_t row_end) {
  const std::int64_t end = begin + block_rows < row_end ? begin + block_rows : row_end;
  const std::int64_t tiles = end - begin > tile_rows ? 2 : 1;
  const std::int64_t readable = (row_end + tile_rows - 1) / tile_rows * tile_rows;
  const std::int64_t latest = readable - tiles * tile_rows;
  return {begin < latest ? begin : latest, tiles, begin, end};
}

// Where a format is float32-grade, K is summed in slices of this many steps (128 values), each from zero - the small
// products of parts first, then the large ones - and then added to the total. So a sum is rounded at its full size once
// for each product of its slice and once a slice, as by vectors; six products a step in one chain would do so at every
// one (K = 3072: 4.8e-6 of the RMS at most, so 0.9e-6). A slice of a strip is 24 KiB, resident as above.
constexpr std::int64_t exact_steps = 4;

template <Format format>
constexpr bool sums_slices = format == Format::split3;

// Sums in the scratch memory to which the epilogue has yet to be applied.
struct Unfinished {
  const void* sums;  // [32, 32] of BlockRows::first, or null
  BlockRows rows;
  std::int64_t column;
  std::int64_t done;  // rows
};

// The constants of one product.
struct Product {
  const Operand& a;
  const PackedMatrix& w;
  const Epilogue& epilogue;
  std::int64_t row_bytes;   // from row to row of a
  std::int64_t part_bytes;  // from part to part of a
  std::int64_t steps;       // along K
  const char* weights_end;
};

// Stores rows until `target` of them are done. Not inlined: it is called every other step of a block's products.
[[gnu::noinline]] void finish_until(const Product& p, Unfinished& u, std::int64_t target) {
  const std::int64_t row = u.rows.begin + u.done;
  const std::int64_t at = (row - u.rows.first) * block_columns;
  if (p.w.format == Format::int8) {
    const IntSums sums = {static_cast<const std::int32_t*>(u.sums) + at, block_columns, p.a.scales + row,
                          p.a.zeros + row, p.w.scales + u.column, p.w.sums + u.column};
    finish(sums, row, target - u.done, u.column, block_columns, p.epilogue);
  } else {
    const FloatSums sums = {static_cast<const float*>(u.sums) + at, block_columns};
    finish(sums, row, target - u.done, u.column, block_columns, p.epilogue);
  }
  u.done = target;
}

void finish_rest(const Product& p, Unfinished& u) {
  if (u.sums != nullptr) finish_until(p, u, u.rows.end - u.rows.begin);
  u.sums = nullptr;
}

template <int tiles>
inline void load_rows(const char* a, std::int64_t row_bytes) {
  load_tile<4>(a, row_bytes);
  if constexpr (tiles == 2) load_tile<5>(a + tile_rows * row_bytes, row_bytes);
}

inline void load_columns(const char* b) {
  load_tile<6>(b, tile_row_bytes);
  load_tile<7>(b + tile_bytes, tile_row_bytes);
}

template <Format format, int row, int column>
inline void dot() {
  if constexpr (format == Format::int8)
    dot_int8<row, column>();
  else
    dot_bfloat16<row, column>();
}

template <Format format, int tiles>
inline void dot_block() {
  dot<format, 0, 0>();
  dot<format, 0, 1>();
  if constexpr (tiles == 2) {
    dot<format, 1, 0>();
    dot<format, 1, 1>();
  }
}

// One step along K. The products of parts run in an order in which each needs few new factors. Of three parts these are
// the five small products.
template <Format format, int tiles>
inline void multiply_step(const char* a, std::int64_t row_bytes, std::int64_t part_bytes, const char* b) {
  if constexpr (format == Format::split2) {
    load_rows<tiles>(a + part_bytes, row_bytes);
    load_columns(b);
    dot_block<format, tiles>();  // second x first
    load_rows<tiles>(a, row_bytes);
    dot_block<format, tiles>();  // first x first
    load_columns(b + step_bytes);
    dot_block<format, tiles>();  // first x second
  } else if constexpr (format == Format::split3) {
    load_rows<tiles>(a + 2 * part_bytes, row_bytes);
    load_columns(b);
    dot_block<format, tiles>();  // third x first
    load_rows<tiles>(a + part_bytes, row_bytes);
    dot_block<format, tiles>();  // second x first
    load_columns(b + step_bytes);
    dot_block<format, tiles>();  // second x second
    load_rows<tiles>(a, row_bytes);
    dot_block<format, tiles>();  // first x second
    load_columns(b + 2 * step_bytes);
    dot_block<format, tiles>();  // first x third
  } else {
    load_rows<tiles>(a, row_bytes);
    load_columns(b);
    dot_block<format, tiles>();
  }
}

// first x first of three parts, in reverse order: what was read last is still in the first cache.
template <Format format, int tiles>
inline void multiply_large(const char* a, std::int64_t row_bytes, const char* b, std::int64_t steps) {
  for (std::int64_t s = steps - 1; s >= 0; --s) {
    load_rows<tiles>(a + s * tile_row_bytes, row_bytes);
    load_columns(b + s * parts_of(format) * step_bytes);
    dot_block<format, tiles>();
  }
}

template <int tiles>
inline void begin_sums(const char* sums, bool first_slice) {
  constexpr std::int64_t stride = block_columns * 4;
  if (first_slice) {
    zero_tile<0>();
    zero_tile<1>();
    if constexpr (tiles == 2) {
      zero_tile<2>();
      zero_tile<3>();
    }
    return;
  }
  load_tile<0>(sums, stride);
  load_tile<1>(sums + tile_row_bytes, stride);
  if constexpr (tiles == 2) {
    load_tile<2>(sums + tile_rows * stride, stride);
    load_tile<3>(sums + tile_rows * stride + tile_row_bytes, stride);
  }
}

template <int tiles>
inline void store_sums(char* sums) {
  constexpr std::int64_t stride = block_columns * 4;
  store_tile<0>(sums, stride);
  store_tile<1>(sums + tile_row_bytes, stride);
  if constexpr (tiles == 2) {
    store_tile<2>(sums + tile_rows * stride, stride);
    store_tile<3>(sums + tile_rows * stride + tile_row_bytes, stride);
  }
}

// A slice of K for one block, and the data to prefetch meanwhile.
struct Slice {
  const char* a;       // first part, first step
  const char* b;
  std::int64_t steps;
  bool first;          // of K
  const char* next_a;  // the rows of the block after this one
  std::int64_t next_rows;
  bool fetch_b;             // the piece comes from the second cache, not yet the first
  const char* far;          // weights to come, into the second cache
  std::int64_t far_bytes;   // a step
};

template <int tiles>
inline void add_sums(const float* slice, float* total) {
  for (std::int64_t i = 0; i < tiles * tile_rows * block_columns; i += width)
    store(total + i, load(total + i) + load(slice + i));
}

// `sums` is the block's place in the scratch, `spare` one more.
template <Format format, int tiles>
void multiply_slice(const Product& p, const Slice& slice, Unfinished& before, char* sums, char* spare) {
  constexpr std::int64_t parts = parts_of(format);
  const std::int64_t to_finish = before.sums == nullptr ? 0 : before.rows.end - before.rows.begin;
  const char* far = slice.far;
  begin_sums<tiles>(sums, slice.first || sums_slices<format>);
  for (std::int64_t s = 0; s < slice.steps; ++s) {
    const char* b = slice.b + s * parts * step_bytes;
    multiply_step<format, tiles>(slice.a + s * tile_row_bytes, p.row_bytes, p.part_bytes, b);

    const std::int64_t ahead = s + steps_ahead<format>;
    const bool same = ahead < slice.steps;
    if (same || ahead < 2 * slice.steps) {
      const char* rows = same ? slice.a + ahead * tile_row_bytes : slice.next_a + (ahead - slice.steps) * tile_row_bytes;
      const std::int64_t count = same ? tiles * tile_rows : slice.next_rows;
      for (std::int64_t part = 0; part < parts; ++part) prefetch_rows(rows + part * p.part_bytes, count, p.row_bytes);
    }
    if (slice.fetch_b && same)
      for (std::int64_t i = 0; i < parts * step_bytes; i += 64) prefetch(b + steps_ahead<format> * parts * step_bytes + i);
    for (std::int64_t i = 0; i < slice.far_bytes && far < p.weights_end; i += 64, far += 64) prefetch_far(far);

    // the sums of the block before are finished by vector instructions while the tiles multiply
    if (to_finish > 0 && (s % 2 == 1 || s + 1 == slice.steps))
      finish_until(p, before, to_finish * (s + 1) / slice.steps);
  }
  before.sums = nullptr;
  if constexpr (format == Format::split3) multiply_large<format, tiles>(slice.a, p.row_bytes, slice.b, slice.steps);
  if (slice.first || !sums_slices<format>) {
    store_sums<tiles>(sums);
  } else {
    store_sums<tiles>(spare);
    add_sums<tiles>(static_cast<const float*>(static_cast<const void*>(spare)),
                    static_cast<float*>(static_cast<void*>(sums)));
  }
}

// Steps of K that stay in the first cache, for a group of `blocks` blocks; all of them where that does not pay. Where
// slices start from zero their length may not depend on the blocks.
template <Format format>
std::int64_t slice_steps(std::int64_t steps, std::int64_t blocks) {
  if (sums_slices<format>) return exact_steps < steps ? exact_steps : steps;
  if (blocks < least_blocks) return steps;
  const std::int64_t fit = resident_bytes / (parts_of(format) * step_bytes);
  const std::int64_t slices = (steps + fit - 1) / fit;
  return (steps + slices - 1) / slices;
}

// Strips [strip_begin, strip_end) for up to `group_blocks` blocks of rows.
template <Format format>
void multiply_group(const Product& p, std::int64_t row_begin, std::int64_t row_end, std::int64_t strip_begin,
                    std::int64_t strip_end, Unfinished& unfinished, char* scratch) {
  constexpr std::int64_t parts = parts_of(format);
  const std::int64_t blocks = (row_end - row_begin + block_rows - 1) / block_rows;
  const std::int64_t slice_length = slice_steps<format>(p.steps, blocks);
  const char* rows = static_cast<const char*>(p.a.data);
  for (std::int64_t strip = strip_begin; strip < strip_end; ++strip)
    for (std::int64_t step = 0; step < p.steps; step += slice_length) {
      Slice slice = {};
      slice.steps = step + slice_length < p.steps ? slice_length : p.steps - step;
      slice.first = step == 0;
      slice.b = static_cast<const char*>(p.w.data) + (strip * p.steps + step) * parts * step_bytes;
      // the piece after this one follows in memory; each step of each block fetches its share
      slice.far_bytes = (slice.steps * parts * step_bytes / (blocks * slice.steps) + 63) / 64 * 64;
      const bool last_slice = step + slice.steps == p.steps;
      for (std::int64_t i = 0; i < blocks; ++i) {
        const BlockRows block = block_of(row_begin + i * block_rows, row_end);
        const bool last_block = i + 1 == blocks;
        const BlockRows next = last_block ? block_of(row_begin, row_end) : block_of(row_begin + (i + 1) * block_rows, row_end);
        const std::int64_t next_step = !last_block ? step : last_slice ? 0 : step + slice.steps;
        slice.a = rows + block.first * p.row_bytes + step * tile_row_bytes;
        slice.next_a = rows + next.first * p.row_bytes + next_step * tile_row_bytes;
        slice.next_rows = next.tiles * tile_rows;
        slice.fetch_b = i == 0;
        slice.far = slice.b + slice.steps * parts * step_bytes + i * slice.steps * slice.far_bytes;
        // sums wait for the next slice each in its place; where K is one slice, one place does
        char* sums = scratch + (slice_length < p.steps ? i * block_values * 4 : 0);
        char* spare = scratch + group_blocks * block_values * 4;
        if (block.tiles == 2)
          multiply_slice<format, 2>(p, slice, unfinished, sums, spare);
        else
          multiply_slice<format, 1>(p, slice, unfinished, sums, spare);
        if (last_slice) unfinished = {sums, block, strip * block_columns, 0};
      }
    }
}

template <Format format>
void multiply(const Product& p, std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin,
              std::int64_t panel_end, void* scratch) {
  constexpr std::int64_t strips = panel_columns / block_columns;
  constexpr std::int64_t group_rows = group_blocks * block_rows;
  Unfinished unfinished = {};
  for (std::int64_t row = row_begin; row < row_end; row += group_rows)
    multiply_group<format>(p, row, row + group_rows < row_end ? row + group_rows : row_end, panel_begin * strips,
                           panel_end * strips, unfinished, static_cast<char*>(scratch));
  finish_rest(p, unfinished);
}

}  // namespace

std::size_t product_tiles_scratch() { return static_cast<std::size_t>((group_blocks + 1) * block_values) * 4; }

void product_tiles(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
                   std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue, void* scratch) {
  const Product p = {
      a,
      w,
      epilogue,
      a.stride * value_bytes(w.format),
      a.part_stride * value_bytes(w.format),
      padded_groups(w.format, w.inner) / tile_groups,
      static_cast<const char*>(w.data) + packed_bytes(w.format, w.rows, w.inner),
  };
  // Configured at every entry, which takes some 200 cycles: other code on this thread, such as torch's, may have changed or
  // released the configuration since. Released at the end, so that a context switch need not save 8 KiB of tiles.
  memory_settled();
  configure_tiles();
  switch (w.format) {
    case Format::bfloat16: multiply<Format::bfloat16>(p, row_begin, row_end, panel_begin, panel_end, scratch); break;
    case Format::int8: multiply<Format::int8>(p, row_begin, row_end, panel_begin, panel_end, scratch); break;
    case Format::split2: multiply<Format::split2>(p, row_begin, row_end, panel_begin, panel_end, scratch); break;
    case Format::split3: multiply<Format::split3>(p, row_begin, row_end, panel_begin, panel_end, scratch); break;
    case Format::float32: break;  // by vectors
  }
  release_tiles();
}

}  // namespace layertap::LAYERTAP_ISA

#endif

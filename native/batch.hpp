// The request of a run: sequences laid end to end, segments, captures. Shape letters: B sequences, T packed tokens,
// S segments, R row ranges, H hidden size.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace layertap {

using Ints = std::span<const std::int32_t>;

struct Batch {
  Ints input_ids;       // [T]
  Ints position_ids;    // [T], or empty: no table of positions
  Ints token_type_ids;  // [T], or empty: type 0 everywhere
  Ints cu_seqlens;      // [B + 1]

  std::int64_t num_tokens() const { return static_cast<std::int64_t>(input_ids.size()); }
  std::int64_t num_sequences() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
};

// See `layertap.packing.Segments`.
struct Segments {
  Ints begin, end;                // [R]
  Ints offsets;                   // [S + 1]
  std::span<const float> weights;  // [T], or empty: ones

  std::int64_t size() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
};

enum class Reduce : std::uint8_t { none, first, last, sum, max, min };
enum class Maps : std::uint8_t { none, heads, mean };

// See `layertap.features.program.Capture`.
struct Capture {
  std::vector<int> layers;  // ascending
  bool fold_is_max = false;
  std::vector<float> weights;  // one a layer, or empty
  int segments = -1;           // index into the run's segments; -1: every row
  Reduce reduce = Reduce::none;
  bool pooler = false;
  bool unnormed = false;  // of the last state, what it is before the final norm
  Maps maps = Maps::none;
  std::vector<int> heads;   // of maps; empty: all heads
  float* out = nullptr;     // [S, H], [T, H]; maps: [t, t] or [heads, t, t] of each sequence, end to end
  std::int64_t floats = 0;  // size of `out`
};

struct Program {
  int stop = 0;
  std::optional<Ints> top_rows;  // ascending: the rows needed of state `stop`
  std::vector<Capture> captures;
  std::vector<Segments> segments;
};

}  // namespace layertap

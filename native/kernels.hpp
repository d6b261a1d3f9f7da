// The table of functions that every instruction set fills. The kernel files are compiled once for each set.
//
// Shape letters: M rows (tokens), N output columns, K inner columns, S segments, D head size.
//
// Every function gives a row the same bits regardless of the other rows that it is computed with, of its place in [0, M)
// and of the thread: sums over K run in an order that depends on K alone, and rows never share a sum.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats.hpp"

namespace layertap {

enum class Activation : std::uint8_t { none, gelu, gelu_tanh, relu, silu, tanh };

// Functions of math.hpp, for tests. The `rounded` ones are for results that are rounded to bfloat16.
enum class Function : std::uint8_t {
  exp, exp_rounded, exp2_rounded, gelu, gelu_rounded, gelu_tanh, gelu_tanh_rounded, silu, silu_rounded, tanh, relu
};

// All strides are counted in elements and are multiples of this; columns beyond the real ones are zero. Kernels may read,
// but never write, rows up to a multiple of 16.
constexpr std::int64_t padding = 64;

LAYERTAP_INLINE std::int64_t padded(std::int64_t columns) { return (columns + padding - 1) / padding * padding; }

// Activations [M, K] in the layout that products read.
struct Operand {
  void* data = nullptr;          // float, bfloat16 or uint8 [parts, M, stride]
  std::int64_t stride = 0;       // elements from row to row
  std::int64_t part_stride = 0;  // elements from part to part (split2, split3)
  float* scales = nullptr;       // int8: [M], value = scale * (stored - zero)
  float* zeros = nullptr;        // int8: [M], need not be whole numbers
};

// Weights [N, K] in the layout that products read, made by `Kernels::pack`.
struct PackedMatrix {
  Format format;
  std::int64_t rows;       // N
  std::int64_t inner;      // K
  std::int64_t panels;     // of Kernels::panel columns each
  void* data;              // aligned to 64 bytes; layout is the kernels' own
  float* scales;           // int8: [padded(N)], one a column
  float* sums;             // int8: [padded(N)], a column's stored weights added up
};

// Applied to the sums of a product before they are stored: out = activation(sum + bias) * factors + residual.
struct Epilogue {
  const float* bias = nullptr;  // [padded(N)] or null
  Activation activation = Activation::none;
  const float* residual = nullptr;  // [M, residual_stride] or null; may be `out`
  std::int64_t residual_stride = 0;
  void* out = nullptr;  // [M, out_stride], float or bfloat16; all columns of the panels are written
  std::int64_t out_stride = 0;
  bool out_is_bfloat16 = false;
  const void* factors = nullptr;  // [M, out_stride] of the same type as `out`, or null; may be `out`
};

// Attention of one head over one sequence: softmax(scale * Q K^T) V.
struct AttentionHead {
  bool is_bfloat16;         // q, k, v and out: bfloat16, or else float; products in that format, softmax in float32
  const void* queries;      // [num_queries, stride]
  const void* keys;         // [num_keys, stride]
  const void* values;       // [num_keys, stride]
  std::int64_t query_stride;
  std::int64_t stride;      // of keys and values
  std::int64_t num_queries;
  std::int64_t num_keys;
  std::int64_t head_size;   // D, any from 1 on
  float scale;
  void* out;                // [num_queries, out_stride]; only D columns are written
  std::int64_t out_stride;
  float* probabilities;     // [num_queries, num_keys] or null
  // Terms that some families add; null or 0: none. Key j is at place j, query i at place `query_rows[i]` (or i, if null)
  // plus `query_offset`.
  const std::int32_t* query_rows;
  std::int64_t query_offset;
  const float* distance_bias;  // [2 num_keys - 1]: score += distance_bias[num_keys - 1 + key's place - query's]
  std::int64_t window;         // keys at a larger distance from the query are masked; 0: none
  // Disentangled attention: score += scale * (query_distances[i][c] + key_distances[j][c]), the products of query and key
  // with the vector of their distance, in column c = distance_columns[key's place - query's place]. Either may be null.
  // Not combined with a bias or a window. Rows may be read up to one vector beyond their ends.
  const float* query_distances;          // [num_queries, distance_stride]
  const float* key_distances;            // [num_keys, distance_stride]
  std::int64_t distance_stride;
  const std::int32_t* distance_columns;  // ascending; index 0 is distance 0, with num_keys + `distances_beyond` entries on either side
};

constexpr std::int64_t distances_beyond = 16;

// A norm: (x - mean) / sqrt(variance + eps) * weight + bias, or x / sqrt(mean of squares + eps) * weight + bias.
struct RowNorm {
  const float* weight;
  const float* bias;  // or null
  float eps;
  bool by_root_mean_square;
};

// Rows to rotate in place: columns i and i + D/2 of each head are a point, rotated by an angle that the row's place gives.
struct Rotation {
  void* rows;  // [num_rows, stride], float or bfloat16
  bool is_bfloat16;
  std::int64_t stride;
  std::int64_t num_rows;
  std::int64_t num_heads;      // side by side
  std::int64_t head_size;      // D, even
  const float* cosines;        // [places, D/2]
  const float* sines;          // [places, D/2]
  const std::int32_t* places;  // [num_rows], or null: first_place, first_place + 1, ...
  std::int64_t first_place;
};

// A table of embeddings in its stored format.
struct Table {
  enum class Type : std::uint8_t { float32, bfloat16, float16 };
  const void* data = nullptr;  // [rows, columns], or null: there is none
  Type type = Type::float32;
  std::int64_t rows = 0;
  std::int64_t stride = 0;  // elements
};

// Rows of up to three tables, to be summed as (word + type) + position.
struct EmbeddingRows {
  Table words, types, positions;
  const std::int32_t* input_ids;       // [M]
  const std::int32_t* token_type_ids;  // [M], or null: 0 everywhere
  const std::int32_t* position_ids;    // [M]; not read where there is no table of positions
};

struct Kernels {
  const char* name;              // of the instruction set
  std::int64_t panel;            // columns of a packed panel; divides `padding`
  bool has_bfloat16, has_int8, has_split;

  // --- products.cpp
  std::size_t (*packed_bytes)(Format, std::int64_t rows, std::int64_t inner);
  // Fills data, scales, sums of `matrix` (allocated by the caller, zeroed) from float32 weights [N, stride].
  void (*pack)(const float* weights, std::int64_t stride, PackedMatrix& matrix);
  std::size_t (*product_scratch)(std::int64_t inner);  // bytes a thread
  // Rows [row_begin, row_end) of a, panels [panel_begin, panel_end) of w. `out` and `residual` point at row 0, panel 0.
  void (*product)(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const PackedMatrix& w,
                  std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue, void* scratch);

  // --- attention.cpp
  std::size_t (*attention_scratch)(std::int64_t num_keys, std::int64_t head_size);  // bytes a thread
  void (*attention)(const AttentionHead& head, void* scratch);

  // --- rows.cpp
  // float32 [rows, out_stride], zero beyond `columns`.
  void (*embed)(const EmbeddingRows& in, std::int64_t rows, std::int64_t columns, float* out, std::int64_t out_stride);
  // `out` may be `in`; `rounded`, where not null, receives the results as bfloat16, too.
  void (*normalize)(const float* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, const RowNorm& norm,
                    float* out, std::int64_t out_stride, bfloat16* rounded, std::int64_t rounded_stride);
  void (*rotate)(const Rotation& rotation);
  // Converts float32 [rows, stride] to rows [0, rows) of an operand of the given format.
  void (*to_operand)(const float* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, Format format,
                     const Operand& out);
  // Converts bfloat16 [rows, stride] to float32.
  void (*widen)(const bfloat16* in, std::int64_t in_stride, std::int64_t rows, std::int64_t columns, float* out,
                std::int64_t out_stride);
  // total[column] (=, +=, max=, min=) weight * row[column]; the first row of a segment uses set_row.
  void (*set_row)(float* total, const float* row, float weight, std::int64_t columns);
  void (*add_row)(float* total, const float* row, float weight, std::int64_t columns);
  void (*max_row)(float* total, const float* row, std::int64_t columns);  // a NaN on either side gives NaN
  void (*min_row)(float* total, const float* row, std::int64_t columns);

  // --- evaluate.cpp
  // out[i] = f(in[i]), for tests of math.hpp.
  void (*evaluate)(Function f, const float* in, float* out, std::int64_t count);
};

// The kernels of an instruction set that `instruction_sets` lists; null for any other name.
const Kernels* kernels_of(const char* instruction_set);

}  // namespace layertap

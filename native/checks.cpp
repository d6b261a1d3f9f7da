#include "checks.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace layertap {

namespace {

void require(bool holds, const std::string& why) {
  if (!holds) throw std::invalid_argument(why);
}

bool is_strictly_ascending(const std::vector<int>& values) {
  return std::adjacent_find(values.begin(), values.end(), [](int a, int b) { return a >= b; }) == values.end();
}

void check_ids(const Ints& ids, std::int64_t rows, std::size_t tokens, const std::string& name) {
  if (ids.empty()) return;
  require(ids.size() == tokens, name + ": one a token is needed");
  const auto [least, most] = std::minmax_element(ids.begin(), ids.end());
  require(*least >= 0 && *most < rows, name + ": beyond the table, which has " + std::to_string(rows) + " rows");
}

void check_stop(const Model& model, int stop) {
  const int layers = static_cast<int>(model.layers.size());
  require(stop >= 0 && stop <= layers, "stop: beyond the layers");
  for (int i = 0; i < stop; ++i)
    require(static_cast<std::size_t>(model.layer(i).block) < model.blocks.size(), "a layer's block is not loaded");
  require(!model.shape.is_pre_norm || stop < layers || model.final_norm != nullptr, "the final norm is not loaded");
}

void check_top_rows(const Ints& rows, const Batch& batch) {
  for (std::size_t i = 0; i < rows.size(); ++i)
    require(rows[i] >= 0 && rows[i] < batch.num_tokens() && (i == 0 || rows[i] > rows[i - 1]),
            "top_rows: ascending rows of the batch are needed");
}

void check_segments(const Segments& segments, const Batch& batch) {
  const auto ranges = segments.begin.size();
  require(segments.weights.empty() || segments.weights.size() == batch.input_ids.size(), "segments: one weight a token is needed");
  require(segments.end.size() == ranges && !segments.offsets.empty() && segments.offsets.front() == 0 &&
              static_cast<std::size_t>(segments.offsets.back()) == ranges &&
              std::is_sorted(segments.offsets.begin(), segments.offsets.end()),
          "segments: the offsets do not fit the ranges");
  for (std::size_t r = 0; r < ranges; ++r)
    require(segments.begin[r] >= segments.end[r] || (segments.begin[r] >= 0 && segments.end[r] <= batch.num_tokens()),
            "segments: rows of the batch are needed");
}

// The rows that a reduction reads must be among those that are kept.
void check_kept(const Capture& capture, const Segments& segments, const Ints& kept) {
  for (std::int64_t s = 0; s < segments.size(); ++s) {
    const auto first = static_cast<std::size_t>(segments.offsets[static_cast<std::size_t>(s)]);
    const auto last = static_cast<std::size_t>(segments.offsets[static_cast<std::size_t>(s) + 1]);
    for (std::size_t r = first; r < last; ++r) {
      if (segments.begin[r] >= segments.end[r]) continue;
      const std::int32_t from = capture.reduce == Reduce::last ? segments.end[r] - 1 : segments.begin[r];
      const std::int32_t to = capture.reduce == Reduce::first ? from + 1 : segments.end[r];
      const auto at = std::lower_bound(kept.begin(), kept.end(), from);
      require(kept.end() - at >= to - from && *at == from && at[to - from - 1] == to - 1, "top_rows: a capture needs other rows");
      if (capture.reduce == Reduce::first) break;
    }
  }
}

void check_maps(const Model& model, const Capture& capture) {
  require(capture.layers.size() == 1 && capture.layers.front() >= 1, "a capture of attention maps is of one layer, from 1 on");
  require(!capture.pooler && !capture.unnormed && !capture.fold_is_max && capture.weights.empty() &&
              capture.reduce == Reduce::none,
          "a capture of attention maps has no pooler, fold, weights or segments");
  require(static_cast<std::int64_t>(capture.heads.size()) <= model.shape.num_attention_heads, "a capture has more heads than the model");
  for (const int head : capture.heads)
    require(head >= 0 && head < model.shape.num_attention_heads, "a capture's head does not exist");
}

void check_pooler(const Model& model, const Capture& capture, const Program& program) {
  require(model.pooler != nullptr, "the pooler is not loaded");
  require(capture.segments >= 0 && capture.layers.size() == 1 && capture.layers.front() == program.stop,
          "a capture of the pooler needs segments and the last state alone");
  require(!capture.unnormed && !capture.fold_is_max && capture.weights.empty(), "a capture of the pooler has no fold or weights");
}

std::int64_t floats_of(const Model& model, const Capture& capture, const Program& program, const Batch& batch) {
  if (capture.maps == Maps::none)
    return model.shape.hidden_size *
           (capture.segments < 0 ? batch.num_tokens() : program.segments[static_cast<std::size_t>(capture.segments)].size());
  std::int64_t squares = 0;
  for (std::size_t b = 1; b < batch.cu_seqlens.size(); ++b) {
    const std::int64_t length = batch.cu_seqlens[b] - batch.cu_seqlens[b - 1];
    squares += length * length;
  }
  const std::int64_t heads = capture.heads.empty() ? model.shape.num_attention_heads : static_cast<std::int64_t>(capture.heads.size());
  return squares * (capture.maps == Maps::mean ? 1 : heads);
}

void check_capture(const Model& model, const Batch& batch, const Program& program, const Capture& capture) {
  require(!capture.layers.empty() && is_strictly_ascending(capture.layers) && capture.layers.front() >= 0 &&
              capture.layers.back() <= program.stop,
          "a capture's layers are ascending states up to `stop`");
  require(capture.weights.empty() || capture.weights.size() == capture.layers.size(), "a capture has one weight a layer");
  require(capture.segments >= -1 && capture.segments < static_cast<int>(program.segments.size()) &&
              (capture.segments < 0) == (capture.reduce == Reduce::none),
          "a capture's segments do not exist, or it has segments without a reduction");
  require(!capture.unnormed || (model.shape.is_pre_norm && capture.layers.back() == static_cast<int>(model.layers.size())),
          "a capture before the final norm is one of the last state");
  if (capture.maps != Maps::none) check_maps(model, capture);
  require(capture.maps != Maps::none || capture.heads.empty(), "a capture has heads only of attention maps");
  if (capture.pooler) check_pooler(model, capture, program);
  if (program.top_rows && capture.layers.back() == program.stop) {
    require(capture.segments >= 0, "a capture of every row cannot be taken from some of them");
    check_kept(capture, program.segments[static_cast<std::size_t>(capture.segments)], *program.top_rows);
  }
  require(capture.floats == floats_of(model, capture, program, batch), "a capture's array has another size than its result");
}

}  // namespace

void check_batch(const Model& model, const Batch& batch) {
  require(model.embeddings != nullptr, "the embeddings are not loaded");
  const auto tokens = batch.input_ids.size();
  require(tokens > 0 && batch.cu_seqlens.size() >= 2, "the batch is empty");
  const Ints& ends = batch.cu_seqlens;
  require(ends.front() == 0 && static_cast<std::size_t>(ends.back()) == tokens, "cu_seqlens: from 0 to the number of tokens");
  for (std::size_t b = 1; b < ends.size(); ++b) {
    require(ends[b] > ends[b - 1], "cu_seqlens: each sequence has at least one token");
    const std::int64_t length = ends[b] - ends[b - 1];
    require(model.distance_bias == nullptr || length <= model.distance_bias->longest,
            "cu_seqlens: a sequence is longer than the bias by distance");
    require(model.distances == nullptr || (model.distance_columns != nullptr && length <= model.distance_columns->longest),
            "cu_seqlens: a sequence is longer than the distances");
  }
  const Embeddings& tables = *model.embeddings;
  require(tables.positions.data == nullptr || !batch.position_ids.empty(), "position_ids: needed for the table of positions");
  check_ids(batch.input_ids, tables.words.rows, tokens, "input_ids");
  check_ids(batch.position_ids, tables.positions.rows, tokens, "position_ids");
  check_ids(batch.token_type_ids, tables.types.rows, tokens, "token_type_ids");
}

void check_program(const Model& model, const Batch& batch, const Program& program) {
  check_stop(model, program.stop);
  if (program.top_rows) check_top_rows(*program.top_rows, batch);
  for (const Segments& segments : program.segments) check_segments(segments, batch);
  for (const Capture& capture : program.captures) check_capture(model, batch, program, capture);
  require(std::count_if(program.captures.begin(), program.captures.end(), [](const Capture& capture) { return capture.pooler; }) <= 1,
          "a program has one capture of the pooler at most");
}

}  // namespace layertap

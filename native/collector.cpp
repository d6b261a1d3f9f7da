#include "collector.hpp"

#include <algorithm>

namespace layertap {

namespace {

bool folds(const Capture& capture) { return capture.layers.size() > 1 || !capture.weights.empty(); }

bool is_of_states(const Capture& capture) { return capture.maps == Maps::none && !capture.pooler; }

// The state of row `row` of a shard; null if it is not among `states`.
const float* row_of(const States& states, std::int64_t row) {
  if (states.kept == nullptr) return states.data + row * states.stride;
  const std::int32_t* end = states.kept + states.rows;
  const std::int32_t* at = std::lower_bound(states.kept, end, row);
  return at != end && *at == row ? states.data + (at - states.kept) * states.stride : nullptr;
}

}  // namespace

Collector::Collector(const Kernels& kernels, const Program& program, const WorkPartition& partition, std::int64_t hidden)
    : kernels_(kernels), program_(program), partition_(partition), hidden_(hidden) {
  for (const Capture& capture : program.captures) {
    if (capture.pooler) pooler_ = &capture;
    if (is_of_states(capture) && folds(capture)) ++folding_;
  }
}

const Collector::Own& Collector::segments_of(const Capture& capture, std::size_t shard) const {
  return partition_.segments[static_cast<std::size_t>(capture.segments)][shard];
}

bool Collector::wants(int layer) const {
  return std::any_of(program_.captures.begin(), program_.captures.end(), [&](const Capture& capture) {
    return is_of_states(capture) && std::find(capture.layers.begin(), capture.layers.end(), layer) != capture.layers.end();
  });
}

bool Collector::wants_normed(int layer) const {
  return std::any_of(program_.captures.begin(), program_.captures.end(), [&](const Capture& capture) {
    return capture.maps == Maps::none && !capture.unnormed && capture.layers.back() == layer;
  });
}

void Collector::take(int layer, std::optional<bool> unnormed, const States& states, std::size_t shard, float* all_folds,
                     std::int64_t begin, std::int64_t end) const {
  const std::int64_t stride = padded(hidden_);
  const std::int64_t shard_rows = partition_.shards[shard].rows();
  float* next_fold = all_folds;
  for (const Capture& capture : program_.captures) {
    if (!is_of_states(capture)) continue;
    float* fold = nullptr;
    if (folds(capture)) {
      fold = next_fold;
      next_fold += shard_rows * stride;
    }
    const auto at = std::find(capture.layers.begin(), capture.layers.end(), layer);
    if (at == capture.layers.end() || (unnormed && *unnormed != capture.unnormed)) continue;
    if (fold == nullptr) {
      reduce(capture, states, shard, begin, end);
      continue;
    }
    const auto index = static_cast<std::size_t>(at - capture.layers.begin());
    const float weight = capture.weights.empty() ? 1.0F : capture.weights[index];
    for (std::int64_t i = 0; i < states.rows; ++i) {
      const std::int64_t row = states.kept == nullptr ? i : states.kept[i];
      float* total = fold + row * stride + begin;
      const float* state = states.data + i * states.stride + begin;
      if (index == 0) {
        kernels_.set_row(total, state, weight, end - begin);
      } else if (capture.fold_is_max) {
        kernels_.max_row(total, state, end - begin);
      } else {
        kernels_.add_row(total, state, weight, end - begin);
      }
    }
    if (index + 1 == capture.layers.size()) reduce(capture, {fold, stride, shard_rows, nullptr}, shard, begin, end);
  }
}

void Collector::reduce(const Capture& capture, const States& states, std::size_t shard, std::int64_t begin,
                       std::int64_t end) const {
  const std::int64_t row_begin = partition_.shards[shard].row_begin;
  if (capture.reduce == Reduce::none) {
    for (std::int64_t i = 0; i < states.rows; ++i) {
      const std::int64_t row = row_begin + (states.kept == nullptr ? i : states.kept[i]);
      std::copy(states.data + i * states.stride + begin, states.data + i * states.stride + end,
                capture.out + row * hidden_ + begin);
    }
    return;
  }
  for (const std::int32_t segment : segments_of(capture, shard))
    reduce_segment(capture, states, row_begin, segment, capture.out + segment * hidden_, begin, end);
}

void Collector::reduce_segment(const Capture& capture, const States& states, std::int64_t row_begin,
                               std::int32_t segment, float* out, std::int64_t begin, std::int64_t end) const {
  const Segments& segments = program_.segments[static_cast<std::size_t>(capture.segments)];
  const auto s = static_cast<std::size_t>(segment);
  float* total = out + begin;
  bool is_empty = true;
  for (auto r = static_cast<std::size_t>(segments.offsets[s]); r < static_cast<std::size_t>(segments.offsets[s + 1]); ++r) {
    for (std::int64_t row = segments.begin[r]; row < segments.end[r]; ++row) {
      // for `last`, rows before the last one may not have been computed
      if (capture.reduce == Reduce::last && row + 1 != segments.end[r]) continue;
      if (capture.reduce == Reduce::first && !is_empty) return;
      const float* state = row_of(states, row - row_begin) + begin;
      const float weight = segments.weights.empty() || capture.reduce != Reduce::sum
                               ? 1.0F
                               : segments.weights[static_cast<std::size_t>(row)];
      if (is_empty || capture.reduce == Reduce::last) {
        kernels_.set_row(total, state, weight, end - begin);
      } else if (capture.reduce == Reduce::sum) {
        kernels_.add_row(total, state, weight, end - begin);
      } else if (capture.reduce == Reduce::max) {
        kernels_.max_row(total, state, end - begin);
      } else {
        kernels_.min_row(total, state, end - begin);
      }
      is_empty = false;
    }
  }
  if (is_empty) std::fill(total, out + end, 0.0F);
}

std::int64_t Collector::pooler_rows(std::size_t shard) const {
  return pooler_ == nullptr ? 0 : static_cast<std::int64_t>(segments_of(*pooler_, shard).size());
}

void Collector::take_pooler_rows(const States& states, std::size_t shard, float* rows, std::int64_t begin,
                                 std::int64_t end) const {
  const std::int64_t row_begin = partition_.shards[shard].row_begin;
  for (const std::int32_t segment : segments_of(*pooler_, shard)) {
    reduce_segment(*pooler_, states, row_begin, segment, rows, begin, end);
    rows += padded(hidden_);
  }
}

void Collector::put_pooled(const float* pooled, std::int64_t stride, std::size_t shard, std::int64_t begin,
                           std::int64_t end) const {
  for (const std::int32_t segment : segments_of(*pooler_, shard)) {
    std::copy(pooled + begin, pooled + end, pooler_->out + segment * hidden_ + begin);
    pooled += stride;
  }
}

}  // namespace layertap

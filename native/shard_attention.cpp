// The attention half of `ShardRun`: each sequence on its own, head by head.
#include <algorithm>
#include <cmath>

#include "shard_run.hpp"

namespace layertap {

void ShardRun::rotate(int rotary) {
  if (rotary < 0) return;
  const Angles& angles = *context_.angles[static_cast<std::size_t>(rotary)];
  // turns `heads` heads of `rows` rows from the one at `begin` on
  const auto turn = [&](const Rows& all, void* begin, std::int64_t rows, std::int64_t heads, const std::int32_t* places,
                        std::int64_t first_place) {
    kernels_.rotate({begin, all.is_bfloat16(), all.stride, rows, heads, shape_.head_size(), angles.cosines.data(),
                     angles.sines.data(), places, first_place});
  };
  const Shard& shard = context_.partition.shards[shard_];
  const auto turn_rows = [&](Part own) {
    for (std::int64_t sequence = shard.sequence_begin; sequence < shard.sequence_end; ++sequence) {
      const std::int64_t first = batch_.cu_seqlens[static_cast<std::size_t>(sequence)] - row_begin_;
      const std::int64_t begin = std::max(first, own.begin);
      const std::int64_t end = std::min(batch_.cu_seqlens[static_cast<std::size_t>(sequence) + 1] - row_begin_, own.end);
      if (begin >= end) continue;
      const Rows& rows = work_->query_key_value.rows();
      if (!is_kept_) turn(rows, rows.at(begin, 0), end - begin, shape_.num_attention_heads, nullptr, begin - first);
      turn(rows, rows.at(begin, stride_), end - begin, shape_.num_key_value_heads, nullptr, begin - first);
    }
  };
  share(rows_, some_rows, turn_rows);
  if (is_kept_) {
    const Rows& rows = work_->kept_queries.rows();
    share(hidden_.rows, some_rows, [&](Part kept) {
      turn(rows, rows.at(kept.begin, 0), kept.end - kept.begin, shape_.num_attention_heads, query_rows_.data() + kept.begin, 0);
    });
  }
}

bool ShardRun::wants_maps(int layer) const {
  return std::any_of(program_.captures.begin(), program_.captures.end(), [&](const Capture& capture) {
    return capture.maps != Maps::none && capture.layers.front() == layer + 1;
  });
}

void ShardRun::attend(int layer) {
  const Shard& shard = context_.partition.shards[shard_];
  const std::int64_t sequences = shard.sequence_end - shard.sequence_begin;
  const std::int64_t heads = shape_.num_attention_heads;
  // a mean over heads is summed in their order, so one member computes all of them
  const bool by_head = context_.threads > 1 && !wants_maps(layer);
  share(by_head ? sequences * heads : sequences, 1, [&](Part own) {
    for (std::int64_t i = own.begin; i < own.end; ++i) {
      if (by_head) {
        attend_sequence(shard.sequence_begin + i / heads, i % heads, i % heads + 1, layer);
      } else {
        attend_sequence(shard.sequence_begin + i, 0, heads, layer);
      }
    }
  });
}

void ShardRun::attend_sequence(std::int64_t sequence, std::int64_t head_begin, std::int64_t head_end, int layer) {
  const auto s = static_cast<std::size_t>(sequence);
  const std::int64_t begin = batch_.cu_seqlens[s] - row_begin_;
  const std::int64_t end = batch_.cu_seqlens[s + 1] - row_begin_;
  // the rows under way that belong to this sequence
  std::int64_t active_begin = begin;
  std::int64_t active_end = end;
  if (is_kept_) {
    active_begin = std::lower_bound(kept_.begin(), kept_.end(), begin) - kept_.begin();
    active_end = std::lower_bound(kept_.begin(), kept_.end(), end) - kept_.begin();
  }
  if (active_begin == active_end) return;
  const Rows& projected = work_->query_key_value.rows();
  const Rows& queries = is_kept_ ? work_->kept_queries.rows() : projected;
  const Rows& context = work_->context.rows();
  const std::int64_t window = model_.layer(layer).window;
  const std::int64_t sharing = shape_.num_attention_heads / shape_.num_key_value_heads;
  const DistanceBias* bias = model_.distance_bias.get();
  float* map = wants_maps(layer) ? space_.maps.as<float>() : nullptr;
  AttentionHead task{};
  task.is_bfloat16 = projected.is_bfloat16();
  task.query_stride = queries.stride;
  task.stride = projected.stride;
  task.num_queries = active_end - active_begin;
  task.num_keys = end - begin;
  task.head_size = shape_.head_size();
  const Block& block = model_.block_of(layer);
  const std::int64_t terms = 1 + (block.distance_keys.empty() ? 0 : 1) + (block.distance_queries.empty() ? 0 : 1);
  task.scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_size() * terms));
  task.out_stride = context.stride;
  task.query_rows = is_kept_ ? query_rows_.data() + active_begin : nullptr;
  task.probabilities = map;
  for (std::int64_t head = head_begin; head < head_end; ++head) {
    const std::int64_t column = head * task.head_size;
    const std::int64_t key_column = stride_ + head / sharing * task.head_size;
    task.queries = queries.at(active_begin, column);
    task.keys = projected.at(begin, key_column);
    task.values = projected.at(begin, key_value_stride_ + key_column);
    task.out = context.at(active_begin, column);
    // a sequence shorter than the longest takes the middle part
    if (bias != nullptr) task.distance_bias = bias->values.as<float>() + head * (2 * bias->longest - 1) + (bias->longest - task.num_keys);
    if (model_.distances != nullptr) multiply_distances(task, block, head);
    if (window > 0 && window < task.num_keys - 1) {
      attend_near(task, window, map);
    } else {
      kernels_.attention(task, space_.scratch.as<void>());
    }
    if (map != nullptr) take_map(map, sequence, head, layer);
  }
}

void ShardRun::multiply_distances(AttentionHead& task, const Block& block, std::int64_t head) {
  const auto own = static_cast<std::size_t>(head);
  task.distance_columns = model_.distance_columns->of_zero();
  task.distance_stride = space_.query_distances.rows().stride;
  const auto place = [&](std::int64_t query) { return task.query_rows == nullptr ? query : task.query_rows[query]; };
  // only the panels of distances that occur between these queries and keys
  const std::int64_t panel_begin = task.distance_columns[-place(task.num_queries - 1)] / kernels_.panel;
  const std::int64_t panel_end = task.distance_columns[task.num_keys - 1 - place(0)] / kernels_.panel + 1;
  const auto multiply = [&](const void* rows, std::int64_t stride, std::int64_t count, const Matrix& heads, const RowBuffer& out) {
    // kernels only read through `Operand`
    product({.data = const_cast<void*>(rows), .stride = stride}, {0, count}, heads, panel_begin, panel_end,
            {.out = out.rows().data, .out_stride = task.distance_stride});
    return out.floats();
  };
  if (!block.distance_keys.empty())
    task.query_distances = multiply(task.queries, task.query_stride, task.num_queries, block.distance_keys[own], space_.query_distances);
  if (!block.distance_queries.empty())
    task.key_distances = multiply(task.keys, task.stride, task.num_keys, block.distance_queries[own], space_.key_distances);
}

void ShardRun::attend_near(AttentionHead task, std::int64_t window, float* map) {
  const AttentionHead all = task;
  const std::int64_t element = all.is_bfloat16 ? 2 : 4;
  const auto moved = [element](const void* rows, std::int64_t count) { return static_cast<const char*>(rows) + count * element; };
  // the first query whose place is `place` or more
  const auto query_at = [&](std::int64_t place) -> std::int64_t {
    if (all.query_rows == nullptr) return std::min(place, all.num_queries);
    return std::lower_bound(all.query_rows, all.query_rows + all.num_queries, place) - all.query_rows;
  };
  if (map != nullptr) std::fill_n(map, all.num_keys * all.num_keys, 0.0F);
  task.window = window;
  for (std::int64_t place = 0; place < all.num_keys; place += near_queries) {
    const std::int64_t begin = query_at(place);
    task.num_queries = query_at(place + near_queries) - begin;
    if (task.num_queries == 0) continue;
    const std::int64_t first_key = std::max<std::int64_t>(place - window, 0);
    task.num_keys = std::min(place + near_queries + window, all.num_keys) - first_key;
    task.queries = moved(all.queries, begin * all.query_stride);
    task.keys = moved(all.keys, first_key * all.stride);
    task.values = moved(all.values, first_key * all.stride);
    task.out = static_cast<char*>(all.out) + begin * all.out_stride * element;
    task.query_rows = all.query_rows == nullptr ? nullptr : all.query_rows + begin;
    task.query_offset = (all.query_rows == nullptr ? begin : 0) - first_key;
    if (all.distance_bias != nullptr) task.distance_bias = all.distance_bias + (all.num_keys - task.num_keys);
    if (map != nullptr) task.probabilities = space_.near_maps.as<float>();
    kernels_.attention(task, space_.scratch.as<void>());
    for (std::int64_t i = 0; map != nullptr && i < task.num_queries; ++i)
      std::copy_n(task.probabilities + i * task.num_keys, task.num_keys, map + (begin + i) * all.num_keys + first_key);
  }
}

void ShardRun::take_map(const float* map, std::int64_t sequence, std::int64_t head, int layer) {
  const auto s = static_cast<std::size_t>(sequence);
  const std::int64_t length = batch_.cu_seqlens[s + 1] - batch_.cu_seqlens[s];
  const std::int64_t size = length * length;
  for (const Capture& capture : program_.captures) {
    if (capture.maps == Maps::none || capture.layers.front() != layer + 1) continue;
    const bool all_heads = capture.heads.empty();
    const std::int64_t heads = all_heads ? shape_.num_attention_heads : static_cast<std::int64_t>(capture.heads.size());
    for (std::int64_t i = 0; i < heads; ++i) {
      if ((all_heads ? i : capture.heads[static_cast<std::size_t>(i)]) != head) continue;
      if (capture.maps == Maps::heads) {
        std::copy_n(map, size, capture.out + context_.partition.squares[s] * heads + i * size);
      } else {
        kernels_.add_row(capture.out + context_.partition.squares[s], map, 1.0F / static_cast<float>(heads), size);
      }
    }
  }
}

}  // namespace layertap

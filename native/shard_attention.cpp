// The attention half of `ShardRun`: every sequence to itself, head by head.
#include <algorithm>
#include <cmath>

#include "shard_run.hpp"

namespace layertap {

void ShardRun::rotate(int rotary) {
  if (rotary < 0) return;
  const Angles& angles = *angles_[static_cast<std::size_t>(rotary)];
  const bool bf16 = encoder_.attention_bfloat16_;
  const auto turn = [&](const Buffer& buffer, std::int64_t row, std::int64_t column, std::int64_t stride, std::int64_t rows,
                        std::int64_t heads, const std::int32_t* places, std::int64_t first_place) {
    char* begin = buffer.as<char>() + (row * stride + column) * (bf16 ? 2 : 4);
    kernels_.rotate({begin, bf16, stride, rows, heads, shape_.head_size(), angles.cosines.data(), angles.sines.data(), places,
                     first_place});
  };
  const Part own = own_rows(rows_);
  const Shard& shard = cut_.shards[shard_];
  for (std::int64_t sequence = shard.sequence_begin; sequence < shard.sequence_end; ++sequence) {
    const std::int64_t first = batch_.cu_seqlens[static_cast<std::size_t>(sequence)] - row_begin_;
    const std::int64_t begin = std::max(first, own.begin);
    const std::int64_t end = std::min(batch_.cu_seqlens[static_cast<std::size_t>(sequence) + 1] - row_begin_, own.end);
    if (begin >= end) continue;
    const auto turn_heads = [&](std::int64_t column, std::int64_t heads) {
      turn(work_.query_key_value, begin, column, qkv_stride_, end - begin, heads, nullptr, begin - first);
    };
    if (!is_kept_) turn_heads(0, shape_.num_attention_heads);
    turn_heads(stride_, shape_.num_key_value_heads);
  }
  if (is_kept_) {
    const Part kept = own_rows(active_);
    if (kept.begin < kept.end)
      turn(work_.kept_queries, kept.begin, 0, stride_, kept.end - kept.begin, shape_.num_attention_heads,
           query_rows_.data() + kept.begin, 0);
  }
  team_.meet();
}

bool ShardRun::wants_maps(int layer) const {
  return std::any_of(program_.captures.begin(), program_.captures.end(), [&](const Capture& capture) {
    return capture.maps != Maps::none && capture.layers.front() == layer + 1;
  });
}

void ShardRun::attend(int layer) {
  const Shard& shard = cut_.shards[shard_];
  const std::int64_t sequences = shard.sequence_end - shard.sequence_begin;
  const std::int64_t heads = shape_.num_attention_heads;
  // a mean over heads is summed in their order, so by one member
  const bool by_head = team_.size() > 1 && !wants_maps(layer);
  const Part own = part_of(by_head ? sequences * heads : sequences, 1, rank_, team_.size());
  for (std::int64_t i = own.begin; i < own.end; ++i) {
    if (by_head) {
      attend_sequence(shard.sequence_begin + i / heads, i % heads, i % heads + 1, layer);
    } else {
      attend_sequence(shard.sequence_begin + i, 0, heads, layer);
    }
  }
}

void ShardRun::attend_sequence(std::int64_t sequence, std::int64_t head_begin, std::int64_t head_end, int layer) {
  const auto s = static_cast<std::size_t>(sequence);
  const std::int64_t begin = batch_.cu_seqlens[s] - row_begin_;
  const std::int64_t end = batch_.cu_seqlens[s + 1] - row_begin_;
  // rows of the states under way that are this sequence's
  std::int64_t active_begin = begin;
  std::int64_t active_end = end;
  if (is_kept_) {
    active_begin = std::lower_bound(kept_.begin(), kept_.end(), begin) - kept_.begin();
    active_end = std::lower_bound(kept_.begin(), kept_.end(), end) - kept_.begin();
  }
  if (active_begin == active_end) return;
  const std::int64_t element = encoder_.attention_bfloat16_ ? 2 : 4;
  const auto at = [&](const Buffer& buffer, std::int64_t offset) { return buffer.as<char>() + offset * element; };
  const std::int64_t window = encoder_.layers_[static_cast<std::size_t>(layer)].window;
  const std::int64_t sharing = shape_.num_attention_heads / shape_.num_key_value_heads;
  float* map = wants_maps(layer) ? work_.maps[static_cast<std::size_t>(rank_)].as<float>() : nullptr;
  AttentionHead task{};
  task.is_bfloat16 = encoder_.attention_bfloat16_;
  task.query_stride = is_kept_ ? stride_ : qkv_stride_;
  task.stride = qkv_stride_;
  task.num_queries = active_end - active_begin;
  task.num_keys = end - begin;
  task.head_size = shape_.head_size();
  const Block& block = encoder_.blocks_[static_cast<std::size_t>(encoder_.layers_[static_cast<std::size_t>(layer)].block)];
  const std::int64_t terms = 1 + (block.distance_keys.empty() ? 0 : 1) + (block.distance_queries.empty() ? 0 : 1);
  task.scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_size() * terms));
  task.out_stride = stride_;
  task.query_rows = is_kept_ ? query_rows_.data() + active_begin : nullptr;
  task.probabilities = map;
  for (std::int64_t head = head_begin; head < head_end; ++head) {
    const std::int64_t column = head * task.head_size;
    task.queries = at(is_kept_ ? work_.kept_queries : work_.query_key_value, active_begin * task.query_stride + column);
    const std::int64_t key_column = head / sharing * task.head_size;
    task.keys = at(work_.query_key_value, begin * task.stride + stride_ + key_column);
    task.values = at(work_.query_key_value, begin * task.stride + stride_ + key_value_stride_ + key_column);
    task.out = at(work_.context, active_begin * stride_ + column);
    if (encoder_.longest_ > 0) {
      const std::int64_t longest = encoder_.longest_;
      // of a sequence as long as may be, the middle part
      task.distance_bias = encoder_.distance_bias_.as<float>() + head * (2 * longest - 1) + (longest - task.num_keys);
    }
    if (columns_ != nullptr) meet_distances(task, block, head);
    if (window > 0 && window < task.num_keys - 1) {
      attend_near(task, window, map);
    } else {
      kernels_.attention(task, work_.scratch[static_cast<std::size_t>(rank_)].as<void>());
    }
    if (map != nullptr) take_map(map, sequence, head, layer);
  }
}

void ShardRun::meet_distances(AttentionHead& task, const Block& block, std::int64_t head) {
  const auto member = static_cast<std::size_t>(rank_);
  const auto own = static_cast<std::size_t>(head);
  task.distance_columns = columns_->of_zero();
  task.distance_stride = spread(encoder_.distances_->columns());
  const auto place = [&](std::int64_t query) { return task.query_rows == nullptr ? query : task.query_rows[query]; };
  // as far as these queries and keys are from each other
  const std::int64_t panel_begin = task.distance_columns[-place(task.num_queries - 1)] / kernels_.panel;
  const std::int64_t panel_end = task.distance_columns[task.num_keys - 1 - place(0)] / kernels_.panel + 1;
  const auto multiply = [&](const void* rows, std::int64_t stride, std::int64_t count, const Matrix& heads, const Buffer& out) {
    // kernels read through `Operand` only
    product({const_cast<void*>(rows), stride, 0, nullptr}, 0, count, heads, panel_begin, panel_end,
            {nullptr, Activation::none, nullptr, 0, out.as<void>(), task.distance_stride, false});
    return out.as<const float>();
  };
  if (!block.distance_keys.empty())
    task.query_distances = multiply(task.queries, task.query_stride, task.num_queries, block.distance_keys[own], work_.query_distances[member]);
  if (!block.distance_queries.empty())
    task.key_distances = multiply(task.keys, task.stride, task.num_keys, block.distance_queries[own], work_.key_distances[member]);
}

void ShardRun::attend_near(AttentionHead task, std::int64_t window, float* map) {
  const AttentionHead all = task;
  const std::int64_t element = all.is_bfloat16 ? 2 : 4;
  const auto moved = [element](const void* rows, std::int64_t count) { return static_cast<const char*>(rows) + count * element; };
  // the query from which places of at least `place` are
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
    if (map != nullptr) task.probabilities = work_.near_maps[static_cast<std::size_t>(rank_)].as<float>();
    kernels_.attention(task, work_.scratch[static_cast<std::size_t>(rank_)].as<void>());
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
    const auto heads = static_cast<std::int64_t>(capture.heads.size());
    for (std::int64_t i = 0; i < heads; ++i) {
      if (capture.heads[static_cast<std::size_t>(i)] != head) continue;
      if (capture.maps == Maps::heads) {
        std::copy_n(map, size, capture.out + cut_.squares[s] * heads + i * size);
      } else {
        kernels_.add_row(capture.out + cut_.squares[s], map, 1.0F / static_cast<float>(heads), size);
      }
    }
  }
}

}  // namespace layertap

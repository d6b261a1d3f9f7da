// A thread, the leader of a team or a member, on its way through the layers of a shard. All members run the same code; each takes its
// part of a stage, and they wait for each other where the next stage reads what others wrote.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "cancellation.hpp"
#include "collector.hpp"
#include "model.hpp"
#include "partition.hpp"
#include "schedule.hpp"
#include "stages.hpp"
#include "thread_team.hpp"
#include "workspace.hpp"

namespace layertap {

// What all members and shards of a run share.
struct RunContext {
  const Model& model;
  const Batch& batch;
  const Program& program;
  const WorkPartition& partition;
  const Collector& collector;
  Cancellation& cancellation;
  std::vector<std::shared_ptr<const Angles>> angles;  // one table for each set of rotary frequencies
};

class ShardRun {
 public:
  // `space` is the thread's own; `asks`: this is the calling thread, which asks for the cancellation.
  ShardRun(const RunContext& context, ThreadSpace& space, StageSeconds& seconds, bool asks);

  // Runs a whole shard as the leader of a team that others may join once `is_begun` has been called. False where the run
  // was cancelled.
  bool lead(std::size_t shard, ShardTeam& team, const std::function<void()>& is_begun);

  // Runs the rest of a shard that is under way, as a member that has just been admitted.
  bool follow(ShardTeam& team, const ThreadTeam::Entry& entry);

 private:
  bool run_layers(int first, bool from_feed_forward);
  // A place where threads may join: a barrier. False where the run was cancelled.
  bool meet(int layer, bool is_feed_forward);
  // The work of the shard from a layer on, or from the feed-forward of a layer on.
  double work_from(int layer, bool from_feed_forward) const;
  void enter(std::size_t shard);
  void finish();

  void embed();
  void run_attention(int layer);
  void keep_rows();
  void run_kept_queries(const Block& block);
  void rotate(int rotary);
  void attend(int layer);
  void attend_sequence(std::int64_t sequence, std::int64_t head_begin, std::int64_t head_end, int layer);
  // Attention of one head in a window: a few queries at a time, with the keys that any of them sees.
  void attend_near(AttentionHead task, std::int64_t window, float* map);
  // Multiplies the queries and keys of one head with the vectors of the distances between them.
  void multiply_distances(AttentionHead& task, const Block& block, std::int64_t head);
  void take_map(const float* map, std::int64_t sequence, std::int64_t head, int layer);
  bool wants_maps(int layer) const;
  void run_feed_forward(const Block& block);
  // int8: see Block::outlier_column. Rows of `inner` and `hidden` that belong together.
  void add_outlier_column(const Block& block, const Rows& inner, const Rows& hidden);
  // Normalises the states themselves, and makes the next product's input of them.
  void normalize_after(const Norm& norm);
  // Makes the next product's input of the normalised states; the states stay as they are.
  void normalize_before(const Norm& norm);
  // This member's part of the rows; `rounded`, where not null, gets the results as bfloat16, too.
  void normalize(const Norm& norm, const Rows& in, const Rows& out, const OperandBuffer* rounded);
  void collect(int state);
  void take(int state, std::optional<bool> unnormed);

  // Rows of the shard that this member normalises, converts, embeds.
  Part own_rows(std::int64_t rows) const { return part_of(rows, 1, rank_, team_->size()); }
  Part own_columns() const { return part_of(shape_.hidden_size, 16, rank_, team_->size()); }
  States states() const { return {hidden_.floats(), hidden_.stride, hidden_.rows, is_kept_ ? kept_.data() : nullptr}; }
  // Rows of `a` times panels [panel_begin, panel_end) of `w`.
  void product(const Operand& a, Part rows, const Matrix& w, std::int64_t panel_begin, std::int64_t panel_end,
               const Epilogue& epilogue);
  // This member's share of such a product; of all panels where none are given.
  void shared_product(const Operand& a, std::int64_t rows, const Matrix& w, std::int64_t panel_begin, std::int64_t panel_end,
                      const Epilogue& epilogue);
  void shared_product(const Operand& a, std::int64_t rows, const Matrix& w, const Epilogue& epilogue);
  // float32 rows as an operand: themselves where products take float32, otherwise this member's part goes to `buffer`.
  Operand operand_of(const Rows& in, std::int64_t columns, const OperandBuffer& buffer);
  void count(Stage stage);

  const RunContext& context_;
  const Model& model_;
  const Kernels& kernels_;
  const Shape& shape_;
  const Batch& batch_;
  const Program& program_;
  ThreadSpace& space_;
  Workspace* work_ = nullptr;
  ThreadTeam* team_ = nullptr;
  int rank_ = 0;
  const bool asks_;
  StageSeconds& seconds_;
  std::chrono::steady_clock::time_point since_;

  const std::int64_t stride_;            // of hidden states
  const std::int64_t key_value_stride_;  // columns that keys take, and values
  std::size_t shard_ = 0;
  std::int64_t row_begin_ = 0, rows_ = 0;  // of the shard in the batch
  Rows hidden_;                            // the states of the rows under way
  Operand input_;                          // of the next product: the states, or what a norm made of them
  std::vector<std::int32_t> kept_;         // the shard's rows that are under way, where these are not all
  std::vector<std::int32_t> query_rows_;   // `kept_`, counted from the beginning of their sequence
  bool is_kept_ = false;
};

}  // namespace layertap

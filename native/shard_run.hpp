// A thread, the leader of a team or a member, on its way through the layers of a shard. All members run the same code; in each step
// they share the work and wait until all of it is done.
#pragma once

#include <algorithm>
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

// Units of steps that are not products: fewer rows, or columns, take less time than sharing them.
constexpr std::int64_t some_rows = 8;
constexpr std::int64_t some_columns = 64;

// What all members and shards of a run share.
struct RunContext {
  const Model& model;
  const Batch& batch;
  const Program& program;
  const WorkPartition& partition;
  const Collector& collector;
  Cancellation& cancellation;
  int threads;
  std::vector<std::shared_ptr<const Angles>> angles;  // one table for each set of rotary frequencies
};

class ShardRun {
 public:
  // `space` is the thread's own; `asks`: this is the calling thread, which asks for the cancellation.
  ShardRun(const RunContext& context, ThreadSpace& space, StageSeconds& seconds, bool asks);

  // Runs a whole shard as the leader of a team that others may join once `is_begun` has been called. False where the run
  // was cancelled.
  bool lead(std::size_t shard, ShardTeam& team, const std::function<void()>& is_begun);

  // Runs the rest of a shard that is under way, as a member that has joined it. Returns the number of a step that others have yet
  // to finish, where there is nothing to do until then.
  std::optional<std::uint32_t> follow(ShardTeam& team, const ThreadTeam::Entry& entry);

 private:
  bool run_layers();
  // Where a run may end early, and the leader reports the work that is left. False where this thread's part ends here.
  bool goes_on(int layer, bool is_feed_forward);
  // The work of the shard from a layer on, or from the feed-forward of a layer on.
  double work_from(int layer, bool from_feed_forward) const;
  void enter(ShardTeam& team, const ThreadTeam::Entry& entry);
  void finish();

  // A step: work(Part) for all of [0, count), shared by the members in units of `unit`. Returns when all of it is done. All members
  // call it alike, and write what they share nowhere else.
  template <class Work>
  void share(std::int64_t count, std::int64_t unit, const Work& work) {
    const std::int64_t units = (count + unit - 1) / unit;
    share_lines(1, units, [&](Part own) { work(Part{own.begin * unit, std::min(own.end * unit, count)}); });
  }
  // The same for lines of units: work(Part) gets units of one line, or all.
  template <class Work>
  void share_lines(std::int64_t lines, std::int64_t line, const Work& work) {
    const std::int64_t units = lines * line;
    if (units == 0) return;
    if (context_.threads == 1) return work(Part{0, units});
    if (missing_) return;
    const std::uint32_t step = step_++;
    while (const auto own = team_->claim(step, units, line)) {
      work(*own);
      team_->finish(step, *own, units);
    }
    wait_for(step);
  }
  void wait_for(std::uint32_t step);

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
  void add_outlier_column(Part own, const Block& block, const Rows& inner, const Rows& hidden);
  // Normalises the states themselves, and makes the next product's input of them.
  void normalize_after(const Norm& norm);
  // Makes the next product's input of the normalised states; the states stay as they are.
  void normalize_before(const Norm& norm);
  // Some of the rows; `rounded`, where not null, gets the results as bfloat16, too.
  void normalize(Part own, const Norm& norm, const Rows& in, const Rows& out, const OperandBuffer* rounded);
  void collect(int state);
  void take(int state, std::optional<bool> unnormed);

  States states() const { return {hidden_.floats(), hidden_.stride, hidden_.rows, is_kept_ ? kept_.data() : nullptr}; }
  // Rows of `a` times panels [panel_begin, panel_end) of `w`.
  void product(const Operand& a, Part rows, const Matrix& w, std::int64_t panel_begin, std::int64_t panel_end,
               const Epilogue& epilogue);
  // Such a product as a step; of all panels where none are given.
  void shared_product(const Operand& a, std::int64_t rows, const Matrix& w, std::int64_t panel_begin, std::int64_t panel_end,
                      const Epilogue& epilogue);
  void shared_product(const Operand& a, std::int64_t rows, const Matrix& w, const Epilogue& epilogue);
  // work(rows, panels) for parts of a product of this size: a step.
  template <class Work>
  void share_product(std::int64_t rows, std::int64_t panels, const Work& work);
  // float32 rows as an operand: themselves where products take float32, otherwise `buffer`, which `convert` fills.
  Operand operand_of(const Rows& in, const OperandBuffer& buffer) const;
  void convert(Part own, const Rows& in, std::int64_t columns, const OperandBuffer& buffer) const;
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
  bool leads_ = false;
  std::uint32_t step_ = 0;                     // the next one
  std::optional<std::uint32_t> missing_;       // a step that others have yet to finish, when this member has given up
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

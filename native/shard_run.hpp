// One member of a team on its way through the layers of a shard. All members run the same code; each takes its part of
// a stage, and they meet where the next stage reads what others wrote.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "collector.hpp"
#include "encoder.hpp"
#include "team.hpp"
#include "workspace.hpp"

namespace layertap {

class ShardRun {
 public:
  ShardRun(const Encoder& encoder, const Batch& batch, const Program& program,
           const std::vector<std::shared_ptr<const Angles>>& angles, const DistanceColumns* columns, const Cut& cut,
           const Collector& collector, Workspace& workspace, Team& team, StageSeconds& seconds);

  static std::unique_ptr<Workspace> make_workspace(const Encoder& encoder, const Needs& needs);

  // False where `stop_asked` ended it. It is asked by every member, and must answer all alike after they have met.
  template <typename StopAsked>
  bool run(std::size_t shard, const StopAsked& stop_asked) {
    begin(shard);
    return run_layers(0, stop_asked);
  }

  // The same of a shard that is under way, by a member who has just been let in.
  template <typename StopAsked>
  bool run_from(const Team::Entry& entry, const StopAsked& stop_asked) {
    rank_ = entry.rank;
    come_to(entry.place.shard);
    return run_layers(entry.place.layer, stop_asked);
  }

 private:
  template <typename StopAsked>
  bool run_layers(int first, const StopAsked& stop_asked) {
    for (int layer = first; layer < program_.stop; ++layer) {
      if (rank_ == 0) {
        stop_asked();
        team_.admit({shard_, layer});
      }
      team_.meet();
      if (stop_asked()) return false;
      run_layer(layer);
    }
    finish();
    return true;
  }

  void begin(std::size_t shard);
  void come_to(std::size_t shard);
  void run_layer(int layer);
  void finish();

  void embed();
  void run_attention(const Block& block, int layer);
  void rotate(int rotary);
  void attend(int layer);
  void attend_sequence(std::int64_t sequence, std::int64_t head_begin, std::int64_t head_end, int layer);
  // A few queries of the head that `task` is about, at a time, with the keys in their window.
  void attend_near(AttentionHead task, std::int64_t window, float* map);
  // What queries and keys of the head that `task` is about have to do with the distances between them.
  void meet_distances(AttentionHead& task, const Block& block, std::int64_t head);
  void take_map(const float* map, std::int64_t sequence, std::int64_t head, int layer);
  bool wants_maps(int layer) const;
  void keep_rows();
  void run_kept_queries(const Block& block);
  void run_feed_forward(const Block& block);
  // int8: see Block::apart. Rows [0, rows) of `inner` and `hidden`.
  void add_column_apart(const Block& block, float* inner, std::int64_t inner_stride, float* hidden, std::int64_t rows);
  void normalize_after(const Norm& norm);
  void normalize_before(const Norm& norm);
  // This member's part of rows [0, rows); `rounded`, where not null, gets the same as bfloat16.
  void normalize(const Norm& norm, const float* in, float* out, std::int64_t rows, const OperandBuffer* rounded);
  void collect(int state);
  void take(int state, std::optional<bool> unnormed);

  // Rows [begin, end) of the shard that this member normalises, converts, embeds.
  Part own_rows(std::int64_t rows) const { return part_of(rows, 1, rank_, team_.size()); }
  void product(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const Matrix& w, std::int64_t panel_begin,
               std::int64_t panel_end, const Epilogue& epilogue);
  // The same, this member's share of panels [panel_begin, panel_end).
  void shared_product(const Operand& a, std::int64_t row_begin, std::int64_t row_end, const Matrix& w,
                      std::int64_t panel_begin, std::int64_t panel_end, const Epilogue& epilogue);
  // `in` [rows, stride] as an operand: itself where products take float32, else this member's part of it goes to `buffer`.
  Operand operand_of(float* in, std::int64_t stride, std::int64_t rows, std::int64_t columns, const OperandBuffer& buffer);
  void count(Stage stage);

  // Queries of a windowed layer that go through attention together, with the keys that any of them sees. They are those
  // of the same places however many of them are asked for: that keeps their bits the same.
  static constexpr std::int64_t near_queries = 128;

  const Encoder& encoder_;
  const Kernels& kernels_;
  const Shape& shape_;
  const Batch& batch_;
  const Program& program_;
  const std::vector<std::shared_ptr<const Angles>>& angles_;
  const DistanceColumns* columns_;  // of disentangled attention, or null
  const Cut& cut_;
  const Collector& collector_;
  Workspace& work_;
  Team& team_;
  int rank_ = 0;
  StageSeconds& seconds_;
  std::chrono::steady_clock::time_point since_;

  const std::int64_t stride_;            // of hidden states
  const std::int64_t key_value_stride_;  // columns that keys take, and values
  const std::int64_t qkv_stride_;
  std::size_t shard_ = 0;
  std::int64_t row_begin_ = 0, rows_ = 0;    // of the shard in the batch
  float* hidden_ = nullptr;                  // the states of the rows that are under way
  Operand input_{};                          // of the next product: these, or what a norm before it made of them
  std::int64_t active_ = 0;                  // how many these are
  std::vector<std::int32_t> kept_;           // which, where not all of the shard's
  std::vector<std::int32_t> query_rows_;     // the same, counted from the beginning of their sequence
  bool is_kept_ = false;
};

}  // namespace layertap

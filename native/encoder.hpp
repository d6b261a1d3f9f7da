// One encoder: its weights as kernels want them, and how a batch goes through them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "arena.hpp"
#include "batch.hpp"
#include "collector.hpp"
#include "distances.hpp"
#include "kernels.hpp"
#include "matrix.hpp"
#include "rotary.hpp"
#include "shards.hpp"
#include "team.hpp"

namespace layertap {

enum class Precision : std::uint8_t { float32, float32_high, bfloat16, int8 };

// Numbers of a model; names are those of Hugging Face configs.
struct Shape {
  std::int64_t hidden_size;
  std::int64_t num_attention_heads;
  std::int64_t intermediate_size;
  std::int64_t embedding_size;  // columns of the tables; hidden_size where no projection follows
  Activation hidden_act;
  float layer_norm_eps;
  std::int64_t num_key_value_heads;  // each serves as many query heads
  bool is_pre_norm;                  // norms before attention and feed-forward, not after each residual sum
  bool has_rms_norms;
  bool is_gated;                     // the feed-forward is down(act(gate(x)) * up(x))
  bool projection_first;             // of the embeddings, before their norm

  std::int64_t head_size() const { return hidden_size / num_attention_heads; }
  std::int64_t key_value_size() const { return head_size() * num_key_value_heads; }
  std::int64_t embedding_norm_size() const { return projection_first ? hidden_size : embedding_size; }
};

// A norm's weight and bias, [columns] each or empty: no bias, no norm.
struct Norm {
  std::vector<float> weight, bias;

  bool is_there() const { return !weight.empty(); }
};

inline RowNorm row_norm(const Norm& norm, const Shape& shape) {
  return {norm.weight.data(), norm.bias.empty() ? nullptr : norm.bias.data(), shape.layer_norm_eps, shape.has_rms_norms};
}

// The tables stay where they are; whoever gives them keeps them alive.
struct Embeddings {
  Table words, positions, types;
  Norm norm;
  std::unique_ptr<Matrix> projection;  // [hidden_size, embedding_size], or null
};

struct Block {
  Matrix query_key_value, attention_output;
  std::optional<Matrix> gate;
  Matrix intermediate, output;
  Norm attention_norm, feed_forward_norm;  // after either half, or before it
  // int8: the inner column whose weights stand out the most is added in float32; the matrix `output` has zeros there.
  // Sharing a scale with it, the other inner values of a row would have few steps left.
  std::int64_t apart = -1;
  std::vector<float> apart_weights;  // [padded(hidden_size)]
  DistanceHeads distance_keys, distance_queries;  // disentangled attention; empty where scores have no such term
};

// What a layer adds to its block, which it may share with others.
struct Layer {
  int block;
  std::int64_t window;  // tokens attend to others no further than this; 0: to all
  int rotary;           // which of the sets of angles; -1: none
};

// Where the time of a run goes. Of a team, the time of its first member.
enum class Stage : std::uint8_t { embeddings, query_key_value, attention, attention_output, intermediate, output, norms, captures, count };
constexpr auto num_stages = static_cast<std::size_t>(Stage::count);
using StageSeconds = std::array<double, num_stages>;

struct Needs;
struct Workspace;

class Encoder {
 public:
  // `frequencies`: of each set of rotary angles, see Rotary.
  Encoder(const Kernels& kernels, Precision precision, const Shape& shape, std::vector<Layer> layers,
          const std::vector<std::vector<float>>& frequencies);
  ~Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  const Shape& shape() const { return shape_; }
  // In the format of hidden states as operands; its memory is this encoder's.
  Matrix dense(const std::vector<Weight>& parts);
  bool is_int8() const { return format_ == Format::int8; }

  // Loading; not beside a run.
  void set_embeddings(Embeddings embeddings) { embeddings_ = std::move(embeddings); }
  void add_block(Block block) { blocks_.push_back(std::move(block)); }
  // Added to scores: [num_attention_heads, 2 * longest - 1], by distance from 1 - longest to longest - 1, key minus query.
  void set_distance_bias(Buffer bias, std::int64_t longest) {
    distance_bias_ = std::move(bias);
    longest_ = longest;
  }
  // Disentangled attention: `vectors` [count, hidden_size], and their norm, which may not be there. Before the blocks.
  void set_distances(const float* vectors, std::int64_t count, const Norm& norm);
  const Distances* distances() const { return distances_.get(); }
  Distances* distances() { return distances_.get(); }
  DistanceHeads project_distances(const Weight& dense);
  void set_final_norm(Norm norm) { final_norm_ = std::move(norm); }
  void set_pooler(Matrix pooler) { pooler_ = std::make_unique<Matrix>(std::move(pooler)); }
  const std::vector<Layer>& layers() const { return layers_; }
  std::size_t num_blocks() const { return blocks_.size(); }
  std::size_t bytes() const;

  // Runs a checked program over a checked batch. `cancelled` is asked from time to time on the calling thread; once it
  // says yes the run ends early with false.
  bool run(const Batch& batch, const Program& program, int threads, const std::function<bool()>& cancelled);

  StageSeconds stage_seconds() const;

 private:
  friend class ShardRun;

  Format attention_format() const { return attention_bfloat16_ ? Format::bfloat16 : Format::float32; }
  // One that fits, of an earlier run or new.
  std::unique_ptr<Workspace> workspace(const Needs& needs);
  void give_back(std::unique_ptr<Workspace> workspace);

  const Kernels& kernels_;
  Format format_;            // of products over hidden states
  bool attention_bfloat16_;  // queries, keys, values and context are bfloat16
  Shape shape_;
  Arena arena_;  // of all matrices
  std::vector<Layer> layers_;
  std::vector<std::unique_ptr<Rotary>> rotary_;
  Embeddings embeddings_;
  std::vector<Block> blocks_;
  Norm final_norm_;  // of a pre-norm encoder
  Buffer distance_bias_;
  std::int64_t longest_ = 0;  // tokens of a sequence that the bias reaches; 0: there is none
  std::unique_ptr<Distances> distances_;
  std::unique_ptr<Matrix> pooler_;

  mutable std::mutex lock_;
  std::vector<std::unique_ptr<Workspace>> spare_;
  StageSeconds seconds_{};
};

}  // namespace layertap

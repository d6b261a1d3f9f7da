#include "encoder.hpp"

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>

#include "shard_run.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace layertap {

namespace {

Format format_of(const Kernels& kernels, Precision precision) {
  switch (precision) {
    case Precision::bfloat16:
      return Format::bfloat16;
    case Precision::int8:
      return Format::int8;
    case Precision::float32_high:
      return kernels.has_split ? Format::split2 : Format::float32;
    case Precision::float32:
      break;
  }
  return kernels.has_split ? Format::split3 : Format::float32;
}

}  // namespace

Encoder::Encoder(const Kernels& kernels, Precision precision, const Shape& shape, std::vector<Layer> layers,
                 const std::vector<std::vector<float>>& frequencies)
    : kernels_(kernels),
      format_(format_of(kernels, precision)),
      attention_bfloat16_(kernels.has_bfloat16 && (precision == Precision::bfloat16 || precision == Precision::int8)),
      shape_(shape),
      layers_(std::move(layers)) {
  for (const std::vector<float>& own : frequencies) rotary_.push_back(std::make_unique<Rotary>(own));
}

Encoder::~Encoder() = default;

Matrix Encoder::dense(const std::vector<Weight>& parts) { return Matrix(kernels_, format_, parts, arena_); }

void Encoder::set_distances(const float* vectors, std::int64_t count, const Norm& norm) {
  const std::int64_t stride = padded(shape_.hidden_size);
  Buffer own(static_cast<std::size_t>(count * stride) * sizeof(float));
  for (std::int64_t r = 0; r < count; ++r)
    std::copy_n(vectors + r * shape_.hidden_size, shape_.hidden_size, own.as<float>() + r * stride);
  if (norm.is_there())
    kernels_.normalize(own.as<float>(), stride, count, shape_.hidden_size, row_norm(norm, shape_), own.as<float>(), stride,
                       nullptr, 0);
  distances_ = std::make_unique<Distances>(std::move(own), count, shape_.hidden_size);
}

DistanceHeads Encoder::project_distances(const Weight& dense) {
  return distances_->project(kernels_, attention_format(), dense, shape_.num_attention_heads, arena_);
}

std::size_t Encoder::bytes() const {
  std::size_t total = embeddings_.projection == nullptr ? 0 : embeddings_.projection->bytes();
  for (const Block& block : blocks_)
    total += block.query_key_value.bytes() + block.attention_output.bytes() + (block.gate ? block.gate->bytes() : 0) +
             block.intermediate.bytes() + block.output.bytes();
  for (const Block& block : blocks_)
    for (const DistanceHeads* heads : {&block.distance_keys, &block.distance_queries})
      for (const Matrix& head : *heads) total += head.bytes();
  return total + (pooler_ == nullptr ? 0 : pooler_->bytes());
}

std::unique_ptr<Workspace> Encoder::workspace(const Needs& needs) {
  {
    const std::lock_guard guard(lock_);
    const auto at = std::find_if(spare_.begin(), spare_.end(), [&](const auto& w) { return needs.fit(w->made_for); });
    if (at != spare_.end()) {
      std::unique_ptr<Workspace> found = std::move(*at);
      spare_.erase(at);
      return found;
    }
  }
  return ShardRun::make_workspace(*this, needs);
}

void Encoder::give_back(std::unique_ptr<Workspace> workspace) {
  // one that was made for a very long text is not kept
  constexpr std::int64_t most_rows = 4096;
  if (workspace->made_for.rows > most_rows) return;
  const std::lock_guard guard(lock_);
  spare_.push_back(std::move(workspace));
  // the smallest goes: it is of no use beside larger ones
  const auto most_spare = static_cast<std::size_t>(std::thread::hardware_concurrency()) + 1;
  if (spare_.size() <= most_spare) return;
  spare_.erase(std::min_element(spare_.begin(), spare_.end(),
                                [](const auto& a, const auto& b) { return a->made_for.rows < b->made_for.rows; }));
}

StageSeconds Encoder::stage_seconds() const {
  const std::lock_guard guard(lock_);
  return seconds_;
}

bool Encoder::run(const Batch& batch, const Program& program, int threads, const std::function<bool()>& cancelled) {
  const Cut shards = cut(batch, program, threads);
  const Collector collector(kernels_, program, shards, shape_.hidden_size);
  const int workers = shards.together ? threads : std::min<int>(threads, static_cast<int>(shards.shards.size()));
  const int members = shards.together ? threads : 1;

  Needs needs;
  needs.members = members;
  for (std::size_t i = 0; i < shards.shards.size(); ++i) {
    needs.rows = std::max(needs.rows, shards.shards[i].rows());
    needs.pooled = std::max(needs.pooled, collector.pooler_rows(i));
  }
  for (std::size_t b = 1; b < batch.cu_seqlens.size(); ++b)
    needs.longest = std::max<std::int64_t>(needs.longest, batch.cu_seqlens[b] - batch.cu_seqlens[b - 1]);
  needs.fold_floats = collector.fold_floats(needs.rows);
  for (const Capture& capture : program.captures) needs.maps = needs.maps || capture.maps != Maps::none;

  // All memory is taken here: nothing can fail while threads wait for each other.
  std::vector<std::shared_ptr<const Angles>> angles;
  for (const auto& rotary : rotary_) angles.push_back(rotary->angles(needs.longest));
  const std::shared_ptr<const DistanceColumns> columns = distances_ == nullptr ? nullptr : distances_->reached();
  std::vector<std::unique_ptr<Workspace>> workspaces;
  for (int i = 0; i < workers / members; ++i) workspaces.push_back(workspace(needs));

  std::vector<Team> teams(workspaces.size());
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stopped{false};
  std::vector<StageSeconds> seconds(static_cast<std::size_t>(workers), StageSeconds{});
  std::deque<ShardRun> runs;
  for (std::size_t worker = 0; worker < seconds.size(); ++worker) {
    const std::size_t of_team = shards.together ? 0 : worker;
    runs.emplace_back(*this, batch, program, angles, columns.get(), shards, collector, *workspaces[of_team], teams[of_team],
                      seconds[worker]);
  }
  const auto work = [&](int worker) {
    ShardRun& run = runs[static_cast<std::size_t>(worker)];
    Team& team = teams.front();
    const auto stop_asked = [&] {
      // Python's signals are seen on the calling thread only
      if (worker == 0 && !stopped.load(std::memory_order_relaxed) && cancelled()) stopped.store(true);
      return stopped.load();
    };
    if (!shards.together) {
      for (std::size_t shard = next++; shard < shards.shards.size() && run.run(shard, stop_asked); shard = next++) {
      }
      return;
    }
    std::size_t shard = 0;
    if (worker > 0) {
      const std::optional<Team::Entry> entry = team.join();
      if (!entry || !run.run_from(*entry, stop_asked)) return;
      shard = entry->place.shard + 1;
    }
    while (shard < shards.shards.size() && run.run(shard, stop_asked)) ++shard;
    if (worker == 0) team.close();
  };
  const auto helpers = std::make_shared<Helpers>();
  // whatever happens here, nobody is left behind in what goes with this run
  struct Ending {
    Team& team;
    Helpers& helpers;
    ~Ending() {
      team.close();
      helpers.end();
    }
  };
  {
    const Ending ending{teams.front(), *helpers};
    const ThreadStarter starter;
    for (int worker = 1; worker < workers; ++worker) {
      const bool is_started = starter.start([helpers, &work, worker] {
        if (!helpers->enter()) return;  // what `work` refers to may be gone
        work(worker);
        helpers->leave();
      });
      if (!is_started) break;
    }
    work(0);
  }

  for (auto& workspace : workspaces) give_back(std::move(workspace));
  const std::lock_guard guard(lock_);
  for (const StageSeconds& own : seconds)
    for (std::size_t i = 0; i < num_stages; ++i) seconds_[i] += own[i];
  return !stopped.load();
}

}  // namespace layertap

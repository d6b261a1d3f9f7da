#include "encoder.hpp"

#include <algorithm>
#include <atomic>
#include <deque>
#include <stdexcept>
#include <string>
#include <utility>

#include "checks.hpp"
#include "collector.hpp"
#include "partition.hpp"
#include "shard_run.hpp"
#include "thread_team.hpp"

namespace layertap {

namespace {

Needs needs_of(const Batch& batch, const Program& program, const WorkPartition& partition, const Collector& collector, int members) {
  Needs needs;
  needs.members = members;
  for (std::size_t i = 0; i < partition.shards.size(); ++i) {
    needs.rows = std::max(needs.rows, partition.shards[i].rows());
    needs.pooled = std::max(needs.pooled, collector.pooler_rows(i));
  }
  for (std::size_t b = 1; b < batch.cu_seqlens.size(); ++b)
    needs.longest = std::max<std::int64_t>(needs.longest, batch.cu_seqlens[b] - batch.cu_seqlens[b - 1]);
  needs.fold_floats = collector.fold_floats(needs.rows);
  for (const Capture& capture : program.captures) needs.maps = needs.maps || capture.maps != Maps::none;
  return needs;
}

}  // namespace

std::shared_ptr<const Model> Encoder::model() const {
  const std::lock_guard guard(lock_);
  return model_;
}

void Encoder::load(const std::function<Model(const Model&)>& load) {
  const std::lock_guard loading(loading_);
  auto loaded = std::make_shared<const Model>(load(*model()));
  const std::lock_guard guard(lock_);
  model_ = std::move(loaded);
}

StageSeconds Encoder::stage_seconds() const {
  const std::lock_guard guard(lock_);
  return seconds_;
}

bool Encoder::run(const Batch& batch, const Program& program, int threads, const std::function<bool()>& cancelled,
                  const std::function<void(const std::function<void()>&)>& call) {
  constexpr int most_threads = 1024;
  if (threads < 1 || threads > most_threads) throw std::invalid_argument("threads: from 1 to " + std::to_string(most_threads));
  const std::shared_ptr<const Model> model = this->model();
  check_batch(*model, batch);
  check_program(*model, batch, program);

  const WorkPartition partition = partition_work(batch, program, threads);
  const std::size_t shards = partition.shards.size();
  const Collector collector(model->kernels, program, partition, model->shape.hidden_size);
  const int workers = partition.together ? threads : std::min<int>(threads, static_cast<int>(shards));
  const int members = partition.together ? threads : 1;

  // All memory is taken here: nothing can fail while threads wait for each other.
  const Needs needs = needs_of(batch, program, partition, collector, members);
  Cancellation cancellation(cancelled);
  RunContext context{*model, batch, program, partition, collector, cancellation, {}};
  for (const auto& rotary : model->rotary) context.angles.push_back(rotary->angles(needs.longest));
  std::vector<std::unique_ptr<Workspace>> workspaces;
  for (int i = 0; i < workers / members; ++i) workspaces.push_back(spare_.take(*model, needs));
  std::vector<ThreadTeam> teams(workspaces.size());
  std::vector<StageSeconds> seconds(static_cast<std::size_t>(workers), StageSeconds{});
  std::deque<ShardRun> runs;
  for (std::size_t worker = 0; worker < seconds.size(); ++worker) {
    const std::size_t own = partition.together ? 0 : worker;
    runs.emplace_back(context, *workspaces[own], teams[own], seconds[worker], worker == 0);
  }

  std::atomic<std::size_t> next{0};
  const auto work = [&](int worker) {
    ShardRun& run = runs[static_cast<std::size_t>(worker)];
    ThreadTeam& team = teams.front();
    if (!partition.together) {
      for (std::size_t shard = next++; shard < shards && run.run(shard); shard = next++) {
      }
      return;
    }
    std::size_t shard = 0;
    if (worker > 0) {
      const std::optional<ThreadTeam::Entry> entry = team.join();
      if (!entry || !run.run_from(*entry)) return;
      shard = entry->place.shard + 1;
    }
    while (shard < shards && run.run(shard)) ++shard;
    if (worker == 0) team.close();
  };
  call([&] { run_workers(workers, work, [&] { teams.front().close(); }); });

  for (auto& workspace : workspaces) spare_.give_back(std::move(workspace));
  const std::lock_guard guard(lock_);
  for (const StageSeconds& own : seconds)
    for (std::size_t i = 0; i < num_stages; ++i) seconds_[i] += own[i];
  return !cancellation.is_stopped();
}

}  // namespace layertap

// An encoder: loads the weights of a model part by part, and runs batches through what is loaded. Safe to use from
// several threads, loading and running alike.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "batch.hpp"
#include "model.hpp"
#include "stages.hpp"
#include "workspace.hpp"

namespace layertap {

class Encoder {
 public:
  explicit Encoder(Model model) : model_(std::make_shared<const Model>(std::move(model))) {}

  // The snapshot of the parts loaded so far.
  std::shared_ptr<const Model> model() const;

  // Publishes load(model) as the model of later runs. One thread at a time loads; runs go on meanwhile.
  void load(const std::function<Model(const Model&)>& load);

  // Runs a program over a batch. `cancelled` is asked from time to time on the calling thread; once it answers yes the
  // run ends early with false. Throws std::invalid_argument for a request that does not fit the model.
  //
  // `call` is given the part that takes long, and calls it. This encoder's locks are only held outside it: a program that
  // runs everything else, and forks, under a lock of its own (Python's interpreter) never forks while one of them is held.
  bool run(const Batch& batch, const Program& program, int threads, const std::function<bool()>& cancelled,
           const std::function<void(const std::function<void()>&)>& call);

  // Summed over all runs so far.
  StageSeconds stage_seconds() const;

 private:
  std::mutex loading_;
  mutable std::mutex lock_;  // of what follows
  std::shared_ptr<const Model> model_;
  StageSeconds seconds_{};

  Spares<Workspace> workspaces_;
  Spares<ThreadSpace> thread_spaces_;
};

}  // namespace layertap

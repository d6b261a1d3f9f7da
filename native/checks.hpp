// Checks of a run's request, so that nothing in it can make the run read or write memory that it must not.
#pragma once

#include "batch.hpp"
#include "model.hpp"

namespace layertap {

// Throw std::invalid_argument with the reason. `check_program` is for a batch that has passed `check_batch`.
void check_batch(const Model& model, const Batch& batch);
void check_program(const Model& model, const Batch& batch, const Program& program);

}  // namespace layertap

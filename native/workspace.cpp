#include "workspace.hpp"

#include <thread>
#include <utility>

namespace layertap {

std::unique_ptr<Workspace> make_workspace(const Model& model, const Needs& needs) {
  const Shape& shape = model.shape;
  const Format format = model.format;
  const std::int64_t h = padded(shape.hidden_size);
  const std::int64_t rows = (needs.rows + 15) / 16 * 16;
  const auto operand = [&](std::int64_t count, std::int64_t columns) {
    return format == Format::float32 ? OperandBuffer() : OperandBuffer(format, count, columns);
  };
  auto w = std::make_unique<Workspace>();
  w->made_for = needs;
  if (model.embeddings->projection) {
    w->tables = RowBuffer(rows, padded(shape.embedding_size));
    w->projected = operand(rows, shape.embedding_size);
  }
  w->hidden = RowBuffer(rows, h);
  w->kept = RowBuffer(rows, h);
  if (shape.is_pre_norm) {
    w->normed = RowBuffer(rows, h);
    w->kept_normed = RowBuffer(rows, h);
  }
  w->input = operand(rows, shape.hidden_size);
  w->kept_input = operand(rows, shape.hidden_size);
  // products of one sequence's rows with distances read whole tiles, wherever the sequence begins
  const std::int64_t attention_rows = rows + (model.distances == nullptr ? 0 : 16);
  w->query_key_value = RowBuffer(attention_rows, h + 2 * padded(shape.key_value_size()), model.attention_format);
  w->kept_queries = RowBuffer(attention_rows, h, model.attention_format);
  w->context = RowBuffer(rows, h, model.attention_format);
  if (model.attention_format == Format::bfloat16 && format != Format::bfloat16) w->wide = RowBuffer(rows, h);
  if (format != Format::bfloat16) w->context_operand = operand(rows, shape.hidden_size);
  const std::int64_t inner = inner_rows(model);
  w->inner = RowBuffer(inner, spread(shape.intermediate_size), format == Format::bfloat16 ? Format::bfloat16 : Format::float32);
  if (format != Format::bfloat16) w->inner_operand = operand(inner, shape.intermediate_size);
  w->folds = Buffer(needs.fold_floats * sizeof(float));
  if (needs.pooled > 0) {
    const std::int64_t pooled = (needs.pooled + 15) / 16 * 16;
    w->pooler_rows = RowBuffer(pooled, h);
    w->pooled_rows = RowBuffer(pooled, h);
    w->pooler_operand = operand(pooled, shape.hidden_size);
  }
  return w;
}

std::unique_ptr<ThreadSpace> make_thread_space(const Model& model, const Needs& needs) {
  const Shape& shape = model.shape;
  auto space = std::make_unique<ThreadSpace>();
  space->made_for = needs;
  space->scratch = Buffer(
      std::max(model.kernels.product_scratch(std::max({shape.hidden_size, shape.intermediate_size, shape.embedding_size})),
               model.kernels.attention_scratch(needs.longest, shape.head_size())));
  if (model.distances != nullptr) {
    const std::int64_t columns = spread(model.distances->columns());
    space->query_distances = RowBuffer(needs.longest, columns);
    space->key_distances = RowBuffer(needs.longest, columns);
  }
  if (needs.maps) {
    const auto map = [&](std::int64_t queries) { return Buffer(static_cast<std::size_t>(queries * needs.longest) * sizeof(float)); };
    space->maps = map(needs.longest);
    space->near_maps = map(near_queries);
  }
  return space;
}

namespace {

std::unique_ptr<Workspace> make(const Model& model, const Needs& needs, const Workspace*) { return make_workspace(model, needs); }
std::unique_ptr<ThreadSpace> make(const Model& model, const Needs& needs, const ThreadSpace*) {
  return make_thread_space(model, needs);
}

}  // namespace

template <class Space>
std::unique_ptr<Space> Spares<Space>::take(const Model& model, const Needs& needs) {
  {
    const std::lock_guard guard(lock_);
    const auto at = std::find_if(spare_.begin(), spare_.end(), [&](const auto& space) { return needs.fit(space->made_for); });
    if (at != spare_.end()) {
      std::unique_ptr<Space> fitting = std::move(*at);
      spare_.erase(at);
      return fitting;
    }
  }
  return make(model, needs, static_cast<const Space*>(nullptr));
}

template <class Space>
void Spares<Space>::give_back(std::unique_ptr<Space> space) {
  // one that was made for a very long text is not kept
  constexpr std::int64_t most_rows = 4096;
  if (space->made_for.rows > most_rows) return;
  const std::lock_guard guard(lock_);
  spare_.push_back(std::move(space));
  // the smallest goes: it is of no use beside larger ones
  const auto most_spare = static_cast<std::size_t>(std::thread::hardware_concurrency()) + 1;
  if (spare_.size() <= most_spare) return;
  spare_.erase(std::min_element(spare_.begin(), spare_.end(),
                                [](const auto& a, const auto& b) { return a->made_for.rows < b->made_for.rows; }));
}

template class Spares<Workspace>;
template class Spares<ThreadSpace>;

}  // namespace layertap

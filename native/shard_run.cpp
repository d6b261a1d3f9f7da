#include "shard_run.hpp"

#include <algorithm>

#include "schedule.hpp"

namespace layertap {

namespace {

Operand from_row(Operand operand, Format format, std::int64_t row) {
  operand.data = static_cast<char*>(operand.data) + row * operand.stride * value_bytes(format);
  if (operand.scales != nullptr) operand.scales += row;
  if (operand.zeros != nullptr) operand.zeros += row;
  return operand;
}

// Rows as an operand of products in their own format.
Operand operand_in_place(const Rows& rows) { return {.data = rows.data, .stride = rows.stride}; }

}  // namespace

ShardRun::ShardRun(const RunContext& context, ThreadSpace& space, StageSeconds& seconds, bool asks)
    : context_(context),
      model_(context.model),
      kernels_(context.model.kernels),
      shape_(context.model.shape),
      batch_(context.batch),
      program_(context.program),
      space_(space),
      asks_(asks),
      seconds_(seconds),
      stride_(padded(shape_.hidden_size)),
      key_value_stride_(padded(shape_.key_value_size())) {
  // the only memory that a run takes on its way, so it is taken before any thread waits
  if (program_.top_rows) {
    kept_.reserve(static_cast<std::size_t>(space.made_for.rows));
    query_rows_.reserve(static_cast<std::size_t>(space.made_for.rows));
  }
}

void ShardRun::count(Stage stage) {
  const auto now = std::chrono::steady_clock::now();
  seconds_[static_cast<std::size_t>(stage)] += std::chrono::duration<double>(now - since_).count();
  since_ = now;
}

void ShardRun::product(const Operand& a, Part rows, const Matrix& w, std::int64_t panel_begin, std::int64_t panel_end,
                       const Epilogue& epilogue) {
  if (rows.begin >= rows.end || panel_begin >= panel_end) return;
  kernels_.product(a, rows.begin, rows.end, w.packed(), panel_begin, panel_end, epilogue,
                   space_.scratch.as<void>());
}

void ShardRun::shared_product(const Operand& a, std::int64_t rows, const Matrix& w, std::int64_t panel_begin,
                              std::int64_t panel_end, const Epilogue& epilogue) {
  const Grid grid = grid_of(rows, panel_end - panel_begin, team_->size());
  if (rank_ >= grid.row_parts * grid.panel_parts) return;
  const Part own_rows = part_of(rows, grid.row_parts == 1 ? rows : row_unit, rank_ / grid.panel_parts, grid.row_parts);
  const Part own = part_of(panel_end - panel_begin, 1, rank_ % grid.panel_parts, grid.panel_parts);
  product(a, own_rows, w, panel_begin + own.begin, panel_begin + own.end, epilogue);
}

void ShardRun::shared_product(const Operand& a, std::int64_t rows, const Matrix& w, const Epilogue& epilogue) {
  shared_product(a, rows, w, 0, w.panels(), epilogue);
}

Operand ShardRun::operand_of(const Rows& in, std::int64_t columns, const OperandBuffer& buffer) {
  if (model_.format == Format::float32) return operand_in_place(in);
  const Part own = own_rows(in.rows);
  if (own.begin < own.end)
    kernels_.to_operand(in.from(own.begin).floats(), in.stride, own.end - own.begin, columns, model_.format,
                        from_row(buffer.operand(), model_.format, own.begin));
  return buffer.operand();
}

bool ShardRun::lead(std::size_t shard, ShardTeam& team, const std::function<void()>& is_begun) {
  team_ = &team.threads;
  work_ = team.workspace;
  rank_ = 0;
  enter(shard);
  team_->report(work_from(0, false));
  is_begun();
  embed();
  count(Stage::embeddings);
  collect(0);
  return run_layers(0, false);
}

bool ShardRun::follow(ShardTeam& team, const ThreadTeam::Entry& entry) {
  team_ = &team.threads;
  work_ = team.workspace;
  rank_ = entry.rank;
  enter(entry.place.shard);
  return run_layers(entry.place.layer, entry.place.is_feed_forward);
}

double ShardRun::work_from(int layer, bool from_feed_forward) const {
  if (layer >= program_.stop) return 0;
  const Shard& shard = context_.partition.shards[shard_];
  const double of_layer = shard.cost / program_.stop;
  return of_layer * (program_.stop - layer - (from_feed_forward ? attention_share(shard, shape_, program_.stop) : 0.0));
}

bool ShardRun::meet(int layer, bool is_feed_forward) {
  if (asks_) context_.cancellation.ask();
  if (rank_ == 0) {
    team_->set_stopped(context_.cancellation.is_stopped());
    team_->report(is_feed_forward ? work_from(layer + 1, false) : work_from(layer, true));
    team_->admit({shard_, layer, is_feed_forward});
  }
  team_->arrive_and_wait();
  return !team_->is_stopped();
}

bool ShardRun::run_layers(int first, bool from_feed_forward) {
  for (int layer = first; layer < program_.stop; ++layer) {
    if (!(from_feed_forward && layer == first)) {
      if (!meet(layer, false)) return false;
      run_attention(layer);
    }
    // rows that are left out from here on are known to those who ran the attention
    if (!is_kept_ && !meet(layer, true)) return false;
    run_feed_forward(model_.block_of(layer));
    collect(layer + 1);
  }
  finish();
  return true;
}

void ShardRun::enter(std::size_t shard) {
  since_ = std::chrono::steady_clock::now();
  const Shard& own = context_.partition.shards[shard];
  shard_ = shard;
  row_begin_ = own.row_begin;
  rows_ = own.rows();
  hidden_ = work_->hidden.rows();
  hidden_.rows = rows_;
  is_kept_ = false;
  input_ = model_.format == Format::float32 ? operand_in_place(hidden_) : work_->input.operand();
}

void ShardRun::embed() {
  const Embeddings& embeddings = *model_.embeddings;
  const Part own = own_rows(rows_);
  const std::int64_t columns = shape_.embedding_size;
  const bool norm_first = embeddings.norm.exists() && !shape_.projection_first;
  Rows tables = embeddings.projection ? work_->tables.rows() : hidden_;
  tables.rows = rows_;
  const std::int64_t rows = own.end - own.begin;
  const auto ids = [&](Ints all) { return all.empty() ? nullptr : all.data() + row_begin_ + own.begin; };
  if (rows > 0) {
    float* out = tables.from(own.begin).floats();
    kernels_.embed({embeddings.words, embeddings.types, embeddings.positions, ids(batch_.input_ids), ids(batch_.token_type_ids),
                    ids(batch_.position_ids)},
                   rows, columns, out, tables.stride);
    if (norm_first)
      kernels_.normalize(out, tables.stride, rows, columns, row_norm(embeddings.norm, shape_), out, tables.stride, nullptr, 0);
  }
  if (embeddings.projection) {
    const Operand input = operand_of(tables, columns, work_->projected);
    team_->arrive_and_wait();
    shared_product(input, rows_, *embeddings.projection,
                   {.bias = embeddings.projection->bias(), .out = hidden_.data, .out_stride = hidden_.stride});
    team_->arrive_and_wait();
  }
  if (embeddings.norm.exists() && !norm_first) normalize(embeddings.norm, hidden_, hidden_, nullptr);
  if (!shape_.is_pre_norm) operand_of(hidden_, shape_.hidden_size, work_->input);
  team_->arrive_and_wait();
}

// Finds the rows of the shard that the program needs of state `stop`.
void ShardRun::keep_rows() {
  const Ints top = *program_.top_rows;
  const auto begin = std::lower_bound(top.begin(), top.end(), row_begin_);
  const auto end = std::lower_bound(begin, top.end(), row_begin_ + rows_);
  kept_.clear();
  query_rows_.clear();
  std::int64_t sequence = context_.partition.shards[shard_].sequence_begin;
  for (auto row = begin; row != end; ++row) {
    kept_.push_back(static_cast<std::int32_t>(*row - row_begin_));
    while (batch_.cu_seqlens[static_cast<std::size_t>(sequence) + 1] <= *row) ++sequence;
    query_rows_.push_back(*row - batch_.cu_seqlens[static_cast<std::size_t>(sequence)]);
  }
  is_kept_ = true;
}

void ShardRun::run_kept_queries(const Block& block) {
  // gathered, so that what follows sees neighbouring rows
  Rows kept = work_->kept.rows();
  kept.rows = static_cast<std::int64_t>(kept_.size());
  const Part own = own_rows(kept.rows);
  for (std::int64_t i = own.begin; i < own.end; ++i)
    std::copy_n(hidden_.from(kept_[static_cast<std::size_t>(i)]).floats(), stride_, kept.from(i).floats());
  Rows normed = kept;
  if (shape_.is_pre_norm && block.attention_norm.exists()) {
    normed.data = work_->kept_normed.rows().data;
    normalize(block.attention_norm, kept, normed, nullptr);
  }
  const Operand input = operand_of(normed, shape_.hidden_size, work_->kept_input);
  team_->arrive_and_wait();
  const Rows& out = work_->kept_queries.rows();
  shared_product(input, kept.rows, block.query_key_value, 0, stride_ / kernels_.panel,
                 {.bias = block.query_key_value.bias(),
                  .out = out.data,
                  .out_stride = out.stride,
                  .out_is_bfloat16 = out.is_bfloat16()});
  hidden_ = kept;
}

void ShardRun::run_attention(int layer) {
  const Block& block = model_.block_of(layer);
  const bool prune = program_.top_rows && layer + 1 == program_.stop;
  const Matrix& qkv = block.query_key_value;
  if (shape_.is_pre_norm) normalize_before(block.attention_norm);
  const Rows& projected = work_->query_key_value.rows();
  // where rows are pruned: keys and values of all rows, queries of those that are kept
  shared_product(
      input_, rows_, qkv, prune ? stride_ / kernels_.panel : 0, qkv.panels(),
      {.bias = qkv.bias(), .out = projected.data, .out_stride = projected.stride, .out_is_bfloat16 = projected.is_bfloat16()});
  if (prune) {
    keep_rows();
    run_kept_queries(block);
  }
  team_->arrive_and_wait();
  rotate(model_.layer(layer).rotary);
  count(Stage::query_key_value);

  attend(layer);
  Rows attended = work_->context.rows();
  attended.rows = hidden_.rows;
  Operand context = operand_in_place(attended);
  if (model_.format != Format::bfloat16) {
    // attention was shared out by heads, this is by rows
    if (model_.format != Format::float32) team_->arrive_and_wait();
    if (attended.is_bfloat16()) {
      Rows wide = work_->wide.rows();
      wide.rows = attended.rows;
      const Part own = own_rows(wide.rows);
      if (own.begin < own.end)
        kernels_.widen(static_cast<const bfloat16*>(attended.from(own.begin).data), attended.stride, own.end - own.begin,
                       shape_.hidden_size, wide.from(own.begin).floats(), wide.stride);
      attended = wide;
    }
    context = operand_of(attended, shape_.hidden_size, work_->context_operand);
  }
  team_->arrive_and_wait();
  count(Stage::attention);

  shared_product(context, hidden_.rows, block.attention_output,
                 {.bias = block.attention_output.bias(),
                  .residual = hidden_.floats(),
                  .residual_stride = hidden_.stride,
                  .out = hidden_.data,
                  .out_stride = hidden_.stride});
  team_->arrive_and_wait();
  count(Stage::attention_output);
  if (!shape_.is_pre_norm) normalize_after(block.attention_norm);
}

void ShardRun::add_outlier_column(const Block& block, const Rows& inner, const Rows& hidden) {
  const Part own = own_rows(inner.rows);
  for (std::int64_t i = own.begin; i < own.end; ++i) {
    float& value = inner.from(i).floats()[block.outlier_column];
    kernels_.add_row(hidden.from(i).floats(), block.outlier_weights.data(), value, stride_);
    value = 0;
  }
}

void ShardRun::run_feed_forward(const Block& block) {
  const Matrix& up = block.intermediate;
  const Matrix& down = block.output;
  const Format format = model_.format;
  const std::int64_t some = inner_rows(model_);
  if (shape_.is_pre_norm) normalize_before(block.feed_forward_norm);
  for (std::int64_t begin = 0; begin < hidden_.rows; begin += some) {
    Rows hidden = hidden_.from(begin);
    hidden.rows = std::min(some, hidden.rows);
    Rows inner = work_->inner.rows();
    inner.rows = hidden.rows;
    const Operand input = from_row(input_, format, begin);
    Epilogue epilogue{.bias = up.bias(),
                      .activation = shape_.hidden_act,
                      .out = inner.data,
                      .out_stride = inner.stride,
                      .out_is_bfloat16 = inner.is_bfloat16()};
    if (block.gate) {
      // this member computes the same columns of both
      Epilogue gates = epilogue;
      gates.bias = block.gate->bias();
      shared_product(input, hidden.rows, *block.gate, gates);
      epilogue.activation = Activation::none;
      epilogue.factors = epilogue.out;
    }
    shared_product(input, hidden.rows, up, epilogue);
    team_->arrive_and_wait();
    Operand activated = operand_in_place(inner);
    if (format != Format::bfloat16 && format != Format::float32) {
      if (block.outlier_column >= 0) add_outlier_column(block, inner, hidden);
      activated = operand_of(inner, shape_.intermediate_size, work_->inner_operand);
      team_->arrive_and_wait();
    }
    count(Stage::intermediate);
    shared_product(activated, hidden.rows, down,
                   {.bias = down.bias(),
                    .residual = hidden.floats(),
                    .residual_stride = hidden.stride,
                    .out = hidden.data,
                    .out_stride = hidden.stride});
    team_->arrive_and_wait();
    count(Stage::output);
  }
  if (!shape_.is_pre_norm) normalize_after(block.feed_forward_norm);
}

void ShardRun::normalize(const Norm& norm, const Rows& in, const Rows& out, const OperandBuffer* rounded) {
  const Part own = own_rows(in.rows);
  if (own.begin >= own.end) return;
  Operand halves;
  if (rounded != nullptr) halves = from_row(rounded->operand(), Format::bfloat16, own.begin);
  kernels_.normalize(in.from(own.begin).floats(), in.stride, own.end - own.begin, shape_.hidden_size, row_norm(norm, shape_),
                     out.from(own.begin).floats(), out.stride, static_cast<bfloat16*>(halves.data), halves.stride);
}

void ShardRun::normalize_after(const Norm& norm) {
  const bool rounds = model_.format == Format::bfloat16;
  normalize(norm, hidden_, hidden_, rounds ? &work_->input : nullptr);
  input_ = rounds ? work_->input.operand() : operand_of(hidden_, shape_.hidden_size, work_->input);
  team_->arrive_and_wait();
  count(Stage::norms);
}

void ShardRun::normalize_before(const Norm& norm) {
  const bool rounds = model_.format == Format::bfloat16 && norm.exists();
  Rows normed = hidden_;
  if (norm.exists()) {
    normed.data = work_->normed.rows().data;
    normalize(norm, hidden_, normed, rounds ? &work_->input : nullptr);
  }
  input_ = rounds ? work_->input.operand() : operand_of(normed, shape_.hidden_size, work_->input);
  team_->arrive_and_wait();
  count(Stage::norms);
}

void ShardRun::take(int state, std::optional<bool> unnormed) {
  const Part own = own_columns();
  context_.collector.take(state, unnormed, states(), shard_, work_->folds.as<float>(), own.begin, own.end);
  // what comes next writes what this reads
  team_->arrive_and_wait();
}

void ShardRun::collect(int state) {
  if (model_.final_norm == nullptr || state != static_cast<int>(model_.layers.size())) {
    take(state, std::nullopt);
  } else {
    take(state, true);
    if (context_.collector.wants_normed(state)) {
      normalize(*model_.final_norm, hidden_, hidden_, nullptr);
      team_->arrive_and_wait();
      take(state, false);
    }
  }
  count(Stage::captures);
}

void ShardRun::finish() {
  const Collector& collector = context_.collector;
  if (!collector.wants_pooler()) return;
  const Part columns = own_columns();
  Rows first = work_->pooler_rows.rows();
  first.rows = collector.pooler_rows(shard_);
  collector.take_pooler_rows(states(), shard_, first.floats(), columns.begin, columns.end);
  team_->arrive_and_wait();
  const Operand input = operand_of(first, shape_.hidden_size, work_->pooler_operand);
  team_->arrive_and_wait();
  const Rows& pooled = work_->pooled_rows.rows();
  shared_product(input, first.rows, *model_.pooler,
                 {.bias = model_.pooler->bias(), .activation = Activation::tanh, .out = pooled.data, .out_stride = pooled.stride});
  team_->arrive_and_wait();
  collector.put_pooled(pooled.floats(), pooled.stride, shard_, columns.begin, columns.end);
  team_->arrive_and_wait();
  count(Stage::captures);
}

}  // namespace layertap

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

// Line `line` of `lines` into which the rows of a product are divided.
Part rows_of_line(std::int64_t rows, std::int64_t line, std::int64_t lines) {
  if (lines == 1) return {0, rows};
  const std::int64_t units = (rows + row_unit - 1) / row_unit;
  return {std::min(units * line / lines * row_unit, rows), std::min(units * (line + 1) / lines * row_unit, rows)};
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

template <class Work>
void ShardRun::share_product(std::int64_t rows, std::int64_t panels, const Work& work) {
  const int row_parts = context_.threads == 1 ? 1 : grid_of(rows, panels, context_.threads).row_parts;
  share_lines(row_parts, panels, [&](Part units) {
    const std::int64_t line = units.begin / panels;
    const std::int64_t lines = (units.end - 1) / panels + 1;
    if (lines - line > 1) return work(Part{0, rows}, Part{0, panels});
    work(rows_of_line(rows, line, row_parts), Part{units.begin % panels, units.end - line * panels});
  });
}

void ShardRun::shared_product(const Operand& a, std::int64_t rows, const Matrix& w, std::int64_t panel_begin,
                              std::int64_t panel_end, const Epilogue& epilogue) {
  share_product(rows, panel_end - panel_begin, [&](Part own_rows, Part own) {
    product(a, own_rows, w, panel_begin + own.begin, panel_begin + own.end, epilogue);
  });
}

void ShardRun::shared_product(const Operand& a, std::int64_t rows, const Matrix& w, const Epilogue& epilogue) {
  shared_product(a, rows, w, 0, w.panels(), epilogue);
}

Operand ShardRun::operand_of(const Rows& in, const OperandBuffer& buffer) const {
  return model_.format == Format::float32 ? operand_in_place(in) : buffer.operand();
}

void ShardRun::convert(Part own, const Rows& in, std::int64_t columns, const OperandBuffer& buffer) const {
  if (model_.format == Format::float32) return;
  kernels_.to_operand(in.from(own.begin).floats(), in.stride, own.end - own.begin, columns, model_.format,
                      from_row(buffer.operand(), model_.format, own.begin));
}

bool ShardRun::lead(std::size_t shard, ShardTeam& team, const std::function<void()>& is_begun) {
  leads_ = true;
  const ThreadTeam::Entry entry = team.threads.begin(shard, context_.partition.shards[shard].cost);
  is_begun();
  enter(team, entry);
  const bool is_done = run_layers();
  team.threads.end(entry);
  return is_done;
}

std::optional<std::uint32_t> ShardRun::follow(ShardTeam& team, const ThreadTeam::Entry& entry) {
  leads_ = false;
  enter(team, entry);
  run_layers();
  if (!missing_) team.threads.end(entry);
  return missing_;
}

double ShardRun::work_from(int layer, bool from_feed_forward) const {
  if (layer >= program_.stop) return 0;
  const Shard& shard = context_.partition.shards[shard_];
  const double of_layer = shard.cost / program_.stop;
  return of_layer * (program_.stop - layer - (from_feed_forward ? attention_share(shard, shape_, program_.stop) : 0.0));
}

bool ShardRun::goes_on(int layer, bool is_feed_forward) {
  if (asks_) context_.cancellation.ask();
  if (leads_ && context_.threads > 1) team_->report(work_from(layer, is_feed_forward));
  return !missing_ && !context_.cancellation.is_stopped();
}

bool ShardRun::run_layers() {
  embed();
  count(Stage::embeddings);
  collect(0);
  for (int layer = 0; layer < program_.stop; ++layer) {
    if (!goes_on(layer, false)) return false;
    run_attention(layer);
    if (!goes_on(layer, true)) return false;
    run_feed_forward(model_.block_of(layer));
    collect(layer + 1);
  }
  finish();
  return true;
}

void ShardRun::enter(ShardTeam& team, const ThreadTeam::Entry& entry) {
  since_ = std::chrono::steady_clock::now();
  team_ = &team.threads;
  work_ = team.workspace;
  step_ = entry.step;
  missing_.reset();
  const Shard& own = context_.partition.shards[entry.shard];
  shard_ = entry.shard;
  row_begin_ = own.row_begin;
  rows_ = own.rows();
  hidden_ = work_->hidden.rows();
  hidden_.rows = rows_;
  is_kept_ = false;
  input_ = model_.format == Format::float32 ? operand_in_place(hidden_) : work_->input.operand();
}

void ShardRun::wait_for(std::uint32_t step) {
  if (team_->wait_briefly(step)) return;
  if (leads_) {
    team_->sleep_until_passed(step);
  } else {
    missing_ = step;
  }
}

void ShardRun::embed() {
  const Embeddings& embeddings = *model_.embeddings;
  const std::int64_t columns = shape_.embedding_size;
  const bool has_norm = embeddings.norm.exists();
  const bool norm_first = has_norm && !shape_.projection_first;
  Rows tables = embeddings.projection ? work_->tables.rows() : hidden_;
  tables.rows = rows_;
  // what the first product reads, once all norms are done
  const auto convert_states = [&](Part own) {
    if (!shape_.is_pre_norm) convert(own, hidden_, shape_.hidden_size, work_->input);
  };
  share(rows_, some_rows, [&](Part own) {
    const std::int64_t rows = own.end - own.begin;
    const auto ids = [&](Ints all) { return all.empty() ? nullptr : all.data() + row_begin_ + own.begin; };
    float* out = tables.from(own.begin).floats();
    kernels_.embed({embeddings.words, embeddings.types, embeddings.positions, ids(batch_.input_ids), ids(batch_.token_type_ids),
                    ids(batch_.position_ids)},
                   rows, columns, out, tables.stride);
    if (norm_first)
      kernels_.normalize(out, tables.stride, rows, columns, row_norm(embeddings.norm, shape_), out, tables.stride, nullptr, 0);
    if (embeddings.projection) {
      convert(own, tables, columns, work_->projected);
    } else {
      if (has_norm && !norm_first) normalize(own, embeddings.norm, hidden_, hidden_, nullptr);
      convert_states(own);
    }
  });
  if (!embeddings.projection) return;
  shared_product(operand_of(tables, work_->projected), rows_, *embeddings.projection,
                 {.bias = embeddings.projection->bias(), .out = hidden_.data, .out_stride = hidden_.stride});
  share(rows_, some_rows, [&](Part own) {
    if (has_norm && !norm_first) normalize(own, embeddings.norm, hidden_, hidden_, nullptr);
    convert_states(own);
  });
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
  const bool has_norm = shape_.is_pre_norm && block.attention_norm.exists();
  Rows normed = kept;
  if (has_norm) normed.data = work_->kept_normed.rows().data;
  share(kept.rows, some_rows, [&](Part own) {
    for (std::int64_t i = own.begin; i < own.end; ++i)
      std::copy_n(hidden_.from(kept_[static_cast<std::size_t>(i)]).floats(), stride_, kept.from(i).floats());
    if (has_norm) normalize(own, block.attention_norm, kept, normed, nullptr);
    convert(own, normed, shape_.hidden_size, work_->kept_input);
  });
  const Operand input = operand_of(normed, work_->kept_input);
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
  rotate(model_.layer(layer).rotary);
  count(Stage::query_key_value);

  attend(layer);
  Rows attended = work_->context.rows();
  attended.rows = hidden_.rows;
  Operand context = operand_in_place(attended);
  if (model_.format != Format::bfloat16 && model_.format != Format::float32) {
    const Rows narrow = attended;
    if (narrow.is_bfloat16()) {
      attended = work_->wide.rows();
      attended.rows = narrow.rows;
    }
    // attention was shared by heads, this is by rows
    share(attended.rows, some_rows, [&](Part own) {
      if (narrow.is_bfloat16())
        kernels_.widen(static_cast<const bfloat16*>(narrow.from(own.begin).data), narrow.stride, own.end - own.begin,
                       shape_.hidden_size, attended.from(own.begin).floats(), attended.stride);
      convert(own, attended, shape_.hidden_size, work_->context_operand);
    });
    context = operand_of(attended, work_->context_operand);
  }
  count(Stage::attention);

  shared_product(context, hidden_.rows, block.attention_output,
                 {.bias = block.attention_output.bias(),
                  .residual = hidden_.floats(),
                  .residual_stride = hidden_.stride,
                  .out = hidden_.data,
                  .out_stride = hidden_.stride});
  count(Stage::attention_output);
  if (!shape_.is_pre_norm) normalize_after(block.attention_norm);
}

void ShardRun::add_outlier_column(Part own, const Block& block, const Rows& inner, const Rows& hidden) {
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
    const Epilogue epilogue{.bias = up.bias(),
                            .activation = shape_.hidden_act,
                            .out = inner.data,
                            .out_stride = inner.stride,
                            .out_is_bfloat16 = inner.is_bfloat16()};
    share_product(hidden.rows, up.panels(), [&](Part rows, Part panels) {
      Epilogue own = epilogue;
      if (block.gate) {
        Epilogue gates = epilogue;
        gates.bias = block.gate->bias();
        product(input, rows, *block.gate, panels.begin, panels.end, gates);
        own.activation = Activation::none;
        own.factors = own.out;
      }
      product(input, rows, up, panels.begin, panels.end, own);
    });
    Operand activated = operand_in_place(inner);
    if (format != Format::bfloat16 && format != Format::float32) {
      share(inner.rows, some_rows, [&](Part own) {
        if (block.outlier_column >= 0) add_outlier_column(own, block, inner, hidden);
        convert(own, inner, shape_.intermediate_size, work_->inner_operand);
      });
      activated = operand_of(inner, work_->inner_operand);
    }
    count(Stage::intermediate);
    shared_product(activated, hidden.rows, down,
                   {.bias = down.bias(),
                    .residual = hidden.floats(),
                    .residual_stride = hidden.stride,
                    .out = hidden.data,
                    .out_stride = hidden.stride});
    count(Stage::output);
  }
  if (!shape_.is_pre_norm) normalize_after(block.feed_forward_norm);
}

void ShardRun::normalize(Part own, const Norm& norm, const Rows& in, const Rows& out, const OperandBuffer* rounded) {
  Operand halves;
  if (rounded != nullptr) halves = from_row(rounded->operand(), Format::bfloat16, own.begin);
  kernels_.normalize(in.from(own.begin).floats(), in.stride, own.end - own.begin, shape_.hidden_size, row_norm(norm, shape_),
                     out.from(own.begin).floats(), out.stride, static_cast<bfloat16*>(halves.data), halves.stride);
}

void ShardRun::normalize_after(const Norm& norm) {
  const bool rounds = model_.format == Format::bfloat16;
  share(hidden_.rows, some_rows, [&](Part own) {
    normalize(own, norm, hidden_, hidden_, rounds ? &work_->input : nullptr);
    if (!rounds) convert(own, hidden_, shape_.hidden_size, work_->input);
  });
  input_ = operand_of(hidden_, work_->input);
  count(Stage::norms);
}

void ShardRun::normalize_before(const Norm& norm) {
  const bool rounds = model_.format == Format::bfloat16 && norm.exists();
  Rows normed = hidden_;
  if (norm.exists()) normed.data = work_->normed.rows().data;
  share(hidden_.rows, some_rows, [&](Part own) {
    if (norm.exists()) normalize(own, norm, hidden_, normed, rounds ? &work_->input : nullptr);
    if (!rounds) convert(own, normed, shape_.hidden_size, work_->input);
  });
  input_ = operand_of(normed, work_->input);
  count(Stage::norms);
}

void ShardRun::take(int state, std::optional<bool> unnormed) {
  if (!context_.collector.wants(state)) return;
  share(shape_.hidden_size, some_columns, [&](Part own) {
    context_.collector.take(state, unnormed, states(), shard_, work_->folds.as<float>(), own.begin, own.end);
  });
}

void ShardRun::collect(int state) {
  if (model_.final_norm == nullptr || state != static_cast<int>(model_.layers.size())) {
    take(state, std::nullopt);
  } else {
    take(state, true);
    if (context_.collector.wants_normed(state)) {
      share(hidden_.rows, some_rows, [&](Part own) { normalize(own, *model_.final_norm, hidden_, hidden_, nullptr); });
      take(state, false);
    }
  }
  count(Stage::captures);
}

void ShardRun::finish() {
  const Collector& collector = context_.collector;
  if (!collector.wants_pooler()) return;
  Rows first = work_->pooler_rows.rows();
  first.rows = collector.pooler_rows(shard_);
  share(shape_.hidden_size, some_columns,
        [&](Part own) { collector.take_pooler_rows(states(), shard_, first.floats(), own.begin, own.end); });
  if (model_.format != Format::float32)
    share(first.rows, some_rows, [&](Part own) { convert(own, first, shape_.hidden_size, work_->pooler_operand); });
  const Rows& pooled = work_->pooled_rows.rows();
  shared_product(operand_of(first, work_->pooler_operand), first.rows, *model_.pooler,
                 {.bias = model_.pooler->bias(), .activation = Activation::tanh, .out = pooled.data, .out_stride = pooled.stride});
  share(shape_.hidden_size, some_columns,
        [&](Part own) { collector.put_pooled(pooled.floats(), pooled.stride, shard_, own.begin, own.end); });
  count(Stage::captures);
}

}  // namespace layertap

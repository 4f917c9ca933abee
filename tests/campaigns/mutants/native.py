"""Mutants of the core: beams, sampling, processors, stop strings, the KV cache and its ring."""

from __future__ import annotations

from .mutant import Mutant

__all__ = ["NATIVE"]

SELECTION, DECODING, KV = "csrc/core/selection", "csrc/core/decoding", "csrc/core/kv"
TWIN = "tests/decoding/test_beam_search.py"
TRANSFORMERS = "tests/decoding/test_against_transformers.py"
STATE, DRAWS = "tests/decoding/test_decode_state.py", "tests/decoding/test_draws.py"
PROCESSORS, CANDIDATES = (
    "tests/core/selection/test_score_processors.py",
    "tests/core/selection/test_candidates.py",
)
CACHE, SHARING, SCHEDULES, RING = (
    f"tests/core/kv/test_{name}.py" for name in ("kv_cache", "kv_sharing", "kv_schedules", "window_ring")
)


def _of(file: str, tests: tuple[str, ...], *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(file, old, new, tests) for old, new in changes]


NATIVE = [
    *_of(
        f"{SELECTION}/beam_search.cpp",
        (TWIN, TRANSFORMERS),
        (
            "options_.early_stopping == EarlyStopping::never && options_.length_penalty > 0.0",
            "options_.early_stopping == EarlyStopping::never",
        ),
        ("options_.length_penalty > 0.0", "options_.length_penalty < 0.0"),
        ("options_.length_penalty > 0.0", "options_.length_penalty >= -1.0"),
        ("longest ? max_length_ - prompt", "longest ? max_length_"),
        ("finished(num_beams() - 1).score;", "finished(0).score;"),
        ("return best_running > (entry", "return best_running >= (entry"),
        ("history.generated_length() + 1);", "history.generated_length());"),
        ("FinishReason::none || i >= beams) score", "FinishReason::none) score"),
        ("closed_ = !can_improve() || all_hit ||", "closed_ = all_hit ||"),
        ("EarlyStopping::yes && pool_is_full()", "EarlyStopping::yes"),
        ("(reasons[i] != FinishReason::none ? kNotAllowed : 0.0f), i}", "0.0f, i}"),
        ("std::clamp(power, 1e-37, 1e37)", "power"),
        ("running_scores_.push_back(beam == 0 ? 0.0f : kNotAllowed);", "running_scores_.push_back(0.0f);"),
        (
            "for (std::size_t i = 0; i <= rank; ++i) {\n    if (finished",
            "for (std::size_t i = 0; i < rank; ++i) {\n    if (finished",
        ),
        ("for (const Hypothesis& beam : running_) limit(beam);", ""),
        ("std::max<std::size_t>(2, 1 + options.eos_token_id.size())", "std::size_t{2}"),
    ),
    *_of(
        f"{SELECTION}/beam_candidates.cpp",
        (TWIN, TRANSFORMERS, DRAWS),
        ("selected.size() < wanted || selected.back().score <= best_of_others", "selected.size() < wanted"),
        (
            "top_.offer(row_of(scores, vocab_size, beam), running[beam],",
            "top_.offer(row_of(scores, vocab_size, beam), 0.0f,",
        ),
        ("pool_scores_.push_back(score + running[beam]);", "pool_scores_.push_back(score);"),
        ("pool_draw_.remove(place);", ""),
        (
            "if (chosen_.size() < wanted) add_removed(search, vocab_size);\n  return chosen_;\n}\n\n// Fills",
            "return chosen_;\n}\n\n// Fills",
        ),
    ),
    *_of(
        f"{SELECTION}/sampling_filters.cpp",
        (CANDIDATES, "tests/campaigns/test_fuzz.py"),
        (
            "keep_head(row, p * total, keep, false, scratch);",
            "keep_head(row, p * total, keep, true, scratch);",
        ),
        (
            "keep_head(row, mass * total, keep, true, scratch);",
            "keep_head(row, mass * total, keep, false, scratch);",
        ),
        ("if (mass < limit) {", "if (mass <= limit) {"),
        ("scratch.weights[i]) >= min_p ||", "scratch.weights[i]) > min_p ||"),
        ("scratch.weights[i]) >= threshold ||", "scratch.weights[i]) > threshold ||"),
        ("std::sqrt(epsilon) * exp_double(-h)", "std::sqrt(epsilon) * exp_double(h)"),
        ("return log_double(total) - sum / total;", "return log_double(total) + sum / total;"),
        ("|| row.scores()[i] >= least;", ";"),
    ),
    *_of(
        f"{SELECTION}/score_processors.cpp",
        (PROCESSORS, TRANSFORMERS),
        (
            "score < 0.0f ? score * penalty : score / penalty",
            "score > 0.0f ? score * penalty : score / penalty",
        ),
        ("if (scratch[index(id)]++ != 0) continue;", ""),
        ("window >= ids.size() ? ids : ids.last(window)", "window >= ids.size() ? ids : ids.first(window)"),
        ("static_cast<float>(count) * frequency + presence", "frequency + presence"),
        (
            "static_cast<float>(count) * frequency + presence",
            "static_cast<float>(count) * (frequency + presence)",
        ),
        ("if (ids.size() < ngram_size) return;", "if (ids.size() <= ngram_size) return;"),
        ("end = prefix; end < ids.size()", "end = prefix + 1; end < ids.size()"),
        ("if (sequence.size() > ids.size()) return false;", "if (prefix > ids.size()) return false;"),
        ("if (scratch[id] == 0) scores[id] = kRemoved;", "if (scratch[id] == 0) scores[id] -= 10.0f;"),
        ("scores[index(id)] = 0.0f;\n}", "{}\n}"),
    ),
    *_of(
        f"{SELECTION}/candidates.cpp",
        (CANDIDATES, "tests/campaigns/test_fuzz.py"),
        ("if (best.size() < k) return gather", "if (best.size() <= k) return gather"),
        ("kth - std::fabs(kth) * 0x1p-22f", "kth"),
        ("keep_if([&](std::size_t i) { return scores_[i] >= cut; });", ""),
        ("std::fabs(kth) < kFarFromSubnormal || std::fabs(cut) < kFarFromSubnormal", "false"),
    ),
    *_of(
        f"{SELECTION}/categorical_sample.cpp",
        (DRAWS, STATE),
        ("weights_[index] = 0.0f;\n  sum_block", "sum_block"),
        ("i < block_sums_.size() && through <= target", "i < block_sums_.size() && through < target * 0.5"),
        ("    before = through;\n", ""),
    ),
    *_of(
        f"{DECODING}/decode_state.cpp",
        (STATE, TWIN, DRAWS, TRANSFORMERS),
        ("history.length() + 1 >= max_length", "history.length() >= max_length"),
        ("options_.seeds.size() == 1 ? 0 : output", "0"),
        ("for (auto& allowed : allowed_) allowed.reset();", ""),
        ("from.place + static_cast<std::int32_t>(i % draws)", "from.place"),
        ("spent.count() > *options_.max_time_s", "spent.count() > 1e9"),
        ("if (has_beams()) log_softmax(scores, row);", ""),
        ("(forked_ ? search.sources()[beam] : 0)", "0"),
        ("if (options_.renormalize_logits) log_softmax(scores, row);", "log_softmax(scores, row);"),
    ),
    *_of(
        f"{DECODING}/stop_strings.cpp",
        ("tests/core/decoding/test_stop_strings.py", "tests/campaigns/test_fuzz.py"),
        ("const std::size_t reach = longest_ - 1;", "const std::size_t reach = longest_ - 2;"),
        ("reach + 1 - std::min(wanted.size(), reach + 1)", "std::size_t{0}"),
        ("i-- > 0 && begin > 0;", "i-- > 1 && begin > 0;"),
    ),
    *_of(
        f"{DECODING}/prompt_lookup.cpp",
        ("tests/core/decoding/test_prompt_lookup.py",),
        ("n > 0; --n)", "n > 1; --n)"),
        ("std::min(max_ngram, history.size() - 1)", "std::min(max_ngram, history.size() / 2)"),
        (
            "const std::size_t count = std::min(max_guesses, behind.size());",
            "const std::size_t count = std::min(max_guesses, behind.size() - 1);",
        ),
        ("credit_ -= price * static_cast<float>(run_);", ""),
        ("if (right && judged_ < run_) credit_", "if (right) credit_"),
        ("right *= rates_[rate_of(ngram + count)];", "right *= rates_[rate_of(ngram)];"),
    ),
    *_of(
        f"{DECODING}/token_cost.cpp",
        ("tests/core/decoding/test_token_cost.py",),
        ("if (num_plain_ < kKnown) return;", ""),
        ("/ (1.0 + cost_ * others));", ");"),
        ("num_plain_ = 0;\n  }", "}"),
    ),
    *_of(
        f"{KV}/kv_cache.cpp",
        (SHARING, CACHE, SCHEDULES),
        ("ring.truncate(total);\n  unshare_from(row, ring.used_slots());", "ring.truncate(total);"),
        (
            "rings_.at(static_cast<std::size_t>(row)).clear();\n  unshare_from(row, 0);",
            "rings_.at(static_cast<std::size_t>(row)).clear();",
        ),
        ("slot + count <= ring_size() ? slot : ring.num_sinks()", "slot"),
        ("capacity_, shared(source, targets[i]), used);", "capacity_, used, used);"),
        ("std::min(shared(source, other), used);", "shared(source, other);"),
        ("first_slot = tiles_down(first_slot);", "first_slot = tiles_up(first_slot);"),
        ("end_slot = tiles_up(end_slot);", "end_slot = tiles_down(end_slot);"),
        ("std::min(shared(row, other), slot);", "std::max(shared(row, other), slot);"),
        ("tiles_up(rings_[row].used_slots())", "tiles_down(rings_[row].used_slots())"),
        (
            "for (std::size_t row = rings_.size(); row-- > 0;)",
            "for (std::size_t row = 0; row < rings_.size(); ++row)",
        ),
    ),
    *_of(
        f"{KV}/window_ring.cpp",
        (RING, CACHE, SCHEDULES),
        ("total_ - (size_ - num_sinks_)", "total_ - size_"),
        ("count < 1 || count > max_append()", "count < 1"),
        ("(window + slack + kSlotTile - 1) / kSlotTile", "(window + slack) / kSlotTile"),
        ("total < min_total() || total > total_", "total > total_"),
    ),
]

#include "text/tokenizer_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "chipmunk/error.h"

namespace chipmunk::text {
namespace {

using nlohmann::json;

// Longer than any text: libraries write 1e30 and the like where there is no limit.
constexpr double kNoLimit = 1e9;

[[noreturn]] void invalid(const std::string& file, const std::string& message) {
  throw Error(ErrorCode::kInvalidFile, message, file);
}

std::string shortened(std::string_view text) {
  constexpr size_t kLongest = 200;
  return text.size() <= kLongest ? std::string(text) : std::string(text.substr(0, kLongest)) + "...";
}

// A value as JSON; this also escapes what would break a message of one line.
std::string shown(const json& value) { return shortened(value.dump(-1, ' ', false, json::error_handler_t::replace)); }

json read_json(const std::filesystem::path& file) {
  try {
    return json::parse(read_file(file));
  } catch (const json::exception& error) {
    // Without the library's own prefix ("[json.exception...] ") and at a readable length: it quotes what it last read.
    std::string_view message = error.what();
    if (const size_t prefix = message.find("] "); prefix != std::string_view::npos) message.remove_prefix(prefix + 2);
    invalid(file.string(), fmt::format("expected JSON, found: {}", shortened(message)));
  }
}

const json& member(const json& object, const char* key, json::value_t type, const std::string& file) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  if (found == object.end()) invalid(file, fmt::format("expected an entry \"{}\", found none", key));
  if (found->type() != type) {
    invalid(file, fmt::format("\"{}\": expected {}, found {}", key, json(type).type_name(), found->type_name()));
  }
  return *found;
}

std::string string_of(const json& value, const std::string& what, const std::string& file) {
  if (!value.is_string()) invalid(file, fmt::format("{}: expected a string, found {}", what, value.type_name()));
  return value.get<std::string>();
}

bool flag_of(const json& object, const char* key, bool fallback, const std::string& file) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  if (!found->is_boolean()) {
    invalid(file, fmt::format("\"{}\": expected true or false, found {}", key, found->type_name()));
  }
  return found->get<bool>();
}

int32_t id_of(const json& value, const std::string& name, const std::string& file) {
  if (!value.is_number_integer() || value < 0 || value >= std::numeric_limits<int32_t>::max()) {
    invalid(file, fmt::format("{}: expected an id between 0 and {}, found {}", shown(name),
                              std::numeric_limits<int32_t>::max() - 1, shown(value)));
  }
  return value.get<int32_t>();
}

AddedToken added_token(const json& value, const std::string& what, const std::string& file) {
  AddedToken token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
    return token;
  }
  if (!value.is_object() || !value.contains("content")) {
    invalid(file, fmt::format("{}: expected a string or an object with \"content\"", what));
  }
  token.content = string_of(value["content"], what, file);
  token.normalized = flag_of(value, "normalized", false, file);
  token.strip_left = flag_of(value, "lstrip", false, file);
  token.strip_right = flag_of(value, "rstrip", false, file);
  token.single_word = flag_of(value, "single_word", false, file);
  return token;
}

void read_special_tokens(const json& config, const std::string& file, TokenizerConfig& out) {
  for (const char* name : {"bos_token", "eos_token", "pad_token", "unk_token"}) {
    const auto found = config.find(name);
    if (found == config.end() || found->is_null()) continue;
    AddedToken token = added_token(*found, name, file);
    AddedToken& known = out.special_tokens[name];
    // A bare name says nothing about how the token is matched: keep what another file said about the same token.
    if (!found->is_string() || token.content != known.content) known = std::move(token);
  }
}

std::optional<int64_t> read_max_length(const json& config, const std::string& file) {
  const auto found = config.find("model_max_length");
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_number() && found->get<double>() >= kNoLimit) return std::nullopt;
  if (!found->is_number_integer() || *found < 1) {
    throw Error(ErrorCode::kInvalidConfig,
                fmt::format("model_max_length: expected a whole number of at least 1, found {}", shown(*found)), file);
  }
  return found->get<int64_t>();
}

BpeSpec bpe_from_json(const json& model, const std::string& file) {
  BpeSpec spec;
  spec.vocab_file = spec.merges_file = file;
  if (const auto suffix = model.find("end_of_word_suffix"); suffix != model.end() && !suffix->is_null()) {
    spec.end_of_word_suffix = string_of(*suffix, "end_of_word_suffix", file);
  }
  if (flag_of(model, "ignore_merges", false, file)) {
    throw Error(ErrorCode::kUnsupported, "a BPE model with \"ignore_merges\": true", file);
  }
  for (const auto& [token, id] : member(model, "vocab", json::value_t::object, file).items()) {
    spec.vocab.emplace(token, id_of(id, token, file));
  }
  size_t index = 0;
  for (const json& merge : member(model, "merges", json::value_t::array, file)) {
    const std::string what = fmt::format("merge {}", ++index);
    if (merge.is_array() && merge.size() == 2) {
      spec.merges.emplace_back(string_of(merge[0], what, file), string_of(merge[1], what, file));
      continue;
    }
    const std::string text = string_of(merge, what, file);
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      invalid(file, fmt::format("{}: expected two tokens, found {}", what, shown(text)));
    }
    spec.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  return spec;
}

std::string decode_base64(const std::string& text, const std::string& file) {
  static constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int bit_count = 0;
  for (const char c : text.substr(0, text.find_last_not_of('=') + 1)) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) invalid(file, "precompiled_charsmap: expected base64");
    bits = (bits << 6) | static_cast<uint32_t>(digit);
    bit_count += 6;
    if (bit_count < 8) continue;
    bit_count -= 8;
    out += static_cast<char>((bits >> bit_count) & 0xff);
  }
  return out;
}

// The steps of a normalizer or pre-tokenizer: one, none (null) or those of a "Sequence".
std::vector<json> steps_of(const json& root, const char* key, const char* list, const std::string& file) {
  const auto found = root.find(key);
  if (found == root.end() || found->is_null()) return {};
  const std::string type = member(*found, "type", json::value_t::string, file).get<std::string>();
  if (type != "Sequence") return {*found};
  const json& steps = member(*found, list, json::value_t::array, file);
  return {steps.begin(), steps.end()};
}

[[noreturn]] void unsupported_step(const char* what, const json& step, const std::string& file) {
  throw Error(ErrorCode::kUnsupported, fmt::format("a {} {}", what, shown(step)), file);
}

void read_normalizer(const json& root, const std::string& file, UnigramSpec& unigram, T5TextRules& rules) {
  using Step = T5TextRules::Step;
  rules.steps.clear();
  bool has_charsmap = false;
  for (const json& step : steps_of(root, "normalizer", "normalizers", file)) {
    const std::string type = member(step, "type", json::value_t::string, file).get<std::string>();
    if (type == "Precompiled" && !has_charsmap) {
      has_charsmap = true;
      const auto map = step.find("precompiled_charsmap");
      if (map == step.end() || map->is_null()) continue;
      unigram.charsmap = decode_base64(string_of(*map, "precompiled_charsmap", file), file);
      rules.steps.push_back({Step::Kind::kCharsMap, false, false, {}});
    } else if (type == "Strip") {
      rules.steps.push_back(
          {Step::Kind::kStrip, flag_of(step, "strip_left", true, file), flag_of(step, "strip_right", true, file), {}});
    } else if (type == "Replace" && step.value("pattern", json()) == json{{"Regex", " {2,}"}}) {
      const std::string content = string_of(step.value("content", json()), "content", file);
      rules.steps.push_back({Step::Kind::kReplaceSpaces, false, false, content});
    } else {
      unsupported_step("normalizer", step, file);
    }
  }
}

void read_pre_tokenizer(const json& root, const std::string& file, T5TextRules& rules) {
  rules.split_white_space = false;
  bool has_metaspace = false;
  for (const json& step : steps_of(root, "pre_tokenizer", "pretokenizers", file)) {
    const std::string type = member(step, "type", json::value_t::string, file).get<std::string>();
    if (type == "WhitespaceSplit" && !has_metaspace) {
      rules.split_white_space = true;
    } else if (type == "Metaspace" && !has_metaspace && step.value("replacement", json("\u2581")) == "\u2581") {
      has_metaspace = true;
      rules.split_words = flag_of(step, "split", true, file);
      // Older files say add_prefix_space where newer ones name a scheme.
      const json scheme = step.contains("prepend_scheme")                 ? step["prepend_scheme"]
                          : flag_of(step, "add_prefix_space", true, file) ? json("always")
                                                                          : json("never");
      if (scheme == "always") {
        rules.prefix = T5TextRules::Prefix::kAlways;
      } else if (scheme == "first") {
        rules.prefix = T5TextRules::Prefix::kFirst;
      } else if (scheme == "never") {
        rules.prefix = T5TextRules::Prefix::kNever;
      } else {
        unsupported_step("pre-tokenizer", step, file);
      }
    } else {
      unsupported_step("pre-tokenizer", step, file);
    }
  }
  if (!has_metaspace) {
    throw Error(ErrorCode::kUnsupported, "a unigram model without the pre-tokenizer \"Metaspace\"", file);
  }
}

UnigramSpec unigram_from_json(const json& model, const std::string& file) {
  UnigramSpec spec;
  spec.file = file;
  spec.byte_fallback = flag_of(model, "byte_fallback", false, file);
  for (const json& entry : member(model, "vocab", json::value_t::array, file)) {
    const size_t id = spec.pieces.size();
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      invalid(file, fmt::format("piece {}: expected [text, score], found {}", id, shown(entry)));
    }
    UnigramSpec::Piece piece{entry[0].get<std::string>(), static_cast<float>(entry[1].get<double>())};
    if (!std::isfinite(piece.score)) invalid(file, fmt::format("piece {}: its score is not finite", id));
    const bool is_byte = piece.text.size() == 6 && piece.text.starts_with("<0x") && piece.text.back() == '>';
    if (spec.byte_fallback && is_byte) piece.type = UnigramSpec::PieceType::kByte;
    spec.pieces.push_back(std::move(piece));
  }
  const auto unk = model.find("unk_id");
  if (unk == model.end() || unk->is_null()) {
    throw Error(ErrorCode::kUnsupported, "a unigram model without \"unk_id\"", file);
  }
  spec.unk_id = id_of(*unk, "unk_id", file);
  if (static_cast<size_t>(spec.unk_id) >= spec.pieces.size()) {
    invalid(file, fmt::format("unk_id: expected less than the {} pieces, found {}", spec.pieces.size(), spec.unk_id));
  }
  spec.pieces[static_cast<size_t>(spec.unk_id)].type = UnigramSpec::PieceType::kUnknown;
  return spec;
}

}  // namespace

std::string read_file(const std::filesystem::path& file) {
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) throw Error(ErrorCode::kNotFound, "no such file", file.string());
  if (std::filesystem::is_directory(file, ignored)) {
    throw Error(ErrorCode::kIo, "expected a file, found a folder", file.string());
  }
  std::ifstream stream(file, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (!stream) throw Error(ErrorCode::kIo, "cannot read the file", file.string());
  return content;
}

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig out;
  const std::filesystem::path map_file = folder / "special_tokens_map.json";
  const std::filesystem::path config_file = folder / "tokenizer_config.json";
  out.file = config_file.string();
  for (const std::filesystem::path& file : {map_file, config_file}) {
    if (!std::filesystem::exists(file)) continue;
    const json content = read_json(file);
    if (!content.is_object()) {
      invalid(file.string(), fmt::format("expected a JSON object, found {}", content.type_name()));
    }
    // Read last, the configuration's own entries win over the map's.
    read_special_tokens(content, file.string(), out);
    if (file == map_file) continue;
    out.model_max_length = read_max_length(content, out.file);
    if (const auto count = content.find("extra_ids"); count != content.end() && !count->is_null()) {
      out.extra_ids = id_of(*count, "extra_ids", out.file);
    }
    if (!content.contains("added_tokens_decoder")) continue;
    for (const auto& [key, value] : member(content, "added_tokens_decoder", json::value_t::object, out.file).items()) {
      AddedToken token = added_token(value, "added token " + key, out.file);
      const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
      if (!digits) invalid(out.file, fmt::format("added_tokens_decoder: expected an id, found {}", shown(key)));
      token.id = std::stoi(key);
      out.added_tokens.push_back(std::move(token));
    }
  }
  return out;
}

BpeSpec read_bpe_files(const std::filesystem::path& vocab_file, const std::filesystem::path& merges_file) {
  BpeSpec spec;
  spec.vocab_file = vocab_file.string();
  spec.merges_file = merges_file.string();
  const json vocab = read_json(vocab_file);
  if (!vocab.is_object()) invalid(spec.vocab_file, fmt::format("expected a JSON object, found {}", vocab.type_name()));
  for (const auto& [token, id] : vocab.items()) spec.vocab.emplace(token, id_of(id, token, spec.vocab_file));

  const std::string content = read_file(merges_file);
  size_t line_number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    std::string_view line(content.data() + begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == 0 || space == std::string_view::npos || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string_view::npos) {
      invalid(spec.merges_file, fmt::format("line {}: expected two tokens, found {}", line_number, shown(line)));
    }
    spec.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return spec;
}

TokenizerJson read_tokenizer_json(const std::filesystem::path& file) {
  const std::string name = file.string();
  const json root = read_json(file);
  const json& model = member(root, "model", json::value_t::object, name);
  TokenizerJson out;
  if (const auto added = root.find("added_tokens"); added != root.end() && !added->is_null()) {
    for (const json& entry : member(root, "added_tokens", json::value_t::array, name)) {
      AddedToken token = added_token(entry, "added_tokens", name);
      token.id = id_of(entry.is_object() ? entry.value("id", json()) : json(), token.content, name);
      out.added_tokens.push_back(std::move(token));
    }
  }
  const std::string type = member(model, "type", json::value_t::string, name).get<std::string>();
  if (type == "BPE") {
    out.bpe = bpe_from_json(model, name);
  } else if (type == "Unigram") {
    UnigramSpec unigram = unigram_from_json(model, name);
    read_normalizer(root, name, unigram, out.text_rules);
    read_pre_tokenizer(root, name, out.text_rules);
    out.unigram = std::move(unigram);
  } else {
    throw Error(ErrorCode::kUnsupported, fmt::format("expected a model of type BPE or Unigram, found {}", shown(type)),
                name);
  }
  return out;
}

}  // namespace chipmunk::text

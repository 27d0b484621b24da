#include "evaluation/scene.h"

#include <algorithm>

#include "chipmunk/error.h"

namespace chipmunk {
namespace {

constexpr std::array<std::string_view, kShapeCount> kShapeNames = {"circle", "square", "triangle", "star",
                                                                   "heart",  "cross",  "ring",     "diamond"};
constexpr std::array<std::string_view, kColourCount> kColourNames = {"red",  "orange", "yellow", "green", "cyan",
                                                                     "blue", "purple", "pink",   "white", "black"};
constexpr std::array<std::string_view, kSizeCount> kSizeNames = {"small", "medium", "large"};
constexpr std::array<std::string_view, kRelationCount> kRelationNames = {"left of", "right of", "above",
                                                                         "below",   "inside",   "overlapping"};

/// The position of a word in its vocabulary.
template <size_t kCount>
int word_index(const JsonConfig& json, const std::string& key, const std::array<std::string_view, kCount>& names) {
  const std::string word = json.string(key);
  const auto found = std::find(names.begin(), names.end(), word);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  std::string known;
  for (const std::string_view name : names) known += (known.empty() ? "" : ", ") + std::string(name);
  throw Error(ErrorCode::kInvalidConfig, "key \"" + key + "\": expected one of " + known + ", found \"" + word + "\"",
              json.where());
}

std::string quote(const std::string& text) {
  std::string quoted = "\"";
  constexpr std::string_view kHex = "0123456789abcdef";
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') {
      quoted += {'\\', letter};
    } else if (byte < 0x20) {
      quoted += "\\u00";
      quoted += {kHex[byte >> 4], kHex[byte & 15]};
    } else {
      quoted += letter;
    }
  }
  return quoted + '"';
}

}  // namespace

std::string_view to_string(Shape shape) { return kShapeNames[static_cast<size_t>(shape)]; }
std::string_view to_string(Colour colour) { return kColourNames[static_cast<size_t>(colour)]; }
std::string_view to_string(Size size) { return kSizeNames[static_cast<size_t>(size)]; }
std::string_view to_string(Relation relation) { return kRelationNames[static_cast<size_t>(relation)]; }

SceneSpec scene_from_json(const JsonConfig& json) {
  SceneSpec scene;
  scene.prompt = json.string("prompt");
  for (const JsonConfig& entry : json.objects("objects")) {
    SceneObject object;
    object.shape = static_cast<Shape>(word_index(entry, "shape", kShapeNames));
    object.colour = static_cast<Colour>(word_index(entry, "colour", kColourNames));
    if (entry.has("size") && !entry.is_null("size")) {
      object.size = static_cast<Size>(word_index(entry, "size", kSizeNames));
    }
    scene.objects.push_back(object);
  }
  if (scene.objects.empty()) throw Error(ErrorCode::kInvalidConfig, "expected at least one object", json.where());
  const int64_t last = static_cast<int64_t>(scene.objects.size()) - 1;
  if (json.has("relations")) {
    for (const JsonConfig& entry : json.objects("relations")) {
      SceneRelation relation;
      relation.subject = static_cast<int>(entry.integer("subject", 0, last));
      relation.kind = static_cast<Relation>(word_index(entry, "relation", kRelationNames));
      relation.object = static_cast<int>(entry.integer("object", 0, last));
      if (relation.subject == relation.object) {
        throw Error(ErrorCode::kInvalidConfig, "an object has a relation to itself", json.where());
      }
      scene.relations.push_back(relation);
    }
  }
  scene.held_out = json.boolean_or("held_out", false);
  return scene;
}

std::string to_json(const SceneSpec& scene) {
  std::string text = "{\"prompt\": " + quote(scene.prompt) + ",\n \"objects\": [";
  const char* separator = "";
  for (const SceneObject& object : scene.objects) {
    text += separator + std::string("{\"shape\": \"") + std::string(to_string(object.shape)) + "\", \"colour\": \"" +
            std::string(to_string(object.colour)) + "\"";
    if (object.size) text += ", \"size\": \"" + std::string(to_string(*object.size)) + "\"";
    text += "}";
    separator = ", ";
  }
  text += "],\n \"relations\": [";
  separator = "";
  for (const SceneRelation& relation : scene.relations) {
    text += separator + std::string("{\"subject\": ") + std::to_string(relation.subject) + ", \"relation\": \"" +
            std::string(to_string(relation.kind)) + "\", \"object\": " + std::to_string(relation.object) + "}";
    separator = ", ";
  }
  return text + "],\n \"held_out\": " + (scene.held_out ? "true" : "false") + "}";
}

std::vector<SceneSpec> load_suite(const std::filesystem::path& path) {
  const JsonConfig json = JsonConfig::load(path);
  std::vector<SceneSpec> scenes;
  for (const JsonConfig& entry : json.objects("scenes")) scenes.push_back(scene_from_json(entry));
  if (scenes.empty()) throw Error(ErrorCode::kInvalidConfig, "expected at least one scene", path.string());
  return scenes;
}

}  // namespace chipmunk

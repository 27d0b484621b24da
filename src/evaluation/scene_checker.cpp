#include "evaluation/scene_checker.h"

#include <algorithm>
#include <cmath>

namespace chipmunk {
namespace {

// Drawn shapes reach 0.93 and more; blobs of noise stay below 0.75.
constexpr double kMinOverlap = 0.80;
constexpr int kNone = -1;

bool has_shape(const SceneAnalysis& analysis, int region, Shape shape) {
  const ShapeFit& fit = analysis.fits[static_cast<size_t>(region)];
  return fit.shape == shape && fit.overlap >= kMinOverlap;
}

bool has_colour(const SceneAnalysis& analysis, int region, Colour colour) {
  return analysis.segmentation.regions[static_cast<size_t>(region)].colour == colour;
}

Size measured_size(const SceneAnalysis& analysis, int region) {
  // Halfway between the ranges of radii: 0.09 to 0.11, 0.14 to 0.17, 0.21 to 0.25.
  const double radius = analysis.fits[static_cast<size_t>(region)].radius / analysis.side;
  return radius < 0.125 ? Size::kSmall : radius < 0.19 ? Size::kMedium : Size::kLarge;
}

/// How two regions lie over each other.
struct Contact {
  double shared_share = 0;  ///< of the first one's shape that lies within the second one's outline, holes filled
  double front_share = 0;   ///< of their shapes' intersection that shows the first one
  int shared = 0;           ///< pixels of the intersection
  int border = 0;           ///< pixels of the first with the second next to them
};

Contact measure_contact(const SceneAnalysis& analysis, int first, int second) {
  const Segmentation& map = analysis.segmentation;
  const ShapeFit& a = analysis.fits[static_cast<size_t>(first)];
  ShapeFit outline = analysis.fits[static_cast<size_t>(second)];
  const ShapeFit b = outline;
  if (outline.shape == Shape::kRing) {
    outline.shape = Shape::kCircle;
    outline.radius *= 1.06;
  }
  int own = 0, within = 0, front = 0;
  Contact contact;
  for (int y = 0; y < map.height; ++y) {
    for (int x = 0; x < map.width; ++x) {
      const int label = map.label(x, y);
      if (label == first) {
        ++own;
        within += outline.distance(x + 0.5, y + 0.5) < 0.5 ? 1 : 0;
        for (const auto& [dx, dy] : {std::pair{2, 0}, {-2, 0}, {0, 2}, {0, -2}}) {
          if (x + dx < 0 || y + dy < 0 || x + dx >= map.width || y + dy >= map.height) continue;
          if (map.label(x + dx, y + dy) != second) continue;
          ++contact.border;
          break;
        }
      }
      if (a.distance(x + 0.5, y + 0.5) < -0.5 && b.distance(x + 0.5, y + 0.5) < -0.5) {
        ++contact.shared;
        front += label == first ? 1 : 0;
      }
    }
  }
  contact.shared_share = static_cast<double>(within) / std::max(own, 1);
  contact.front_share = static_cast<double>(front) / std::max(contact.shared, 1);
  return contact;
}

/// Whether a fits into b's outline, around b's centre or wholly.
bool is_inside(const SceneAnalysis& analysis, int a, int b) {
  const ShapeFit& inner = analysis.fits[static_cast<size_t>(a)];
  const ShapeFit& outer = analysis.fits[static_cast<size_t>(b)];
  if (inner.radius > 0.8 * outer.radius) return false;
  const double distance = std::hypot(inner.x - outer.x, inner.y - outer.y);
  const double share = measure_contact(analysis, a, b).shared_share;
  return share > 0.95 || (share > 0.75 && distance < 0.45 * outer.radius);
}

bool is_overlapping(const SceneAnalysis& analysis, int a, int b) {
  const ShapeFit& front = analysis.fits[static_cast<size_t>(a)];
  const ShapeFit& back = analysis.fits[static_cast<size_t>(b)];
  // Around the other's centre it is inside, not overlapping.
  if (std::hypot(front.x - back.x, front.y - back.y) < 0.45 * std::max(front.radius, back.radius)) return false;
  const Contact contact = measure_contact(analysis, a, b);
  const int min_border = static_cast<int>(0.02 * analysis.side);
  if (contact.border < min_border) return false;
  // Where so little is hidden that nobody sees the order, touching is enough.
  return contact.shared < 12 || contact.front_share > 0.5;
}

bool holds(const SceneAnalysis& analysis, Relation kind, int a, int b) {
  const ShapeFit& first = analysis.fits[static_cast<size_t>(a)];
  const ShapeFit& second = analysis.fits[static_cast<size_t>(b)];
  const double dx = first.x - second.x, dy = first.y - second.y;
  // Diagonal neighbours are beside each other and one above the other, more or less.
  constexpr double kSlack = 0.75;
  const double least = 0.05 * analysis.side;
  switch (kind) {
    case Relation::kLeftOf: return -dx > std::max(least, kSlack * std::abs(dy));
    case Relation::kRightOf: return dx > std::max(least, kSlack * std::abs(dy));
    case Relation::kAbove: return -dy > std::max(least, kSlack * std::abs(dx));
    case Relation::kBelow: return dy > std::max(least, kSlack * std::abs(dx));
    case Relation::kInside: return is_inside(analysis, a, b);
    case Relation::kOverlapping: return is_overlapping(analysis, a, b);
  }
  return false;
}

/// Tries every assignment of regions to objects, depth first, and keeps the best.
class Matcher {
 public:
  Matcher(const SceneAnalysis& analysis, const SceneSpec& spec) : analysis_(analysis), spec_(spec) {
    current_.assign(spec.objects.size(), kNone);
    best_ = current_;
    assign(0, 0);
  }

  const std::vector<int>& best() const { return best_; }

 private:
  double agreement(const SceneObject& object, int region) const {
    const bool colour = has_colour(analysis_, region, object.colour),
               shape = has_shape(analysis_, region, object.shape);
    if (!colour && !shape) return -1;
    const bool size = object.size && measured_size(analysis_, region) == *object.size;
    return (colour ? 1.0 : 0.0) + (shape ? 1.0 : 0.0) + (size ? 0.1 : 0.0) + (colour && shape ? 0.05 : 0.0);
  }

  void assign(size_t object, double score) {
    if (object == spec_.objects.size()) {
      // Among equals, the assignment whose relations hold.
      for (const SceneRelation& relation : spec_.relations) {
        const int a = current_[static_cast<size_t>(relation.subject)];
        const int b = current_[static_cast<size_t>(relation.object)];
        if (a != kNone && b != kNone && score + 1 > best_score_ && holds(analysis_, relation.kind, a, b)) score += 0.3;
      }
      if (score <= best_score_) return;
      best_score_ = score;
      best_ = current_;
      return;
    }
    for (int region = 0; region < static_cast<int>(analysis_.fits.size()); ++region) {
      if (std::find(current_.begin(), current_.end(), region) != current_.end()) continue;
      const double gain = agreement(spec_.objects[object], region);
      if (gain < 0) continue;
      current_[object] = region;
      assign(object + 1, score + gain);
      current_[object] = kNone;
    }
    assign(object + 1, score);
  }

  const SceneAnalysis& analysis_;
  const SceneSpec& spec_;
  std::vector<int> current_, best_;
  double best_score_ = -1;
};

/// The same colour on both sides of something in front: two regions become one where a single shape explains both.
void join_split_regions(SceneAnalysis* analysis) {
  Segmentation& map = analysis->segmentation;
  for (size_t i = 0; i < map.regions.size(); ++i) {
    for (size_t j = i + 1; j < map.regions.size(); ++j) {
      const Region a = map.regions[i], b = map.regions[j];
      if (a.colour != b.colour || map.regions.size() < 3) continue;
      const double weaker = std::min(analysis->fits[i].overlap, analysis->fits[j].overlap);
      Segmentation joined = map;
      for (int16_t& label : joined.labels) {
        if (label == static_cast<int16_t>(j)) label = static_cast<int16_t>(i);
        if (label > static_cast<int16_t>(j)) --label;
      }
      Region& both = joined.regions[i];
      both.area = a.area + b.area;
      both.left = std::min(a.left, b.left);
      both.right = std::max(a.right, b.right);
      both.top = std::min(a.top, b.top);
      both.bottom = std::max(a.bottom, b.bottom);
      both.x = (a.x * a.area + b.x * b.area) / both.area;
      both.y = (a.y * a.area + b.y * b.area) / both.area;
      joined.regions.erase(joined.regions.begin() + static_cast<std::ptrdiff_t>(j));
      const ShapeFit fit = fit_shape(joined, static_cast<int>(i));
      if (fit.overlap < std::max(0.85, weaker - 0.03)) continue;
      map = std::move(joined);
      analysis->fits[i] = fit;
      analysis->fits.erase(analysis->fits.begin() + static_cast<std::ptrdiff_t>(j));
      --j;
    }
  }
}

}  // namespace

SceneAnalysis analyse_picture(const Frames& picture) {
  SceneAnalysis analysis{segment(picture), {}, 0};
  analysis.side = std::min(analysis.segmentation.width, analysis.segmentation.height);
  // Far more than a scene has: noise, whose regions are not worth the time.
  constexpr size_t kMaxRegions = 12;
  if (analysis.segmentation.regions.size() > kMaxRegions) {
    analysis.segmentation.regions.resize(kMaxRegions);
    for (int16_t& label : analysis.segmentation.labels) {
      if (label >= static_cast<int16_t>(kMaxRegions)) label = -1;
    }
  }
  for (size_t i = 0; i < analysis.segmentation.regions.size(); ++i) {
    analysis.fits.push_back(fit_shape(analysis.segmentation, static_cast<int>(i)));
  }
  join_split_regions(&analysis);
  return analysis;
}

SceneVerdict check_scene(const SceneAnalysis& analysis, const SceneSpec& spec) {
  const std::vector<int> matched = Matcher(analysis, spec).best();
  SceneVerdict verdict;
  verdict.all_correct = true;
  int used = 0;
  for (size_t i = 0; i < matched.size(); ++i) {
    ObjectVerdict object;
    if (matched[i] != kNone) {
      ++used;
      object.found = true;
      object.colour = has_colour(analysis, matched[i], spec.objects[i].colour);
      object.shape = has_shape(analysis, matched[i], spec.objects[i].shape);
    }
    const auto& size = spec.objects[i].size;
    object.size = !size || (object.found && measured_size(analysis, matched[i]) == *size);
    verdict.all_correct = verdict.all_correct && object.colour && object.shape;
    verdict.objects.push_back(object);
  }
  for (const SceneRelation& relation : spec.relations) {
    const int a = matched[static_cast<size_t>(relation.subject)], b = matched[static_cast<size_t>(relation.object)];
    verdict.relations.push_back(a != kNone && b != kNone && holds(analysis, relation.kind, a, b));
    verdict.all_correct = verdict.all_correct && verdict.relations.back();
  }
  verdict.extra = static_cast<int>(analysis.fits.size()) - used;
  verdict.all_correct = verdict.all_correct && verdict.extra == 0;
  return verdict;
}

}  // namespace chipmunk

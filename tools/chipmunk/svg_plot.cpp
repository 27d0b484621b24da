#include "svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace chipmunk::cli {
namespace {

constexpr double kWidth = 640, kHeight = 300;  // of the picture without its legend
constexpr double kLeft = 64, kRight = 16, kTop = 34, kBottom = 44;
constexpr double kLegendRow = 20, kCharacter = 6.6;
constexpr int kTicks = 6;
// More points than this are drawn without marks: they would hide the lines.
constexpr size_t kMaxMarks = 400;

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

/// Values to pixels along both axes.
class Scales {
 public:
  explicit Scales(const Plot& plot) : log_x_(plot.log_x) {
    for (const PlotLine& line : plot.lines) {
      for (size_t i = 0; i < line.x.size(); ++i) {
        if (!std::isfinite(line.y[i])) continue;
        x_.add(line.x[i]);
        y_.add(line.y[i]);
      }
    }
    if (empty()) return;
    if (x_.low == x_.high) x_.high = log_x_ ? 2.0 * x_.low : x_.low + 1.0;
    y_.low = std::min(y_.low, 0.0);
    if (y_.high <= y_.low) y_.high = y_.low + 1.0;
  }

  bool empty() const { return x_.empty(); }
  const Range& x() const { return x_; }
  const Range& y() const { return y_; }

  double x_pixel(double value) const {
    const double share =
        log_x_ ? std::log(value / x_.low) / std::log(x_.high / x_.low) : (value - x_.low) / (x_.high - x_.low);
    return kLeft + share * (kWidth - kLeft - kRight);
  }
  double y_pixel(double value) const {
    return kHeight - kBottom - (value - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }

 private:
  bool log_x_;
  Range x_, y_;
};

/// Multiples of 1, 2 or 5 times a power of ten.
std::vector<double> round_ticks(const Range& range) {
  const double rough = (range.high - range.low) / kTicks;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10.0 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  const auto first = static_cast<int64_t>(std::ceil(range.low / step - 1e-9));
  const auto last = static_cast<int64_t>(std::floor(range.high / step + 1e-9));
  for (int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

std::string text(double x, double y, const char* anchor, std::string_view content, const char* more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     escape_markup(content));
}

std::string line(double x1, double y1, double x2, double y2, const char* colour) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1, y1, x2, y2,
                     colour);
}

std::string axes(const Plot& plot, const Scales& scales) {
  constexpr double kFloor = kHeight - kBottom;
  std::string svg;
  for (const double tick : round_ticks(scales.y())) {
    svg += line(kLeft, scales.y_pixel(tick), kWidth - kRight, scales.y_pixel(tick), "#e4e4e4");
    svg += text(kLeft - 6, scales.y_pixel(tick) + 4, "end", fmt::format("{:.4g}", tick));
  }
  for (const double tick : plot.log_x ? plot.lines.front().x : round_ticks(scales.x())) {
    svg += line(scales.x_pixel(tick), kFloor, scales.x_pixel(tick), kFloor + 4, "#444");
    svg += text(scales.x_pixel(tick), kFloor + 17, "middle", fmt::format("{:.4g}", tick));
  }
  svg += line(kLeft, kFloor, kWidth - kRight, kFloor, "#444");
  svg += line(kLeft, kTop, kLeft, kFloor, "#444");
  svg += text((kLeft + kWidth - kRight) / 2, kHeight - 8, "middle", plot.x_label);
  const double middle = (kTop + kFloor) / 2;
  return svg +
         text(14, middle, "middle", plot.y_label, fmt::format(" transform=\"rotate(-90 14 {})\"", middle).c_str());
}

std::string draw_line(const PlotLine& series, const Scales& scales, bool marks) {
  std::string svg =
      fmt::format("<g stroke=\"{}\" fill=\"none\" stroke-width=\"1.6\"{}><title>{}</title>\n", series.colour,
                  series.dashed ? " stroke-dasharray=\"5 4\"" : "", escape_markup(series.label));
  std::string points, dots;
  const auto end_stretch = [&svg, &points] {
    if (!points.empty()) svg += "<polyline points=\"" + points + "\"/>\n";
    points.clear();
  };
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!std::isfinite(series.y[i])) {
      end_stretch();
      continue;
    }
    const double x = scales.x_pixel(series.x[i]), y = scales.y_pixel(series.y[i]);
    points += fmt::format("{}{:.1f},{:.1f}", points.empty() ? "" : " ", x, y);
    if (!marks) continue;
    dots += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\" stroke=\"none\" fill=\"{}\"><title>{}: {:.4g}, "
        "{:.4g}</title></circle>\n",
        x, y, series.colour, escape_markup(series.label), series.x[i], series.y[i]);
  }
  end_stretch();
  return svg + dots + "</g>\n";
}

/// A colour bar between the names of the first and the last line.
std::string ramp_legend(const Plot& plot, double* height) {
  constexpr double kBar = 160;
  const auto segment = kBar / static_cast<double>(plot.lines.size());
  const double y = kHeight + 4, first = kLeft + kCharacter * static_cast<double>(plot.lines.front().label.size()) + 8;
  std::string svg = text(kLeft, y + 10, "start", plot.lines.front().label);
  for (size_t i = 0; i < plot.lines.size(); ++i) {
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"10\" fill=\"{}\"/>\n",
                       first + static_cast<double>(i) * segment, y + 1, segment + 0.5, plot.lines[i].colour);
  }
  *height = kHeight + kLegendRow;
  return svg + text(first + kBar + 8, y + 10, "start", plot.lines.back().label);
}

std::string list_legend(const Plot& plot, double* height) {
  double x = kLeft, y = kHeight + 4;
  std::string svg;
  for (const PlotLine& series : plot.lines) {
    const double needed = 34 + kCharacter * static_cast<double>(series.label.size());
    if (x > kLeft && x + needed > kWidth) {
      x = kLeft;
      y += kLegendRow;
    }
    svg += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"2\"{}/>\n", x,
        y + 6, x + 20, y + 6, series.colour, series.dashed ? " stroke-dasharray=\"5 4\"" : "");
    svg += text(x + 25, y + 10, "start", series.label);
    x += needed + 12;
  }
  *height = y + kLegendRow;
  return svg;
}

}  // namespace

std::string to_svg(const Plot& plot) {
  const Scales scales(plot);
  double height = kHeight;
  std::string body = text(kLeft, 18, "start", plot.title, " font-weight=\"bold\"");
  if (scales.empty()) {
    body += text(kLeft, kHeight / 2, "start", "nothing was recorded");
  } else {
    size_t points = 0;
    for (const PlotLine& series : plot.lines) points += series.x.size();
    body += axes(plot, scales);
    for (const PlotLine& series : plot.lines) body += draw_line(series, scales, points <= kMaxMarks);
    body += plot.ramp_legend && plot.lines.size() > 1 ? ramp_legend(plot, &height) : list_legend(plot, &height);
  }
  return fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n{}</svg>\n",
      kWidth, height, escape_markup(plot.title), body);
}

std::string category_colour(size_t index) {
  // Okabe and Ito's palette, its yellow darkened to be seen on white.
  constexpr std::array<const char*, 8> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                   "#e69f00", "#56b4e9", "#a08a00", "#000000"};
  return kColours[index % kColours.size()];
}

std::string ramp_colour(double position) {
  // Samples of the viridis colour map, without its palest end.
  constexpr double kStops[][3] = {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {220, 205, 30}};
  constexpr double kLast = 4.0;
  const double at = std::clamp(position, 0.0, 1.0) * kLast;
  const auto below = static_cast<size_t>(std::min(at, kLast - 1.0));
  const double share = at - static_cast<double>(below);
  std::array<int, 3> rgb{};
  for (size_t c = 0; c < 3; ++c) {
    rgb[c] = static_cast<int>(std::lround(kStops[below][c] + share * (kStops[below + 1][c] - kStops[below][c])));
  }
  return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

std::string escape_markup(std::string_view text) {
  std::string escaped;
  for (const char letter : text) {
    switch (letter) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      case '\'': escaped += "&#39;"; break;
      default: escaped += letter;
    }
  }
  return escaped;
}

}  // namespace chipmunk::cli

#pragma once

#include <string>
#include <string_view>
#include <vector>

/// Line plots as SVG elements that stand inside of HTML, with nothing from outside.
namespace chipmunk::cli {

struct PlotLine {
  std::string label;
  std::vector<double> x, y;  ///< of equal length; NaN leaves a gap
  std::string colour;        ///< as CSS writes it
  bool dashed = false;
};

struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotLine> lines;
  bool log_x = false;  ///< needs x above 0; ticks at the first line's x
  /// The lines are an ordered family, coloured by ramp_colour: the legend is a colour bar from the first to the last.
  bool ramp_legend = false;
};

/// Axes from 0 (or the smallest x where log_x), ticks, lines and a legend. A plot without finite values says so.
std::string to_svg(const Plot& plot);

/// Well apart for people with any colour vision; repeats after eight.
std::string category_colour(size_t index);
/// From dark violet (0) to yellow (1).
std::string ramp_colour(double position);

/// Text for HTML and SVG, in elements and attributes.
std::string escape_markup(std::string_view text);

}  // namespace chipmunk::cli

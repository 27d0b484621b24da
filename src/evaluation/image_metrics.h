#pragma once

#include "chipmunk/pipeline.h"

/// How alike two pictures are, value by value. Both take videos too, frame by frame.
namespace chipmunk {

/// Peak signal-to-noise ratio in dB: 10 log10(255^2 / MSE), MSE the mean squared difference over all R, G and B values
/// of all frames. Infinity for equal pictures. Throws kShapeMismatch unless both have the same size.
double psnr(const Frames& a, const Frames& b);

/// Structural similarity, at most 1: the mean over all positions at which the window lies inside, and over frames, of
///   (2 mx my + C1) (2 sxy + C2) / ((mx^2 + my^2 + C1) (sx^2 + sy^2 + C2)),  C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2,
/// with means, variances and covariance weighted by a normalised 11 x 11 Gaussian window of sigma 1.5 (divided by the
/// sum of weights, without Bessel's correction), of the luma Y = 0.299 R + 0.587 G + 0.114 B in [0, 255], not rounded.
/// Nothing is scaled down first. Throws kShapeMismatch unless both have the same size, kInvalidArgument for a side
/// below 11 pixels.
/// Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
/// 2004.
double ssim(const Frames& a, const Frames& b);

}  // namespace chipmunk

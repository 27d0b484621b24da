#pragma once

#include "cuda/sm90/attention_rows.cuh"

namespace chipmunk::cuda::sm90 {

/// What a block does at a time: an item, which is the rows of a block of threads, of a head; or a part of one: the rows
/// that a warpgroup has at a time, here had by all of them, which share the keys.
enum class Pieces { kItems, kParts };

/// The work of a grid, and where it goes; of parts, that of items which the grid before leaves over.
struct PieceArguments {
  HeadRowsOut out;
  int groups;              // of query rows a head
  int first_item, pieces;  // of this launch
  bool lets_next_begin;    // items: from this grid's start on
  bool follows_items;      // parts: this grid begins once that of whole items has
};

/// Groups of a head follow each other, so that its keys stay in the cache.
template <class Shape, Pieces kPieces>
struct Piece {
  static constexpr int kRows = kPieces == Pieces::kItems ? Shape::kRows : Shape::kWarpgroupRows;

  int batch, head, first_row;

  __device__ static int item(const PieceArguments& a, int number) {
    return a.first_item + (kPieces == Pieces::kItems ? number : number / Shape::kWarpgroups);
  }

  __device__ static Piece find(const PieceArguments& a, int number) {
    Piece piece;
    const int of = item(a, number), head = of / a.groups;
    piece.first_row = (of - head * a.groups) * Shape::kRows;
    if (kPieces == Pieces::kParts) piece.first_row += number % Shape::kWarpgroups * Shape::kWarpgroupRows;
    piece.batch = head / a.out.heads;
    piece.head = head - piece.batch * a.out.heads;
    return piece;
  }

  /// A warpgroup's first one of the rows.
  __device__ static int warpgroup_row(int warpgroup) {
    return kPieces == Pieces::kItems ? warpgroup * Shape::kWarpgroupRows : 0;
  }

  /// Brings a warpgroup's rows of q.
  __device__ void bring_rows(const AttentionPipeline<Shape>& pipeline, int warpgroup, const CUtensorMap& q) const {
    const int first = first_row + warpgroup_row(warpgroup) - warpgroup * Shape::kWarpgroupRows;
    bring_queries(pipeline, warpgroup, q, first, head, batch);
  }

  __device__ OutRows rows(const PieceArguments& a, int warpgroup) const {
    return {a.out, batch, head, first_row + warpgroup_row(warpgroup), a.out.tokens};
  }
};

}  // namespace chipmunk::cuda::sm90

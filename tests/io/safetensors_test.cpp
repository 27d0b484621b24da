#include "io/safetensors.h"

#include <cstring>
#include <map>

#include "core/context.h"
#include "io_test_util.h"

namespace chipmunk {
namespace {

using test::counting_tensor;
using test::expect_error;
using test::safetensors_bytes;
using test::TempFolder;

const std::string kTwo =
    R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";

std::string one(const std::string& fields) { return R"({"t":{)" + fields + "}}"; }
std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"("dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets;
}

struct BadFile {
  const char* name;
  std::string bytes;
  std::vector<std::string> parts;  // of the message, besides the file's name
  ErrorCode code = ErrorCode::kInvalidFile;
};

std::vector<BadFile> files_with_a_bad_frame() {
  const std::string header = one(entry("U8", "[2]", "[0,2]"));
  return {
      {"EmptyFile", "", {"empty"}},
      {"ShorterThanTheLength", "1234567", {"7 bytes"}},
      {"OversizedHeader", safetensors_bytes(100'000'001, header, "12"), {"100000001", "limit"}},
      {"HugeHeaderLength", safetensors_bytes(~uint64_t{0}, header, "12"), {"limit"}},
      {"HeaderBeyondTheFile", safetensors_bytes(header.size() + 3, header, "12"), {"truncated"}},
      {"EmptyHeader", safetensors_bytes("", ""), {"'{'"}},
      {"NotJson", safetensors_bytes("{hello}", ""), {"JSON"}},
      {"HeaderIsAList", safetensors_bytes("[]", ""), {"'{'"}},
      {"HeaderBeginsWithSpace", safetensors_bytes(" {}", ""), {"'{'"}},
      {"TextAfterTheHeader", safetensors_bytes("{}x", ""), {"JSON"}},
      {"NulInTheHeader", safetensors_bytes(std::string_view("{}\0 ", 4), ""), {"NUL"}},
      {"HeaderCutOff", safetensors_bytes(header.substr(0, header.size() - 1), ""), {"JSON"}},
      {"NotUtf8", safetensors_bytes("{\"t\xff\":{" + entry("U8", "[2]", "[0,2]") + "}}", "12"), {"JSON", "UTF-8"}},
      {"TrailingBytes", safetensors_bytes(header, "123"), {"1 bytes belong to no tensor"}},
      {"TruncatedData", safetensors_bytes(header, "1"), {"\"t\"", "truncated"}},
      {"DataButNoTensors", safetensors_bytes("{}", "1"), {"belong to no tensor"}},
  };
}

std::vector<BadFile> files_with_a_bad_entry() {
  const std::string eight = "12345678";
  const auto file = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return safetensors_bytes(one(entry(dtype, shape, offsets)), eight);
  };
  const std::string field = R"("dtype":"U8","shape":[8],"data_offsets":[0,8])";
  return {
      {"UnknownDtype", file("F33", "[2]", "[0,8]"), {"\"t\"", "F33"}},
      {"LowerCaseDtype", file("f32", "[2]", "[0,8]"), {"\"t\"", "f32"}},
      {"DtypeIsANumber", safetensors_bytes(one(R"("dtype":3)"), ""), {"\"t\"", "dtype", "3"}},
      {"NoDtype", safetensors_bytes(one(R"("shape":[8],"data_offsets":[0,8])"), eight), {"\"t\"", "no dtype"}},
      {"NoShape", safetensors_bytes(one(R"("dtype":"U8","data_offsets":[0,8])"), eight), {"\"t\"", "no shape"}},
      {"NoOffsets", safetensors_bytes(one(R"("dtype":"U8","shape":[8])"), eight), {"\"t\"", "no data_offsets"}},
      {"NegativeSize", file("F32", "[-2]", "[0,8]"), {"\"t\"", "shape", "-2"}},
      {"FractionalSize", file("F32", "[2.0]", "[0,8]"), {"\"t\"", "shape", "2.0"}},
      {"SizeIsAString", file("F32", R"(["2"])", "[0,8]"), {"\"t\"", "shape"}},
      {"SizeIsNull", file("F32", "[null]", "[0,8]"), {"\"t\"", "shape", "null"}},
      {"ShapeIsANumber", file("F32", "2", "[0,8]"), {"\"t\"", "shape"}},
      {"ShapeIsNested", file("F32", "[[2]]", "[0,8]"), {"\"t\"", "shape", "a list"}},
      {"ShapeIsAnObject", file("F32", "{}", "[0,8]"), {"\"t\"", "shape", "an object"}},
      {"SizeBeyond64Bits", file("F32", "[18446744073709551616]", "[0,8]"), {"\"t\"", "shape"}},
      {"ShapeOverflows", file("U8", "[4294967296,4294967296]", "[0,0]"), {"\"t\"", "too large"}},
      {"ShapeTimesTypeOverflows", file("F32", "[4611686018427387906]", "[0,8]"), {"\"t\"", "too large"}},
      {"ZeroHidesAnOverflow", file("U8", "[0,4294967296,4294967296]", "[0,0]"), {"\"t\"", "too large"}},
      {"ShapeDoesNotFit", file("F32", "[3]", "[0,8]"), {"\"t\"", "12 bytes", "give 8"}},
      {"HalfAByte", file("F4", "[15]", "[0,8]"), {"\"t\"", "whole number of bytes"}},
      {"OneOffset", file("F32", "[2]", "[0]"), {"\"t\"", "data_offsets"}},
      {"ThreeOffsets", file("F32", "[2]", "[0,8,8]"), {"\"t\"", "data_offsets"}},
      {"EndBeforeBegin", file("F32", "[2]", "[8,0]"), {"\"t\"", "end before"}},
      {"NegativeOffset", file("F32", "[2]", "[-8,0]"), {"\"t\"", "data_offsets", "-8"}},
      {"BeyondTheFile", file("F32", "[4]", "[0,16]"), {"\"t\"", "byte 16", "has 8"}},
      {"OffsetsNear64Bits", file("U8", "[1]", "[18446744073709551614,18446744073709551615]"), {"\"t\"", "hole"}},
      {"HoleAtTheFront", file("F32", "[1]", "[4,8]"), {"\"t\"", "hole"}},
      {"NineDimensions", file("U8", "[1,1,1,1,1,1,1,1,8]", "[0,8]"), {"\"t\"", "9 dim"}, ErrorCode::kUnsupported},
      {"EntryIsAList", safetensors_bytes(R"({"t":[]})", ""), {"\"t\"", "a list"}},
      {"EntryIsAString", safetensors_bytes(R"({"t":"x"})", ""), {"\"t\"", "\"x\""}},
      {"DuplicateField", safetensors_bytes(one(field + R"(,"dtype":"U8")"), eight), {"\"t\"", "dtype", "twice"}},
      {"DuplicateTensor",
       safetensors_bytes(R"({"t":{)" + field + R"(},"t":{)" + field + "}}", eight),
       {"\"t\"", "twice"}},
      {"DuplicateMetadata",
       safetensors_bytes(R"({"__metadata__":{},"__metadata__":{}})", ""),
       {"__metadata__", "twice"}},
      {"DuplicateMetadataKey",
       safetensors_bytes(R"({"__metadata__":{"k":"1","k":"2"}})", ""),
       {"__metadata__", "\"k\"", "twice"}},
      {"MetadataIsANumber", safetensors_bytes(R"({"__metadata__":{"k":1}})", ""), {"__metadata__", "\"k\""}},
      {"MetadataIsNested", safetensors_bytes(R"({"__metadata__":{"k":{}}})", ""), {"__metadata__", "an object"}},
  };
}

std::vector<BadFile> files_with_a_bad_layout() {
  const auto file = [](const std::string& first, const std::string& second) {
    return safetensors_bytes(R"({"a":{)" + entry("U8", "[4]", first) + R"(},"b":{)" + entry("U8", "[4]", second) + "}}",
                             "12345678");
  };
  return {
      {"Overlap", file("[0,4]", "[3,7]"), {"\"b\"", "overlap", "\"a\""}},
      {"SameBytesTwice", file("[0,4]", "[0,4]"), {"\"b\"", "overlap"}},
      {"HoleBetween", file("[0,4]", "[5,9]"), {"\"b\"", "hole"}},
      {"BothTooFar", file("[4,8]", "[8,12]"), {"\"a\"", "hole"}},
  };
}

class BadSafetensors : public testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensors, IsRejectedByName) {
  const TempFolder folder;
  const auto path = folder.add("bad.safetensors", GetParam().bytes);
  std::vector<std::string> parts = GetParam().parts;
  parts.push_back("bad.safetensors");
  const std::string message = expect_error(GetParam().code, parts, [&] { SafetensorsFile file(path); });
  EXPECT_EQ(message.find('\n'), message.npos);
}

const auto kCaseName = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Frame, BadSafetensors, testing::ValuesIn(files_with_a_bad_frame()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Entry, BadSafetensors, testing::ValuesIn(files_with_a_bad_entry()), kCaseName);
INSTANTIATE_TEST_SUITE_P(Layout, BadSafetensors, testing::ValuesIn(files_with_a_bad_layout()), kCaseName);

TEST(Safetensors, TruncationAtEveryByteIsRejected) {
  const TempFolder folder;
  const std::string bytes = safetensors_bytes(kTwo, std::string(11, 'x'));
  for (size_t length = 0; length < bytes.size(); ++length) {
    SCOPED_TRACE(length);
    const auto path = folder.add("cut.safetensors", bytes.substr(0, length));
    expect_error(ErrorCode::kInvalidFile, {"cut.safetensors"}, [&] { SafetensorsFile file(path); });
  }
  const SafetensorsFile whole(folder.add("cut.safetensors", bytes));
  EXPECT_EQ(whole.names(), (std::vector<std::string>{"a", "b"}));
}

TEST(Safetensors, MissingFileAndFolder) {
  const TempFolder folder;
  expect_error(ErrorCode::kNotFound, {"nothing.safetensors"}, [&] { SafetensorsFile(folder / "nothing.safetensors"); });
  expect_error(ErrorCode::kInvalidFile, {"folder"}, [&] { SafetensorsFile file(folder.path()); });
}

TEST(Safetensors, AcceptsPaddingUnknownFieldsAndEmptyTensors) {
  const TempFolder folder;
  const std::string header =
      R"({"__metadata__":{"k":"v"},"e":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4],"extra":{"dtype":[{}]}},)"
      R"("s":{"data_offsets":[0,4],"shape":[],"dtype":"F32","note":[1,"x",null]}}     )";
  const SafetensorsFile file(folder.add("f.safetensors", safetensors_bytes(header, std::string_view("\0\0\x80?", 4))));
  EXPECT_EQ(file.metadata().at("k"), "v");
  EXPECT_EQ(file.tensor("e").shape(), (Dims{0, 3}));
  const Tensor scalar = file.tensor("s");
  EXPECT_EQ(scalar.rank(), 0);
  EXPECT_EQ(*scalar.data_as<float>(), 1.0f);
}

TEST(Safetensors, EmptyObjectIsAFileWithoutTensors) {
  const TempFolder folder;
  EXPECT_TRUE(SafetensorsFile(folder.add("f.safetensors", safetensors_bytes("{}", ""))).names().empty());
}

TEST(Safetensors, DtypesWithoutTensorsAreListedButNotTaken) {
  const TempFolder folder;
  const std::string header = one(entry("F64", "[1]", "[0,8]"));
  const SafetensorsFile file(folder.add("f.safetensors", safetensors_bytes(header, "12345678")));
  EXPECT_EQ(file.entry("t").dtype_name, "F64");
  EXPECT_FALSE(file.entry("t").dtype.has_value());
  expect_error(ErrorCode::kUnsupported, {"f.safetensors", "\"t\"", "F64"}, [&] { file.tensor("t"); });
  expect_error(ErrorCode::kNotFound, {"f.safetensors", "\"u\""}, [&] { file.tensor("u"); });
}

TEST(Safetensors, TensorsAreViewsOfTheMappingThatOutliveTheFile) {
  const TempFolder folder;
  Tensor tensor;
  Tensor other;
  {
    write_safetensors(folder / "f.safetensors",
                      {{"a", counting_tensor({2, 3}, DType::kF32)}, {"b", counting_tensor({4}, DType::kBF16)}});
    const SafetensorsFile file(folder / "f.safetensors");
    tensor = file.tensor("a");
    other = file.tensor("b");
    EXPECT_EQ(tensor.storage(), other.storage());
  }
  std::filesystem::remove(folder / "f.safetensors");
  EXPECT_EQ(tensor.data_as<float>()[5], 5.0f);
}

TEST(Safetensors, MisalignedTensorsAreCopied) {
  const TempFolder folder;
  // "b" follows a single byte, so its floats lie at odd addresses.
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  std::string data(9, '\0');
  const float values[2] = {1.5f, -2.0f};
  std::memcpy(data.data() + 1, values, sizeof(values));
  for (int padding = 0; padding < 4; ++padding) {
    const std::string padded = header + std::string(static_cast<size_t>(padding), ' ');
    const SafetensorsFile file(folder.add("f.safetensors", safetensors_bytes(padded, data)));
    const Tensor tensor = file.tensor("b");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data()) % sizeof(float), 0u);
    EXPECT_EQ(tensor.data_as<float>()[0], 1.5f);
    EXPECT_EQ(tensor.data_as<float>()[1], -2.0f);
  }
}

TEST(Safetensors, RoundTripOfEveryDtype) {
  const TempFolder folder;
  std::map<std::string, Tensor> tensors;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI32,
                            DType::kI64, DType::kU8, DType::kBool}) {
    tensors["tensor \"" + std::string(to_string(dtype)) + "\" \u00fc"] = counting_tensor({3, 5}, dtype, 1);
  }
  tensors["empty"] = counting_tensor({0, 7}, DType::kF32);
  write_safetensors(folder / "f.safetensors", tensors, {{"format", "pt"}, {"text", "line\nline"}});
  const SafetensorsFile file(folder / "f.safetensors");
  EXPECT_EQ(file.metadata().at("text"), "line\nline");
  ASSERT_EQ(file.names().size(), tensors.size());
  for (const auto& [name, expected] : tensors) {
    const Tensor got = file.tensor(name);
    EXPECT_EQ(got.dtype(), expected.dtype());
    EXPECT_EQ(got.shape(), expected.shape());
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), expected.bytes()), 0) << name;
    EXPECT_EQ(file.entry(name).offset % size_of(expected.dtype()), 0u) << "the writer aligns every tensor";
  }
  EXPECT_EQ(folder.list(), std::vector<std::string>{"f.safetensors"});
}

TEST(Safetensors, WritesViewsInRowMajorOrder) {
  const TempFolder folder;
  const Tensor matrix = counting_tensor({3, 4}, DType::kI32);
  write_safetensors(folder / "f.safetensors", {{"transposed", matrix.permute({1, 0})},
                                               {"columns", matrix.slice(1, 1, 3)},
                                               {"repeated", matrix.slice(0, 0, 1).expand(0, 2)}});
  const SafetensorsFile file(folder / "f.safetensors");
  const auto values = [&](const std::string& name) {
    const Tensor tensor = file.tensor(name);
    return std::vector<int32_t>(tensor.data_as<int32_t>(), tensor.data_as<int32_t>() + tensor.numel());
  };
  EXPECT_EQ(values("transposed"), (std::vector<int32_t>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
  EXPECT_EQ(values("columns"), (std::vector<int32_t>{1, 2, 5, 6, 9, 10}));
  EXPECT_EQ(values("repeated"), (std::vector<int32_t>{0, 1, 2, 3, 0, 1, 2, 3}));
}

TEST(Safetensors, WriterRejectsWhatItCannotStore) {
  const TempFolder folder;
  const Tensor tensor = counting_tensor({2}, DType::kF32);
  const auto path = folder / "f.safetensors";
  expect_error(ErrorCode::kInvalidArgument, {"__metadata__"},
               [&] { write_safetensors(path, {{"__metadata__", tensor}}); });
  expect_error(ErrorCode::kInvalidArgument, {"\"t\"", "no tensor"},
               [&] { write_safetensors(path, {{"t", Tensor()}}); });
  expect_error(ErrorCode::kInvalidText, {"UTF-8"}, [&] { write_safetensors(path, {{"\xff", tensor}}); });
  expect_error(ErrorCode::kIo, {"nowhere"}, [&] { write_safetensors(folder / "nowhere/f", {{"t", tensor}}); });
  EXPECT_TRUE(folder.list().empty());
}

TEST(Safetensors, FullDiskIsAnErrorThatLeavesNothing) {
  const Tensor row = counting_tensor({1, 1 << 16}, DType::kF32);
  expect_error(ErrorCode::kIo, {"/dev/full", "space"},
               [&] { write_safetensors("/dev/full", {{"t", row.expand(0, 4)}}); });
}

}  // namespace
}  // namespace chipmunk

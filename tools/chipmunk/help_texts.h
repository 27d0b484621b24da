#pragma once

/// What the help of the program and its commands says besides their options.
namespace chipmunk::cli {

inline constexpr const char* kDescription =
    "Generates images with diffusion transformers, from checkpoint folders as Hugging Face serves them.";

inline constexpr const char* kGenerateExamples = R"(Single files:
  What they cannot tell has FLUX.1's values; a JSON file for --model-config changes
  them: {"transformer": {...}, "vae": {...}, "text_encoder": {...},
  "text_encoder_2": {...}, "scheduler": {...}}, with the keys of config.json.

Output names:
  One picture is written to --output. Several become NAME_000.png, NAME_001.png, ...
  A name with %d or %03d numbers the pictures there. An existing folder (or a name
  ending in /) gets image_000.png, image_001.png, ... Folders are not created.

Prompt files:
  One prompt a line, UTF-8. Blank lines and lines that start with # are skipped.
  Every prompt uses the same --seed, or draws its own; picture i of a batch uses
  seed + i.

Examples:
  chipmunk generate -p "a red circle above a blue square" -o out.png
  chipmunk generate -m FLUX.1-dev -p "a cat" -W 768 -H 512 --steps 20 -s 42
  chipmunk generate -m FLUX.1-dev --prompts prompts.txt -b 2 -o pictures/
  chipmunk generate -m FLUX.1-dev -p "a cat" --steps 50 --sparsity flux
  chipmunk generate --diffusion-model flux1-dev.safetensors --vae ae.safetensors \
      --clip_l clip_l.safetensors --t5xxl t5xxl_fp16.safetensors \
      --clip-tokenizer tokenizer --t5-tokenizer tokenizer_2 -p "a cat"

Exit codes: 0 done, 2 bad use, 1 any other error, 130 stopped by Ctrl-C.)";

inline constexpr const char* kInspectExamples = R"(Examples:
  chipmunk inspect FLUX.1-dev
  chipmunk inspect ae.safetensors --tensors
  chipmunk inspect FLUX.1-dev --json
  chipmunk inspect --device

Exit codes: 0 complete, 1 if something is missing or broken.)";

inline constexpr const char* kScheduleExamples = R"(Examples:
  chipmunk schedule --steps 20
  chipmunk schedule -m FLUX.1-dev -W 768 -H 512 --json
  chipmunk schedule --steps 50 --sparsity flux)";

inline constexpr const char* kCompareExamples = R"(Output folder:
  dense/000.png, VARIANT/000.png, ...  the pictures; picture i uses seed + i
  side_by_side/VARIANT/000.png, ...    dense, sparse and eight times their difference
  prompts.txt                          one line a picture
  compare.json, report.html            all numbers; tables and plots
  With --skip N the first picture is number N, as in a run of all prompts.

Examples:
  chipmunk compare -p "a red circle above a blue square" --sparsity demo
  chipmunk compare --suite scenes --limit 20 --sparsity demo --sparsity mine.yml
  chipmunk compare -m FLUX.1-dev --prompts prompts.txt --steps 50 --sparsity flux

Exit codes: 0 done, 2 bad use, 1 any other error, 130 stopped by Ctrl-C.)";

inline constexpr const char* kSparsityExamples = R"(Examples:
  chipmunk sparsity show
  chipmunk sparsity show flux > mine.yml
  chipmunk sparsity check mine.yml

Exit codes: 0 valid, 2 anything wrong with the settings.)";

}  // namespace chipmunk::cli

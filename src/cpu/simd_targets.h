#pragma once

// Highway compiles SIMD code once per instruction set and picks one at run time. AVX2 and AVX-512 are what machines
// that can run these models have; everything older shares the portable baseline, which halves the compile time.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)

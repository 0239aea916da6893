/* The kernels for x86 with AVX-512 and its dot product of bfloat16. */

#if defined(__x86_64__)

#define LEVEL avx512_bf16
#define LANES 16
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")))
#define TILE_ROWS 4
#define HAS_BF16_DOT

#include "level.h"

#endif

/* The portable kernels with the matrix unit's products of bfloat16, bit by bit; slow, for tests. */

#define LEVEL amx_emulated
#define LANES 4
#define TARGET
#define TILE_ROWS 2
#define MATRIX_UNIT "matrix_emulated.h"

#include "level.h"

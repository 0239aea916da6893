/* The kernels in plain vector code, for any processor. */

#define LEVEL portable
#define LANES 4
#define TARGET
#define TILE_ROWS 2

#include "level.h"

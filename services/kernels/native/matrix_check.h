/* Whether the processor's matrix unit may be used, and computes what it should. */

#ifndef MOESAIC_MATRIX_CHECK_H
#define MOESAIC_MATRIX_CHECK_H

#include "kernels.h"

/* What to make of the matrix unit; UNIT_ABSENT too where the system does not know it. */
enum unit_state { UNIT_ABSENT, UNIT_REFUSED, UNIT_WRONG, UNIT_USABLE };

/* Asks the system once for this process, and tries some products. Nothing of it can raise a
 * signal. For one thread at a time. */
enum unit_state find_matrix_unit(void);

/* Whether a level computes some products of bfloat16 as the emulation does: bit by bit where sums
 * are exact, and else as near as another order of adding would be, with the same bits for the same
 * row in any company. */
int computes_as_emulated(const struct level *level);

#endif

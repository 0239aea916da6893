/* CRC-32 with zlib's polynomial, where the processor multiplies without carries. */

#ifndef MOESAIC_CHECKSUM_H
#define MOESAIC_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Whether this processor has what `checksum_of` needs. */
int has_checksum(void);

/* The checksum of what has `checksum`, followed by `data`. */
uint32_t checksum_of(uint32_t checksum, const char *data, size_t num_bytes);

#endif

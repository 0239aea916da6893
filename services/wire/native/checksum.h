/* CRC-32 with zlib's polynomial. */

#ifndef MOESAIC_CHECKSUM_H
#define MOESAIC_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Makes the tables, before anything else is asked for. */
void prepare_checksums(void);

/* The checksum of what has `checksum`, followed by `data`. */
uint32_t checksum_of(uint32_t checksum, const char *data, size_t num_bytes);

#endif

/* A layer's frames and replies, when one call sends the former and awaits the latter. */

#ifndef MOESAIC_EXCHANGE_H
#define MOESAIC_EXCHANGE_H

#include <stddef.h>
#include <stdint.h>

struct exchange;

/* A message came on the stream with this index while the exchange is under way. 1 when it was
 * taken; 0 when it is for whoever reads the stream otherwise. May be called without the GIL. */
__attribute__((weak)) int exchange_take(struct exchange *, int index, const char *message,
                                        size_t count, uint64_t arrived_nanos);

#endif

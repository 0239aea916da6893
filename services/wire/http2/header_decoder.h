/* Reads the header blocks of a connection, RFC 7541: of any bytes, from anybody. */

#ifndef MOESAIC_HTTP2_HEADER_DECODER_H
#define MOESAIC_HTTP2_HEADER_DECODER_H

#include "header_table.h"

struct header_decoder {
    struct header_table table;
    struct h2_buffer decoded; /* what Huffman codes of the block stand for */
};

/* A field, whose bytes are valid until the call returns. A block of few bytes may have many long
 * ones: it is on the listener to bound what it keeps. */
typedef void header_listener(void *owner, const struct header_field *);

void header_decoder_begin(struct header_decoder *);
void header_decoder_end(struct header_decoder *);
/* Reads the next block. 0, or -1 for one that is none, or without memory: then no later one can be
 * read. */
int header_decode(struct header_decoder *, const char *block, size_t count, header_listener *,
                  void *owner);

#endif

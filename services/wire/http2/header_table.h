/* The table of fields that the header blocks of a connection build on, RFC 7541, section 2.3. */

#ifndef MOESAIC_HTTP2_HEADER_TABLE_H
#define MOESAIC_HTTP2_HEADER_TABLE_H

#include "buffer.h"

#include <stdint.h>

/* What a peer may use: as much as before it knows that we want none. */
#define HEADER_TABLE_BYTES 4096
/* What a field counts beside its bytes. */
#define HEADER_FIELD_BYTES 32
#define HEADER_STATIC_FIELDS 61
#define HEADER_TABLE_FIELDS (HEADER_TABLE_BYTES / HEADER_FIELD_BYTES)

struct header_field {
    const char *name, *value;
    size_t name_count, value_count;
};

extern const struct header_field header_static_fields[HEADER_STATIC_FIELDS];

/* Where the bytes of a field begin, counted from the first that there ever was, and their number.
 */
struct header_place {
    uint32_t at;
    uint16_t name_count, value_count;
};

struct header_table {
    size_t most, size; /* as the RFC counts bytes */
    uint32_t num_taken;
    unsigned first, num_fields; /* in `places`, which is a ring; the first is the oldest */
    struct header_place places[HEADER_TABLE_FIELDS];
    struct h2_buffer bytes;
};

/* Sets the field of this number, from 1 on. It is valid until the table changes. 0, or -1 for
 * none. */
int header_table_find(const struct header_table *, size_t number, struct header_field *);
/* Takes a copy in, and lets go what has no room beside it. 0, or -1 without memory. */
int header_table_add(struct header_table *, const struct header_field *);
void header_table_resize(struct header_table *, size_t most);

#endif

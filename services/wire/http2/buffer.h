/* Bytes that are put on at one end and taken off at the other. */

#ifndef MOESAIC_HTTP2_BUFFER_H
#define MOESAIC_HTTP2_BUFFER_H

#include <stddef.h>

/* All zero, it is empty and owns no memory. */
struct h2_buffer {
    char *data;
    size_t start, end, room;
};

static inline size_t h2_held(const struct h2_buffer *buffer) { return buffer->end - buffer->start; }

/* Where its first byte lies; NULL where it has none. */
static inline char *h2_first(const struct h2_buffer *buffer) {
    return h2_held(buffer) ? buffer->data + buffer->start : NULL;
}

/* Makes room for `count` bytes behind its last one, which may move all of them. 0, or -1 without
 * memory; then it is as it was. */
int h2_reserve(struct h2_buffer *, size_t count);
/* 0, or -1 without memory; then it is as it was. */
int h2_append(struct h2_buffer *, const void *data, size_t count);
/* Forgets the first `count` bytes. An empty buffer gives back all but a little of its memory. */
void h2_take(struct h2_buffer *, size_t count);
/* Forgets everything and frees its memory. */
void h2_discard(struct h2_buffer *);

#endif

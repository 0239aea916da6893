/* Growth and shrinking of buffers. */

#include "buffer.h"

#include <stdlib.h>
#include <string.h>

/* What an empty buffer keeps: enough for control frames and small messages. */
#define KEPT_ROOM ((size_t)4096)

/* Moves the bytes to the front, once that is no more work than taking off those before them was. */
static void close_up(struct h2_buffer *buffer) {
    if (!buffer->start || buffer->start < h2_held(buffer)) return;
    memmove(buffer->data, buffer->data + buffer->start, h2_held(buffer));
    buffer->end -= buffer->start;
    buffer->start = 0;
}

int h2_reserve(struct h2_buffer *buffer, size_t count) {
    if (buffer->room - buffer->end >= count) return 0;
    close_up(buffer);
    if (buffer->room - buffer->end >= count) return 0;
    if (count > (size_t)-1 / 4 - buffer->end) return -1;
    /* A long message is reserved in one go and gets what it asks for; what grows by little doubles.
     */
    size_t room = buffer->room ? 2 * buffer->room : KEPT_ROOM;
    if (room < buffer->end + count) room = buffer->end + count;
    char *data = realloc(buffer->data, room);
    if (!data) return -1;
    buffer->data = data;
    buffer->room = room;
    return 0;
}

int h2_append(struct h2_buffer *buffer, const void *data, size_t count) {
    if (!count) return 0;
    if (h2_reserve(buffer, count) < 0) return -1;
    memcpy(buffer->data + buffer->end, data, count);
    buffer->end += count;
    return 0;
}

void h2_take(struct h2_buffer *buffer, size_t count) {
    buffer->start += count;
    if (buffer->start < buffer->end) return;
    buffer->start = buffer->end = 0;
    if (buffer->room > KEPT_ROOM) h2_discard(buffer);
}

void h2_discard(struct h2_buffer *buffer) {
    free(buffer->data);
    *buffer = (struct h2_buffer){0};
}

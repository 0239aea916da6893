/* Messages that the socket or a window has not taken yet. */

#include "connection.h"

static void wait_last(struct h2_stream *stream) {
    struct http2_connection *c = h2_connection(stream);
    stream->next = NULL;
    stream->previous = c->last_waiting;
    if (c->last_waiting)
        c->last_waiting->next = stream;
    else
        c->first_waiting = stream;
    c->last_waiting = stream;
}

static void wait_no_more(struct h2_stream *stream) {
    struct http2_connection *c = h2_connection(stream);
    if (stream->previous)
        stream->previous->next = stream->next;
    else
        c->first_waiting = stream->next;
    if (stream->next)
        stream->next->previous = stream->previous;
    else
        c->last_waiting = stream->previous;
    stream->next = stream->previous = NULL;
}

/* Appends a part but for its first `*skip` bytes, for which room was made. */
static void append_part(struct h2_buffer *pending, const void *part, size_t count, size_t *skip) {
    const size_t skipped = *skip < count ? *skip : count;
    *skip -= skipped;
    if (skipped < count) h2_append(pending, (const char *)part + skipped, count - skipped);
}

int h2_add_pending(struct h2_stream *stream, const struct h2_message *message, size_t skip) {
    struct http2_connection *c = h2_connection(stream);
    const size_t before = h2_held(&stream->pending), count = message->total - skip;
    if (h2_reserve(&stream->pending, count) < 0) return h2_out_of_memory(c);
    append_part(&stream->pending, message->prefix, sizeof message->prefix, &skip);
    for (int i = 0; i < message->num_parts; i++) {
        const struct iovec *part = &message->parts[i];
        append_part(&stream->pending, part->iov_base, part->iov_len, &skip);
    }
    c->num_pending_bytes += count;
    stream->shown.num_unsent++;
    if (before) return 0;
    stream->first_left = count;
    wait_last(stream);
    return 0;
}

/* All of a message is there before any of it goes, so its prefix says where the next one begins. */
void h2_took_pending(struct h2_stream *stream, size_t count) {
    struct http2_connection *c = h2_connection(stream);
    c->num_pending_bytes -= count;
    while (count >= stream->first_left && stream->shown.num_unsent) {
        count -= stream->first_left;
        h2_take(&stream->pending, stream->first_left);
        stream->first_left = 0;
        if (--stream->shown.num_unsent)
            stream->first_left =
                H2_MESSAGE_PREFIX_BYTES + h2_get_word(h2_first(&stream->pending) + 1);
    }
    stream->first_left -= count;
    h2_take(&stream->pending, count);
    if (h2_held(&stream->pending)) return;
    wait_no_more(stream);
    h2_end_sending(stream);
}

size_t http2_unsent_bytes(const struct http2_stream *stream) {
    return h2_held(&((const struct h2_stream *)stream)->pending);
}

size_t http2_all_unsent_bytes(const struct http2_connection *c) { return c->num_pending_bytes; }

void h2_drop_pending(struct h2_stream *stream) {
    struct http2_connection *c = h2_connection(stream);
    struct h2_buffer *pending = &stream->pending;
    c->num_pending_bytes -= h2_held(&stream->trailers) + h2_held(pending);
    if (h2_held(pending)) wait_no_more(stream);
    if (c->begun.stream == stream) { /* the peer is owed the rest of the frame */
        pending->end = pending->start + c->begun.payload_left;
        h2_discard(&c->begun.rest);
        c->begun.rest = *pending;
        c->begun.stream = NULL;
        *pending = (struct h2_buffer){0};
    }
    h2_discard(pending);
    h2_discard(&stream->trailers);
    stream->shown.num_unsent = 0;
}

void h2_end_sending(struct h2_stream *stream) {
    struct http2_connection *c = h2_connection(stream);
    if (stream->ending == H2_GOES_ON || stream->local_ended || h2_held(&stream->pending)) return;
    if (stream->ending == H2_FINISHES)
        h2_put_control(c, H2_DATA, H2_END_STREAM, stream->shown.id, NULL, 0);
    else
        h2_put_headers(c, stream->shown.id, h2_first(&stream->trailers), h2_held(&stream->trailers),
                       true);
    c->num_pending_bytes -= h2_held(&stream->trailers);
    h2_discard(&stream->trailers);
    h2_local_ends(stream);
}

/* gRPC's length-prefixed messages, put together from DATA and handed out. */

#include "connection.h"

/* What is read at once to the place of a message beside others. */
#define DIRECT_BYTES ((size_t)65536)

/* Whether the owner may be told more of this stream now. */
static bool is_told(const struct h2_stream *stream) {
    return !stream->is_gone && !stream->is_silent && !h2_connection(stream)->is_over;
}

/* Of a message whose prefix lies here; -1 for one that is refused, with its stream. */
static int64_t length_of(struct h2_stream *stream, const char *prefix) {
    const uint32_t length = h2_get_word(prefix + 1);
    const bool is_compressed = prefix[0];
    if (is_compressed && !h2_connection(stream)->limits.takes_compressed)
        h2_stream_error(stream, HTTP2_INTERNAL_ERROR); /* never agreed on */
    else if (length > h2_connection(stream)->limits.max_message_bytes)
        h2_stream_error(stream, HTTP2_ENHANCE_YOUR_CALM);
    else
        return length;
    return -1;
}

/* Hands out the messages that are whole, from where they lie, and pauses the stream where those are
 * `most`; how many bytes that took. */
static size_t hand_out(struct h2_stream *stream, const char *data, size_t count, size_t most) {
    const struct http2_events *events = h2_connection(stream)->events;
    size_t used = 0;
    while (!stream->is_paused && count - used >= H2_MESSAGE_PREFIX_BYTES) {
        const int64_t length = length_of(stream, data + used);
        if (length < 0) return count;
        if (count - used - H2_MESSAGE_PREFIX_BYTES < (size_t)length) break;
        const char *message = data + used + H2_MESSAGE_PREFIX_BYTES;
        stream->shown.is_compressed = data[used] != 0;
        used += H2_MESSAGE_PREFIX_BYTES + (size_t)length;
        stream->is_handing_out = true;
        h2_connection(stream)->num_told++;
        events->message(&stream->shown, message, (size_t)length);
        stream->is_handing_out = false;
        if (!is_told(stream)) return count;
        if (!--most) stream->is_paused = true;
    }
    return used;
}

static void hand_out_kept(struct h2_stream *stream, size_t most) {
    if (!h2_held(&stream->in)) return;
    const size_t used = hand_out(stream, h2_first(&stream->in), h2_held(&stream->in), most);
    if (h2_held(&stream->in)) h2_take(&stream->in, used); /* unless the owner has it now */
    if (used) stream->begun_nanos = 0;
    h2_count_held(stream);
}

void *http2_keep(struct http2_stream *shown, const char *data, size_t count) {
    struct h2_buffer *in = &h2_of(shown)->in;
    if (h2_held(in) != H2_MESSAGE_PREFIX_BYTES + count ||
        data != h2_first(in) + H2_MESSAGE_PREFIX_BYTES)
        return NULL;
    void *const memory = in->data;
    *in = (struct h2_buffer){0};
    h2_count_held(h2_of(shown));
    return memory;
}

/* How many bytes the message that `in` begins with still wants, or its prefix; 0 if refused. */
static size_t missing(struct h2_stream *stream) {
    const size_t held = h2_held(&stream->in);
    if (held < H2_MESSAGE_PREFIX_BYTES) return H2_MESSAGE_PREFIX_BYTES - held;
    const int64_t length = length_of(stream, h2_first(&stream->in));
    return length < 0 ? 0 : H2_MESSAGE_PREFIX_BYTES + (size_t)length - held;
}

/* Makes room in one go for the `wanted` bytes of a message that is alone. Beside others there is
 * room for what has `come`: else a few bytes each would make much of it. */
static int reserve(struct h2_stream *stream, size_t wanted, size_t come) {
    const bool is_alone = h2_connection(stream)->num_held_bytes == stream->held;
    return h2_reserve(&stream->in, is_alone ? wanted : h2_least(wanted, come));
}

/* Keeps what belongs to the message that `in` begins with; while paused, everything. */
static size_t keep(struct h2_stream *stream, const char *data, size_t count) {
    struct http2_connection *c = h2_connection(stream);
    const size_t wanted = stream->is_paused ? count : missing(stream);
    const size_t now = h2_least(wanted, count);
    if (!wanted) return count;
    if (now > h2_room_to_hold(c)) {
        h2_stream_error(stream, HTTP2_ENHANCE_YOUR_CALM);
        return count;
    }
    if (reserve(stream, wanted, now) < 0) h2_out_of_memory(c);
    if (c->is_over) return count;
    h2_append(&stream->in, data, now);
    h2_count_held(stream);
    hand_out_kept(stream, SIZE_MAX);
    return now;
}

void h2_take_data(struct h2_stream *stream, const char *data, size_t count) {
    while (count && is_told(stream)) {
        size_t used = 0;
        if (!h2_held(&stream->in)) used = hand_out(stream, data, count, SIZE_MAX);
        if (used < count) used += keep(stream, data + used, count - used);
        data += used;
        count -= used;
    }
}

size_t h2_direct_room(struct h2_stream *stream, size_t most, char **at) {
    struct h2_buffer *in = &stream->in;
    if (!is_told(stream) || stream->is_paused || h2_held(in) < H2_MESSAGE_PREFIX_BYTES) return 0;
    const size_t wanted = missing(stream), room = h2_room_to_hold(h2_connection(stream));
    if (!wanted || !room || reserve(stream, wanted, DIRECT_BYTES) < 0) return 0;
    *at = in->data + in->end;
    return h2_least(h2_least(wanted, most), h2_least(room, in->room - in->end));
}

void h2_took_direct(struct h2_stream *stream, size_t count) {
    stream->in.end += count;
    h2_count_held(stream);
    hand_out_kept(stream, SIZE_MAX);
}

/* Says that the peer has ended, once everything before that was handed out. */
static void tell_end(struct h2_stream *stream) {
    const struct http2_events *events = h2_connection(stream)->events;
    if (!stream->remote_ended || stream->end_told || stream->is_paused) return;
    if (h2_held(&stream->in)) { /* in the middle of a message */
        h2_stream_error(stream, HTTP2_INTERNAL_ERROR);
        return;
    }
    stream->is_handing_out = true;
    if (stream->has_kept_trailers)
        events->headers(&stream->shown, h2_first(&stream->kept_trailers),
                        h2_held(&stream->kept_trailers), 1);
    stream->end_told = true;
    if (is_told(stream)) events->remote_ended(&stream->shown);
    stream->is_handing_out = false;
    if (is_told(stream) && stream->local_ended) h2_forget(stream);
}

void h2_remote_ends(struct h2_stream *stream) {
    stream->remote_ended = true;
    if (is_told(stream)) tell_end(stream);
}

void http2_pause(struct http2_stream *stream) { h2_of(stream)->is_paused = true; }

int http2_resume(struct http2_stream *shown, size_t most) {
    struct h2_stream *stream = h2_of(shown);
    struct http2_connection *c = shown->connection;
    if (c->is_over) return -1;
    stream->is_paused = !most;
    if (stream->is_handing_out || !is_told(stream)) return 0;
    c->depth++;
    stream->begun_nanos = 0;
    hand_out_kept(stream, most);
    if (is_told(stream)) h2_return_window(stream);
    if (is_told(stream)) tell_end(stream);
    if (!--c->depth) h2_free_gone(c);
    return h2_settle(c);
}

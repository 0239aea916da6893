/* What is written to the socket: one `sendmsg` of control frames and of DATA from where it lies. */

#include "connection.h"

#define MAX_FRAMES 64
#define MAX_VECTORS 256
/* While writing is held: what is put behind the control frames at once, and how much lies there. */
#define MAX_HELD_MESSAGE_BYTES ((size_t)16384)
#define MAX_HELD_BYTES ((size_t)1 << 18)

struct planned {
    char header[H2_FRAME_HEADER_BYTES];
    struct h2_stream *stream;
    size_t count;
};

/* One call of the socket. */
struct plan {
    struct iovec vectors[MAX_VECTORS];
    struct planned frames[MAX_FRAMES];
    int num_vectors, num_frames;
    size_t total, out_bytes, data_bytes;
};

/* How far a message is planned: `next` is its prefix, then each of its parts. */
struct cursor {
    const struct h2_message *message;
    int next;
    size_t offset, left;
};

static void add_vector(struct plan *plan, const void *data, size_t count) {
    if (!count) return;
    plan->vectors[plan->num_vectors++] = (struct iovec){(void *)data, count};
    plan->total += count;
}

static void begin_plan(struct http2_connection *c, struct plan *plan) {
    struct h2_begun *begun = &c->begun;
    plan->num_vectors = plan->num_frames = 0;
    plan->total = plan->data_bytes = 0;
    add_vector(plan, begun->header + H2_FRAME_HEADER_BYTES - begun->header_left,
               begun->header_left);
    add_vector(plan, h2_first(begun->stream ? &begun->stream->pending : &begun->rest),
               begun->payload_left);
    plan->out_bytes = h2_held(&c->out);
    add_vector(plan, h2_first(&c->out), plan->out_bytes);
}

static bool is_full(const struct plan *plan) {
    return plan->num_frames == MAX_FRAMES || plan->num_vectors > MAX_VECTORS - 2;
}

/* The frame's header goes first and is filled in by `end_frame`. */
static struct planned *begin_frame(struct plan *plan, struct h2_stream *stream) {
    struct planned *frame = &plan->frames[plan->num_frames++];
    frame->stream = stream;
    frame->count = 0;
    add_vector(plan, frame->header, sizeof frame->header);
    return frame;
}

static void end_frame(struct plan *plan, struct planned *frame) {
    h2_put_frame(frame->header, (struct h2_frame){.count = (uint32_t)frame->count,
                                                  .type = H2_DATA,
                                                  .stream = frame->stream->shown.id});
    frame->stream->planned += frame->count;
    plan->data_bytes += frame->count;
}

/* One frame of what waits; false for nothing. */
static bool plan_pending(struct plan *plan, struct h2_stream *stream) {
    struct http2_connection *c = h2_connection(stream);
    const size_t begun = c->begun.stream == stream ? c->begun.payload_left : 0;
    const size_t at = begun + stream->planned;
    const size_t left = h2_held(&stream->pending) - at;
    const size_t most = h2_sendable(stream, plan->data_bytes);
    if (!left || !most || is_full(plan)) return false;
    struct planned *frame = begin_frame(plan, stream);
    frame->count = left < most ? left : most;
    add_vector(plan, h2_first(&stream->pending) + at, frame->count);
    end_frame(plan, frame);
    return true;
}

/* Streams take turns, a frame each. */
static void plan_waiting(struct http2_connection *c, struct plan *plan) {
    for (bool any = true; any;) {
        any = false;
        for (struct h2_stream *stream = c->first_waiting; stream; stream = stream->next)
            any |= plan_pending(plan, stream);
    }
}

static struct iovec next_part(const struct cursor *cursor) {
    const struct h2_message *message = cursor->message;
    if (cursor->next) return message->parts[cursor->next - 1];
    return (struct iovec){(void *)message->prefix, sizeof message->prefix};
}

/* Adds no more than `most` bytes of the next part; how many. */
static size_t plan_part(struct plan *plan, struct cursor *cursor, size_t most) {
    const struct iovec part = next_part(cursor);
    const size_t now = h2_least(part.iov_len - cursor->offset, most);
    add_vector(plan, (char *)part.iov_base + cursor->offset, now);
    cursor->offset += now;
    cursor->left -= now;
    if (cursor->offset < part.iov_len) return now;
    cursor->next++;
    cursor->offset = 0;
    return now;
}

/* One frame of a message that does not wait; false for nothing. */
static bool plan_message(struct plan *plan, struct h2_stream *stream, struct cursor *cursor) {
    const size_t most = h2_least(h2_sendable(stream, plan->data_bytes), cursor->left);
    if (!most || is_full(plan)) return false;
    struct planned *frame = begin_frame(plan, stream);
    while (frame->count < most && plan->num_vectors < MAX_VECTORS)
        frame->count += plan_part(plan, cursor, most - frame->count);
    end_frame(plan, frame);
    return true;
}

/* How many bytes the socket took; -1 when it is lost. */
static ssize_t write_plan(struct http2_connection *c, const struct plan *plan) {
    const ssize_t sent = h2_channel_send(c, plan->vectors, plan->num_vectors);
    if (sent >= 0) c->is_blocked = (size_t)sent < plan->total || h2_channel_unsent(c);
    return sent;
}

/* What was sent of the frame that was begun before. What is left of `sent`. */
static size_t settle_begun(struct http2_connection *c, size_t sent) {
    struct h2_begun *begun = &c->begun;
    const size_t of_header = h2_least(sent, begun->header_left);
    const size_t of_payload = h2_least(sent - of_header, begun->payload_left);
    begun->header_left -= of_header;
    begun->payload_left -= of_payload;
    struct h2_stream *stream = begun->stream;
    if (!begun->payload_left) begun->stream = NULL;
    if (of_payload && stream)
        h2_took_pending(stream, of_payload);
    else if (of_payload)
        h2_take(&begun->rest, of_payload);
    return sent - of_header - of_payload;
}

/* What was sent of one frame; a frame of which a part went is begun. How much payload that is. */
static size_t settle_frame(struct http2_connection *c, const struct planned *frame, size_t sent) {
    const size_t whole = H2_FRAME_HEADER_BYTES + frame->count;
    const size_t of_header = h2_least(sent, H2_FRAME_HEADER_BYTES);
    if (!sent) return 0;
    h2_sent(frame->stream, frame->count);
    if (sent >= whole) return frame->count;
    for (int i = 0; i < H2_FRAME_HEADER_BYTES; i++) c->begun.header[i] = frame->header[i];
    c->begun.header_left = H2_FRAME_HEADER_BYTES - of_header;
    c->begun.payload_left = frame->count - (sent - of_header);
    c->begun.stream = frame->stream;
    return sent - of_header;
}

/* Accounts for what the socket took; how much of that is payload of the plan's frames. Streams
 * whose messages wait in `pending` are done with there, and may be gone. */
static size_t settle(struct http2_connection *c, struct plan *plan, size_t sent, bool is_pending) {
    size_t payload = 0;
    for (int i = 0; i < plan->num_frames; i++) plan->frames[i].stream->planned = 0;
    sent = settle_begun(c, sent);
    const size_t of_out = h2_least(sent, plan->out_bytes);
    h2_take(&c->out, of_out);
    sent -= of_out;
    for (int i = 0; i < plan->num_frames && sent; i++) {
        struct planned *frame = &plan->frames[i];
        const size_t now = settle_frame(c, frame, sent);
        sent -= h2_least(sent, H2_FRAME_HEADER_BYTES + frame->count);
        payload += now;
        if (is_pending && now) h2_took_pending(frame->stream, now);
    }
    return payload;
}

int h2_flush(struct http2_connection *c) {
    struct plan plan;
    while (!c->is_lost) {
        begin_plan(c, &plan);
        plan_waiting(c, &plan);
        c->is_blocked = false;
        if (!plan.num_vectors && !h2_channel_unsent(c)) break;
        const ssize_t sent = write_plan(c, &plan);
        if (sent < 0) return -1;
        settle(c, &plan, (size_t)sent, true);
        if (c->is_blocked) break;
    }
    return c->is_over ? -1 : 0;
}

static bool can_send_data(const struct http2_connection *c) {
    for (struct h2_stream *stream = c->first_waiting; stream; stream = stream->next)
        if (h2_sendable(stream, 0)) return true;
    return false;
}

static bool fits_held(const struct h2_stream *stream, size_t count) {
    const struct http2_connection *c = h2_connection(stream);
    const size_t most = h2_least(MAX_HELD_BYTES, c->limits.max_unsent_bytes / 2);
    return count <= h2_least(h2_sendable(stream, 0), MAX_HELD_MESSAGE_BYTES) &&
           h2_held(&c->out) + count <= most;
}

/* Puts a small message behind the frames that wait, so that one write takes them all, and trailers
 * that come next. How many bytes of it that is: all or none; or -1. */
static ssize_t put_held(struct h2_stream *stream, const struct h2_message *message) {
    struct http2_connection *c = h2_connection(stream);
    char header[H2_FRAME_HEADER_BYTES];
    if (!fits_held(stream, message->total)) return 0;
    if (h2_reserve(&c->out, sizeof header + message->total) < 0) return h2_out_of_memory(c);
    h2_put_frame(header, (struct h2_frame){.count = (uint32_t)message->total,
                                           .type = H2_DATA,
                                           .stream = stream->shown.id});
    h2_append(&c->out, header, sizeof header);
    h2_append(&c->out, message->prefix, sizeof message->prefix);
    for (int i = 0; i < message->num_parts; i++)
        h2_append(&c->out, message->parts[i].iov_base, message->parts[i].iov_len);
    h2_sent(stream, message->total);
    return (ssize_t)message->total;
}

/* Sends what goes now, from where it lies; how many bytes of the message that is, or -1. */
static ssize_t send_now(struct h2_stream *stream, const struct h2_message *message) {
    struct http2_connection *c = h2_connection(stream);
    struct cursor cursor = {.message = message, .left = message->total};
    size_t done = 0;
    if (c->is_blocked || h2_held(&stream->pending) || can_send_data(c)) return 0;
    if (c->is_holding) return put_held(stream, message);
    while (done < message->total && !c->is_blocked) {
        struct plan plan;
        begin_plan(c, &plan);
        while (plan_message(&plan, stream, &cursor)) {
        }
        if (!plan.num_frames) break;
        const ssize_t sent = write_plan(c, &plan);
        if (sent < 0) return -1;
        done += settle(c, &plan, (size_t)sent, false);
    }
    return (ssize_t)done;
}

/* Whether it can be sent at all; works out its length and its prefix. */
static bool is_sendable(const struct http2_connection *c, struct h2_message *message) {
    size_t count = 0;
    for (int i = 0; i < message->num_parts; i++) count += message->parts[i].iov_len;
    if (count > UINT32_MAX) return false;
    message->prefix[0] = 0;
    h2_put_word(message->prefix + 1, (uint32_t)count);
    message->total = count + sizeof message->prefix;
    return !c->num_pending_bytes ||
           c->num_pending_bytes + message->total <= c->limits.max_unsent_bytes;
}

int http2_send(struct http2_stream *shown, const struct iovec *parts, int num_parts) {
    struct h2_stream *stream = h2_of(shown);
    struct http2_connection *c = shown->connection;
    struct h2_message message;
    message.parts = parts;
    message.num_parts = num_parts;
    if (stream->is_gone || stream->ending || c->is_over || !is_sendable(c, &message)) return -1;
    const ssize_t done = send_now(stream, &message);
    if (done < 0) return -1;
    if ((size_t)done == message.total) return 0;
    if (h2_add_pending(stream, &message, (size_t)done) < 0) return -1;
    return done ? 0 : h2_settle(c);
}

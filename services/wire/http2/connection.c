/* A connection's beginning and end, and what its owner asks of it. */

#include "connection.h"

#include <stdlib.h>
#include <unistd.h>

/* So that one peer cannot keep its owner from the others; a socket that is watched is heard of
 * again. */
#define MAX_READS 32
#define MAX_TOLD 1024

struct http2_connection *http2_begin(int fd, int is_server, const struct http2_events *events,
                                     const struct http2_limits *limits, void *owner) {
    struct http2_connection *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->fd = fd;
    c->is_server = is_server;
    c->events = events;
    c->limits = *limits;
    c->owner = owner;
    c->why = "it goes on";
    c->has_preface = !is_server;
    c->send_window = H2_DEFAULT_WINDOW;
    c->peer_stream_window = H2_DEFAULT_WINDOW;
    c->peer_frame_bytes = H2_DEFAULT_FRAME_BYTES;
    c->peer_max_streams = 100; /* until it says otherwise; RFC 9113 recommends no less */
    h2_put_first(c);
    if (c->is_over || h2_prepare_reading(c) < 0) {
        c->fd = -1;
        http2_end(c);
        return NULL;
    }
    h2_prepare_socket(fd);
    return c;
}

void http2_end(struct http2_connection *c) {
    while (c->num_streams) h2_forget(c->streams[c->num_streams - 1]);
    h2_free_gone(c);
    h2_channel_end(c);
    if (c->fd >= 0) close(c->fd);
    free(c->streams);
    h2_discard(&c->in);
    h2_discard(&c->block);
    h2_discard(&c->out);
    h2_discard(&c->begun.rest);
    free(c);
}

int http2_fd(const struct http2_connection *c) { return c->fd; }
void *http2_owner(const struct http2_connection *c) { return c->owner; }
uint64_t http2_arrived_nanos(const struct http2_connection *c) { return c->arrived_nanos; }
const char *http2_why(const struct http2_connection *c) { return c->why; }

int h2_lose(struct http2_connection *c, const char *why) {
    if (!c->is_over) c->why = why;
    c->is_over = c->is_lost = true;
    return -1;
}

int h2_fail(struct http2_connection *c, enum http2_error code, const char *why) {
    if (c->is_over) return -1;
    c->why = why;
    c->is_over = true;
    h2_put_goaway(c, code);
    return -1;
}

int h2_out_of_memory(struct http2_connection *c) { return h2_lose(c, "there was no memory"); }

int h2_settle(struct http2_connection *c) {
    if (c->is_over) return -1;
    return c->depth || c->is_blocked || c->is_holding ? 0 : h2_flush(c);
}

void http2_hold(struct http2_connection *c) { c->is_holding = true; }

int http2_is_over(const struct http2_connection *c) { return c->is_over; }

int http2_has_begun(const struct http2_connection *c) { return c->has_settings; }

int http2_flush(struct http2_connection *c) { return c->is_over ? -1 : h2_flush(c); }

int http2_wants_write(const struct http2_connection *c) {
    if (c->is_over) return false;
    return h2_channel_unsent(c) || (h2_channel_is_open(c) && (c->is_blocked || h2_held(&c->out)));
}

int http2_is_drained(const struct http2_connection *c) {
    return !h2_held(&c->out) && !c->num_pending_bytes && !c->begun.payload_left &&
           !c->begun.header_left && !h2_channel_unsent(c);
}

int http2_ping(struct http2_connection *c) {
    static const char payload[8];
    if (c->is_over) return -1;
    h2_put_control(c, H2_PING, 0, 0, payload, sizeof payload);
    return h2_settle(c);
}

int http2_goaway(struct http2_connection *c, enum http2_error code) {
    if (c->is_over) return -1;
    c->is_going_away = true;
    h2_put_goaway(c, code);
    return h2_settle(c);
}

/* Tells every stream, then the peer if that still works. */
static int end_all(struct http2_connection *c) {
    c->depth++;
    while (c->num_streams) h2_reset(c->streams[c->num_streams - 1], HTTP2_CANCEL);
    c->depth--;
    h2_free_gone(c);
    if (!c->is_lost) h2_flush(c);
    return -1;
}

int http2_receive(struct http2_connection *c) {
    c->depth++;
    c->num_told = 0;
    for (int reads = 1; !c->is_over; reads++) {
        h2_read(c);
        h2_parse(c);
        const bool is_enough = reads >= MAX_READS || c->num_told >= MAX_TOLD;
        if (c->is_socket_empty || (is_enough && !h2_channel_has_more(c))) break;
    }
    c->depth--;
    h2_free_gone(c);
    h2_settle(c);
    return c->is_over ? end_all(c) : 0;
}

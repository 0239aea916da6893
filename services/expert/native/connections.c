/* Connections: accepted, watched, and closed when they break or have nothing more to say. */

#define _GNU_SOURCE /* accept4 */

#include "plane.h"

#include "tls.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* Answers that a peer has not read are kept for it: to a few of the largest frames on each of its
 * streams, or to many small ones. */
#define MAX_UNSENT_BYTES (UINT32_C(1) << 30)
/* In one turn of the loop. */
#define MAX_ACCEPTED 64
/* A peer that is gone without a word is noticed after a minute. */
#define IDLE_SECONDS 30
#define PROBE_SECONDS 10
#define NUM_PROBES 3
#define NANOS_A_MILLISECOND UINT64_C(1000000)

/* Tells whom the peer's certificate names, before the first of its streams. 0, or -1 without
 * memory. */
static int introduce(struct connection *connection) {
    if (connection->is_known) return 0;
    connection->is_known = 1;
    const char *const names = http2_peer(connection->http2);
    if (!names) return 0;
    struct event *const named = new_event(PEER_NAMED, connection->number, names, strlen(names));
    if (named) tell(&connection->plane->handover, named);
    return named ? 0 : -1;
}

/* A new stream waits for Python to read its headers; so do its messages. */
static void take_headers(struct http2_stream *http2, const char *block, size_t count,
                         int ends_stream) {
    (void)ends_stream; /* said again by `remote_ended` */
    struct connection *connection = http2_owner(http2->connection);
    struct handover *handover = &connection->plane->handover;
    struct stream *stream = open_stream(connection, http2);
    struct event *opened = stream ? new_event(STREAM_OPENED, stream->number, block, count) : NULL;
    if (!opened || handover_is_full(handover) || introduce(connection) < 0) {
        free(opened);
        lose(connection);
        return;
    }
    opened->nanos = connection->number;
    stream->num_in_hand++;
    http2_pause(http2);
    tell(handover, opened);
}

/* Python reads these, too: those that follow may refer to them. */
static void pass_over(struct http2_connection *http2, const char *block, size_t count) {
    struct connection *connection = http2_owner(http2);
    struct handover *handover = &connection->plane->handover;
    struct event *const passed = new_event(BLOCK_PASSED_OVER, connection->number, block, count);
    if (passed && !handover_is_full(handover)) {
        tell(handover, passed);
        return;
    }
    free(passed);
    lose(connection);
}

static void take_one(struct http2_stream *http2, const char *data, size_t count) {
    if (http2->owner) take_message(http2->owner, data, count);
}

static void take_end(struct http2_stream *http2) {
    if (http2->owner) end_stream(http2->owner);
}

static void take_reset(struct http2_stream *http2, uint32_t code) {
    (void)code;
    if (http2->owner) forget_stream(http2->owner);
}

static const struct http2_events EVENTS = {take_headers, take_one, take_end, take_reset, pass_over};

static void prepare_socket(int fd) {
    const int on = 1, idle = IDLE_SECONDS, probe = PROBE_SECONDS, probes = NUM_PROBES;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof probe);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

static int begin_http2(struct connection *connection, int fd) {
    struct http2_limits limits = http2_limits_default;
    limits.max_message_bytes = connection->plane->limits.max_message_bytes;
    limits.max_unsent_bytes = MAX_UNSENT_BYTES;
    connection->http2 = http2_begin(fd, 1, &EVENTS, &limits, connection);
    return connection->http2 ? 0 : -1;
}

/* 0, or -1 without memory. */
static int begin_tls(struct connection *connection) {
    struct plane *plane = connection->plane;
    pthread_mutex_lock(&plane->tls_lock);
    struct tls_context *const tls = plane->tls;
    struct tls_session *const session = tls ? tls->calls->begin(tls, NULL) : NULL;
    pthread_mutex_unlock(&plane->tls_lock);
    http2_secure(connection->http2, session);
    return tls && !session ? -1 : 0;
}

/* Takes over the socket. 0, or -1 without memory or descriptors. */
static int begin(struct plane *plane, int fd) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection) return -1;
    prepare_socket(fd);
    connection->plane = plane;
    connection->number = ++plane->last_number;
    connection->silent_until = monotonic_nanos() + plane->limits.max_silent_nanos;
    connection->gone = new_event(CONNECTION_GONE, connection->number, NULL, 0);
    if (!connection->gone || begin_http2(connection, fd) < 0) {
        free(connection->gone);
        free(connection);
        return -1;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    connection->next = plane->connections;
    plane->connections = connection;
    plane->num_connections++;
    plane->has_silent = 1;
    if (begin_tls(connection) < 0 || epoll_ctl(plane->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ||
        http2_flush(connection->http2) < 0)
        lose(connection);
    return 0;
}

/* Without descriptors or memory the listener stays readable: it is not looked at for a while. */
static void go_deaf(struct plane *plane) {
    plane->is_deaf = 1;
    epoll_ctl(plane->epoll, EPOLL_CTL_DEL, plane->listener, NULL);
}

void listen_again(struct plane *plane) {
    if (!plane->is_deaf || plane->is_draining) return;
    plane->is_deaf = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &plane->listener};
    if (epoll_ctl(plane->epoll, EPOLL_CTL_ADD, plane->listener, &event) < 0) plane->is_deaf = 1;
}

void accept_connections(struct plane *plane) {
    for (int i = 0; i < MAX_ACCEPTED; i++) {
        const int fd = accept4(plane->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            if (plane->num_connections >= plane->limits.max_connections || begin(plane, fd) < 0)
                close(fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            go_deaf(plane);
            return;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        }
    }
}

void watch(struct connection *connection) {
    const int wants_write = http2_wants_write(connection->http2);
    if (wants_write == connection->is_watched_for_writing || connection->is_lost) return;
    struct epoll_event event = {.events = EPOLLIN | (wants_write ? EPOLLOUT : 0),
                                .data.ptr = connection};
    const int fd = http2_fd(connection->http2);
    if (epoll_ctl(connection->plane->epoll, EPOLL_CTL_MOD, fd, &event) < 0) lose(connection);
    connection->is_watched_for_writing = wants_write;
}

void receive_from(struct connection *connection) {
    if (http2_receive(connection->http2) < 0) lose(connection);
    watch(connection);
}

void flush_to(struct connection *connection) {
    if (http2_flush(connection->http2) < 0) lose(connection);
    watch(connection);
}

void lose(struct connection *connection) {
    connection->is_lost = 1;
    connection->plane->has_lost = 1;
}

static void end(struct connection *connection) {
    struct http2_stream *http2 = NULL;
    while ((http2 = http2_next_stream(connection->http2, http2)))
        if (http2->owner) forget_stream(http2->owner);
    http2_end(connection->http2);
    if (connection->is_known)
        tell(&connection->plane->handover, connection->gone);
    else
        free(connection->gone);
    free(connection);
}

void close_lost(struct plane *plane) {
    if (!plane->has_lost) return;
    plane->has_lost = 0;
    for (struct connection **link = &plane->connections; *link;) {
        struct connection *connection = *link;
        if (!connection->is_lost) {
            link = &connection->next;
            continue;
        }
        *link = connection->next;
        plane->num_connections--;
        end(connection);
    }
}

void lose_silent(struct plane *plane) {
    const uint64_t now = plane->has_silent ? monotonic_nanos() : 0;
    if (now < plane->looked_nanos + LOOK_MILLISECONDS * NANOS_A_MILLISECOND) return;
    plane->looked_nanos = now;
    plane->has_silent = 0;
    for (struct connection *connection = plane->connections; connection;
         connection = connection->next) {
        if (!connection->silent_until) continue;
        if (http2_has_begun(connection->http2)) {
            connection->silent_until = 0;
        } else if (now < connection->silent_until) {
            plane->has_silent = 1;
        } else {
            lose(connection);
        }
    }
}

int shut_drained(struct plane *plane) {
    int are_all = 1;
    for (struct connection *connection = plane->connections; connection;
         connection = connection->next) {
        if (!http2_is_secured(connection->http2)) lose(connection);
        if (!connection->is_shut && !connection->num_streams &&
            http2_is_drained(connection->http2)) {
            http2_shut(connection->http2);
            connection->is_shut = 1;
        }
        are_all &= connection->is_shut || connection->is_lost;
    }
    return are_all;
}

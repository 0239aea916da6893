/* From the framing's bytes to the socket's: as they are, or through TLS. */

#include "connection.h"

#include "../tls/tls.h"

#include <errno.h>
#include <sys/socket.h>

static const struct tls_calls *calls(const struct http2_connection *c) { return c->tls->calls; }

static ssize_t send_once(struct http2_connection *c, const struct iovec *vectors, int num_vectors) {
    struct msghdr header = {.msg_iov = (struct iovec *)vectors, .msg_iovlen = (size_t)num_vectors};
    ssize_t sent;
    do sent = sendmsg(c->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EAGAIN) sent = 0;
    return sent;
}

/* Whether all that was encrypted is gone; -1 when the socket is lost. */
static int send_encrypted(struct http2_connection *c) {
    struct iovec left;
    const char *at;
    while ((left.iov_len = calls(c)->unsent(c->tls, &at))) {
        left.iov_base = (char *)at;
        const ssize_t sent = send_once(c, &left, 1);
        if (sent < 0) return -1;
        calls(c)->sent(c->tls, (size_t)sent);
        if (!sent) return false;
    }
    return true;
}

static int lose_tls(struct http2_connection *c) {
    send_encrypted(c); /* the alert, for the peer's log */
    return h2_lose(c, calls(c)->why(c->tls));
}

/* What the handshake has to say goes at once, and what else TLS has with what is sent next. */
static ssize_t decrypt(struct http2_connection *c, const struct iovec *into, int num_vectors) {
    const bool was_established = calls(c)->is_established(c->tls);
    const ssize_t got = calls(c)->read(c->tls, into, num_vectors);
    if (got < 0) return lose_tls(c);
    if (!was_established && send_encrypted(c) < 0)
        return h2_lose(c, "the socket cannot be written to");
    if (!was_established && calls(c)->is_established(c->tls)) c->is_blocked = false;
    if (calls(c)->has_more(c->tls)) c->is_socket_empty = false;
    return got;
}

/* One call of the socket, unless what came before is not read yet. */
static ssize_t receive_tls(struct http2_connection *c, const struct iovec *into, int num_vectors) {
    if (!calls(c)->has_more(c->tls)) {
        char *at;
        const size_t room = calls(c)->room(c->tls, &at);
        const ssize_t got = h2_receive_bytes(c, &(struct iovec){at, room}, 1, room);
        if (got <= 0) return got;
        calls(c)->fill(c->tls, (size_t)got);
    }
    const ssize_t got = decrypt(c, into, num_vectors);
    if (got) return got;
    errno = EAGAIN;
    return -1;
}

ssize_t h2_channel_receive(struct http2_connection *c, struct iovec *into, int num_vectors,
                           size_t asked) {
    return c->tls ? receive_tls(c, into, num_vectors)
                  : h2_receive_bytes(c, into, num_vectors, asked);
}

bool h2_channel_has_more(const struct http2_connection *c) {
    return c->tls && !c->is_lost && calls(c)->has_more(c->tls);
}

/* A peer that gives TLS up says why, and closes the socket then. */
static int lose_socket(struct http2_connection *c) {
    char *at, plain;
    if (c->tls && !calls(c)->has_more(c->tls)) {
        const size_t room = calls(c)->room(c->tls, &at);
        const ssize_t got = recv(c->fd, at, room, MSG_DONTWAIT);
        if (got > 0) calls(c)->fill(c->tls, (size_t)got);
        if (got > 0 && calls(c)->read(c->tls, &(struct iovec){&plain, 1}, 1) < 0)
            return h2_lose(c, calls(c)->why(c->tls));
    }
    return h2_lose(c, "the socket cannot be written to");
}

static ssize_t send_tls(struct http2_connection *c, const struct iovec *vectors, int num_vectors) {
    size_t done = 0;
    int is_gone;
    while ((is_gone = send_encrypted(c)) == true) {
        const char *at;
        const ssize_t taken = calls(c)->write(c->tls, vectors, num_vectors, done);
        if (taken < 0) return lose_tls(c);
        done += (size_t)taken;
        if (!calls(c)->unsent(c->tls, &at)) break;
    }
    return is_gone < 0 ? lose_socket(c) : (ssize_t)done;
}

ssize_t h2_channel_send(struct http2_connection *c, const struct iovec *vectors, int num_vectors) {
    if (c->tls) return send_tls(c, vectors, num_vectors);
    const ssize_t sent = send_once(c, vectors, num_vectors);
    return sent < 0 ? lose_socket(c) : sent;
}

size_t h2_channel_unsent(const struct http2_connection *c) {
    const char *at;
    return c->tls ? calls(c)->unsent(c->tls, &at) : 0;
}

bool h2_channel_is_open(const struct http2_connection *c) {
    return !c->tls || calls(c)->is_established(c->tls);
}

void h2_channel_end(struct http2_connection *c) {
    if (!c->tls) return;
    if (!c->is_lost && c->fd >= 0) {
        calls(c)->finish(c->tls);
        send_encrypted(c);
    }
    calls(c)->end(c->tls);
    c->tls = NULL;
}

void http2_secure(struct http2_connection *c, struct tls_session *tls) { c->tls = tls; }

int http2_is_secured(const struct http2_connection *c) { return h2_channel_is_open(c); }

const char *http2_peer(const struct http2_connection *c) {
    return c->tls ? calls(c)->peer(c->tls) : NULL;
}

void http2_shut(struct http2_connection *c) {
    if (c->tls && !c->is_lost) {
        calls(c)->finish(c->tls);
        send_encrypted(c);
    }
    shutdown(c->fd, SHUT_WR);
}

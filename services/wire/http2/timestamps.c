/* The socket's options, and when the kernel took in what is read from it. */

#include "connection.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static uint64_t nanos(struct timespec time) {
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return nanos(time);
}

uint64_t h2_now_nanos(void) { return now(CLOCK_MONOTONIC); }

void h2_prepare_socket(int fd) {
    const int on = 1;
    int protocol = 0;
    socklen_t size = sizeof protocol;
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 || protocol != IPPROTO_TCP)
        return;
    /* Both do without: messages then wait for one another, or arrive when they are read. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
}

/* The kernel's stamp is of the wall clock, which may have been set meanwhile: bytes arrived no
 * earlier than the last look that found none, and not after now. */
static uint64_t arrived(const struct http2_connection *c, uint64_t stamp) {
    const uint64_t wall = now(CLOCK_REALTIME);
    if (stamp >= wall || wall - stamp > c->read_nanos) return c->read_nanos;
    const uint64_t moment = c->read_nanos - (wall - stamp);
    return moment < c->drained_nanos ? c->drained_nanos : moment;
}

static void note_arrival(struct http2_connection *c, struct msghdr *header) {
    c->read_nanos = h2_now_nanos();
    c->arrived_nanos = c->read_nanos;
    for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at; at = CMSG_NXTHDR(header, at)) {
        if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_TIMESTAMPNS) continue;
        struct timespec stamp;
        memcpy(&stamp, CMSG_DATA(at), sizeof stamp);
        c->arrived_nanos = arrived(c, nanos(stamp));
    }
}

ssize_t h2_receive_bytes(struct http2_connection *c, struct iovec *vectors, int num_vectors,
                         size_t asked) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct timespec))];
    struct msghdr header = {
        .msg_iov = vectors,
        .msg_iovlen = (size_t)num_vectors,
        .msg_control = control,
        .msg_controllen = sizeof control,
    };
    const ssize_t got = recvmsg(c->fd, &header, MSG_DONTWAIT);
    if (got <= 0) return got;
    note_arrival(c, &header);
    c->is_socket_empty = (size_t)got < asked;
    if (c->is_socket_empty) c->drained_nanos = c->read_nanos;
    return got;
}

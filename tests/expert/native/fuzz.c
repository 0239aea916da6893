/* `fuzz SECONDS [SEED]`: the whole native plane, with hostile frames in sessions that are mostly
 * valid, a Python that does anything it may, and now and then no memory.
 *
 * Now and then a peer that keeps to the rules has to get its answer all the same. To be built with
 * sanitizers, with `malloc`, `calloc` and `realloc` wrapped. Threads take turns as they like, so a
 * seed repeats what is sent, not what comes of it. */

#define _GNU_SOURCE /* memmem */

#include "checksum.h"
#include "plane.h"
#include "tests/expert/native/hostile.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PROBE_SECONDS 10

const struct level *active = &level_portable;
static const struct kernels_interface interface = {&active, run_experts, NULL, NULL};
static int64_t slots[NUM_LAYERS * NUM_EXPERTS];
static float gate_up[NUM_SLOTS * 2 * INTERMEDIATE * HIDDEN],
    down[NUM_SLOTS * HIDDEN * INTERMEDIATE];
static struct plane plane;
static struct sockaddr_in address;
static _Atomic int is_kind = 1; /* Python does what it should, and there is memory */
static _Atomic int has_ended, is_over;
static _Atomic long num_told;
static __thread int is_ours; /* this thread: not the plane's */
static long num_sessions;

/* Allocations fail in the plane's thread alone. */
static uint32_t native_draws;
void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);

static int is_refused(void) {
    if (is_ours || atomic_load(&is_kind)) return 0;
    native_draws = native_draws * 1664525u + 1013904223u;
    return native_draws >> 20 == 0;
}
void *__wrap_malloc(size_t count) { return is_refused() ? NULL : __real_malloc(count); }
void *__wrap_calloc(size_t count, size_t each) {
    return is_refused() ? NULL : __real_calloc(count, each);
}
void *__wrap_realloc(void *data, size_t count) {
    return is_refused() ? NULL : __real_realloc(data, count);
}

/* Python's part, in a thread of its own with draws of its own. */

static uint32_t python_state = 1;

static uint32_t python_draw(uint32_t below) {
    python_state = python_state * 1664525u + 1013904223u;
    return (python_state >> 8) % below;
}

static void say(enum command_kind kind, uint64_t number, struct block block) {
    if (ask(&plane.handover, kind, number, block.data, block.count) < 0) exit(2);
}

static void answer_message(const struct event *event) {
    const struct block reply = {{0x0a, 0x02, 0x08, (char)python_draw(100)}, 4};
    const uint32_t chosen = atomic_load(&is_kind) ? 9 : python_draw(10);
    const uint32_t pairs = python_draw(8);
    if (chosen == 0) {
        say(END, event->number, trailers_block("3"));
    } else if (chosen == 1) {
        say(DONE, event->number, (struct block){.count = 0});
    } else {
        take_credit(&plane, event->number, pairs);
        grant_credit(&plane, event->number, pairs);
        say(REPLY, event->number, reply);
    }
}

static void answer_headers(const struct event *event) {
    const uint32_t chosen = atomic_load(&is_kind) ? 9 : python_draw(12);
    if (chosen == 0)
        say(CUT, event->number, refusal_block("12"));
    else if (chosen == 1)
        say(CLOSE, event->number, (struct block){.count = 0});
    else
        say(ADMIT, event->number, response_block());
    if (chosen == 2) say(CUT, event->number, trailers_block("4"));
}

static void take_all_events(void) {
    for (struct event *event = take_events(&plane.handover); event;) {
        struct event *next = event->next;
        atomic_fetch_add(&num_told, 1);
        if (event->kind == STREAM_OPENED) answer_headers(event);
        if (event->kind == MESSAGE || event->kind == COUNTED_MESSAGE) answer_message(event);
        if (event->kind == THREAD_ENDED) atomic_store(&has_ended, 1);
        free_event(event);
        event = next;
    }
}

/* Experts come and go, and what was noted is taken. */
static void meddle(void) {
    const uint32_t place = python_draw(NUM_LAYERS * NUM_EXPERTS);
    __atomic_store_n(slots + place, (int64_t)python_draw(NUM_SLOTS + 1) - 1, __ATOMIC_RELEASE);
    say(SETTLE, place, (struct block){.count = 0});
    take_records(&plane.records);
}

static void *be_python(void *nothing) {
    is_ours = 1;
    struct pollfd told = {.fd = plane.handover.told, .events = POLLIN};
    while (!atomic_load(&is_over)) {
        poll(&told, 1, 5);
        if (!atomic_load(&is_kind) && python_draw(8) == 0) meddle();
        if (atomic_load(&is_kind) || python_draw(4)) take_all_events();
    }
    take_all_events();
    return nothing;
}

/* What peers do. */

static int connected(void) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const struct timeval patience = {.tv_sec = PROBE_SECONDS};
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) exit(2);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

/* Until something comes, for a moment: a stream is served once Python has admitted it. */
static void wait_a_moment(int fd) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    if (draw(4)) poll(&readable, 1, 30);
}

static void read_some(int fd) {
    static char heard[1 << 16];
    while (recv(fd, heard, sizeof heard, MSG_DONTWAIT) > 0 && draw(4)) {
    }
}

static void send_all(int fd, const char *bytes, size_t count) {
    while (count) {
        const size_t most = 1 + draw(draw(3) ? 20000 : 200), now = count < most ? count : most;
        const ssize_t sent = send(fd, bytes, now, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) return;
        const size_t taken = sent < 0 ? now : (size_t)sent; /* what is not taken is left out */
        bytes += taken;
        count -= taken;
        if (draw(3) == 0) read_some(fd);
    }
}

static void play_session(void) {
    static char bytes[1 << 20];
    const int fd = connected();
    size_t num_opening;
    const size_t count = put_session(bytes, &num_opening);
    if (num_opening > count) num_opening = count;
    send_all(fd, bytes, num_opening);
    wait_a_moment(fd);
    send_all(fd, bytes + num_opening, count - num_opening);
    wait_a_moment(fd);
    if (draw(4)) read_some(fd);
    close(fd);
}

/* Whether a peer that keeps to the rules has its answer. */
static int is_served(void) {
    static char bytes[1 << 16], heard[1 << 16];
    const int fd = connected();
    size_t count = put_start(bytes, 1 << 20), length, num_heard = 0;
    count += put_opening(bytes + count, 1);
    length = put_request(bytes + count + H2_FRAME_HEADER_BYTES, 1);
    count += put_frame(bytes + count, (uint32_t)length, H2_DATA, 1, 1);
    ssize_t got = send(fd, bytes, count, MSG_NOSIGNAL);
    while (got > 0 && !memmem(heard, num_heard, "grpc-status", 11)) {
        got = recv(fd, heard + num_heard, sizeof heard - num_heard, 0);
        if (got > 0) num_heard += (size_t)got;
    }
    close(fd);
    return got > 0;
}

/* It may be too much at first: Python has to catch up, and connections to be closed. */
static void probe(void) {
    const struct timespec moment = {.tv_nsec = 5000000};
    atomic_store(&is_kind, 1);
    for (int tries = 0; !is_served(); tries++) {
        if (tries == 100) {
            fprintf(stderr, "a peer that keeps to the rules got no answer\n");
            abort();
        }
        nanosleep(&moment, NULL);
    }
    atomic_store(&is_kind, 0);
}

static void begin(void) {
    socklen_t length = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    prepare_checksums();
    for (int i = 0; i < NUM_LAYERS * NUM_EXPERTS; i++) slots[i] = i % NUM_SLOTS;
    plane = (struct plane){
        .bank = {.kernels = &interface,
                 .slots = slots,
                 .num_layers = NUM_LAYERS,
                 .num_experts = NUM_EXPERTS,
                 .experts = {.gate_up = (const char *)gate_up,
                             .gate_up_stride = 2 * INTERMEDIATE * ROW_BYTES,
                             .down = (const char *)down,
                             .down_stride = HIDDEN * INTERMEDIATE * sizeof(float),
                             .num_slots = NUM_SLOTS,
                             .hidden = HIDDEN,
                             .intermediate = INTERMEDIATE,
                             .kind = {.is_gated = 1, .limit = INFINITY},
                             .dtype = FLOAT32},
                 .row_bytes = ROW_BYTES,
                 .max_frame_bytes = MAX_FRAME_BYTES,
                 .element_type = 1,
                 .most_pairs = 40.0},
        .window_pairs = 200,
        .limits = {.max_silent_nanos = UINT64_C(20000000000),
                   .max_waiting_pairs = 300,
                   .max_waiting_bytes = 4000,
                   .max_events = 12,
                   .max_event_bytes = 4000,
                   .max_unsent = 3,
                   .max_connections = 8,
                   .max_message_bytes = 4096},
        .listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0),
    };
    if (bind(plane.listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(plane.listener, 128) < 0 ||
        getsockname(plane.listener, (struct sockaddr *)&address, &length) < 0 ||
        begin_plane(&plane, NULL) < 0)
        exit(2);
}

static void end(pthread_t python) {
    const struct timespec moment = {.tv_nsec = 5000000};
    atomic_store(&is_kind, 1);
    say(DRAIN, 0, (struct block){.count = 0});
    for (int tries = 0; tries < 1000 && !atomic_load(&has_ended); tries++) nanosleep(&moment, NULL);
    if (!atomic_load(&has_ended)) {
        fprintf(stderr, "the plane does not drain\n");
        abort();
    }
    atomic_store(&is_over, 1);
    pthread_join(python, NULL);
    end_plane(&plane);
}

int main(int count, char **arguments) {
    struct timespec began, now;
    pthread_t python;
    is_ours = 1;
    clock_gettime(CLOCK_MONOTONIC, &began);
    if (count < 2) return 2;
    const long seconds = atol(arguments[1]);
    uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 10) : (uint64_t)began.tv_nsec;
    printf("sessions from seed %llu on, for %ld s\n", (unsigned long long)seed, seconds);
    fflush(stdout);
    begin();
    if (pthread_create(&python, NULL, be_python, NULL)) return 2;
    do {
        for (int i = 0; i < 20; i++) {
            draw_state = seed++ * 0x9e3779b97f4a7c15u;
            play_session();
            num_sessions++;
        }
        probe();
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - began.tv_sec < seconds);
    end(python);
    printf("%ld sessions, %ld events, %lu frames computed\n", num_sessions, (long)num_told,
           (unsigned long)plane.records.num_frames);
    return 0;
}

/* `fuzz SECONDS [SEED]`: the whole native plane, with hostile frames in sessions that are mostly
 * valid, a Python that does anything it may, and now and then no memory.
 *
 * Now and then a peer that keeps to the rules has to get its answer all the same. To be built with
 * sanitizers, with `malloc`, `calloc` and `realloc` wrapped. Threads take turns as they like, so a
 * seed repeats what is sent, not what comes of it. */

#define _GNU_SOURCE /* memmem */

#include "checksum.h"
#include "plane.h"
#include "services/wire/http2/frames.h"
#include "tests/wire/http2/blocks.h"
#include "tests/wire/http2/draw.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { NUM_LAYERS = 3, NUM_EXPERTS = 4, NUM_SLOTS = 6, HIDDEN = 8, INTERMEDIATE = 8 };
enum { ROW_BYTES = HIDDEN * sizeof(float), MAX_FRAME_BYTES = 2048 };
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
        if (event->kind == MESSAGE) answer_message(event);
        if (event->kind == THREAD_ENDED) atomic_store(&has_ended, 1);
        free(event);
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

/* What peers send. */

static void put_word(char *at, uint32_t word) { memcpy(at, &word, sizeof word); }

/* A gRPC message with a frame, which mostly is a usual one; its bytes. */
static size_t put_request(char *at, int is_usual) {
    char rows[8 * ROW_BYTES], pair_rows[64], pair_experts[64], body[4096];
    const uint32_t num_rows = 1 + draw(8), num_pairs = 1 + draw(16);
    const int is_odd = !is_usual && draw(3) == 0;
    for (uint32_t i = 0; i < num_pairs; i++) {
        put_word(pair_rows + 4 * i, draw(num_rows + (is_odd && draw(4) == 0)));
        put_word(pair_experts + 4 * i, draw(NUM_EXPERTS + (is_odd && draw(4) == 0)));
    }
    fill(rows, sizeof rows, draw(1000));
    struct frame frame = {
        .frame_id = draw(1000),
        .remaining_nanos = draw(20) ? UINT64_MAX : draw(1000),
        .layer = is_usual ? 0 : draw(NUM_LAYERS + is_odd),
        .dtype = is_odd ? draw(4) : 1,
        .num_rows = num_rows,
        .pair_rows = {pair_rows, 4 * num_pairs - (is_odd && draw(3) == 0)},
        .pair_experts = {pair_experts, 4 * num_pairs},
        .rows = {rows, num_rows * ROW_BYTES - (is_odd && draw(3) == 0)},
        .requests = {"\x01\x02", draw(3) ? 0 : draw(3)},
        .traceparent = {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\xff",
                        draw(2) ? 0 : 55 + (is_odd && draw(2))},
        .has_checksum = (int)draw(2),
    };
    frame.checksum = checksum_of_frame(&frame) + (is_odd && draw(4) == 0);
    struct sink inner = {.at = body}, to = {.at = at + 5};
    put_frame_head(&inner, &frame);
    put(&inner, rows, frame.rows.count);
    put_header(&to, BODY, inner.count);
    put(&to, body, inner.count);
    if (is_odd && to.count) at[5 + draw((uint32_t)to.count)] ^= (char)(1 << draw(8));
    *at = 0;
    h2_put_word(at + 1, (uint32_t)to.count);
    return 5 + to.count;
}

static size_t put_frame(char *at, uint32_t count, enum h2_type type, int flags, uint32_t stream) {
    h2_put_frame(at, (struct h2_frame){count, type, (uint8_t)flags, stream});
    return H2_FRAME_HEADER_BYTES + count;
}

static size_t put_control(char *at) {
    char *const payload = at + H2_FRAME_HEADER_BYTES;
    const uint32_t stream = 2 * draw(5) + 1;
    memset(payload, 0, 8);
    switch (draw(5)) {
    case 0: return put_frame(at, 8, H2_PING, 0, 0);
    case 1: payload[3] = 8; return put_frame(at, 4, H2_RST_STREAM, 0, stream);
    case 2: return put_frame(at, 0, H2_SETTINGS, 0, 0);
    case 3: return put_frame(at, 0, H2_DATA, H2_END_STREAM, stream);
    default: h2_put_word(payload, 1 + draw(100000));
    }
    return put_frame(at, 4, H2_WINDOW_UPDATE, 0, draw(2) ? stream : 0);
}

/* Changes a few bytes, or takes some out. */
static size_t alter(char *bytes, size_t count) {
    for (uint32_t times = draw(4); times; times--) {
        const size_t at = draw((uint32_t)count), length = draw((uint32_t)(count - at)) % 40;
        if (draw(3)) {
            bytes[at] = (char)(bytes[at] ^ 1 << draw(8));
        } else {
            memmove(bytes + at, bytes + at + length, count - at - length);
            count -= length;
        }
    }
    return count;
}

static size_t put_cancel(char *at) {
    memcpy(at, "\0\0\0\0\x05\x12\x03\x0a\x01\x01", 10);
    return 10;
}

static size_t put_opening(char *at, uint32_t stream) {
    const struct block block = request_block("/moesaic.v1.ExpertService/Dispatch");
    memcpy(at + H2_FRAME_HEADER_BYTES, block.data, block.count);
    return put_frame(at, (uint32_t)block.count, H2_HEADERS, H2_END_HEADERS, stream);
}

static size_t put_messages_of(char *at, uint32_t stream) {
    size_t count = 0;
    char *payload = at + H2_FRAME_HEADER_BYTES;
    for (uint32_t i = 1 + draw(4); i; i--)
        count += draw(40) ? put_request(payload + count, 0) : put_cancel(payload + count);
    const int ends = draw(12) == 0;
    return put_frame(at, (uint32_t)count, H2_DATA, ends, stream);
}

static size_t put_start(char *at, uint32_t window) {
    memcpy(at, H2_PREFACE, H2_PREFACE_BYTES);
    char *setting = at + H2_PREFACE_BYTES + H2_FRAME_HEADER_BYTES;
    setting[0] = 0;
    setting[1] = 4; /* the streams' window */
    h2_put_word(setting + 2, window);
    return H2_PREFACE_BYTES + put_frame(at + H2_PREFACE_BYTES, 6, H2_SETTINGS, 0, 0);
}

static size_t put_session(char *bytes, size_t *num_opening) {
    size_t count = put_start(bytes, draw(3) ? 1 << 20 : draw(200));
    const uint32_t num_streams = 1 + draw(4);
    for (uint32_t i = 0; i < num_streams; i++) count += put_opening(bytes + count, 2 * i + 1);
    *num_opening = count;
    for (uint32_t frames = draw(60); frames; frames--) {
        const uint32_t stream = 2 * draw(num_streams) + 1;
        if (draw(25))
            count += put_messages_of(bytes + count, stream);
        else
            count += put_control(bytes + count);
    }
    return draw(3) ? count : alter(bytes, count);
}

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
                 .num_slots = NUM_SLOTS,
                 .hidden = HIDDEN,
                 .intermediate = INTERMEDIATE,
                 .gate_up = (const char *)gate_up,
                 .down = (const char *)down,
                 .gate_up_stride = 2 * INTERMEDIATE * ROW_BYTES,
                 .down_stride = HIDDEN * INTERMEDIATE * sizeof(float),
                 .row_bytes = ROW_BYTES,
                 .max_frame_bytes = MAX_FRAME_BYTES,
                 .dtype = FLOAT32,
                 .element_type = 1,
                 .most_pairs = 40.0},
        .window_pairs = 200,
        .limits = {.max_waiting_pairs = 300,
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
        begin_plane(&plane) < 0)
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

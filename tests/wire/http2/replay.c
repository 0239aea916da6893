/* `replay client|server [LIMIT=VALUE …]`: plays a script against the framing and says what happens.
 *
 * A line of standard input is `< HEX`, bytes that the peer sends, or an action of the owner, such
 * as `send 1 5`; `ACTIONS` lists them. A message that arrives and begins with `!` is an action
 * that is done from within its event. Every event is a line, and so is every frame that the
 * framing writes, after `>`. */

#include "services/wire/http2/frames.h"
#include "services/wire/http2/http2.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_BYTES (1 << 24)

static struct http2_connection *connection;
static struct http2_limits limits;
static int peer_fd, is_server, is_closed;
static char *sent;
static size_t num_sent;
static unsigned long piece = MAX_BYTES;

/* What is said, in its order. Frames stand by themselves where sessions are compared, since they
 * are written at other moments when bytes come in other pieces. */
struct text {
    char *data;
    size_t count;
};
static struct text said, framed;
static struct text *frames = &said, *now = &said;

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    now->count +=
        (size_t)vsnprintf(now->data + now->count, MAX_BYTES - now->count, format, arguments);
    va_end(arguments);
}

static void say_bytes(const char *data, size_t count) {
    if (count > 40)
        say(" %zu bytes", count);
    else
        say(" '%.*s'", (int)count, data);
}

static void act(char *action);

static void on_headers(struct http2_stream *stream, const char *block, size_t count, int ends) {
    say("headers %u", stream->id);
    say_bytes(block, count);
    say(ends ? " end\n" : "\n");
}

static void on_message(struct http2_stream *stream, const char *data, size_t count) {
    char action[64] = {0};
    say("message %u", stream->id);
    say_bytes(data, count);
    say("\n");
    if (!count || *data != '!' || count > sizeof action) return;
    memcpy(action, data + 1, count - 1);
    act(action);
}

static void on_remote_ended(struct http2_stream *stream) { say("ended %u\n", stream->id); }

static void on_reset(struct http2_stream *stream, uint32_t code) {
    say("reset %u %u\n", stream->id, code);
}

static const struct http2_events events = {on_headers, on_message, on_remote_ended, on_reset, NULL};

static struct http2_stream *stream_of(uint32_t id) {
    struct http2_stream *stream = http2_next_stream(connection, NULL);
    while (stream && stream->id != id) stream = http2_next_stream(connection, stream);
    return stream;
}

/* The actions on a stream; the number is a length or a code. -2 for none. */
static int act_on(struct http2_stream *stream, const char *name, size_t number) {
    if (!strcmp(name, "reset")) return http2_reset(stream, (enum http2_error)number);
    if (!strcmp(name, "resume")) return http2_resume(stream, number ? number : SIZE_MAX);
    if (!strcmp(name, "finish")) return http2_finish(stream);
    if (!strcmp(name, "headers")) return http2_send_headers(stream, "h", 1, 0);
    if (!strcmp(name, "trailers")) return http2_send_headers(stream, "t", 1, 1);
    if (!strcmp(name, "unsent")) return (int)stream->num_unsent;
    if (!strcmp(name, "pause")) {
        http2_pause(stream);
        return 0;
    }
    if (strcmp(name, "send")) return -2;
    char *data = calloc(1, number + 1);
    const struct iovec part = {memset(data, 'x', number), number};
    const int result = http2_send(stream, &part, 1);
    free(data);
    return result;
}

static int act_alone(const char *name, size_t number) {
    char *block = memset(calloc(1, number + 1), 'h', number);
    int result = -2;
    if (!strcmp(name, "open")) result = http2_open(connection, block, number, NULL) ? 0 : -1;
    if (!strcmp(name, "goaway")) result = http2_goaway(connection, (enum http2_error)number);
    if (!strcmp(name, "flush")) result = http2_flush(connection);
    if (!strcmp(name, "drained")) result = http2_is_drained(connection);
    if (!strcmp(name, "wants_write")) result = http2_wants_write(connection);
    free(block);
    return result;
}

/* `open BYTES`, `goaway CODE`, `flush`, `drained`, `wants_write`, or of a stream `send ID BYTES`,
 * `reset ID CODE`, `headers ID`, `trailers ID`, `finish ID`, `pause ID`, `resume ID MOST`,
 * `unsent ID`. Says only what is not 0. */
static void act(char *action) {
    char name[16] = {0};
    unsigned long first = 0, second = 0;
    sscanf(action, "%15s %lu %lu", name, &first, &second);
    int result = act_alone(name, first);
    if (result == -2) {
        struct http2_stream *stream = stream_of((uint32_t)first);
        if (!stream) {
            say("no stream %lu\n", first);
            return;
        }
        result = act_on(stream, name, second);
    }
    if (result) say("%s: %d\n", name, result);
}

static void say_frames(void) {
    static const char *const NAMES[] = {"DATA",          "HEADERS",      "PRIORITY", "RST_STREAM",
                                        "SETTINGS",      "PUSH_PROMISE", "PING",     "GOAWAY",
                                        "WINDOW_UPDATE", "CONTINUATION"};
    size_t at = 0;
    if (!is_server && num_sent >= H2_PREFACE_BYTES && !memcmp(sent, H2_PREFACE, H2_PREFACE_BYTES))
        at = H2_PREFACE_BYTES;
    now = frames;
    while (num_sent - at >= H2_FRAME_HEADER_BYTES) {
        const struct h2_frame frame = h2_get_frame(sent + at);
        const char *payload = sent + at + H2_FRAME_HEADER_BYTES;
        if (num_sent - at - H2_FRAME_HEADER_BYTES < frame.count) break;
        say("> %s %u flags %u", NAMES[frame.type], frame.stream, frame.flags);
        if (frame.type == H2_RST_STREAM || frame.type == H2_WINDOW_UPDATE)
            say(" %u", h2_get_word(payload));
        else if (frame.type == H2_GOAWAY)
            say(" last %u code %u", h2_get_word(payload), h2_get_word(payload + 4));
        else if (frame.type != H2_SETTINGS)
            say(" length %u", frame.count);
        say("\n");
        at += H2_FRAME_HEADER_BYTES + frame.count;
    }
    now = &said;
    memmove(sent, sent + at, num_sent - at);
    num_sent -= at;
}

static void take_written(void) {
    ssize_t got;
    while ((got = recv(peer_fd, sent + num_sent, MAX_BYTES - num_sent, MSG_DONTWAIT)) > 0) {
        num_sent += (size_t)got;
        if (http2_wants_write(connection)) http2_flush(connection);
    }
    say_frames();
}

static void receive(void) {
    if (is_closed || http2_receive(connection) == 0) return;
    is_closed = 1;
    say("over: %s\n", http2_why(connection));
}

static void feed(const char *data, size_t count) {
    while (count && !is_closed) {
        const size_t some = count < piece ? count : piece;
        const ssize_t written = send(peer_fd, data, some, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written > 0) {
            data += written;
            count -= (size_t)written;
        }
        receive();
        take_written();
    }
}

static void begin(void) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0) exit(2);
    peer_fd = fds[1];
    is_closed = 0;
    num_sent = 0;
    connection = http2_begin(fds[0], is_server, &events, &limits, NULL);
    if (!connection) exit(2);
}

static void end(void) {
    http2_end(connection);
    close(peer_fd);
}

static size_t from_hex(const char *text, char *data) {
    size_t count = 0;
    unsigned byte;
    for (; sscanf(text, "%2x", &byte) == 1; text += 2) data[count++] = (char)byte;
    return count;
}

/* Plays the bytes on a connection of their own: in two pieces, or in pieces of this length. */
static void play_cut(const char *data, size_t count, size_t cut, int is_every) {
    end();
    begin();
    said.count = framed.count = 0;
    piece = is_every && cut ? cut : MAX_BYTES;
    feed(data, is_every ? count : cut);
    if (!is_every) feed(data + cut, count - cut);
}

/* Plays the bytes whole and for every place where they may be cut: all has to come out the same. */
static void compare_cuts(const char *data, size_t count, int is_every) {
    frames = &framed;
    play_cut(data, count, 0, is_every);
    char *events_of_whole = strdup(said.data), *frames_of_whole = strdup(framed.data);
    for (size_t cut = 1; cut < count; cut++) {
        play_cut(data, count, cut, is_every);
        if (!strcmp(events_of_whole, said.data) && !strcmp(frames_of_whole, framed.data)) continue;
        say("differs when cut at %zu\n", cut);
        break;
    }
    say("%s", framed.data);
    free(events_of_whole);
    free(frames_of_whole);
}

static void play(char *line) {
    static char data[MAX_BYTES / 2];
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "< ", 2))
        feed(data, from_hex(line + 2, data));
    else if (!strncmp(line, "cuts ", 5))
        compare_cuts(data, from_hex(line + 5, data), 0);
    else if (!strncmp(line, "pieces ", 7))
        compare_cuts(data, from_hex(line + 7, data), 1);
    else if (!strcmp(line, "receive"))
        receive();
    else if (!strcmp(line, "vanish"))
        shutdown(peer_fd, SHUT_RDWR);
    else if (!strcmp(line, "close")) {
        shutdown(peer_fd, SHUT_WR);
        receive();
    } else
        act(line);
    take_written();
}

static void set_limit(const char *argument) {
    const char *const names[] = {"max_streams",      "max_message_bytes", "max_header_bytes",
                                 "max_unsent_bytes", "max_held_bytes",    "max_control_frames"};
    uint32_t *const values[] = {&limits.max_streams,      &limits.max_message_bytes,
                                &limits.max_header_bytes, &limits.max_unsent_bytes,
                                &limits.max_held_bytes,   &limits.max_control_frames};
    for (int i = 0; i < 6; i++) {
        const size_t length = strlen(names[i]);
        if (!strncmp(argument, names[i], length))
            *values[i] = (uint32_t)atol(argument + length + 1);
    }
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    is_server = !strcmp(arguments[1], "server");
    limits = http2_limits_default;
    for (int i = 2; i < count; i++) set_limit(arguments[i]);
    said.data = calloc(1, MAX_BYTES);
    framed.data = calloc(1, MAX_BYTES);
    sent = calloc(1, MAX_BYTES);
    begin();
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) play(line);
    fwrite(said.data, 1, said.count, stdout);
    end();
    free(line);
    free(said.data);
    free(framed.data);
    free(sent);
    return 0;
}

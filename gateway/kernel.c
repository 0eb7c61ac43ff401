/* The gateway's way for the caller's frames: from the sockets that are ready to the message that
 * leaves next for the session worker.
 *
 * A frame that is like the one before it, Twilio's media message with 20 ms more, takes some ten calls of
 * Python, and there are fifty of them a second and call. This file does what those do, and nothing else:
 * whatever is not such a frame, and whatever comes while a call is not in its ordinary state, is handed
 * to Python on the spot, untouched. So the rules are Python's, and each is where its step is named here:
 *
 *   read       turns.py         Seat.read
 *   unwrap     parser.py        read_texts
 *   scan       twilio/messages.py  decode, MediaDetails.audio
 *   follows    playout/clock.py MediaClock.receive_regular
 *   pass on    link.py          Lane.send_audio, Batch.add
 *
 * What reading one socket raises ends that one, by Seat.failed, and the others are read all the same.
 *
 * The state is in the slots of Python's objects. Without a C compiler Python goes the way alone;
 * tests/gateway/test_kernel.py holds both against each other.
 */
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static PyObject *seat_class, *quick_class, *lane_class, *batch_class, *clock_class;

static struct {
    Slot fd, take, quick, transport;
} of_seat = {{"fd", 0}, {"take", 0}, {"quick", 0}, {"transport", 0}};

static struct {
    Slot stream_sid, started_ns, clock, lane;
} of_quick = {{"stream_sid", 0}, {"started_ns", 0}, {"clock", 0}, {"lane", 0}};

static struct {
    Slot handle, batch;
} of_lane = {{"handle", 0}, {"batch", 0}};

static struct {
    Slot calls, payloads, media_ms, received_unix_us, begun;
} of_batch = {{"calls", 0}, {"payloads", 0}, {"media_ms", 0}, {"received_unix_us", 0}, {"begun", 0}};

static struct {
    Slot newest_ms, reading_us, received_us, awaited, offset_us, frame_bytes, frame_us, first_us;
} of_clock = {{"newest_ms", 0}, {"reading_us", 0}, {"received_us", 0}, {"awaited", 0},
              {"_offset_us", 0}, {"_frame_bytes", 0}, {"_frame_us", 0}, {"_first_us", 0}};

static int64_t read_bytes, batch_frames, turn_frames, step_tolerance_us, most_ahead_us;

enum { MAX_READ_BYTES = 16384 }; /* there is room for on the stack */

static PyObject *name_end, *name_failed, *name_is_closing;

/* -- unwrap and scan: a WebSocket frame, and the JSON in it ------------------------------------------ */

/* A frame that is whole, text, and masked. */
typedef struct {
    const unsigned char *content, *mask;
    Py_ssize_t length;
} Frame;

/* Read the frame at the beginning of `data`. Returns its size with the header; 0: it is not whole, or of
 * another kind. */
static Py_ssize_t
unwrap(const unsigned char *data, Py_ssize_t size, Frame *frame)
{
    if (size < 6 || data[0] != 0x81 || !(data[1] & 0x80))
        return 0;
    Py_ssize_t length = data[1] & 0x7f, header = 6;
    if (length == 126) {
        length = (Py_ssize_t)data[2] << 8 | data[3];
        header = 8;
    }
    else if (length == 127)
        return 0;
    if (header + length > size)
        return 0;
    frame->mask = data + header - 4;
    frame->content = data + header;
    frame->length = length;
    return header + length;
}

static void
unmask(const Frame *frame, unsigned char *text)
{
    uint32_t four;
    memcpy(&four, frame->mask, 4);
    const uint64_t mask = (uint64_t)four << 32 | four;
    Py_ssize_t at = 0;
    for (; at + 8 <= frame->length; at += 8) {
        uint64_t eight;
        memcpy(&eight, frame->content + at, 8);
        eight ^= mask;
        memcpy(text + at, &eight, 8);
    }
    for (; at < frame->length; at++)
        text[at] = frame->content[at] ^ frame->mask[at & 3];
}

/* A piece of the text. */
typedef struct {
    const unsigned char *begin;
    Py_ssize_t length;
} Span;

static inline int
is(Span span, const char *word)
{
    return span.length == (Py_ssize_t)strlen(word) && memcmp(span.begin, word, span.length) == 0;
}

/* What is still to be read. */
typedef struct {
    const unsigned char *at, *end;
} Text;

static inline int
next_is(Text *text, unsigned char c)
{
    if (text->at == text->end || *text->at != c)
        return 0;
    text->at++;
    return 1;
}

/* Read a JSON string of plain ASCII, without escapes. */
static int
read_string(Text *text, Span *span)
{
    if (!next_is(text, '"'))
        return 0;
    span->begin = text->at;
    const unsigned char *quote = memchr(text->at, '"', text->end - text->at);
    if (quote == NULL)
        return 0;
    span->length = quote - span->begin;
    text->at = quote + 1;
    unsigned char strange = 0;
    for (Py_ssize_t i = 0; i < span->length; i++) {
        unsigned char c = span->begin[i];
        strange |= (c < 0x20) | (c >= 0x7f) | (c == '\\');
    }
    return !strange;
}

/* The largest timestamp and one more; LATEST_MS of messages.py. */
#define LATEST_MS 172800000

/* Read a string of digits as JSON would write the number. */
static int
read_number(Span span, int64_t *number)
{
    if (span.length < 1 || span.length > 9 || (span.length > 1 && span.begin[0] == '0'))
        return 0;
    *number = 0;
    for (Py_ssize_t i = 0; i < span.length; i++) {
        unsigned char digit = span.begin[i] - '0';
        if (digit > 9)
            return 0;
        *number = 10 * *number + digit;
    }
    return *number < LATEST_MS;
}

/* A media message of the caller's. */
typedef struct {
    Span stream_sid, payload;
    int64_t timestamp_ms;
    Py_ssize_t audio_bytes;
} Media;

enum { TRACK = 1, CHUNK = 2, TIMESTAMP = 4, PAYLOAD = 8 };

static int
scan_details(Text *text, Media *media)
{
    int seen = 0;
    if (!next_is(text, '{'))
        return 0;
    do {
        Span name, value;
        int field;
        if (!read_string(text, &name) || !next_is(text, ':') || !read_string(text, &value))
            return 0;
        if (is(name, "payload")) {
            field = PAYLOAD;
            media->payload = value;
            media->audio_bytes = base64_bytes(value.begin, value.length);
            if (media->audio_bytes <= 0)
                return 0;
        }
        else if (is(name, "timestamp")) {
            field = TIMESTAMP;
            if (!read_number(value, &media->timestamp_ms))
                return 0;
        }
        else if (is(name, "track")) {
            field = TRACK;
            if (!is(value, "inbound"))
                return 0;
        }
        else if (is(name, "chunk"))
            field = CHUNK;
        else
            return 0;
        if (seen & field)
            return 0;
        seen |= field;
    } while (next_is(text, ','));
    return next_is(text, '}') && (seen & TIMESTAMP) && (seen & PAYLOAD);
}

enum { EVENT = 1, SEQUENCE = 2, STREAM = 4, MEDIA = 8 };

/* Read a message with the fields that Twilio's media message has, in any order and each once at most. */
static int
scan(const unsigned char *begin, Py_ssize_t length, Media *media)
{
    Text text = {begin, begin + length};
    int seen = 0;
    if (!next_is(&text, '{'))
        return 0;
    do {
        Span name, value;
        int field;
        if (!read_string(&text, &name) || !next_is(&text, ':'))
            return 0;
        if (is(name, "media")) {
            field = MEDIA;
            if (!scan_details(&text, media))
                return 0;
        }
        else {
            if (!read_string(&text, &value))
                return 0;
            if (is(name, "event")) {
                field = EVENT;
                if (!is(value, "media"))
                    return 0;
            }
            else if (is(name, "streamSid")) {
                field = STREAM;
                media->stream_sid = value;
            }
            else if (is(name, "sequenceNumber"))
                field = SEQUENCE;
            else
                return 0;
        }
        if (seen & field)
            return 0;
        seen |= field;
    } while (next_is(&text, ','));
    const int needed = EVENT | STREAM | MEDIA;
    return next_is(&text, '}') && text.at == text.end && (seen & needed) == needed;
}

/* -- follows and pass on ------------------------------------------------------------------------------ */

/* Whether the next message has room for a frame of the call. Batch.has_room_for looks more closely; who is
 * refused here asks there. */
static int
has_room(PyObject *calls, PyObject *handle)
{
    Py_ssize_t n = PyList_GET_SIZE(calls);
    return n < batch_frames && (n < turn_frames || PyList_GET_ITEM(calls, n - turn_frames) != handle);
}

enum { N_COLUMNS = 4 };

/* What may come of a message. */
typedef enum { RAISED = -1, FOR_PYTHON, PASSED_ON } Way;

/* Put a frame into the columns of a batch: into all four, or, when one has no memory, into none. -1: it
 * raised. */
static int
add(PyObject *const columns[N_COLUMNS], PyObject *const frame[N_COLUMNS])
{
    const Py_ssize_t n = PyList_GET_SIZE(columns[0]);
    for (int i = 0; i < N_COLUMNS; i++) {
        if (frame[i] != NULL && PyList_Append(columns[i], frame[i]) == 0)
            continue;
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        while (--i >= 0)
            if (PyList_SetSlice(columns[i], n, n + 1, NULL) < 0)
                PyErr_Clear();
        PyErr_Restore(type, value, traceback);
        return -1;
    }
    return 0;
}

/* What a frame of a call goes to, borrowed from the call's objects. Whatever runs Python may take them
 * away. */
typedef struct {
    PyObject *clock, *batch, *handle, *columns[N_COLUMNS];
    int64_t reading_us, received_us;
} Place;

/* Find a message's place. One that is for Python has changed nothing. */
static Way
find(PyObject *quick, const Media *media, Place *place)
{
    PyObject *sid = slot_of_class(quick, of_quick.stream_sid, (PyObject *)&PyBytes_Type);
    PyObject *clock = slot_of_class(quick, of_quick.clock, clock_class);
    PyObject *lane = slot_of_class(quick, of_quick.lane, lane_class);
    int64_t started_ns;
    if (sid == NULL || clock == NULL || lane == NULL || !slot_integer(quick, of_quick.started_ns, &started_ns)
        || media->stream_sid.length != PyBytes_GET_SIZE(sid)
        || memcmp(media->stream_sid.begin, PyBytes_AS_STRING(sid), (size_t)media->stream_sid.length) != 0)
        return FOR_PYTHON;

    /* Lane.send_audio. No batch: frames wait in the lane, or nobody takes them. */
    PyObject *batch = slot_of_class(lane, of_lane.batch, batch_class);
    PyObject *handle = slot_of_class(lane, of_lane.handle, (PyObject *)&PyLong_Type);
    if (batch == NULL || handle == NULL)
        return FOR_PYTHON;
    const Slot columns[] = {of_batch.calls, of_batch.payloads, of_batch.media_ms, of_batch.received_unix_us};
    for (int i = 0; i < N_COLUMNS; i++) {
        place->columns[i] = slot_of_class(batch, columns[i], (PyObject *)&PyList_Type);
        if (place->columns[i] == NULL)
            return FOR_PYTHON;
    }
    if (!has_room(place->columns[0], handle))
        return FOR_PYTHON;

    /* MediaClock.receive_regular. */
    int64_t before_us, offset_us, frame_bytes, frame_us, first_us;
    if (slot(clock, of_clock.awaited) != Py_False || !slot_integer(clock, of_clock.reading_us, &before_us)
        || !slot_integer(clock, of_clock.offset_us, &offset_us)
        || !slot_integer(clock, of_clock.frame_bytes, &frame_bytes)
        || !slot_integer(clock, of_clock.frame_us, &frame_us)
        || !slot_integer(clock, of_clock.first_us, &first_us) || media->audio_bytes != frame_bytes)
        return FOR_PYTHON;
    place->reading_us = media->timestamp_ms * 1000 + offset_us;
    place->received_us = (clock_ns(CLOCK_MONOTONIC) - started_ns) / 1000;
    const int64_t step_us = place->reading_us - before_us;
    if (step_us <= 0 || step_us < frame_us - step_tolerance_us || step_us > frame_us + step_tolerance_us
        || place->reading_us - place->received_us - first_us > most_ahead_us)
        return FOR_PYTHON;
    place->clock = clock;
    place->batch = batch;
    place->handle = handle;
    return PASSED_ON;
}

/* Say that a batch begins. What that does is Python's: afterwards its place is to be found anew. -1: it
 * raised. */
static int
begin_batch(PyObject *batch)
{
    PyObject *begun = slot(batch, of_batch.begun);
    Py_INCREF(batch);
    Py_INCREF(begun);
    PyObject *none = PyObject_CallNoArgs(begun);
    Py_DECREF(begun);
    Py_DECREF(batch);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* Take one message; one that is for Python has changed nothing. */
static Way
take_media(PyObject *quick, const Media *media)
{
    Place place;
    Way way = find(quick, media, &place);
    if (way == PASSED_ON && PyList_GET_SIZE(place.columns[0]) == 0) {
        if (begin_batch(place.batch) < 0)
            return RAISED;
        way = find(quick, media, &place);
    }
    if (way != PASSED_ON)
        return way;
    PyObject *reading = PyLong_FromLongLong(place.reading_us);
    PyObject *received = PyLong_FromLongLong(place.received_us);
    PyObject *const frame[N_COLUMNS] = {
        place.handle,
        PyBytes_FromStringAndSize((const char *)media->payload.begin, media->payload.length),
        PyLong_FromLongLong(media->timestamp_ms),
        PyLong_FromLongLong(clock_ns(CLOCK_REALTIME) / 1000),
    };
    const int raised = reading == NULL || received == NULL || add(place.columns, frame) < 0;
    if (raised) {
        Py_XDECREF(reading);
        Py_XDECREF(received);
    }
    else {
        set_slot(place.clock, of_clock.newest_ms, Py_NewRef(frame[2]));
        set_slot(place.clock, of_clock.reading_us, reading);
        set_slot(place.clock, of_clock.received_us, received);
    }
    for (int i = 1; i < N_COLUMNS; i++)
        Py_XDECREF(frame[i]);
    return raised ? RAISED : PASSED_ON;
}

/* Take the messages at the beginning of `data`, as far as they are quick. Returns where the first one
 * begins that is not. -1: it raised. */
static Py_ssize_t
take_all(PyObject *quick, const unsigned char *data, Py_ssize_t size)
{
    unsigned char text[MAX_READ_BYTES];
    Py_ssize_t at = 0;
    while (at < size) {
        Frame frame;
        Media media = {0};
        const Py_ssize_t length = unwrap(data + at, size - at, &frame);
        if (length == 0)
            break;
        unmask(&frame, text);
        if (!scan(text, frame.length, &media))
            break;
        const Way way = take_media(quick, &media);
        if (way == RAISED)
            return -1;
        if (way == FOR_PYTHON)
            break;
        at += length;
    }
    return at;
}

/* -- read --------------------------------------------------------------------------------------------- */

/* Whether a seat's transport is closing. -1: it raised. */
static int
is_closing(PyObject *seat)
{
    PyObject *transport = Py_NewRef(slot(seat, of_seat.transport));
    PyObject *closing = PyObject_CallMethodNoArgs(transport, name_is_closing);
    Py_DECREF(transport);
    if (closing == NULL)
        return -1;
    const int answer = PyObject_IsTrue(closing);
    Py_DECREF(closing);
    return answer;
}

/* Read one socket, and take what it has. -1: it raised. */
static int
read_seat(PyObject *seat)
{
    unsigned char data[MAX_READ_BYTES];
    const int closing = is_closing(seat);
    if (closing)
        return closing < 0 ? -1 : 0;
    int64_t fd;
    if (!slot_integer(seat, of_seat.fd, &fd)) {
        PyErr_SetString(PyExc_TypeError, "a seat's fd must be an integer");
        return -1;
    }
    const ssize_t size = read((int)fd, data, (size_t)read_bytes);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return 0; /* if there is something, the next turn finds it */
    PyObject *answer;
    if (size <= 0)
        answer = PyObject_CallMethodNoArgs(seat, name_end);
    else {
        Py_ssize_t begin = 0;
        PyObject *quick = slot_of_class(seat, of_seat.quick, quick_class);
        if (quick != NULL) {
            Py_INCREF(quick);
            begin = take_all(quick, data, size);
            Py_DECREF(quick);
        }
        if (begin < 0)
            return -1;
        if (begin == size)
            return 0;
        PyObject *rest = PyBytes_FromStringAndSize((const char *)data + begin, size - begin);
        if (rest == NULL)
            return -1;
        PyObject *taker = Py_NewRef(slot(seat, of_seat.take));
        answer = PyObject_CallOneArg(taker, rest);
        Py_DECREF(taker);
        Py_DECREF(rest);
    }
    Py_XDECREF(answer);
    return answer == NULL ? -1 : 0;
}

static int
ends_process(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* Reading a seat raised: end that one, by Seat.failed, and no other. -1: it raised what ends the process. */
static int
fail(PyObject *seat)
{
    if (ends_process())
        return -1;
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    PyObject *none = PyObject_CallMethodOneArg(seat, name_failed, error);
    Py_XDECREF(none);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    if (none != NULL)
        return 0;
    if (ends_process())
        return -1;
    PyErr_WriteUnraisable(seat);
    return 0;
}

static PyObject *
read_ready(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t n_arguments)
{
    if (n_arguments != 2 || !PyList_CheckExact(arguments[0]) || !PyDict_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "read_ready takes a list of what is ready and a dict of seats");
        return NULL;
    }
    PyObject *ready = arguments[0], *seats = arguments[1];
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(ready); i++) {
        PyObject *event = PyList_GET_ITEM(ready, i);
        if (!PyTuple_CheckExact(event) || PyTuple_GET_SIZE(event) != 2) {
            PyErr_SetString(PyExc_TypeError, "what is ready are pairs of a descriptor and its events");
            return NULL;
        }
        PyObject *seat = PyDict_GetItemWithError(seats, PyTuple_GET_ITEM(event, 0));
        if (seat == NULL) {
            if (PyErr_Occurred())
                return NULL;
            continue; /* it left in this very turn */
        }
        if (!Py_IS_TYPE(seat, (PyTypeObject *)seat_class)) {
            PyErr_SetString(PyExc_TypeError, "seats must be of gateway.turns.Seat");
            return NULL;
        }
        Py_INCREF(seat); /* it may leave while it is read */
        const int failed = read_seat(seat) < 0 && fail(seat) < 0;
        Py_DECREF(seat);
        if (failed)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"read_ready", (PyCFunction)(void (*)(void))read_ready, METH_FASTCALL, "See gateway.turns.read_ready."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "gateway._kernel", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    if (take_class("gateway.turns", "Seat", &seat_class, &of_seat, sizeof of_seat) < 0
        || take_class("gateway.quick", "QuickWay", &quick_class, &of_quick, sizeof of_quick) < 0
        || take_class("gateway.link", "Lane", &lane_class, &of_lane, sizeof of_lane) < 0
        || take_class("gateway.link", "Batch", &batch_class, &of_batch, sizeof of_batch) < 0
        || take_class("gateway.playout.clock", "MediaClock", &clock_class, &of_clock, sizeof of_clock) < 0
        || take_integer("gateway.turns", "READ_BYTES", &read_bytes) < 0
        || take_integer("gateway.link", "BATCH_FRAMES", &batch_frames) < 0
        || take_integer("gateway.link", "TURN_FRAMES", &turn_frames) < 0
        || take_integer("gateway.playout.clock", "STEP_TOLERANCE_US", &step_tolerance_us) < 0
        || take_integer("gateway.playout.clock", "MAX_AHEAD_US", &most_ahead_us) < 0)
        return NULL;
    if (read_bytes < 1 || read_bytes > MAX_READ_BYTES || turn_frames < 1) {
        PyErr_SetString(PyExc_ValueError, "the constants are not as gateway/kernel.c knows them");
        return NULL;
    }
    name_end = PyUnicode_InternFromString("end");
    name_failed = PyUnicode_InternFromString("failed");
    name_is_closing = PyUnicode_InternFromString("is_closing");
    if (name_end == NULL || name_failed == NULL || name_is_closing == NULL)
        return NULL;
    return PyModule_Create(&definition);
}

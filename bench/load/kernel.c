/* What the ends of the load do with each of the caller's frames: Twilio's end sends it, the model's end
 * finds it again. The load is to cost little, or it, and not the bridge, is what is measured.
 *
 * The frames and their tags are those of tag.py and caller.py; tests/bench/test_load_kernel.py holds
 * this file against them.
 */
#define _GNU_SOURCE /* memmem */
#include "kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FRAME_BYTES = 160, FRAME_CHARS = 216, TAG_BYTES = 18, TAG_CHARS = 24 }; /* as in tag.py */

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static signed char base64_value[256];

static PyObject *received_class, *window_class;

static struct {
    Slot call, next_number, frames, n_bytes, window;
} of_received = {{"call", 0}, {"next_number", 0}, {"frames", 0}, {"n_bytes", 0}, {"window", 0}};

static struct {
    Slot begin_ns, end_ns, forward_us;
} of_window = {{"begin_ns", 0}, {"end_ns", 0}, {"forward_us", 0}};

static PyObject *name_append;

/* -- Twilio's end -------------------------------------------------------------------------------------- */

static void
put(unsigned char *at, uint64_t value, int n_bytes)
{
    for (int i = n_bytes - 1; i >= 0; i--, value >>= 8)
        at[i] = value & 0xff;
}

/* tag.payload, 216 characters. */
static void
write_payload(char *text, unsigned flags, unsigned call, uint32_t number, int64_t sent_ns)
{
    unsigned char tag[TAG_BYTES] = {0xa5, 0x5a, flags & 0xff};
    put(tag + 4, call, 2);
    put(tag + 6, number, 4);
    put(tag + 10, (uint64_t)sent_ns, 8);
    for (int i = 0; i < TAG_BYTES; i += 3) {
        const unsigned three = tag[i] << 16 | tag[i + 1] << 8 | tag[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6)
            *text++ = base64[three >> shift & 63];
    }
    /* 142 bytes of 0xff, and what is left of them in the last group of three. */
    memset(text, '/', FRAME_CHARS - TAG_CHARS - 4);
    memcpy(text + FRAME_CHARS - TAG_CHARS - 4, "/w==", 4);
}

/* send_frame(fd, begin, middle, sequence, number, timestamp_ms, flags, call): the media message of a
 * frame, in a WebSocket frame of a client's, written to a socket. Its mask is 0, which is as good as any
 * other. Returns None when all was written, or else what was not. */
static PyObject *
send_frame(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t n_arguments)
{
    long long values[8];
    if (n_arguments != 8 || !PyBytes_CheckExact(arguments[1]) || !PyBytes_CheckExact(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "send_frame takes a descriptor, two texts and five numbers");
        return NULL;
    }
    for (int i = 0; i < 8; i++) {
        if (i == 1 || i == 2)
            continue;
        values[i] = PyLong_AsLongLong(arguments[i]);
        if (values[i] == -1 && PyErr_Occurred())
            return NULL;
    }
    char frame[2048];
    const int head = 8;
    if (PyBytes_GET_SIZE(arguments[1]) + PyBytes_GET_SIZE(arguments[2]) > 1024) {
        PyErr_SetString(PyExc_ValueError, "the texts are too long");
        return NULL;
    }
    int size = head;
    size += sprintf(frame + size, "%s%lld%s%lld\",\"timestamp\":\"%lld\",\"payload\":\"",
                    PyBytes_AS_STRING(arguments[1]), values[3], PyBytes_AS_STRING(arguments[2]),
                    values[4] + 1, values[5]);
    write_payload(frame + size, (unsigned)values[6], (unsigned)values[7], (uint32_t)values[4],
                  clock_ns(CLOCK_MONOTONIC));
    size += FRAME_CHARS;
    memcpy(frame + size, "\"}}", 3);
    size += 3;
    const int length = size - head;
    const unsigned char header[] = {0x81, 0xfe, (unsigned char)(length >> 8), length & 0xff, 0, 0, 0, 0};
    memcpy(frame, header, sizeof header);
    ssize_t written = write((int)values[0], frame, (size_t)size);
    if (written == size)
        Py_RETURN_NONE;
    if (written < 0 && errno != EAGAIN && errno != EINTR)
        Py_RETURN_NONE; /* the peer has gone: the event loop will tell */
    if (written < 0)
        written = 0;
    return PyBytes_FromStringAndSize(frame + written, size - written);
}

/* -- the model's end ----------------------------------------------------------------------------------- */

/* Where the audio of an append begins, after the quote, or NULL: it is no such event. */
static const unsigned char *
find_audio(const unsigned char *data, Py_ssize_t size)
{
    static const char kind[] = "input_audio_buffer.append", field[] = "\"audio\"";
    const unsigned char *end = data + size;
    const unsigned char *at = memmem(data, (size_t)(size < 100 ? size : 100), kind, sizeof kind - 1);
    if (at != NULL)
        at = memmem(data, (size_t)size, field, sizeof field - 1);
    if (at == NULL)
        return NULL;
    at += sizeof field - 1;
    at = memchr(at, '"', (size_t)(end - at));
    return at == NULL ? NULL : at + 1;
}

static uint64_t
get(const unsigned char *at, int n_bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < n_bytes; i++)
        value = value << 8 | at[i];
    return value;
}

/* receive(received, data): whether the event is an append of exactly the frame that is next in its call,
 * without flags; then it is counted. Anything else has changed nothing. */
static PyObject *
receive(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t n_arguments)
{
    if (n_arguments != 2 || !Py_IS_TYPE(arguments[0], (PyTypeObject *)received_class)
        || !PyBytes_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "receive takes what was received and an event");
        return NULL;
    }
    PyObject *received = arguments[0];
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(arguments[1]);
    const Py_ssize_t size = PyBytes_GET_SIZE(arguments[1]);
    const unsigned char *text = find_audio(data, size);
    if (text == NULL || data + size - text < FRAME_CHARS + 1 || text[FRAME_CHARS] != '"')
        Py_RETURN_FALSE;
    unsigned char tag[TAG_BYTES];
    for (int i = 0; i < TAG_CHARS / 4; i++) {
        const int a = base64_value[text[4 * i]], b = base64_value[text[4 * i + 1]];
        const int c = base64_value[text[4 * i + 2]], d = base64_value[text[4 * i + 3]];
        if ((a | b | c | d) < 0)
            Py_RETURN_FALSE;
        put(tag + 3 * i, (uint64_t)(a << 18 | b << 12 | c << 6 | d), 3);
    }
    int64_t call, next_number, frames, n_bytes, begin_ns, end_ns;
    PyObject *window = slot_of_class(received, of_received.window, window_class);
    if (tag[0] != 0xa5 || tag[1] != 0x5a || tag[2] != 0 || window == NULL
        || !slot_integer(received, of_received.call, &call)
        || !slot_integer(received, of_received.next_number, &next_number)
        || !slot_integer(received, of_received.frames, &frames)
        || !slot_integer(received, of_received.n_bytes, &n_bytes)
        || !slot_integer(window, of_window.begin_ns, &begin_ns)
        || !slot_integer(window, of_window.end_ns, &end_ns) || (int64_t)get(tag + 4, 2) != call
        || (int64_t)get(tag + 6, 4) != next_number)
        Py_RETURN_FALSE;
    const int64_t sent_ns = (int64_t)get(tag + 10, 8);
    if (begin_ns <= sent_ns && sent_ns < end_ns) {
        PyObject *took_us = PyLong_FromLongLong((clock_ns(CLOCK_MONOTONIC) - sent_ns) / 1000);
        if (took_us == NULL)
            return NULL;
        PyObject *none = PyObject_CallMethodOneArg(slot(window, of_window.forward_us), name_append, took_us);
        Py_DECREF(took_us);
        if (none == NULL)
            return NULL;
        Py_DECREF(none);
    }
    set_slot(received, of_received.next_number, PyLong_FromLongLong(next_number + 1));
    set_slot(received, of_received.frames, PyLong_FromLongLong(frames + 1));
    set_slot(received, of_received.n_bytes, PyLong_FromLongLong(n_bytes + FRAME_BYTES));
    Py_RETURN_TRUE;
}

static PyMethodDef methods[] = {
    {"send_frame", (PyCFunction)(void (*)(void))send_frame, METH_FASTCALL, "See kernel.c."},
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL, "See kernel.c."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "bench.load._kernel", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    if (take_class("bench.load.received", "Received", &received_class, &of_received, sizeof of_received) < 0
        || take_class("bench.load.received", "Window", &window_class, &of_window, sizeof of_window) < 0)
        return NULL;
    memset(base64_value, -1, sizeof base64_value);
    for (int i = 0; i < 64; i++)
        base64_value[(unsigned char)base64[i]] = (signed char)i;
    name_append = PyUnicode_InternFromString("append");
    return name_append == NULL ? NULL : PyModule_Create(&definition);
}

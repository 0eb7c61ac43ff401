/* The compiled half of `native`: each function here computes what its twin in _python.py computes.
 *
 * The rule (README.md): bytes and numbers come in, bytes and numbers go out. Nothing here imports a
 * module of ours, calls Python, keeps anything between two calls, or looks into an object that it was
 * not given as bytes or did not create. Built against the stable ABI.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Of a media message, as in _python.py. */
#define MAX_TIMESTAMP_MS (2 * 86400000)
#define MAX_PAYLOAD_CHARS 21336
#define MAX_MEDIA_BYTES 24576

/* -- frames ------------------------------------------------------------------------------------- */

/* A whole, final, masked text frame. */
typedef struct {
    const unsigned char *content, *mask;
    Py_ssize_t content_bytes, frame_bytes;
} Frame;

/* Read the frame at the beginning of `data`. Returns 0 when it is of another kind, or not whole. */
static int
unwrap(const unsigned char *data, Py_ssize_t size, Frame *frame)
{
    if (size < 6 || data[0] != 0x81 || !(data[1] & 0x80))
        return 0;
    Py_ssize_t length = data[1] & 0x7f, header = 6;
    if (length == 127)
        return 0;
    if (length == 126) {
        length = (Py_ssize_t)data[2] << 8 | data[3];
        header = 8;
    }
    if (header + length > size)
        return 0;
    frame->mask = data + header - 4;
    frame->content = data + header;
    frame->content_bytes = length;
    frame->frame_bytes = header + length;
    return 1;
}

static void
unmask(const Frame *frame, unsigned char *text)
{
    uint32_t four;
    memcpy(&four, frame->mask, 4);
    const uint64_t mask = (uint64_t)four << 32 | four;
    Py_ssize_t at = 0;
    for (; at + 8 <= frame->content_bytes; at += 8) {
        uint64_t eight;
        memcpy(&eight, frame->content + at, 8);
        eight ^= mask;
        memcpy(text + at, &eight, 8);
    }
    for (; at < frame->content_bytes; at++)
        text[at] = frame->content[at] ^ frame->mask[at & 3];
}

/* -- the media message -------------------------------------------------------------------------- */

/* A piece of a text. */
typedef struct {
    const unsigned char *begin;
    Py_ssize_t length;
} Span;

/* What is still to be read of a text. */
typedef struct {
    const unsigned char *at, *end;
} Text;

typedef struct {
    int64_t timestamp_ms;
    Span payload;
    Py_ssize_t audio_bytes;
} Media;

static inline int
equals(Span span, const void *bytes, Py_ssize_t length)
{
    return span.length == length && memcmp(span.begin, bytes, (size_t)length) == 0;
}

static inline int
skip(Text *text, unsigned char c)
{
    if (text->at == text->end || *text->at != c)
        return 0;
    text->at++;
    return 1;
}

static inline int
skip_word(Text *text, const char *word, size_t length)
{
    if ((size_t)(text->end - text->at) < length || memcmp(text->at, word, length) != 0)
        return 0;
    text->at += length;
    return 1;
}

#define SKIP_WORD(text, word) skip_word(text, word, sizeof(word) - 1)

/* Whether text is printable ASCII without a backslash. Not inlined: see is_base64. */
static __attribute__((noinline)) int
is_plain(const unsigned char *text, Py_ssize_t length)
{
    unsigned char strange = 0;
    for (Py_ssize_t i = 0; i < length; i++) { /* without branches, for the vectoriser */
        const unsigned char c = text[i];
        strange |= ((unsigned char)(c - ' ') > '~' - ' ') | (c == '\\');
    }
    return !strange;
}

/* Read a JSON string; that all of the text is plain is known. */
static int
read_string(Text *text, Span *span)
{
    if (!skip(text, '"'))
        return 0;
    const unsigned char *quote = memchr(text->at, '"', (size_t)(text->end - text->at));
    if (quote == NULL)
        return 0;
    span->begin = text->at;
    span->length = quote - text->at;
    text->at = quote + 1;
    return 1;
}

/* Read the digits of a timestamp, written as JSON would write the number. */
static int
read_timestamp(Span span, int64_t *timestamp_ms)
{
    if (span.length < 1 || span.length > 9 || (span.length > 1 && span.begin[0] == '0'))
        return 0;
    int64_t number = 0;
    for (Py_ssize_t i = 0; i < span.length; i++) {
        const unsigned char digit = span.begin[i] - '0';
        if (digit > 9)
            return 0;
        number = 10 * number + digit;
    }
    *timestamp_ms = number;
    return number < MAX_TIMESTAMP_MS;
}

/* How many bytes base64 text of this length and padding stands for; its length is a multiple of 4. */
static inline Py_ssize_t
bytes_of_base64(const unsigned char *text, Py_ssize_t length)
{
    if (length == 0)
        return 0;
    const int one = text[length - 1] == '=', two = one && text[length - 2] == '=';
    return length / 4 * 3 - one - two;
}

enum { TRACK = 1, CHUNK = 2, TIMESTAMP = 4, PAYLOAD = 8, EVENT = 16, SEQUENCE = 32, STREAM = 64, MEDIA = 128 };

/* Read one field of "media", if it is as expected. Returns which it is; 0: it is another. */
static int
read_detail(Text *text, Media *media)
{
    Span value;
    if (SKIP_WORD(text, "\"payload\":")) {
        if (!read_string(text, &value) || value.length == 0 || value.length % 4 != 0
            || value.length > MAX_PAYLOAD_CHARS)
            return 0;
        media->payload = value;
        media->audio_bytes = bytes_of_base64(value.begin, value.length);
        return PAYLOAD;
    }
    if (SKIP_WORD(text, "\"timestamp\":"))
        return read_string(text, &value) && read_timestamp(value, &media->timestamp_ms) ? TIMESTAMP : 0;
    if (SKIP_WORD(text, "\"track\":\"inbound\""))
        return TRACK;
    return SKIP_WORD(text, "\"chunk\":") && read_string(text, &value) ? CHUNK : 0;
}

static int
read_details(Text *text, Media *media)
{
    int seen = 0;
    if (!skip(text, '{'))
        return 0;
    do {
        const int field = read_detail(text, media);
        if (!field || (seen & field))
            return 0;
        seen |= field;
    } while (skip(text, ','));
    return skip(text, '}') && (seen & TIMESTAMP) && (seen & PAYLOAD);
}

/* Read one field of the message, if it is as expected. Returns which it is; 0: it is another. */
static int
read_field(Text *text, Media *media, Span stream_sid)
{
    Span value;
    if (SKIP_WORD(text, "\"media\":"))
        return read_details(text, media) ? MEDIA : 0;
    if (SKIP_WORD(text, "\"event\":\"media\""))
        return EVENT;
    if (SKIP_WORD(text, "\"streamSid\":"))
        return read_string(text, &value) && equals(value, stream_sid.begin, stream_sid.length) ? STREAM : 0;
    return SKIP_WORD(text, "\"sequenceNumber\":") && read_string(text, &value) ? SEQUENCE : 0;
}

/* Read a text that is nothing but a media message: the fields that Twilio's has, in any order. */
static int
read_message(const unsigned char *begin, Py_ssize_t length, Media *media, Span stream_sid)
{
    Text text = {begin, begin + length};
    const int needed = EVENT | STREAM | MEDIA;
    int seen = 0;
    if (!is_plain(begin, length) || !skip(&text, '{'))
        return 0;
    do {
        const int field = read_field(&text, media, stream_sid);
        if (!field || (seen & field))
            return 0;
        seen |= field;
    } while (skip(&text, ','));
    return skip(&text, '}') && text.at == text.end && (seen & needed) == needed;
}

/* -- what Python sees --------------------------------------------------------------------------- */

static int
take_bytes(PyObject *object, Span *span)
{
    char *begin;
    if (PyBytes_AsStringAndSize(object, &begin, &span->length) < 0)
        return -1;
    span->begin = (const unsigned char *)begin;
    return 0;
}

/* A tuple of new references, which are taken over; one that is NULL raised. */
static PyObject *
new_tuple(PyObject *const *items, Py_ssize_t n)
{
    int complete = 1;
    for (Py_ssize_t i = 0; i < n; i++)
        complete &= items[i] != NULL;
    PyObject *tuple = complete ? PyTuple_New(n) : NULL;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (tuple != NULL)
            PyTuple_SetItem(tuple, i, items[i]);
        else
            Py_XDECREF(items[i]);
    }
    return tuple;
}

/* Put (timestamp_ms, payload, audio_bytes, end) into the list. -1: it raised. */
static int
add_media(PyObject *messages, const Media *media, Py_ssize_t end)
{
    PyObject *const items[] = {
        PyLong_FromLongLong(media->timestamp_ms),
        PyBytes_FromStringAndSize((const char *)media->payload.begin, media->payload.length),
        PyLong_FromSsize_t(media->audio_bytes),
        PyLong_FromSsize_t(end),
    };
    PyObject *message = new_tuple(items, 4);
    if (message == NULL)
        return -1;
    const int failed = PyList_Append(messages, message);
    Py_DECREF(message);
    return failed;
}

static PyObject *
read_media(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t n_arguments)
{
    Span data, stream_sid;
    if (n_arguments != 2) {
        PyErr_SetString(PyExc_TypeError, "read_media takes data and stream_sid");
        return NULL;
    }
    if (take_bytes(arguments[0], &data) < 0 || take_bytes(arguments[1], &stream_sid) < 0)
        return NULL;
    PyObject *messages = PyList_New(0);
    if (messages == NULL)
        return NULL;
    unsigned char text[MAX_MEDIA_BYTES];
    Frame frame;
    Py_ssize_t at = 0;
    while (unwrap(data.begin + at, data.length - at, &frame) && frame.content_bytes <= MAX_MEDIA_BYTES) {
        Media media = {0};
        unmask(&frame, text);
        if (!read_message(text, frame.content_bytes, &media, stream_sid))
            break;
        at += frame.frame_bytes;
        if (add_media(messages, &media, at) < 0) {
            Py_DECREF(messages);
            return NULL;
        }
    }
    return messages;
}

static PyObject *
read_text(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Span data;
    Frame frame;
    if (take_bytes(argument, &data) < 0)
        return NULL;
    if (!unwrap(data.begin, data.length, &frame))
        Py_RETURN_NONE;
    PyObject *content = PyBytes_FromStringAndSize(NULL, frame.content_bytes);
    if (content != NULL)
        unmask(&frame, (unsigned char *)PyBytes_AsString(content));
    PyObject *const items[] = {content, PyLong_FromSsize_t(frame.frame_bytes)};
    return new_tuple(items, 2);
}

/* Whether text is padded base64. Not inlined: among many ways out GCC takes the loop for one that is
 * seldom run, and does not vectorise it. */
static __attribute__((noinline)) int
is_base64(const unsigned char *text, Py_ssize_t length)
{
    if (length % 4 != 0)
        return 0;
    const Py_ssize_t padding = length / 4 * 3 - bytes_of_base64(text, length);
    unsigned char strange = 0;
    for (Py_ssize_t i = 0; i < length - padding; i++) { /* without branches, for the vectoriser */
        const unsigned char c = text[i];
        const unsigned char good = ((unsigned char)((c | 0x20) - 'a') < 26)
                                   | ((unsigned char)(c - '0') < 10) | (c == '+') | (c == '/');
        strange |= !good;
    }
    return !strange;
}

static PyObject *
append_message(PyObject *Py_UNUSED(module), PyObject *argument)
{
    static const char before[] = "{\"type\":\"input_audio_buffer.append\",\"audio\":\"", after[] = "\"}";
    const size_t before_bytes = sizeof before - 1, after_bytes = sizeof after - 1;
    Span payload;
    if (take_bytes(argument, &payload) < 0)
        return NULL;
    if (!is_base64(payload.begin, payload.length))
        Py_RETURN_NONE;
    const size_t length = (size_t)payload.length;
    PyObject *message = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(before_bytes + length + after_bytes));
    if (message != NULL) {
        char *to = PyBytes_AsString(message);
        memcpy(to, before, before_bytes);
        memcpy(to + before_bytes, payload.begin, length);
        memcpy(to + before_bytes + length, after, after_bytes);
    }
    PyObject *const items[] = {message, PyLong_FromSsize_t(bytes_of_base64(payload.begin, payload.length))};
    return new_tuple(items, 2);
}

static const char see[] = "See native/_python.py.";

static PyMethodDef methods[] = {
    {"read_media", (PyCFunction)(void (*)(void))read_media, METH_FASTCALL, see},
    {"read_text", read_text, METH_O, see},
    {"append_message", append_message, METH_O, see},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "native._speedups", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}

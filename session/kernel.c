/* What the session worker does with each frame of a caller's, fifty a second in each call: see Call,
 * InputClock, PicowsConnection and FrameHistogram.
 *
 * The rules are in those classes, and so is all state; this file only does the same without the
 * interpreter, and only for the regular frame: base64 whose timestamp follows, of a call that is
 * configured and whose socket is there. Any other frame goes, in its turn, to Call.receive_audio before
 * anything has changed.
 */
#include "kernel.h"

/* Beyond this a number is not regular: sums of what is below it cannot overflow. */
#define MOST ((int64_t)1 << 60)

/* To this a difference of microseconds is a double exactly, as Python's division has it. */
#define MAX_EXACT ((int64_t)1 << 53)

static PyObject *call_class, *clock_class, *connection_class, *histogram_class;

static struct {
    Slot clock, connection, frame_forward, kept;
} of_call = {{"_clock", 0}, {"_connection", 0}, {"_frame_forward", 0}, {"_kept", 0}};

static struct {
    Slot appended_bytes, filled_stall, frames, last_media_at, lead_ms, ring;
} of_clock = {{"_appended_bytes", 0}, {"_filled_stall", 0}, {"_frames", 0},
              {"_last_media_at", 0}, {"_lead_ms", 0}, {"_ring", 0}};

static struct {
    Slot transport, sent_unchecked;
} of_connection = {{"_transport", 0}, {"_sent_unchecked", 0}};

static struct {
    Slot buckets, counts, sum, left_out;
} of_histogram = {{"_buckets", 0}, {"_counts", 0}, {"_sum", 0}, {"_left_out", 0}};

static PyObject *text_message;              /* WSMsgType.TEXT */
static PyObject *audio_begins, *audio_ends; /* what is around the payload in a message */
static int64_t bytes_per_ms, frame_ms, stall_check_every, most_frame_bytes, most_apart_us;

static PyObject *name_check_stall, *name_crash, *name_leave_out, *name_observe, *name_receive_audio, *name_send;

typedef struct {
    PyObject *payload, *media_ms, *received_unix_us, *now_unix_us; /* as receive_audio takes them */
    PyObject *now;                                                 /* monotonic seconds */
} Frame;

typedef enum { NOT_REGULAR, DONE, RAISED } Way;

/* The value of a number that is below MOST. Returns 0 when it is anything else. */
static inline int
ordinary(PyObject *number, int64_t *value)
{
    if (!PyLong_CheckExact(number))
        return 0;
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(number, &overflow);
    return overflow == 0 && -MOST < *value && *value < MOST;
}

/* The message that appends a payload to the model's input buffer: events.append_audio. */
static PyObject *
append_audio(PyObject *payload)
{
    const Py_ssize_t before = PyBytes_GET_SIZE(audio_begins), length = PyBytes_GET_SIZE(payload);
    const Py_ssize_t behind = PyBytes_GET_SIZE(audio_ends);
    PyObject *message = PyBytes_FromStringAndSize(NULL, before + length + behind);
    if (message == NULL)
        return NULL;
    char *text = PyBytes_AS_STRING(message);
    memcpy(text, PyBytes_AS_STRING(audio_begins), (size_t)before);
    memcpy(text + before, PyBytes_AS_STRING(payload), (size_t)length);
    memcpy(text + before + length, PyBytes_AS_STRING(audio_ends), (size_t)behind);
    return message;
}

/* FrameHistogram.observe. -1: it raised. */
static int
observe(PyObject *histogram, double value)
{
    PyObject *buckets = NULL, *counts = NULL, *sum = NULL;
    if (Py_IS_TYPE(histogram, (PyTypeObject *)histogram_class)) {
        buckets = slot_of_class(histogram, of_histogram.buckets, (PyObject *)&PyTuple_Type);
        counts = slot_of_class(histogram, of_histogram.counts, (PyObject *)&PyList_Type);
        sum = slot_of_class(histogram, of_histogram.sum, (PyObject *)&PyFloat_Type);
    }
    if (buckets == NULL || counts == NULL || sum == NULL)
        goto in_python;
    Py_ssize_t place = 0;
    for (; place < PyTuple_GET_SIZE(buckets); place++) {
        PyObject *bound = PyTuple_GET_ITEM(buckets, place);
        if (!PyFloat_CheckExact(bound))
            goto in_python;
        if (PyFloat_AS_DOUBLE(bound) >= value)
            break;
    }
    int64_t count;
    if (place >= PyList_GET_SIZE(counts) || !ordinary(PyList_GET_ITEM(counts, place), &count))
        goto in_python;
    PyObject *count_after = PyLong_FromLongLong(count + 1);
    PyObject *sum_after = PyFloat_FromDouble(PyFloat_AS_DOUBLE(sum) + value);
    if (count_after == NULL || sum_after == NULL) {
        Py_XDECREF(count_after);
        Py_XDECREF(sum_after);
        return -1;
    }
    PyList_SetItem(counts, place, count_after);
    set_slot(histogram, of_histogram.sum, sum_after);
    return 0;

in_python:;
    PyObject *number = PyFloat_FromDouble(value);
    if (number == NULL)
        return -1;
    PyObject *none = PyObject_CallMethodOneArg(histogram, name_observe, number);
    Py_DECREF(number);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* FrameHistogram.leave_out. -1: it raised. */
static int
leave_out(PyObject *histogram)
{
    int64_t count;
    if (!Py_IS_TYPE(histogram, (PyTypeObject *)histogram_class)
        || !slot_integer(histogram, of_histogram.left_out, &count) || count >= MOST) {
        PyObject *none = PyObject_CallMethodNoArgs(histogram, name_leave_out);
        Py_XDECREF(none);
        return none == NULL ? -1 : 0;
    }
    PyObject *count_after = PyLong_FromLongLong(count + 1);
    if (count_after == NULL)
        return -1;
    set_slot(histogram, of_histogram.left_out, count_after);
    return 0;
}

/* PicowsConnection.send, to a transport that is there. -1: it raised. */
static int
send_message(PyObject *connection, PyObject *transport, PyObject *message)
{
    PyObject *arguments[] = {transport, text_message, message};
    PyObject *none = PyObject_VectorcallMethod(name_send, arguments, 3, NULL);
    if (none == NULL)
        return -1;
    Py_DECREF(none);
    int64_t sent;
    if (!slot_integer(connection, of_connection.sent_unchecked, &sent)) {
        PyErr_SetString(PyExc_TypeError, "_sent_unchecked is no integer");
        return -1;
    }
    PyObject *sent_after = PyLong_FromLongLong(sent + 1);
    if (sent_after == NULL)
        return -1;
    set_slot(connection, of_connection.sent_unchecked, sent_after);
    if (sent + 1 < stall_check_every)
        return 0;
    none = PyObject_CallMethodNoArgs(connection, name_check_stall);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* Call.receive_audio, for a regular frame; one that is not has changed nothing. */
static Way
append_regular(PyObject *call, const Frame *frame)
{
    if (!Py_IS_TYPE(call, (PyTypeObject *)call_class) || slot(call, of_call.kept) != Py_None)
        return NOT_REGULAR;
    PyObject *connection = slot_of_class(call, of_call.connection, connection_class);
    PyObject *clock = slot_of_class(call, of_call.clock, clock_class);
    PyObject *histogram = slot(call, of_call.frame_forward);
    if (connection == NULL || clock == NULL || histogram == NULL)
        return NOT_REGULAR;
    PyObject *transport = slot(connection, of_connection.transport);
    if (transport == NULL || transport == Py_None || !PyBytes_CheckExact(frame->payload)
        || PyBytes_GET_SIZE(frame->payload) > most_frame_bytes)
        return NOT_REGULAR;

    int64_t media_ms, received_unix_us, now_unix_us;
    if (!ordinary(frame->media_ms, &media_ms) || !ordinary(frame->received_unix_us, &received_unix_us)
        || !ordinary(frame->now_unix_us, &now_unix_us) || now_unix_us - received_unix_us > MAX_EXACT)
        return NOT_REGULAR;

    /* InputClock.receive, of a timestamp that follows. */
    int64_t appended, lead_ms, frames;
    PyObject *ring = slot_of_class(clock, of_clock.ring, (PyObject *)&PyMemoryView_Type);
    if (ring == NULL || !slot_integer(clock, of_clock.appended_bytes, &appended)
        || !slot_integer(clock, of_clock.lead_ms, &lead_ms)
        || !slot_integer(clock, of_clock.frames, &frames))
        return NOT_REGULAR;
    if (appended < 0 || appended >= MOST || lead_ms <= -MOST || lead_ms >= MOST || frames < 0)
        return NOT_REGULAR;
    const int64_t ahead_ms = media_ms - lead_ms - appended / bytes_per_ms;
    if (ahead_ms <= -frame_ms || ahead_ms >= frame_ms)
        return NOT_REGULAR;
    const Py_buffer *view = PyMemoryView_GET_BUFFER(ring);
    const int64_t kept_frames = view->len / (2 * (Py_ssize_t)sizeof(int64_t));
    if (view->itemsize != sizeof(int64_t) || view->readonly || kept_frames == 0)
        return NOT_REGULAR;
    const Py_ssize_t n_bytes = base64_bytes((const unsigned char *)PyBytes_AS_STRING(frame->payload),
                                            PyBytes_GET_SIZE(frame->payload));
    if (n_bytes < 0)
        return NOT_REGULAR;

    PyObject *message = append_audio(frame->payload);
    PyObject *appended_after = PyLong_FromLongLong(appended + n_bytes);
    PyObject *frames_after = PyLong_FromLongLong(frames + 1);
    if (message == NULL || appended_after == NULL || frames_after == NULL) {
        Py_XDECREF(message);
        Py_XDECREF(appended_after);
        Py_XDECREF(frames_after);
        return RAISED;
    }
    int64_t *place = (int64_t *)view->buf + 2 * (frames % kept_frames);
    place[0] = (appended + n_bytes) / bytes_per_ms;
    place[1] = received_unix_us;
    set_slot(clock, of_clock.appended_bytes, appended_after);
    set_slot(clock, of_clock.frames, frames_after);
    set_slot(clock, of_clock.filled_stall, Py_NewRef(Py_False));
    set_slot(clock, of_clock.last_media_at, Py_NewRef(frame->now));

    /* What sending runs may take these away from the call. */
    Py_INCREF(connection);
    Py_INCREF(transport);
    Py_INCREF(histogram);
    const int64_t took_us = now_unix_us - received_unix_us;
    int failed = send_message(connection, transport, message);
    if (!failed)
        failed = took_us < 0 || took_us > most_apart_us ? leave_out(histogram)
                                                        : observe(histogram, (double)took_us / 1e6);
    Py_DECREF(histogram);
    Py_DECREF(transport);
    Py_DECREF(connection);
    Py_DECREF(message);
    return failed ? RAISED : DONE;
}

/* Whether what was raised is no fault of a call's: a cancellation is one, since no task runs here. */
static int
ends_process(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* End the call, and it alone, with what was raised. -1: that is no fault of a call's. */
static int
crash(PyObject *call)
{
    if (ends_process())
        return -1;
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    PyErr_NormalizeException(&kind, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    PyObject *none = PyObject_CallMethodOneArg(call, name_crash, error);
    Py_XDECREF(kind);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* One frame of a call's. -1: it raised. */
static int
append_frame(PyObject *call, const Frame *frame)
{
    switch (append_regular(call, frame)) {
    case DONE:
        return 0;
    case RAISED:
        return crash(call);
    case NOT_REGULAR:
        break;
    }
    PyObject *arguments[]
        = {call, frame->payload, frame->media_ms, frame->received_unix_us, frame->now_unix_us};
    PyObject *none = PyObject_VectorcallMethod(name_receive_audio, arguments, 5, NULL);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* Put what a call raised into the list of faults, beside its handle. -1: that is no fault of a call's, or
 * there is no memory for it. */
static int
note_fault(PyObject **faults, PyObject *handle)
{
    if (ends_process())
        return -1;
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    PyErr_NormalizeException(&kind, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    PyObject *fault = PyTuple_Pack(2, handle, error);
    Py_XDECREF(kind);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    if (fault == NULL)
        return -1;
    if (*faults == NULL)
        *faults = PyList_New(0);
    const int failed = *faults == NULL || PyList_Append(*faults, fault) < 0;
    Py_DECREF(fault);
    return failed ? -1 : 0;
}

#define COLUMNS 4

static PyObject *
append(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t n_arguments)
{
    if (n_arguments != COLUMNS + 3 || !PyDict_CheckExact(arguments[0])
        || !PyFloat_CheckExact(arguments[COLUMNS + 2])) {
        PyErr_SetString(PyExc_TypeError, "append takes a dict of calls, four columns, an int and a float");
        return NULL;
    }
    PyObject *calls = arguments[0], *done = NULL, *faults = NULL;
    PyObject *columns[COLUMNS] = {NULL}; /* handles, payloads, media_ms, received_unix_us */
    for (int i = 0; i < COLUMNS; i++) {
        /* Protobuf makes a list of a slice in two thirds of the time that iteration takes; and nobody
         * else has it, to change it. */
        PyObject *slice = PySequence_GetSlice(arguments[1 + i], 0, PY_SSIZE_T_MAX);
        if (slice == NULL)
            goto end;
        columns[i] = PySequence_Fast(slice, "a column must be a sequence");
        Py_DECREF(slice);
        if (columns[i] == NULL)
            goto end;
        if (PySequence_Fast_GET_SIZE(columns[i]) != PySequence_Fast_GET_SIZE(columns[0])) {
            PyErr_SetString(PyExc_ValueError, "columns must be of one length");
            goto end;
        }
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(columns[0]); i++) {
        PyObject *handle = PySequence_Fast_GET_ITEM(columns[0], i);
        PyObject *call = PyDict_GetItemWithError(calls, handle);
        if (call == NULL) {
            if (PyErr_Occurred())
                goto end;
            continue;
        }
        const Frame frame = {
            .payload = PySequence_Fast_GET_ITEM(columns[1], i),
            .media_ms = PySequence_Fast_GET_ITEM(columns[2], i),
            .received_unix_us = PySequence_Fast_GET_ITEM(columns[3], i),
            .now_unix_us = arguments[COLUMNS + 1],
            .now = arguments[COLUMNS + 2],
        };
        Py_INCREF(call);
        const int failed = append_frame(call, &frame);
        Py_DECREF(call);
        if (failed && note_fault(&faults, handle) < 0)
            goto end;
    }
    done = Py_NewRef(faults != NULL ? faults : Py_None);
end:
    Py_XDECREF(faults);
    for (int i = 0; i < COLUMNS; i++)
        Py_XDECREF(columns[i]);
    return done;
}

static PyMethodDef methods[] = {
    {"append", (PyCFunction)(void (*)(void))append, METH_FASTCALL, "See session.kernel.Append."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "session._kernel", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    const char *clock = "session.realtime.input_clock", *socket = "session.realtime.picows_connection";
    const char *events = "session.realtime.events";
    if (take_class("session.call", "Call", &call_class, &of_call, sizeof of_call) < 0
        || take_class(clock, "InputClock", &clock_class, &of_clock, sizeof of_clock) < 0
        || take_class(socket, "PicowsConnection", &connection_class, &of_connection,
                      sizeof of_connection) < 0
        || take_class("runtime.metrics", "FrameHistogram", &histogram_class, &of_histogram,
                      sizeof of_histogram) < 0
        || take_integer(clock, "BYTES_PER_MS", &bytes_per_ms) < 0
        || take_integer(clock, "FRAME_MS", &frame_ms) < 0
        || take_integer(socket, "STALL_CHECK_EVERY", &stall_check_every) < 0
        || take_integer("session.call", "MAX_FRAME_BYTES", &most_frame_bytes) < 0
        || take_integer("runtime.metrics", "MAX_APART_US", &most_apart_us) < 0
        || take(socket, "TEXT", &text_message) < 0
        || take(events, "AUDIO_BEGINS", &audio_begins) < 0
        || take(events, "AUDIO_ENDS", &audio_ends) < 0)
        return NULL;
    if (!PyBytes_CheckExact(audio_begins) || !PyBytes_CheckExact(audio_ends) || bytes_per_ms <= 0) {
        PyErr_SetString(PyExc_TypeError, "the constants are not as session/kernel.c knows them");
        return NULL;
    }
    name_check_stall = PyUnicode_InternFromString("check_stall");
    name_crash = PyUnicode_InternFromString("crash");
    name_leave_out = PyUnicode_InternFromString("leave_out");
    name_observe = PyUnicode_InternFromString("observe");
    name_receive_audio = PyUnicode_InternFromString("receive_audio");
    name_send = PyUnicode_InternFromString("send");
    if (name_check_stall == NULL || name_crash == NULL || name_leave_out == NULL || name_observe == NULL
        || name_receive_audio == NULL || name_send == NULL)
        return NULL;
    return PyModule_Create(&definition);
}

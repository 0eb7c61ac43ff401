/* What the compiled frame paths of gateway, session worker and load (gateway/kernel.c, session/kernel.c,
 * bench/load/kernel.c) have in common: the slots of Python objects, clocks, and the length of base64 text.
 */
#ifndef ASHEARD_KERNEL_H
#define ASHEARD_KERNEL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <structmember.h>
#include <time.h>

/* One of the `__slots__` of a Python class. The objects stay Python's, and so do the rules about
 * them; a kernel only reads and writes their slots without the interpreter. */
typedef struct {
    const char *name;
    Py_ssize_t offset;
} Slot;

/* Find slots by name in a class. -1 and a TypeError: it has no such slot. */
static int
find_slots(PyObject *class, Slot *slots, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        PyObject *descriptor = PyObject_GetAttrString(class, slots[i].name);
        if (descriptor == NULL)
            return -1;
        if (!Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
            PyErr_Format(PyExc_TypeError, "%R has no slot %s", class, slots[i].name);
            Py_DECREF(descriptor);
            return -1;
        }
        slots[i].offset = ((PyMemberDescrObject *)descriptor)->d_member->offset;
        Py_DECREF(descriptor);
    }
    return 0;
}

/* Take an attribute of a module. -1: there is none. */
static int
take(const char *module, const char *name, PyObject **object)
{
    PyObject *found = PyImport_ImportModule(module);
    if (found == NULL)
        return -1;
    *object = PyObject_GetAttrString(found, name);
    Py_DECREF(found);
    return *object == NULL ? -1 : 0;
}

/* Take a constant, so that Python remains the one place that knows it. -1: there is none. */
static int
take_integer(const char *module, const char *name, int64_t *value)
{
    PyObject *number;
    if (take(module, name, &number) < 0)
        return -1;
    *value = PyLong_AsLongLong(number);
    Py_DECREF(number);
    return *value == -1 && PyErr_Occurred() ? -1 : 0;
}

/* Take a class, and find its slots: `slots` is a struct of nothing else. -1: it is not as the kernel
 * knows it. */
static int
take_class(const char *module, const char *name, PyObject **class, void *slots, size_t size)
{
    return take(module, name, class) < 0 ? -1 : find_slots(*class, slots, size / sizeof(Slot));
}

/* What is in a slot, borrowed; NULL when nothing was assigned to it yet. */
static inline PyObject *
slot(PyObject *object, Slot at)
{
    return *(PyObject **)((char *)object + at.offset);
}

/* What is in a slot, borrowed, if it is of the class; otherwise NULL. */
static inline PyObject *
slot_of_class(PyObject *object, Slot at, PyObject *class)
{
    PyObject *value = slot(object, at);
    return value != NULL && Py_IS_TYPE(value, (PyTypeObject *)class) ? value : NULL;
}

/* Put a new reference into a slot; `value` is stolen. */
static inline void
set_slot(PyObject *object, Slot at, PyObject *value)
{
    PyObject **place = (PyObject **)((char *)object + at.offset);
    PyObject *before = *place;
    *place = value;
    Py_XDECREF(before);
}

/* The integer in a slot. Returns 0 when there is none, or one beyond 64 bits. */
static inline int
slot_integer(PyObject *object, Slot at, int64_t *value)
{
    PyObject *number = slot(object, at);
    if (number == NULL || !PyLong_CheckExact(number))
        return 0;
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(number, &overflow);
    return overflow == 0;
}

/* A clock's reading in nanoseconds, as Python's time.monotonic_ns and time.time_ns have it. */
static inline int64_t
clock_ns(clockid_t which)
{
    struct timespec now;
    clock_gettime(which, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* How many bytes padded base64 text stands for. -1: it is not base64. Not inlined: among many ways out
 * GCC takes the loop for one that is seldom run, and does not vectorise it. */
static __attribute__((noinline)) Py_ssize_t
base64_bytes(const unsigned char *text, Py_ssize_t length)
{
    if (length % 4 != 0)
        return -1;
    if (length == 0)
        return 0;
    Py_ssize_t padding = (text[length - 1] == '=') + (text[length - 1] == '=' && text[length - 2] == '=');
    unsigned char strange = 0;
    for (Py_ssize_t i = 0; i < length - padding; i++) { /* without branches, for the vectoriser */
        unsigned char c = text[i];
        unsigned char good = ((unsigned char)((c | 0x20) - 'a') < 26) | ((unsigned char)(c - '0') < 10)
                             | (c == '+') | (c == '/');
        strange |= !good;
    }
    return strange ? -1 : length / 4 * 3 - padding;
}

#endif

/* A C extension as an application brings its own: no package owns it. Only the stable part of Python's interface,
   declared here so that no headers are needed. */
#include <stddef.h>
#include <stdint.h>

typedef struct _object PyObject;
typedef PyObject *(*PyCFunction)(PyObject *, PyObject *);
typedef struct { const char *name; PyCFunction function; int flags; const char *doc; } PyMethodDef;
/* PyObject_HEAD_INIT(NULL) and the three words behind it. */
typedef struct { intptr_t refcount; void *type; void *init; intptr_t index; PyObject *copy; } PyModuleDef_Base;
typedef struct {
  PyModuleDef_Base base;
  const char *name, *doc;
  intptr_t size;
  PyMethodDef *methods;
  void *slots, *traverse, *clear, *free;
} PyModuleDef;

extern PyObject *PyModule_Create2(PyModuleDef *, int);
extern int PyArg_ParseTuple(PyObject *, const char *, ...);
extern PyObject *PyLong_FromUnsignedLong(unsigned long);

static PyObject *checksum(PyObject *self, PyObject *arguments) {
  const unsigned char *bytes;
  unsigned long sum = 1;
  (void)self;
  if (!PyArg_ParseTuple(arguments, "s", &bytes)) return NULL;
  for (int i = 0; bytes[i]; i++) sum = (sum * 31 + bytes[i]) % 1000003;
  return PyLong_FromUnsignedLong(sum);
}

static PyMethodDef methods[] = {{"checksum", checksum, 1, "of a string"}, {NULL, NULL, 0, NULL}};
static PyModuleDef module = {{1, NULL, NULL, 0, NULL}, "fast", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyObject *PyInit_fast(void) { return PyModule_Create2(&module, 1013); }

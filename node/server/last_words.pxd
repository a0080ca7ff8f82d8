cimport cython

@cython.locals(at=Py_ssize_t)
cpdef bint only_notices(bytes data)

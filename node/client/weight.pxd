cimport cython

cdef double _LIGHT_S, _LIGHT_BYTES, _RISE, _FALL, _FORGOTTEN, _TICK_S, _DECAY

cdef class Weight:
    cdef public object alone
    cdef public long long runs
    cdef public double took_s, fastest_s, size

    @cython.locals(fastest=double)
    cpdef ran_alone(self, double took_s, Py_ssize_t size)
    @cython.locals(wide=double)
    cpdef learn(self, double took_s, Py_ssize_t size)
    cpdef bint is_light(self)


cdef class Weights:
    cdef public object catalog
    cdef public dict known

    cpdef Weight of(self, object shape)

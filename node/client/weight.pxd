cdef class Weight:
    cdef public object alone
    cdef public long long runs
    cdef public double took_s, size

    cpdef learn(self, double took_s, Py_ssize_t size)
    cpdef bint is_light(self)


cdef class Weights:
    cdef public object catalog
    cdef public dict known

    cpdef Weight of(self, object shape)
